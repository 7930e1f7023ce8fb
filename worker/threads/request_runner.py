"""Handles an application's answer or failure on a thread, for any HTTP version.

`RequestRunner` decides: a complete body is sent; an iterable becomes a stream, for which the thread
is lent; a failure becomes an error response, or cuts a response that has begun. Its subclasses send
the answer: `streaming.HTTP1Runner`, and `http2.thread_task.HTTP2Runner`.

A runner is made for one request, and used on its thread. HTTP/1.1 makes one only when an answer is
more than bytes for one send (`exchange`).
"""

from __future__ import annotations

import itertools
import os
import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

from ..errors import ClientDisconnected, StreamLimitError
from ..http.error_response import error_response, log_failure
from ..http.mistakes import mistake_of
from ..http.response_body import (
    MOST_DISCARDED_BLOCKS,
    declares_length,
    has_no_body,
    is_event_stream,
    revised,
    source_of,
)
from ..lifecycle import Refused, StreamClosed, StreamOpened
from ..messages import FileBody, Request, Response
from ..system.hang_up import HangUpWatch

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..connection import PushedResponse
    from ..messages import Address
    from .thread_state import ThreadState


class RequestRunner(ABC):
    """One request on one thread, from the application's answer on."""

    def __init__(self, worker: ThreadState, request: Request) -> None:
        self.worker = worker
        self.request = request
        #: The stream has no end that a server which stops could wait for.
        self.is_unbounded = False

    # ---- How an answer leaves --------------------------------------------------------------

    @property
    @abstractmethod
    def stream(self) -> PushedResponse | None:
        """A response under way, whose head is sent or about to be."""

    @stream.setter
    @abstractmethod
    def stream(self, stream: PushedResponse | None) -> None: ...

    @property
    @abstractmethod
    def client(self) -> Address:
        """The client of the request."""

    @property
    @abstractmethod
    def stops(self) -> bool:
        """The server, or the connection, is about to end: streams without an end are ended."""

    @abstractmethod
    def answer(self, response: Response) -> None:
        """Send `response`, whose body is bytes, a list of bytes or a file."""

    @abstractmethod
    def answer_without_body(self, response: Response) -> None:
        """Send the head of `response`, behind which no body may follow."""

    @abstractmethod
    def begin(self, response: Response) -> PushedResponse:
        """A stream for the body of `response`. Nothing is sent before its first block."""

    @abstractmethod
    def finish_with(self, stream: PushedResponse, block: bytes) -> None:
        """Send the head and `block`, which fills the declared length, without waiting."""

    @abstractmethod
    def mark_unbounded(self) -> None:
        """Set `is_unbounded`, and register the stream with the code that ends such streams."""

    @abstractmethod
    def cut(self, error: BaseException, mistake: str = "") -> None:
        """End an answer that has begun so that the client sees it is not whole.

        `mistake` is as for `log_failure`.
        """

    @abstractmethod
    def client_gone(self, error: ClientDisconnected) -> None:
        """The client left before it had its answer."""

    @abstractmethod
    def check_client(self, watch: HangUpWatch) -> None:
        """Raise `ClientDisconnected` if `watch` finds that the client has left, while the
        application produces nothing."""

    # ---- Deciding --------------------------------------------------------------------------

    def respond(self, response: Response) -> None:
        """Send `response`, or what follows a stream that was pushed. Raises what the application
        raises in its body, and `ClientDisconnected`."""
        body = response.body
        if self.stream is not None:
            try:
                if isinstance(body, FileBody):
                    body.count = int(min(body.count, self.stream.allowed))
                source = source_of(response)
                self._send_rest(self.stream, source)
            finally:
                _close_file(body)
        elif isinstance(body, (bytes, list, FileBody)):
            self.answer(response)
        elif has_no_body(self.request, response):
            self.answer_without_body(response)
        else:
            self._send_stream(response)

    def _send_stream(self, response: Response) -> None:
        """Send a body that is being made, block by block.

        A body whose declared length the first block fills needs no thread, and lends none.
        """
        declared = declares_length(response)
        if not declared:
            self.lend()
        source = source_of(response)
        first = self._first_block(source)
        response = revised(response)
        if not first:
            self.answer(Response(response.status, response.headers, b""))
            return
        stream = self.begin(response)
        if declared:
            if isinstance(first, bytes) and len(first) >= stream.allowed:
                self.finish_with(stream, first)
                self._discard_rest(stream, source)
                return
            self.lend()
        self.stream = stream
        if is_event_stream(response):
            self.mark_unbounded()
        stream.write(first)
        self._send_rest(stream, source)

    def _first_block(self, source: Iterator[bytes]) -> bytes:
        """Take the first block of `source` that is not empty; an empty one if there is none.

        An empty block sends nothing, which could fail: it is an occasion to look for the client.
        """
        watch = None
        if not (self.is_unbounded and self.stops):
            for block in source:
                if block:
                    return block
                if self.is_unbounded and self.stops:
                    break
                watch = watch or HangUpWatch()
                self.check_client(watch)
        return b""

    def _send_rest(self, stream: PushedResponse, source: Iterator[bytes]) -> None:
        """Send the blocks of `source`, and end the response. See `_first_block` for empty ones."""
        watch = None
        write = stream.write
        if stream.allowed and not (self.is_unbounded and self.stops):
            for block in source:
                if block:
                    write(block)
                    if watch is not None:
                        watch.reset()
                    if not stream.allowed or (self.is_unbounded and self.stops):
                        break
                elif self.is_unbounded and self.stops:
                    break
                else:
                    watch = watch or HangUpWatch()
                    self.check_client(watch)
        stream.finish()
        if not stream.allowed:
            self._discard_rest(stream, source)

    def _discard_rest(self, stream: PushedResponse, source: Iterator[bytes]) -> None:
        """Ask for the end of a body whose declared length is out.

        The code behind its last `yield` runs, as under every other server. What more comes is
        dropped, and a body without an end is given up. The client has its whole answer, so a
        failure is logged and changes nothing for it.
        """
        try:
            for block in itertools.islice(source, MOST_DISCARDED_BLOCKS):
                if block:
                    stream.write(block)  # which warns that it is too much
        except BaseException as error:
            if is_interrupt(error) or self.worker.poller.forked:
                raise
            if not isinstance(error, ClientDisconnected):
                log_failure(self.request, error)

    # ---- Lending ---------------------------------------------------------------------------

    def lend(self) -> None:
        """Give the thread's slot up for a long response. Raises `StreamLimitError`."""
        worker = self.worker
        if worker.slot.lent:
            raise RuntimeError("the request has begun a long response already")
        if not worker.leader_follower.lend(worker.slot):
            if worker.collector is not None:
                worker.collector.record(Refused(self.client, "streams"))
            raise StreamLimitError("max_streams long responses are open already")
        if worker.collector is not None:
            worker.collector.record(StreamOpened(self.request))

    def release(self) -> None:
        """End the lending, if the thread is lent: it has its slot again, or has lost it."""
        if self.worker.slot.lent:
            end_lending(self.worker, self.request)

    # ---- Failures --------------------------------------------------------------------------

    def recover(self, error: BaseException, answer: Response | None) -> None:
        """Answer for an application that has failed with `error`, as far as that is possible.

        `answer` is what it returned; None if it has raised.
        """
        stream = self.stream
        mistake = mistake_of(self.worker.sync_app, answer, error)
        if stream is not None and stream.headers_sent:
            if isinstance(error, ClientDisconnected):
                self.client_gone(error)
            else:
                self.cut(error, mistake)
            return
        self.stream = None
        if isinstance(error, ClientDisconnected):
            self.client_gone(error)
        else:
            self.fail(error, mistake)

    def fail(self, error: BaseException, mistake: str = "") -> None:
        """Answer 500, or 503 where too many streams are open; nothing of an answer has left."""
        try:
            self.answer(error_response(self.request, error, mistake))
        except ClientDisconnected as gone:
            self.client_gone(gone)


def end_lending(worker: ThreadState, request: Request) -> None:
    """Take the slot of a lent thread back, or lose it; tell the collector."""
    worker.leader_follower.release_slot(worker.slot)
    if worker.collector is not None:
        worker.collector.record(StreamClosed(request))


def is_interrupt(error: BaseException) -> bool:
    """Whether `error` is Ctrl-C, which the interpreter raises in the main thread."""
    main = threading.current_thread() is threading.main_thread()
    return main and isinstance(error, KeyboardInterrupt)


def _close_file(body: Any) -> None:
    if isinstance(body, FileBody):
        os.close(body.fd)
