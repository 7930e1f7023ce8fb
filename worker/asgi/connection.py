"""A connection on an event loop: when it may be read, what is still to be written, how it ends.

The loop only says when a descriptor is ready. Receiving and sending are the connection's own, as
on the threads: that is how a TLS session can come from a thread, and a connection go back to one.
Everything here belongs to the loop's thread.
"""

from __future__ import annotations

import logging
import socket
import time
from typing import TYPE_CHECKING, cast

from ..connection import State
from ..errors import ClientDisconnected, PlainRequest
from ..lifecycle import ClientGone, ConnectionClosed, Refused
from ..proxies import proxy_header
from .writer import send_or_keep

if TYPE_CHECKING:
    import asyncio

    from ..connection import Connection
    from ..tls.session import TLSSocket
    from .loop_worker import LoopWorker

log = logging.getLogger("threadwell")

RECEIVED_AT_ONCE = 65536
# What is read of a lingering connection in one turn.
_RECEIVES_A_TURN = 16


class LoopConnection:
    """The loop's side of one connection, which is ADOPTED. A subclass says what its octets mean."""

    __slots__ = (
        "_waiters",
        "_writing",
        "closed",
        "conn",
        "deadline",
        "reading",
        "worker",
        "writer",
    )

    def __init__(self, worker: LoopWorker, conn: Connection) -> None:
        self.worker = worker
        self.writer = worker.writer
        self.conn = conn
        self.closed = False
        #: When it has waited long enough, in the seconds of `time.monotonic`.
        self.deadline = 0.0
        self.reading = False
        self._writing = False
        #: Whoever waits until everything is written.
        self._waiters: list[asyncio.Future[None]] = []

    def at(self) -> str:
        """The name of the state it is in, for who counts; any thread may ask."""
        return "writing" if self.conn.send_buffer is not None else "other"

    # ---- In -------------------------------------------------------------------------------

    def resume_reading(self) -> None:
        if not self.reading and not self.closed:
            self.reading = True
            self.worker.loop.add_reader(self.conn.fd, self.on_readable)

    def pause_reading(self) -> None:
        if self.reading:
            self.reading = False
            self.worker.loop.remove_reader(self.conn.fd)

    def on_readable(self) -> None:
        """The loop calls it when something can be received, an end of input included."""
        raise NotImplementedError

    def hears(self) -> bool:
        """Whether `on_readable` is what is called."""
        return self.reading

    def received_nothing(self) -> None:
        """TLS had nothing yet; it may have to write first."""
        if self.conn.encrypted and cast("TLSSocket", self.conn.sock).wants_write:
            self.wait_for_room()

    def read_proxy_header(self) -> None:
        """Begin, or go on with, the PROXY header; `begin` takes over behind it."""
        loop, worker = self.worker.loop, self.worker
        assert worker.forwarding is not None
        try:
            proxy_header.advance(self.conn, worker.forwarding)
        except BlockingIOError:
            self.reading = True
            loop.add_reader(self.conn.fd, self.read_proxy_header)
        except proxy_header.ProxyHeaderRejected as error:
            proxy_header.complain(self.conn, worker.pool.throttled_log, error)
            self.refused("proxy")
            self.close(str(error))
        except OSError as error:
            self.close(f"lost: {error}")
        else:
            self.pause_reading()
            self.begin()

    def begin(self) -> None:
        """Wait for what comes behind a PROXY header, or first."""
        raise NotImplementedError

    def shake_hands(self) -> None:
        """Begin, or go on with, a TLS handshake; `on_readable` takes over behind it."""
        loop, fd = self.worker.loop, self.conn.fd
        sock = cast("TLSSocket", self.conn.sock)
        try:
            done = sock.handshake()
        except PlainRequest:
            loop.remove_reader(fd)
            self.reading = False
            self.answer_plainly()
            return
        except OSError as error:
            log.debug("The TLS handshake of %s failed: %s", self.conn.client[0], error)
            self.refused("tls")
            self._stop_writing()
            self.handshake_failed()
            return
        if sock.wants_write:
            self._writing = True
            loop.add_writer(fd, self.shake_hands)
        else:
            self._stop_writing()
        if not done:
            self.reading = True
            loop.add_reader(fd, self.shake_hands)
            return
        if sock.protocol == "h2" and self.worker.config.http2.on:
            self.pause_reading()  # the other line waits for itself, if it waits at all
            self.change_to_http2()
            return
        self.reading = False
        self.deadline = time.monotonic() + self.worker.config.timeouts.head
        self.resume_reading()
        self.on_readable()  # the first request may have come with the end of the handshake

    def change_to_http2(self) -> None:
        """What the client has chosen in the handshake."""
        self.closed = True
        self.worker.take_http2(self.conn)
        self.worker.connections.discard(self)

    def answer_plainly(self) -> None:
        """A request without TLS, on a port with it: the answer is without, too."""
        raise NotImplementedError

    def handshake_failed(self) -> None:
        """Close, but not before the client can have read the alert that says why."""
        raise NotImplementedError

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
        """Let `on_writable` be called when the kernel takes more."""
        if not self._writing:
            self._writing = True
            self.worker.loop.add_writer(self.conn.fd, self.on_writable)

    def _stop_writing(self) -> None:
        if self._writing:
            self._writing = False
            self.worker.loop.remove_writer(self.conn.fd)

    def on_writable(self) -> None:
        """The loop calls it when there is room for what is waiting."""
        try:
            self._write_on()
        except Exception as error:
            self.broken(error)

    def _write_on(self) -> None:
        send_buffer = self.conn.send_buffer
        if send_buffer is None:  # TLS wanted to write in order to read
            self._stop_writing()
            self.on_readable()
            return
        try:
            if not send_buffer.flush(self.conn):
                return
        except ClientDisconnected as error:
            self.lost(str(error))
            return
        self.conn.send_buffer = None
        self._stop_writing()
        self._wake()
        self.flushed()

    def flushed(self) -> None:
        """Everything is written that had to wait."""

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)

    # ---- The end --------------------------------------------------------------------------

    def look(self, now: float) -> None:
        """Once a second: is its time up?"""
        raise NotImplementedError

    def is_busy(self) -> bool:
        """Whether a request is under way. Any thread may ask."""
        raise NotImplementedError

    def idle_since(self) -> float | None:
        """Since when nothing is under way that has been read; None: something is."""
        raise NotImplementedError

    def drain(self, idle_until: float) -> None:
        """The server stops; what is idle may stay so long, in the seconds of `time.monotonic`."""
        raise NotImplementedError

    def lost(self, why: str) -> None:
        """The client left before it had its answer."""
        if self.closed:
            return
        record, collector = self.conn.record, self.worker.collector
        if collector is not None and record is not None and record.request is not None:
            collector.record(ClientGone(record.request))
        self.close(f"client gone: {why}")

    def close(self, reason: str) -> None:
        """End the connection."""
        if self.closed:
            return
        self.completed(complete=False)
        self._release()
        self.conn.close()
        self._wake()
        collector = self.worker.collector
        if collector is not None:
            collector.record(ConnectionClosed(self.conn.peer, reason, self.conn.requests))

    def broken(self, error: Exception) -> None:
        """A bug of threadwell: this connection pays, the loop goes on."""
        log.error("A connection was dropped for an internal error", exc_info=error)
        self.close("internal error")

    def _release(self) -> None:
        """Let the loop forget the descriptor."""
        self.pause_reading()
        self._stop_writing()
        self.closed = True
        self.worker.gone(self)

    def completed(self, *, complete: bool) -> None:
        """Tell the collector that the answer under way is out, or given up."""
        record, self.conn.record = self.conn.record, None
        if record is not None and self.worker.collector is not None:
            conn = self.conn
            self.worker.collector.record(record.end(conn.client, conn.peer, complete))

    def refused(self, cause: str) -> None:
        """Tell the collector of a refusal; see `lifecycle.Refused`."""
        if self.worker.collector is not None:
            self.worker.collector.record(Refused(self.conn.client, cause))

    def say_this_was_all(self) -> bool:
        """Send an end of output, so that the connection may linger (RFC 9112, 9.6).

        Without it the closing would reset what the client has not read. False: it was closed.
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

    def throw_away(self) -> None:
        """Read on without looking, until the client has closed too."""
        try:
            for _ in range(_RECEIVES_A_TURN):
                if not self.conn.recv(RECEIVED_AT_ONCE):
                    self.close("answered the last request")
                    return
        except BlockingIOError:
            self.received_nothing()
        except OSError:
            self.close("answered the last request")

    def give_back(self) -> None:
        """Let go of the connection, which is another's from now on."""
        self._release()
        self.conn.become(State.YIELDED if self.conn.buffer else State.IDLE)
