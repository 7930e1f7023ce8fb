"""A request of HTTP/2 to a `SyncApp`, on one of the server's threads.

    HTTP2ThreadTask.run
      sync_app(request)           once
      HTTP2Runner.respond         a body that is there goes to the loop, and the thread is free
        ThreadStream.write        a body that is being made: the thread is lent, and waits where
                                  the client's windows are shut

The loop has the stream. A thread reaches it by `SendQueue` and by `LoopWorker.call` alone.
"""

from __future__ import annotations

import contextvars
import logging
import math
import os
import time
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import ClientDisconnected, InvalidBodyError, NeedsAsyncError
from ..http.error_response import (
    ASYNCHRONOUS_BODY,
    RETURNED_NONE,
    log_cut,
    log_without_loop,
)
from ..http.framing import log_long, log_short
from ..http.response_body import close_body, close_response, is_event_stream
from ..http.response_head import TEXT_PLAIN
from ..lifecycle import RunningRequest
from ..messages import FileBody, HeaderList, Request, RequestReceived, Response
from ..polling.task import ThreadTask
from ..request_id import enter, named
from ..threads.request_runner import RequestRunner, is_interrupt
from ..threads.thread_state import ThreadState
from ..threads.tracking import key_of
from .interfaces import Rendered
from .request_head import with_length
from .writer import HTTP2Writer

if TYPE_CHECKING:
    from ..connection import PushedResponse
    from ..hijack import HijackedSocket
    from ..messages import Address
    from ..system.hang_up import HangUpWatch
    from .stream import Stream

log = logging.getLogger("threadwell")


def _size_of(body: bytes | BinaryIO) -> int:
    """The length of `body`, which is at its start if it is a file."""
    if isinstance(body, bytes):
        return len(body)
    size = body.seek(0, os.SEEK_END)
    body.seek(0)
    return size


class HTTP2ThreadTask(ThreadTask[ThreadState]):
    """One request, and the `messages.Channel` of it. Made on the loop; `run` is a thread's."""

    def __init__(self, stream: Stream, head: RequestReceived, body: bytes | BinaryIO) -> None:
        self.h2_stream = stream
        self.body = body
        if head.content_length is None and body:
            head = with_length(head, _size_of(body))
        self.head = head
        self._since = time.monotonic()
        assert stream.connection.fair_queue is not None
        self._fair_queue = stream.connection.fair_queue
        self.origin = stream.origin.origin
        self.client: Address = self.origin.client
        self.peer: Address = stream.origin.peer
        self.tls: dict[str, str] = stream.connection.conn.tls
        self.notes: dict[Any, Any] = {}
        self._runner: HTTP2Runner | None = None
        #: The loop knows that the thread gives nothing more, or is about to be told.
        self.is_over = False

    # ---- The thread -----------------------------------------------------------------------

    def run(self, thread: ThreadState) -> None:
        self._fair_queue.taken()
        if self.h2_stream.closed:  # reset while it waited for a thread
            self._discard()
            return
        thread.served += 1
        self.notes = thread.notes
        request = Request(self.head, self.body, self)
        self._runner = runner = HTTP2Runner(thread, self, request)
        try:
            contextvars.Context().run(self._exchange, runner)
        except Exception:
            # a bug of threadwell: this stream fails, the thread continues
            log.exception("A stream was dropped because of an internal error")
            self.call(self.h2_stream.close, "internal error")
        finally:
            self._runner = None
            runner.release()
            if thread.durations is not None:
                thread.durations.add(time.monotonic() - self._since)
            if not self.is_over:
                self.call(self.h2_stream.over)

    def running(self, thread: ThreadState) -> RunningRequest | None:
        runner = self._runner
        if runner is None:
            return None
        stream = runner.stream
        streams = stream is not None and stream.headers_sent
        return RunningRequest(
            key=key_of(thread),
            state="streaming" if streams else "running",
            method=self.head.method,
            path=self.head.path,
            client=self.client,
            request_id=self.h2_stream.origin.request_id,
            age=time.monotonic() - self._since,
            sent=self.h2_stream.sent,
            thread=thread.thread_name,
            ident=thread.ident,
            lent=thread.slot.lent,
        )

    def drop(self) -> None:
        self._fair_queue.drop()
        self._discard()

    def _discard(self) -> None:
        close_body(self.body)
        self.call(self.h2_stream.over)

    def _exchange(self, runner: HTTP2Runner) -> None:
        """Run the application once, and answer."""
        worker, request = runner.worker, runner.request
        close = response = None
        for_loop = False
        try:
            if self.h2_stream.origin.request_id:
                enter(self.h2_stream.origin.request_id)
            if worker.collector is not None:
                self.h2_stream.started(request, self._since)
            response = worker.sync_app(request)
            if response is None:
                why = NeedsAsyncError(RETURNED_NONE)
                for_loop = runner.leave_to_loop(why)
            elif hasattr(response.body, "__aiter__") and runner.stream is None:
                for_loop = runner.stream_on_loop(response)
            if response is not None and not for_loop:
                close = response.close or getattr(response.body, "close", None)
                runner.respond(response)
        except BaseException as error:
            # an exception of any kind, even SystemExit, fails one request and not the thread
            for_loop = runner.recover_or_leave(error, response)
        finally:
            if close is not None:
                close_response(close, request.head)
            if not for_loop:
                close_body(self.body)

    # ---- To the loop ----------------------------------------------------------------------

    def call(self, function: Any, *arguments: Any) -> bool:
        """Run `function` on the loop that has the stream; False when the loop has ended."""
        if self.h2_stream.worker.call(function, *arguments):
            return True
        log.debug("The event loop has ended before a stream")
        return False

    def give(self, rendered: Rendered, blocks: list[bytes | FileBody]) -> None:
        """Give a whole answer to the loop: the thread has nothing more to say."""
        self.is_over = True
        # on its way it counts, too, so that no other thread takes a request for the room it needs
        size = sum(len(block) for block in blocks if not isinstance(block, FileBody))
        budget = self.h2_stream.connection.budget
        budget.count(size)
        if not self.call(self._answer_on_loop, rendered, blocks, size):
            budget.count(-size)

    def _answer_on_loop(
        self, rendered: Rendered, blocks: list[bytes | FileBody], size: int
    ) -> None:
        connection = self.h2_stream.connection
        connection.budget.count(-size)
        connection.gather()
        self.h2_stream.answer(rendered, blocks)
        self.h2_stream.over()

    # ---- `messages.Channel` ---------------------------------------------------------------

    def _running(self) -> HTTP2Runner:
        if self._runner is None:
            raise RuntimeError("the request is over")
        return self._runner

    @property
    def headers_sent(self) -> bool:
        stream = None if self._runner is None else self._runner.stream
        return stream is not None and stream.headers_sent

    def stream(self, request: Request, response: Response) -> PushedResponse:  # noqa: ARG002
        """See `Request.stream`."""
        return self._running().push(response)

    def inform(self, request: Request, status: int, headers: HeaderList) -> None:  # noqa: ARG002
        """See `Request.inform`."""
        if not 102 <= status <= 199:
            raise ValueError(f"{status} is not the status of an interim response")
        runner = self._running()
        fields = runner.writer.interim_fields(status, headers)
        if runner.stream is None:
            self.call(self.h2_stream.interim, fields)

    def hijack(self, request: Request) -> HijackedSocket:  # noqa: ARG002
        """Raises `RuntimeError`: the connection carries other requests beside this one."""
        raise RuntimeError("a request of HTTP/2 has no connection of its own to hijack")


