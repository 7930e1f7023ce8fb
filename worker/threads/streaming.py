"""Answers of HTTP/1.1 that are more than bytes for one send: streams, hijacked sockets, failures.

A long response lends its thread: `LeaderFollower.lend` gives the slot to another thread, which
goes on serving. The application's iterator is called, iterated and closed on the thread that ran
the application.
"""

from __future__ import annotations

import contextlib
import logging
import socket
from typing import TYPE_CHECKING

from ..connection import Connection, ResponsePath, State
from ..errors import ClientDisconnected, NeedsAsyncError
from ..hijack import HijackedSocket, HijackedWebSocket
from ..http.error_response import log_cut, log_failure, log_without_loop
from ..http.response_body import is_event_stream
from ..http1.writer import StreamWriter
from ..lifecycle import start_record
from ..polling import fork_guard
from . import finalize
from .request_runner import RequestRunner, end_lending, is_interrupt

if TYPE_CHECKING:
    from ..connection import PushedResponse
    from ..messages import Address, Request, Response
    from ..system.hang_up import HangUpWatch
    from .thread_state import ThreadState

log = logging.getLogger("threadwell")


def release(worker: ThreadState, conn: Connection, request: Request) -> None:
    """End the lending for `request`, if the thread is lent: it has its slot again, or lost it."""
    if worker.slot.lent:
        conn.unbounded = False
        end_lending(worker, request)
        if conn.state is State.STREAMING:
            conn.become(State.SERVING)


