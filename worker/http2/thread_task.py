"""A request of HTTP/2 to a `SyncApp`, on one of the server's threads.

StreamErrand.run
  sync_app(request)        once
  _respond                 a body that is there is given to the loop, and the thread is free
  _iterate                 one that is being made: the thread is lent, and waits where the
                           client's windows are shut
"""

from __future__ import annotations

import contextvars
import logging
import math
import os
import threading
import time
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import ClientDisconnected, NeedsAsyncError, StreamLimitError
from ..http.error_response import failed
from ..http.response_body import (
    blocks_of,
    close_body,
    close_response,
    declares_length,
    has_no_body,
    is_event_stream,
    with_first_block,
)
from ..lifecycle import Refused, StreamClosed, StreamOpened
from ..messages import FileBody, HeaderList, Request, RequestReceived, Response
from ..polling.task import ThreadTask
from ..request_id import enter, named
from .interfaces import Rendered
from .request_head import with_length
from .writer import HTTP2Writer

if TYPE_CHECKING:
    from ..hijack import HijackedSocket
    from ..messages import Address
    from ..sync_worker import SyncWorker
    from .stream import Stream

log = logging.getLogger("threadwell")

_TEXT = ("Content-Type", "text/plain; charset=utf-8")


class HTTP2ThreadTask(ThreadTask):
    """One request, and the `messages.Channel` of it. Made on the loop; `run` is a thread's."""

    def __init__(self, stream: Stream, head: RequestReceived, body: bytes | BinaryIO) -> None:
        self._stream = stream
        self._body = body
        if head.content_length is None and body:
            size = len(body) if isinstance(body, bytes) else os.fstat(body.fileno()).st_size
            head = with_length(head, size)
        self._head = head
        self._since = time.monotonic()
        assert stream.connection.fair_queue is not None
        self._fair_queue = stream.connection.fair_queue
        origin = stream.origin
        self.scheme = origin.scheme
        self.client: Address = origin.client
        self.peer: Address = origin.peer
        self.prefix = origin.prefix
        self.server: Address = origin.server
        self.client_port = origin.client_port
        self.tls: dict[str, str] = stream.connection.conn.tls
        self.notes: dict[Any, Any] = {}
        self._worker: SyncWorker | None = None
        self._writer: ThreadStream | None = None
        self._over = False

    # ---- The thread -----------------------------------------------------------------------

    def run(self, worker: SyncWorker) -> None:
        self._fair_queue.taken()
        if self._stream.closed:  # reset before it was its turn: nobody wants an answer
            self._let_go()
            return
        worker.served += 1
        self._worker = worker
        self.notes = worker.notes
        try:
            contextvars.Context().run(self._exchange, worker)
        except Exception:
            # a bug of threadwell: this stream pays, the thread goes on
            log.exception("A stream was dropped for an internal error")
            self._call(self._stream.close, "internal error")
        finally:
            self._worker = None
            self._release_slot(worker)
            if not self._over:
                self._call(self._stream.over)

    def drop(self) -> None:
        self._fair_queue.drop()
        self._let_go()

    def _let_go(self) -> None:
        close_body(self._body)
        self._call(self._stream.over)

    def _exchange(self, worker: SyncWorker) -> None:
        request = Request(self._head, self._body, self)
        close = None
        kept = False
        try:
            if self._stream.origin.request_id:
                enter(self._stream.origin.request_id)
            if worker.collector is not None:
                self._stream.started(request, self._since)
            response = worker.sync_app(request)
            if response is None:
                raise NeedsAsyncError("the application has no answer without an event loop")
            if self._is_for_a_loop(worker, response):
                kept = True
                self._leave_stream(request, response)
            else:
                close = response.close or getattr(response.body, "close", None)
                self._respond(request, response)
        except NeedsAsyncError as error:
            kept = self._leave_to_asgi(worker, request, error)
        except BaseException as error:
            # an exception of any kind, SystemExit too, costs a request and not a thread
            self._handle_exception(worker, request, error)
        finally:
            if close is not None:
                close_response(close)
            if not kept:
                close_body(self._body)

    def _leave_to_asgi(self, worker: SyncWorker, request: Request, error: NeedsAsyncError) -> bool:
        """Let the application on the loop answer; whether there is one."""
        if self._writer is not None and self._writer.headers_sent:
            self._handle_exception(worker, request, error)
            return False
        pool = worker.async_pool
        if pool is None or pool is not worker.http2_pool:
            log.error("%s needs the asyncio side: %s", named(request.head), error)
            self._answer(Response(501, [_TEXT], b"Not Implemented\n"))
            return False
        self._over = True
        self._call(self._stream.connection.call_asgi, self._stream, self._body)
        return True

    def _is_for_a_loop(self, worker: SyncWorker, response: Response) -> bool:
        """Whether the body is asynchronous, and there is a loop that may be asked for it."""
        body: Any = response.body
        if not hasattr(body, "__aiter__") or self._writer is not None:
            return False
        if worker.async_pool is not None and worker.async_pool is worker.http2_pool:
            return True
        if not hasattr(body, "__iter__"):
            raise NeedsAsyncError("its answer is asynchronous")
        return False

    def _leave_stream(self, request: Request, response: Response) -> None:
        self._over = True
        context = contextvars.copy_context()
        self._call(self._stream.stream_for, request, response, context)

    def _respond(self, request: Request, response: Response) -> None:
        body = response.body
        if self._writer is not None:
            try:
                self._send_blocks(self._writer, blocks_of(response))
            finally:
                if isinstance(body, FileBody):
                    os.close(body.fd)
        elif isinstance(body, (bytes, list, FileBody)):
            self._answer(response)
        elif has_no_body(request, response):
            self._give(self._render(response, None), [])
        else:
            self._iterate(request, response)

    def _answer(self, response: Response) -> None:
        """Give an answer whose body is there to the loop."""
        body: Any = response.body
        blocks = body if isinstance(body, list) else [body]
        length = body.count if isinstance(body, FileBody) else sum(map(len, blocks))
        try:
            rendered = self._render(response, length)
        except BaseException:
            if isinstance(body, FileBody):
                os.close(body.fd)
            raise
        self._give(rendered, blocks)

    def _give(self, rendered: Rendered, blocks: list[bytes | FileBody]) -> None:
        self._over = True
        self._call(self._answer_on_loop, rendered, blocks)

    def _answer_on_loop(self, rendered: Rendered, blocks: list[bytes | FileBody]) -> None:
        self._stream.answer(rendered, blocks)
        self._stream.over()

    def _iterate(self, request: Request, response: Response) -> None:
        """Send a body that is being made, as `streaming.stream_body` does."""
        declared = declares_length(response)
        if not declared:
            self._lend(request)
        blocks = blocks_of(response)
        response, first = with_first_block(response, blocks)
        if not first:
            self._answer(Response(response.status, response.headers, b""))
            return
        rendered = self._render(response, None)
        if declared:
            if isinstance(first, bytes) and len(first) >= rendered.allowed:
                self._give(rendered, [first])
                return
            self._lend(request)
        self._writer = writer = ThreadStream(self, rendered, unbounded=is_event_stream(response))
        writer.write(first)
        self._send_blocks(writer, blocks)

    def _send_blocks(self, writer: ThreadStream, blocks: Any) -> None:
        connection = self._stream.connection
        while writer.allowed:
            if writer.unbounded and connection.leaving:
                break  # its client comes back for the next events
            block = next(blocks, None)
            if block is None:
                break
            writer.write(block)
        writer.finish()

    # ---- Trouble --------------------------------------------------------------------------

    def _handle_exception(self, worker: SyncWorker, request: Request, error: BaseException) -> None:
        if isinstance(error, KeyboardInterrupt) and (
            threading.current_thread() is threading.main_thread()
        ):
            worker.shutdown_event.set()
        if isinstance(error, ClientDisconnected) and self._stream.closed:
            log.debug("%s: the client left", named(request.head))
        elif self._writer is not None and self._writer.headers_sent:
            log.error(
                "The application failed in the middle of its answer to %s",
                named(request.head),
                exc_info=error,
            )
            self._call(self._stream.close, "the application failed in the middle of its answer")
        elif not self._over:
            self._answer(failed(request, error))

    # ---- To the loop ----------------------------------------------------------------------

    def _call(self, function: Any, *arguments: Any) -> None:
        if not self._stream.worker.call(function, *arguments):
            log.debug("The event loop has ended before a stream")

    def _render(self, response: Response, length: int | None) -> Rendered:
        """The head, by this thread's own writer."""
        return self._own_writer().render(self._head, response, length)

    def _own_writer(self) -> HTTP2Writer:
        worker = self._worker
        if worker is None:
            raise RuntimeError("the request is over")
        writer = self.notes.get(HTTP2Writer)
        if writer is None:
            writer = self.notes[HTTP2Writer] = HTTP2Writer(worker.config.timeouts)
        assert isinstance(writer, HTTP2Writer)
        return writer

    def _lend(self, request: Request) -> None:
        """Give the thread's seat up for a long response. Raises `StreamLimitError`."""
        worker = self._worker
        assert worker is not None
        if worker.lent:
            raise RuntimeError("the request has begun a long response already")
        if not worker.leader_follower.lend(worker):
            if worker.collector is not None:
                worker.collector.record(Refused(self.client, "streams"))
            raise StreamLimitError("as many are open as max_streams allows")
        worker.lent = True
        if worker.collector is not None:
            worker.collector.record(StreamOpened(request))

    def _release_slot(self, worker: SyncWorker) -> None:
        if not worker.lent:
            return
        worker.lent = False
        worker.leader_follower.release_slot(worker)
        if worker.collector is not None:
            worker.collector.record(StreamClosed(Request(self._head, b"", self)))

    # ---- `messages.Channel` ---------------------------------------------------------------

    @property
    def headers_sent(self) -> bool:
        return self._writer is not None and self._writer.headers_sent

    def stream(self, request: Request, response: Response) -> ThreadStream:
        """See `Request.stream`."""
        rendered = self._render(response, None)
        self._lend(request)
        self._writer = ThreadStream(self, rendered, unbounded=is_event_stream(response))
        return self._writer

    def inform(self, request: Request, status: int, headers: HeaderList) -> None:  # noqa: ARG002
        """See `Request.inform`."""
        if not 102 <= status <= 199:
            raise ValueError(f"{status} is not the status of an interim response")
        fields = self._own_writer().interim_fields(status, headers)
        if self._writer is None:
            self._call(self._stream.interim, fields)

    def hijack(self, request: Request) -> HijackedSocket:  # noqa: ARG002
        """There is nothing to take: the connection carries other requests beside this one."""
        raise RuntimeError("a request of HTTP/2 has no connection of its own to hijack")