class HTTP2Runner(RequestRunner):
    """One request of HTTP/2 on its thread: see `RequestRunner`."""

    stream: PushedResponse | None = None

    def __init__(self, worker: ThreadState, task: HTTP2ThreadTask, request: Request) -> None:
        super().__init__(worker, request)
        self.task = task
        self.stream = None

    @property
    def writer(self) -> HTTP2Writer:
        """The writer of this thread."""
        notes = self.worker.notes
        writer = notes.get(HTTP2Writer)
        if writer is None:
            writer = notes[HTTP2Writer] = HTTP2Writer(self.worker.config)
        assert isinstance(writer, HTTP2Writer)
        return writer

    def _render(self, response: Response, length: int | None) -> Rendered:
        return self.writer.render(self.task.head, response, length)

    # ---- How an answer leaves --------------------------------------------------------------

    @property
    def client(self) -> Address:
        return self.task.client

    @property
    def stops(self) -> bool:
        return self.task.h2_stream.connection.leaving

    def answer(self, response: Response) -> None:
        body: Any = response.body
        blocks = body if isinstance(body, list) else [body]
        if isinstance(body, FileBody):
            length = body.count
        elif isinstance(body, list):  # what is not made of bytes must not get to the loop
            length = sum(len(memoryview(block)) for block in body)
        else:
            length = len(body)
        try:
            rendered = self._render(response, length)
        except BaseException:
            if isinstance(body, FileBody):
                os.close(body.fd)
            raise
        self.task.give(rendered, blocks)

    def answer_without_body(self, response: Response) -> None:
        self.task.give(self._render(response, None), [])

    def begin(self, response: Response) -> ThreadStream:
        return ThreadStream(self.task, self._render(response, None))

    def finish_with(self, stream: PushedResponse, block: bytes) -> None:
        assert isinstance(stream, ThreadStream)
        stream.finish_with(block)

    def mark_unbounded(self) -> None:
        self.is_unbounded = True
        assert isinstance(self.stream, ThreadStream)
        self.stream.is_unbounded = True

    def check_client(self, watch: HangUpWatch) -> None:  # noqa: ARG002 - the loop reads
        if self.task.h2_stream.closed:
            raise ClientDisconnected("the client left before it had the whole response")

    def cut(self, error: BaseException, mistake: str = "") -> None:
        log_cut(self.request, error, mistake)
        reason = "the application failed in the middle of its answer"
        self.task.call(self.task.h2_stream.close, reason)

    def client_gone(self, error: ClientDisconnected) -> None:
        if self.task.h2_stream.closed:
            log.debug("%s: the client left", named(self.request.head))
        elif self.stream is not None and self.stream.headers_sent:
            self.cut(error)
        else:
            self.fail(error)

    # ---- The whole -------------------------------------------------------------------------

    def push(self, response: Response) -> PushedResponse:
        """See `Request.stream`."""
        stream = self.begin(response)
        self.lend()
        self.stream = stream
        if is_event_stream(response):
            self.mark_unbounded()
        return stream

    def recover_or_leave(self, error: BaseException, answer: Response | None = None) -> bool:
        """`recover`; True where a loop is to answer in the place of the application."""
        if is_interrupt(error):
            self.worker.shutdown_event.set()
        if isinstance(error, NeedsAsyncError):
            return self.leave_to_loop(error)
        if not self.task.is_over:
            self.recover(error, answer)
        return False

    @property
    def _has_loop(self) -> bool:
        """Whether the loop that has the connection runs an ASGI application."""
        pool = self.worker.async_pool
        return pool is not None and pool is self.worker.pool.http2

    def leave_to_loop(self, why: NeedsAsyncError) -> bool:
        """Let the application on the loop answer; if there is none, the answer is 501."""
        if self.stream is not None and self.stream.headers_sent:
            self.cut(why)
            return False
        if not self._has_loop:
            log_without_loop(self.request, self.worker.sync_app, why)
            self.answer(Response(501, [TEXT_PLAIN], b"Not Implemented\n"))
            return False
        task = self.task
        task.is_over = True
        task.call(task.h2_stream.connection.call_asgi, task.h2_stream, task.body)
        return True

    def stream_on_loop(self, response: Response) -> bool:
        """Let the loop send an asynchronous body; whether there is a loop that can."""
        if not self._has_loop:
            if not hasattr(response.body, "__iter__"):
                raise NeedsAsyncError(ASYNCHRONOUS_BODY)
            return False
        task = self.task
        task.is_over = True
        context = contextvars.copy_context()
        task.call(task.h2_stream.stream_for, self.request, response, context)
        return True


