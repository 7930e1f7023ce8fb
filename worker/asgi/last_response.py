"""The end of a connection that speaks HTTP/1.1 on a loop: a last response, then lingering."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..errors import ClientDisconnected, ProtocolError
from ..http.error_response import log_limit, refusal
from ..lifecycle import ResponseCompleted
from ..messages import Request, RequestReceived, Response
from .connection import LoopConnection

if TYPE_CHECKING:
    from .cycle import Cycle

_monotonic = time.monotonic


class RefusingConnection(LoopConnection):
    """A connection that answers for the server where a client breaks a rule or a limit."""

    __slots__ = ()

    def refuse(self, status: int, message: str, limit: str = "") -> None:
        """Answer `status`, and end the connection: no more of it is read (RFC 9112, 2.2).

        `limit` is the option that the request exceeds, if it is one.
        """
        conn = self.conn
        log_limit(self.worker.throttled_log, conn.client, status, limit)
        self.make_record()
        conn.reset_origin()
        self.record_refusal(str(status))
        if conn.record is None and self.worker.collector is not None:
            conn.record = ResponseCompleted(None, time.monotonic())
        self.send_last(refusal(status, message))

    def cut(self, error: ProtocolError) -> None:
        """Reset the connection: the head of a response has left, so no other can be sent."""
        log_limit(self.worker.throttled_log, self.conn.client, error.status, error.limit)
        self.conn.abort_with_reset()
        self.lost(error.message)

    def send_last(self, response: Response) -> None:
        """Send `response`, the last one, and linger."""
        conn = self.conn
        try:
            self.worker.writer.answer(
                conn, None, response.status, response.headers, response.body, False
            )
        except ClientDisconnected as error:
            self.lost(str(error))
            return
        if conn.record is not None:
            conn.record.status = response.code
            conn.record.headers = response.headers
            conn.record.body_bytes = len(response.body)  # type: ignore[arg-type]
        # a client that does not read gets what the kernel took, and no more
        conn.send_buffer = None
        self.complete_record(complete=True)
        self.linger()

    def linger(self) -> None:
        """Discard what comes until the client has closed, and then close (RFC 9112, 9.6)."""
        if self.begin_lingering():
            self.discard_input()

    def record_start(self, head: RequestReceived) -> None:
        """A request has come, and there is a collector."""
        conn, reporter = self.conn, self.worker.reporter
        assert reporter is not None
        conn.started = _monotonic()
        self.unrecorded = head
        if reporter.announces:
            self.make_record()
            assert conn.record is not None
            assert conn.record.request is not None
            reporter.start(conn.record.request)
        if reporter.next_sample is not None and self.worker.served >= reporter.next_sample:
            reporter.sample(conn, Request(head, b"", conn))

    def note(self, cycle: Cycle, response: Response) -> None:
        """See `CycleTransport.note`."""
        conn, incoming, head = self.conn, cycle.incoming, self.unrecorded
        if (
            head is not None
            and conn.send_buffer is None
            and (incoming is None or type(incoming) is bytes)
            and type(response.body) is bytes
        ):
            self.unrecorded = None
            reporter = self.worker.reporter
            assert reporter is not None
            request = Request(head, incoming or b"", conn)
            reporter.take_answer(conn, request, response, self.worker.writer.now)
            conn.started = 0.0
            return
        self.make_record()
        if conn.record is not None:
            conn.record.note(cycle.head, response)