class ThreadStream:
    """A response whose body is still being made, on a thread."""

    def __init__(self, task: HTTP2ThreadTask, rendered: Rendered, *, unbounded: bool) -> None:
        self._task = task
        self._rendered = rendered
        self.unbounded = unbounded
        #: How many more octets may follow; infinite when no length was declared.
        self.allowed = rendered.allowed
        #: Something is on its way, so that no other answer can be given.
        self.headers_sent = False

    def write(self, block: bytes) -> None:
        """Send `block`, or what of it may go; returns when the client has room for more.

        Raises `ClientDisconnected`.
        """
        if not isinstance(block, bytes):
            raise TypeError(f"a body is made of bytes, not {type(block).__name__}")
        if not self.allowed:
            return
        if len(block) > self.allowed:
            log.warning("An application gave more body than it had declared; it was cut")
            block = block[: int(self.allowed)]
        if not block:
            return
        self.allowed -= len(block)
        stream = self._task._stream
        tell = stream.send_queue.put(block)
        if not self.headers_sent:
            self._begin()
        elif tell:
            self._task._call(stream.has_more)
        stream.send_queue.wait()

    def _begin(self) -> None:
        self.headers_sent = True
        self._task._call(self._begin_on_loop)

    def _begin_on_loop(self) -> None:
        stream = self._task._stream
        try:
            stream.begin(self._rendered)
        except ClientDisconnected:
            return
        if self.unbounded:
            stream.connection.mark_unbounded(stream)
        stream.has_more()

    def finish(self) -> None:
        """End the body."""
        if not self.headers_sent:
            self._begin()
        short = 0 < self.allowed < math.inf
        if short:
            log.warning("An application gave %d bytes too little of body", self.allowed)
        task = self._task
        task._over = True
        task._call(self._finish_on_loop, short)

    def _finish_on_loop(self, short: bool) -> None:
        stream = self._task._stream
        stream.end(broken=short)
        stream.over()