class ThreadStream:
    """A response whose body is still being made, on a thread."""

    def __init__(self, task: HTTP2ThreadTask, rendered: Rendered) -> None:
        self._task = task
        self.rendered = rendered
        #: It has no end that a server which stops could wait for.
        self.is_unbounded = False
        #: How many more octets may follow; infinite when no length was declared.
        self.allowed = rendered.allowed
        #: The head is on its way, so that no other answer can be given.
        self.headers_sent = False
        self._is_cut = False

    def write(self, block: bytes) -> None:
        """Send `block`, or what of it may go; returns when the client has room for more.

        Raises `ClientDisconnected`.
        """
        if not isinstance(block, bytes):
            raise InvalidBodyError(f"a body is made of bytes, not {type(block).__name__}")
        if not block and self._task.h2_stream.closed:
            raise ClientDisconnected("the client left before it had the whole response")
        if len(block) > self.allowed:
            self._cut()
            block = block[: int(self.allowed)]
        if not block:
            return
        self.allowed -= len(block)
        stream = self._task.h2_stream
        tell = stream.send_queue.put(block)
        if not self.headers_sent:
            self._begin()
        elif tell:
            self._task.call(stream.has_more)
        stream.send_queue.wait()

    @property
    def sent(self) -> int:
        """How many octets of the body were sent."""
        return self._task.h2_stream.sent

    def finish_with(self, block: bytes) -> None:
        """Send the head and `block`, which fills the declared length, without waiting."""
        if len(block) > self.allowed:
            self._cut()
        self.allowed = 0
        self._task.give(self.rendered, [block])

    def _cut(self) -> None:
        """Warn, once, that the application gives more than the response may have."""
        if not self._is_cut:
            self._is_cut = True
            log_long(self._task.head, self.rendered.status)

    def _begin(self) -> None:
        self.headers_sent = True
        self._task.call(self._begin_on_loop)

    def _begin_on_loop(self) -> None:
        stream = self._task.h2_stream
        try:
            stream.begin(self.rendered)
        except ClientDisconnected:
            return
        if self.is_unbounded:
            stream.connection.mark_unbounded(stream)
        stream.has_more()

    def finish(self) -> None:
        """End the body."""
        if not self.headers_sent:
            self._begin()
        short = 0 < self.allowed < math.inf
        if short:
            log_short(self._task.head, self.allowed)
        task = self._task
        task.is_over = True
        task.call(self._finish_on_loop, short)

    def _finish_on_loop(self, short: bool) -> None:
        stream = self._task.h2_stream
        stream.end(broken=short)
        stream.over()