class HTTP1Runner(RequestRunner):
    """One request of HTTP/1.1, on the thread that owns its connection."""

    def __init__(self, worker: ThreadState, conn: Connection, request: Request) -> None:
        super().__init__(worker, request)
        self.conn = conn
        self.is_unbounded = conn.unbounded
        conn.response_path = ResponsePath.OTHER
        if conn.started:
            # the application may answer by way of a request of its own
            conn.record = start_record(conn, worker.request or request)
            conn.started = 0.0

    @property
    def stream(self) -> PushedResponse | None:
        return self.conn.stream_writer

    @stream.setter
    def stream(self, stream: PushedResponse | None) -> None:
        self.conn.stream_writer = stream

    # ---- How an answer leaves --------------------------------------------------------------

    @property
    def client(self) -> Address:
        return self.conn.client

    @property
    def stops(self) -> bool:
        return self.worker.poller.draining

    def mark_unbounded(self) -> None:
        self.is_unbounded = self.conn.unbounded = True

    def answer(self, response: Response) -> None:
        conn = self.conn
        if conn.record is not None:
            with contextlib.suppress(ValueError, TypeError):  # the writer says what is wrong
                conn.record.note(self.request.head, response)
        conn.persistent = self.worker.writer.answer(
            conn,
            self.request.head,
            response.status,
            response.headers,
            response.body,
            conn.persistent,
        )

    def answer_without_body(self, response: Response) -> None:
        self.finish_with(self.begin(response), b"")

    def begin(self, response: Response) -> StreamWriter:
        conn = self.conn
        if conn.record is not None:
            conn.record.headers = response.headers
        return self.worker.writer.stream(
            conn, self.request.head, response.status, response.headers, conn.persistent
        )

    def finish_with(self, stream: PushedResponse, block: bytes) -> None:
        assert isinstance(stream, StreamWriter)
        self.conn.stream_writer = stream
        stream.finish_with(block)

    def check_client(self, watch: HangUpWatch) -> None:
        if self.conn.state is State.CLOSED or watch.has_left(self.conn.fd):
            raise ClientDisconnected("the client left before it had the whole response")

    def cut(self, error: BaseException, mistake: str = "") -> None:
        stream = self._end_stream()
        log_cut(self.request, error, mistake)
        if stream.is_close_delimited:
            # nothing else tells an HTTP/1.0 client that there should have been more
            self.conn.abort_with_reset()
        reason = "the application failed in the middle of its answer"
        finalize.close(self.worker, self.conn, reason)

    def client_gone(self, error: ClientDisconnected) -> None:
        if self.conn.stream_writer is not None:
            self._end_stream()
        finalize.client_gone(self.worker, self.conn, str(error))

    def _end_stream(self) -> StreamWriter:
        """Let go of the stream, and note for the collector what was sent of it."""
        conn = self.conn
        stream, conn.stream_writer = conn.stream_writer, None
        assert isinstance(stream, StreamWriter)
        if conn.record is not None and stream.headers_sent:
            conn.record.status, conn.record.body_bytes = stream.status, stream.sent
        return stream

    # ---- The whole -------------------------------------------------------------------------

    def respond(self, response: Response) -> None:
        super().respond(response)
        if self.conn.stream_writer is not None:
            self.conn.persistent = self._end_stream().persistent

    def push(self, response: Response) -> StreamWriter:
        """See `Request.stream`."""
        stream = self.begin(response)
        self.lend()
        self.conn.stream_writer = stream
        if is_event_stream(response):
            self.mark_unbounded()
        return stream

    def recover_or_leave(self, error: BaseException, answer: Response | None = None) -> bool:
        """`recover`; True where a loop is to answer in the place of the application."""
        if self.worker.poller.forked:
            fork_guard.leave(error)
        try:
            return self._recover_or_leave(error, answer)
        except BaseException:
            self.release()  # always return the thread slot
            raise

    def _recover_or_leave(self, error: BaseException, answer: Response | None) -> bool:
        conn = self.conn
        if is_interrupt(error):
            self.worker.shutdown_event.set()
        elif conn.state is State.CLOSED:  # the error is not the application's
            raise error
        if conn.hijacked is not None:
            # an error tells Werkzeug's server that the socket is used up: Flask-SocketIO raises one
            if not isinstance(error, (ClientDisconnected, ConnectionError)):
                conn.hijacked.failed = True
                log_failure(self.request, error)
        elif isinstance(error, NeedsAsyncError):
            return self.leave_to_loop(error)
        else:
            self.recover(error, answer)
        return False

    def leave_to_loop(self, why: NeedsAsyncError) -> bool:
        """Whether a loop can answer. If none can, the answer is 501, or what has begun is cut."""
        worker, conn = self.worker, self.conn
        if conn.stream_writer is not None:
            if conn.stream_writer.headers_sent:
                self.cut(why)
                return False
            conn.stream_writer = None
            self.release()
        if worker.async_pool is None:
            log_without_loop(self.request, worker.sync_app, why)
            finalize.answer_refusal(worker, conn, 501, "Not Implemented")
            return False
        return True

    # ---- Lending ---------------------------------------------------------------------------

    def lend(self, state: State = State.STREAMING) -> None:
        if self.conn.state is not State.SERVING:
            raise RuntimeError("the request has begun a long response already")
        super().lend()
        self.conn.become(state)

    def release(self) -> None:
        release(self.worker, self.conn, self.request)

    # ---- Hijacking -------------------------------------------------------------------------

    def hijack(self) -> HijackedSocket:
        """See `Request.hijack`."""
        conn, worker = self.conn, self.worker
        if conn.hijacked is not None:
            return conn.hijacked
        self.lend(State.HIJACKED)
        sock = conn.sock if isinstance(conn.sock, socket.socket) else conn.sock.as_socket()
        if self.request.header("upgrade").lower() == "websocket":
            conn.unbounded = True
            conn.hijacked = HijackedWebSocket(sock, conn.buffer)
            if worker.poller.draining:  # all others have been told already
                conn.hijacked.close_with_1001()
        else:
            conn.hijacked = HijackedSocket(sock, conn.buffer)
        conn.buffer = b""
        worker.poller.release(conn)
        sock.setblocking(True)
        return conn.hijacked

    def end_hijack(self) -> None:
        """The application has returned: close its socket, unless it took that for good."""
        conn = self.conn
        hijacked, conn.hijacked = conn.hijacked, None
        assert hijacked is not None
        if hijacked.release():
            conn.abandon()
        if conn.record is not None and hijacked.upgraded:
            conn.record.status = 101
            finalize.completed(self.worker, conn, complete=True)
        conn.record = None  # any other answer was the application's
        finalize.close(self.worker, conn, "hijacked")
