"""A connection on an event loop: what every protocol of it has in common.

The loop only reports that a descriptor is ready. The connection receives and sends by itself, as it
does on the threads: so a TLS session can come from a thread, and a connection can return to one.
Everything here belongs to the loop's thread.
"""

from __future__ import annotations

import logging
import socket
import time
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, cast

from ..connection import State
from ..errors import ClientDisconnected
from ..http1.budgets import RECV_SIZE, RECVS_PER_TURN
from ..lifecycle import ClientGone, ConnectionClosed, Refused, start_record
from ..messages import Request
from .writer import send_or_keep

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

    from ..connection import Connection
    from ..messages import Address, RequestReceived
    from ..tls.session import TLSSocket
    from .interfaces import LoopContext

log = logging.getLogger("threadwell")


class LoopConnection(ABC):
    """The loop's side of one connection, whose state is ADOPTED.

    A subclass speaks a protocol: HTTP/1.1, HTTP/2, or what precedes them.
    """

    __slots__ = (
        "_waiters",
        "_watches_later",
        "_writing",
        "closed",
        "conn",
        "deadline",
        "reading",
        "unrecorded",
        "worker",
    )

    def __init__(self, worker: LoopContext, conn: Connection) -> None:
        self.worker = worker
        self.conn = conn
        self.closed = False
        #: The request under way, while no `ResponseCompleted` is needed to tell the collector.
        self.unrecorded: RequestReceived | None = None
        #: When the wait for the client ends, in the seconds of `time.monotonic`.
        self.deadline = 0.0
        #: The loop watches the descriptor for input, or will after `read_first`.
        self.reading = False
        self._watches_later = False
        #: The loop watches the descriptor for room to write.
        self._writing = False
        #: Calls of the application that wait until everything is written.
        self._waiters: list[asyncio.Future[None]] = []

    # ---- What a protocol defines ------------------------------------------------------------

    @abstractmethod
    def start(self) -> None:
        """Wait for what the client sends first."""

    @abstractmethod
    def on_readable(self) -> None:
        """Receive. The loop calls it when there is input, the end of input included."""

    @abstractmethod
    def on_flushed(self) -> None:
        """Go on: everything that had to wait is written."""

    @abstractmethod
    def check_deadline(self, now: float) -> None:
        """End what has taken too long. Called about once a second."""

    @abstractmethod
    def is_busy(self) -> bool:
        """Whether a request is under way. Any thread may call."""

    @abstractmethod
    def idle_since(self) -> float | None:
        """When the connection became idle; None while it is not."""

    @abstractmethod
    def state_name(self) -> str:
        """The name of the connection's state, for metrics. Any thread may call."""

    @abstractmethod
    def drain(self, idle_until: float) -> None:
        """The server stops. An idle connection may stay until `idle_until`, in the seconds of
        `time.monotonic`."""

    @property
    def source(self) -> tuple[Address, str, float]:
        """See `interfaces.Call.source`."""
        return self.conn.client, self.conn.request_id, self.conn.request_age()

    # ---- In -------------------------------------------------------------------------------

    def read_first(self) -> None:
        """As `resume_reading`, but receive first, without the loop: a connection that is answered
        and closed at once is never watched, which would be a tenth of its cost."""
        self.reading = self._watches_later = True
        self.on_readable()
        self._watches_later = False
        if self.reading:
            self.worker.loop.add_reader(self.conn.fd, self.on_readable)

    def resume_reading(self) -> None:
        if not self.reading and not self.closed:
            self.reading = True
            if not self._watches_later:
                self.worker.loop.add_reader(self.conn.fd, self.on_readable)

    def pause_reading(self) -> None:
        if self.reading:
            self.reading = False
            if not self._watches_later:
                self.worker.loop.remove_reader(self.conn.fd)

    def watches_input(self) -> bool:
        """Whether the loop calls `on_readable` when there is input."""
        return self.reading

    def on_nothing_received(self) -> None:
        """TLS had no data yet. It may have to write before it can read."""
        if self.conn.encrypted and cast("TLSSocket", self.conn.sock).wants_write:
            self.wait_for_room()

    def soon(self, function: Callable[[], None]) -> None:
        """Call `function` after other connections had their turn."""
        self.worker.loop.call_soon(self._guarded, function)

    def _guarded(self, function: Callable[[], None]) -> None:
        try:
            function()
        except Exception as error:
            self.fail(error)

    # ---- Out ------------------------------------------------------------------------------

    def write(self, data: bytes) -> None:
        """Send `data`, behind what is waiting. Raises `ClientDisconnected`."""
        if self.closed:
            raise ClientDisconnected("the connection is closed")
        send_or_keep(self.conn, data, self.worker.config.timeouts)
        if self.conn.send_buffer is not None:
            self.wait_for_room()

    async def drained(self) -> None:
        """Wait until everything is written. Raises `ClientDisconnected`."""
        if self.conn.send_buffer is not None and not self.closed:
            self.wait_for_room()
            waiter: asyncio.Future[None] = self.worker.loop.create_future()
            self._waiters.append(waiter)
            await waiter
        if self.closed:
            raise ClientDisconnected("the client left before it had read everything")

    def wait_for_room(self) -> None:
        """Call `on_writable` when the kernel takes more."""
        if not self._writing:
            self._writing = True
            self.worker.loop.add_writer(self.conn.fd, self.on_writable)

    def stop_writing(self) -> None:
        """No longer wait for room to write."""
        if self._writing:
            self._writing = False
            self.worker.loop.remove_writer(self.conn.fd)

    def on_writable(self) -> None:
        """Send on. The loop calls it when there is room for what is waiting."""
        self._guarded(self._send_waiting)

    def _send_waiting(self) -> None:
        send_buffer = self.conn.send_buffer
        if send_buffer is None:  # TLS wanted to write in order to read
            self.stop_writing()
            self.on_readable()
            return
        try:
            if not send_buffer.flush(self.conn):
                return
        except ClientDisconnected as error:
            self.lost(str(error))
            return
        self.conn.send_buffer = None
        self.stop_writing()
        self._wake_waiters()
        self.on_flushed()

    def _wake_waiters(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # ---- The end --------------------------------------------------------------------------

    def lost(self, why: str) -> None:
        """End the connection: the client left before it had its response."""
        if self.closed:
            return
        self.make_record()
        record, collector = self.conn.record, self.worker.collector
        if collector is not None and record is not None and record.request is not None:
            collector.record(ClientGone(record.request))
        self.close(f"client gone: {why}")

    def close(self, reason: str) -> None:
        """End the connection; `reason` is for the collector."""
        if self.closed:
            return
        self.make_record()
        if self.conn.record is not None:
            self.complete_record(complete=False)
        self._release()
        self.conn.close()
        if self._waiters:
            self._wake_waiters()
        collector = self.worker.collector
        if collector is not None:
            collector.record(ConnectionClosed(self.conn.peer, reason, self.conn.requests))

    def fail(self, error: Exception) -> None:
        """End the connection after a bug of threadwell. The loop goes on."""
        log.error("A connection was dropped because of an internal error", exc_info=error)
        self.close("internal error")

    def _release(self) -> None:
        """Remove the descriptor from the loop."""
        self.pause_reading()
        self.stop_writing()
        self.closed = True
        self.worker.forget(self)

    def complete_record(self, *, complete: bool) -> None:
        """Report the response under way to the collector, as sent or as given up."""
        record, self.conn.record = self.conn.record, None
        if record is not None and self.worker.reporter is not None:
            conn = self.conn
            self.worker.reporter.completed(record.end(conn.client, conn.peer, complete))

    def make_record(self) -> None:
        """Make the `ResponseCompleted` of the request under way, if there is to be one."""
        head = self.unrecorded
        if head is not None:
            conn, self.unrecorded = self.conn, None
            conn.record = start_record(conn, Request(head, b"", conn))
            conn.started = 0.0

    def record_refusal(self, cause: str) -> None:
        """Report a refusal to the collector; see `lifecycle.Refused`."""
        if self.worker.collector is not None:
            self.worker.collector.record(Refused(self.conn.client, cause))

    def begin_lingering(self) -> bool:
        """Close the sending side, and go on receiving (RFC 9112, 9.6).

        A close at once would reset the connection, and the client could lose what it has not read.
        False: the connection is closed, because no lingering is configured or possible.
        """
        self.conn.buffer = b""
        linger = self.worker.config.timeouts.linger
        if linger:
            try:
                self.conn.sock.shutdown(socket.SHUT_WR)
            except OSError:
                linger = 0
        if not linger:
            self.close("answered the last request")
            return False
        self.deadline = time.monotonic() + linger
        self.resume_reading()
        return True

    def discard_input(self) -> None:
        """Receive and discard, until the client has closed too."""
        try:
            for _ in range(RECVS_PER_TURN):
                if not self.conn.recv(RECV_SIZE):
                    self.close("answered the last request")
                    return
        except BlockingIOError:
            self.on_nothing_received()
        except OSError:
            self.close("answered the last request")

    def begin_return(self) -> None:
        """Let go of the connection, which returns to the threads. Nothing may touch it after."""
        self._release()
        self.conn.become(State.YIELDED if self.conn.buffer else State.IDLE)
