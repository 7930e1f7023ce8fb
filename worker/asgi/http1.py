"""HTTP/1.1 on an event loop: the same parser, body rules and writer as on the threads.

HTTP1Connection.on_readable       HTTP1Reader.head_of; a repeated request needs no parser
  _begin_request                  a Cycle, whose application is called on this loop
    _prepare                      a body to come, or a WebSocket
  advance                         HTTP1Reader.next_head, for heads in pieces and pipelined requests
  _receive_body                   HTTP1Reader.feed; the Cycle's application is woken
answered                          the next request, the way back to the threads, or the end
"""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING

from ..connection import State
from ..deadlines import EXPIRIES, idle_reason
from ..errors import ProtocolError
from ..http.request_meta import what_is_asked
from ..http1.budgets import RECV_SIZE, REQUESTS_PER_TURN
from ..messages import Request, RequestReceived
from ..system.hang_up import has_hung_up
from ..system.readiness import has_input, has_octets
from .cycle import Cycle
from .http1_reader import HTTP1Reader
from .last_response import RefusingConnection
from .request_stream import BodyStream
from .scope import ConnectionScopes
from .states import ReadState

if TYPE_CHECKING:
    from ..connection import Connection
    from ..interfaces import ReturnsConnections
    from .interfaces import LoopContext, OctetSession

log = logging.getLogger("threadwell")

# How much may wait: behind a request that is being answered, and of a body that is not read.
_MOST_BUFFERED = 65536

_READY, _BUSY, _BODY = ReadState.READY, ReadState.BUSY, ReadState.BODY
_SESSION, _LINGER = ReadState.SESSION, ReadState.LINGER


class HTTP1Connection(RefusingConnection):
    """A connection that speaks HTTP/1.1, and can change to a WebSocket or to HTTP/2.

    `origin_pool` is the worker of the threads that the connection came from and returns to, in a
    hybrid; else None.
    """

    __slots__ = ("_advancing", "cycle", "origin_pool", "reader", "scopes", "session", "writer")

    def __init__(
        self, worker: LoopContext, conn: Connection, origin_pool: ReturnsConnections | None = None
    ) -> None:
        super().__init__(worker, conn)
        self.origin_pool = origin_pool
        self.writer = worker.writer
        self.reader = HTTP1Reader(conn, worker.parser, worker.wrong_port)
        #: The request that is being answered.
        self.cycle: Cycle | None = None
        #: The WebSocket that the octets belong to.
        self.session: OctetSession | None = None
        self.scopes = ConnectionScopes(worker.scopes, conn)
        # `advance` is running: what it calls must not call it again
        self._advancing = False

    def start(self) -> None:
        """Wait for the first request, which may have come already."""
        self.deadline = time.monotonic() + self.worker.config.timeouts.head
        if self.conn.encrypted or has_octets(self.conn.fd, self.worker.octets):
            self.read_first()
        else:
            self.resume_reading()

    # ---- What other threads may ask -----------------------------------------------------------

    def state_name(self) -> str:
        return "writing" if self.conn.send_buffer is not None else self.reader.state_name()

    def is_busy(self) -> bool:
        return self.reader.state in (_BUSY, _BODY, _SESSION)

    def idle_since(self) -> float | None:
        if not self.reader.waits_for_request():
            return None
        timeouts = self.worker.config.timeouts
        return self.deadline - (timeouts.keep_alive if self.conn.requests else timeouts.head)

    # ---- In -------------------------------------------------------------------------------

    def on_readable(self) -> None:
        conn = self.conn
        state = self.reader.state
        if state is _LINGER:
            self.discard_input()
            return
        try:
            data = conn.recv(RECV_SIZE)
        except BlockingIOError:
            self.on_nothing_received()
            return
        except OSError as error:
            self.lost(error.strerror or str(error))
            return
        try:
            if state is not _READY:
                self._receive_later(data)
            elif conn.buffer or conn.head_buffer is not None or not data:
                self._receive_more(data)
            else:
                head = self.reader.head_of(data)
                if head is not None:
                    self._advancing = True
                    self._begin_request(head)
                    self._advancing = False
                if conn.buffer and not self.closed:
                    self.advance()
        except ProtocolError as error:
            self.refuse(error.status, error.message, error.limit)
        except Exception as error:
            self.fail(error)

    def _receive_more(self, data: bytes) -> None:
        """Take `data`, which continues the next request, or is the end of input."""
        if data:
            self.conn.buffer += data
        else:
            self.reader.eof = True
            self.pause_reading()
        self.advance()

    def _receive_later(self, data: bytes) -> None:
        """Take `data`, which is not the beginning of the next request."""
        state = self.reader.state
        if state is _SESSION:
            assert self.session is not None
            self.session.received(data)
        elif not data:
            self._end_of_input()
        elif state is _BODY:
            self._receive_body(data)
        else:
            self.conn.buffer += data
            if len(self.conn.buffer) > _MOST_BUFFERED:
                self.pause_reading()

    def _end_of_input(self) -> None:
        """The client sends nothing more. It may still read the response that is under way."""
        reader = self.reader
        reader.eof = True
        self.pause_reading()
        cycle = self.cycle
        if reader.state is _SESSION:
            assert self.session is not None
            self.session.received(b"")
            return
        if cycle is None:
            return
        if reader.state is _BODY:
            if not cycle.answered or self.conn.send_buffer is None:
                # the application must not take a part of a body for all of it
                self.lost("closed by the client within a body")
                return
            reader.become(_BUSY)
            cycle.persistent = False
        cycle.disconnect()

    def advance(self) -> None:
        """Begin the requests in the buffer, as far as they are complete."""
        if self._advancing:
            return
        self._advancing = True
        reader = self.reader
        try:
            for _ in range(REQUESTS_PER_TURN):
                if reader.state is not _READY or not self.conn.buffer or self.closed:
                    break
                try:
                    head = reader.next_head()
                except ProtocolError as error:
                    self.refuse(error.status, error.message, error.limit)
                    break
                if head is None:
                    self._wait_for_head()
                    break
                self._begin_request(head)
                if reader.eof:
                    self._end_of_input()
            else:
                self.soon(self.advance)
                return
        finally:
            self._advancing = False
        if reader.eof and reader.state is _READY:
            self.close("closed by the client")

    def _wait_for_head(self) -> None:
        """A head has begun to come: it has one deadline, however many pieces it comes in."""
        if not self.conn.head_deadline:
            self.deadline = time.monotonic() + self.worker.config.timeouts.head
            self.conn.head_deadline = self.deadline

    # ---- A request ------------------------------------------------------------------------

    def _begin_request(self, head: RequestReceived) -> None:
        conn, worker = self.conn, self.worker
        conn.requests += 1
        worker.served += 1
        self.reader.state = _BUSY  # from READY; see `HTTP1Reader.state`
        if worker.request_ids is not None:
            conn.request_id, head = worker.request_ids.give(head, trusted=conn.is_trusted)
        self.cycle = cycle = Cycle(self, head, worker.persistent)
        if not head.is_simple and not self._prepare(cycle, head):
            return
        if worker.collector is not None:
            self.record_start(head)
        cycle.starting = True
        # by position: Python 3.11 calls a function with keywords by a longer way
        worker.begin(cycle, self.scopes.http(head), None, None, conn.request_id)
        if not cycle.answered:
            cycle.first_step_over()

    def _prepare(self, cycle: Cycle, head: RequestReceived) -> bool:
        """Act on the fields that frame or steer a request; whether it is to be called as HTTP."""
        persistent, websocket = (True, False) if head.stays_open else what_is_asked(head)
        if not persistent:
            cycle.persistent = False
        if websocket:
            self.cycle = None
            if self.worker.collector is not None:
                self.record_start(head)
                self.make_record()
            self._upgrade(head)
            return False
        if not head.content_length and not head.chunked:
            return True
        try:
            cycle.incoming = incoming = self.reader.body(head, self.worker.config)
        except ProtocolError as error:
            self.refuse(error.status, error.message, error.limit)
            return False
        if isinstance(incoming, BodyStream):
            expect = head.field("expect").lower()
            cycle.expects = "100-continue" in expect and head.version == "1.1"
            if data := self.reader.expect_body():
                self._receive_body(data)
        return not self.closed and self.cycle is cycle

    def adopt(self, request: Request) -> None:
        """Begin with a request that a thread has read, its body included."""
        head, body = request.head, request.body
        if what_is_asked(head)[1]:
            self.reader.become(_BUSY)
            self.resume_reading()
            if not isinstance(body, bytes):
                body.close()
            self._upgrade(head)
            return
        cycle = self.adopt_cycle(request)
        cycle.incoming = body or None
        self.worker.begin(cycle, self.scopes.http(head), request_id=self.conn.request_id)

    def adopt_cycle(self, request: Request) -> Cycle:
        """Begin with a request that a thread has read; the caller starts the call."""
        self.reader.become(_BUSY)
        self.resume_reading()
        persistent = self.worker.persistent and what_is_asked(request.head)[0]
        self.cycle = cycle = Cycle(self, request.head, persistent)
        return cycle

    # ---- Its body -------------------------------------------------------------------------

    def _receive_body(self, data: bytes) -> None:
        cycle = self.cycle
        assert cycle is not None
        if cycle.answered and not cycle.persistent:
            return  # an error in what follows must not cut the last response short
        incoming = cycle.incoming
        assert isinstance(incoming, BodyStream)
        try:
            self.reader.feed(incoming, data)
        except ProtocolError as error:
            self._refuse_body(error)
            return
        if cycle.answered:
            self._discard(cycle, incoming)
            return
        if not incoming.done and incoming.buffered > _MOST_BUFFERED and self.reading:
            self.pause_reading()
            incoming.pause()
        cycle.wake_receivers()

    def body_wanted(self) -> None:
        """The application has taken what there was of a body."""
        if self.reader.state is _BODY and not self.reading:
            assert self.cycle is not None
            assert isinstance(self.cycle.incoming, BodyStream)
            self.cycle.incoming.resume()
            self.resume_reading()

    def _discard(self, cycle: Cycle, incoming: BodyStream) -> None:
        """Drop what comes of a request that has its response."""
        self.reader.discard(incoming)
        if self.conn.send_buffer is not None:
            return  # the client may read the response only once it has sent its request
        if incoming.done:
            self.answered(cycle)
        elif self.reader.has_discarded_enough():
            self.linger()

    def _refuse_body(self, error: ProtocolError) -> None:
        """The body breaks its framing or a limit: the application gets no more of it."""
        cycle = self.cycle
        assert cycle is not None
        if cycle.headers_sent:
            self.cut(error)
        else:
            cycle.answered = True  # the application's own answer would end the lingering
            cycle.disconnect()
            self.refuse(error.status, error.message, error.limit)

    # ---- After a response -----------------------------------------------------------------

    def answered(self, cycle: Cycle) -> None:
        """The response of `cycle` was given to the kernel, or the rest of it waits.

        Where nothing waits, and the request is complete, the next one follows, or the end.
        """
        conn, worker, reader = self.conn, self.worker, self.reader
        if conn.send_buffer is not None:
            self.wait_for_room()
            self.body_wanted()
            return
        if conn.record is not None:
            self.complete_record(complete=True)
        incoming = cycle.incoming
        if incoming is not None and isinstance(incoming, BodyStream) and not incoming.done:
            if not cycle.persistent or incoming.missing == math.inf or cycle.expects:
                self.linger()
            else:
                self.body_wanted()
                self._discard(cycle, incoming)
            return
        self.cycle = None
        now = time.monotonic()
        ended = reader.eof and not conn.buffer
        if not cycle.persistent or ended or (worker.draining and now >= worker.idle_until):
            self._close_or_linger("answered the last request")
            return
        if self.origin_pool is not None:
            # the threads read the next request, unless they have stopped
            if not self.origin_pool.adopt_back(conn, self.begin_return):
                self._close_or_linger("the server stops")
            return
        reader.state = _READY  # from BUSY; see `HTTP1Reader.state`
        self.deadline = now + worker.config.timeouts.keep_alive
        if worker.draining:
            self.deadline = min(self.deadline, worker.idle_until)
        if not self.reading and not reader.eof:
            self.resume_reading()
        if conn.buffer and not self._advancing:
            self.soon(self.advance)

    def on_flushed(self) -> None:
        if self.session is not None:
            self.session.flushed()
        elif self.cycle is not None and self.cycle.answered:
            self.answered(self.cycle)

    def _close_or_linger(self, reason: str) -> None:
        """Close, or linger while the client sends: a close would reset what it has not read."""
        conn = self.conn
        if conn.buffer or (not self.reader.eof and has_octets(conn.fd, self.worker.octets)):
            self.linger()
        else:
            self.close(reason)

    def linger(self) -> None:
        self.cycle = None
        self.reader.become(_LINGER)
        super().linger()

    def refuse(self, status: int, message: str, limit: str = "") -> None:
        self.cycle = None
        super().refuse(status, message, limit)

    # ---- WebSockets -----------------------------------------------------------------------

    def _upgrade(self, head: RequestReceived) -> None:
        try:
            from .websocket import Session
        except ImportError:
            log.error("A WebSocket was refused: wsproto is missing; pip install 'threadwell[asgi]'")
            self.refuse(501, "Not Implemented")
            return
        Session.open(self, head)

    def begin_session(self, session: OctetSession) -> None:
        """Pass all octets to `session` from now on."""
        self.cycle = None
        self.session = session
        self.reader.become(_SESSION)

    def end_session(self, session: OctetSession) -> None:
        """`session` is over, and everything of it is written."""
        assert self.session is session
        self.session = None
        self.complete_record(complete=True)
        self.linger()

    def begin_denial(self, head: RequestReceived) -> Cycle:
        """Answer a request for a WebSocket with HTTP instead."""
        self.session = None
        self.reader.become(_BUSY)
        self.cycle = cycle = Cycle(self, head, False)
        return cycle

    # ---- Time -----------------------------------------------------------------------------

    def check_deadline(self, now: float) -> None:
        conn, state = self.conn, self.reader.state
        if conn.send_buffer is not None:
            if now >= conn.send_buffer.deadline:
                conn.abort_with_reset()
                self.lost(EXPIRIES[State.WRITING].reason)
        elif state is _SESSION:
            assert self.session is not None
            self.session.check_deadline(now)
        elif state is _BODY:
            self._check_body_deadline(now)
        elif state is _BUSY:
            self._check_hang_up()
        elif now >= self.deadline:
            self._overdue()

    def _check_body_deadline(self, now: float) -> None:
        cycle = self.cycle
        assert cycle is not None
        assert isinstance(cycle.incoming, BodyStream)
        if now < cycle.incoming.deadline:
            return
        if cycle.answered:
            self.close("the rest of the request did not arrive in time")
        else:
            expiry = EXPIRIES[State.BODY]
            self._refuse_body(ProtocolError(expiry.status, expiry.reason))

    def _check_hang_up(self) -> None:
        """Tell the application if the client has left. While the connection is not read, no end of
        input would show it. Requests that were sent before are still read and answered."""
        cycle = self.cycle
        if cycle is None or cycle.disconnected or self.reading or self.reader.eof:
            return
        if has_hung_up(self.conn.fd):
            cycle.disconnect()

    def _overdue(self) -> None:
        if self.reader.state is _LINGER:
            self.close(EXPIRIES[State.LINGERING].reason)
        elif self.conn.head_deadline:
            expiry = EXPIRIES[State.HEAD]
            self.refuse(expiry.status, expiry.reason)
        else:
            self.close(idle_reason(self.conn))

    # ---- The end --------------------------------------------------------------------------

    def drain(self, idle_until: float) -> None:
        if self.session is not None:
            self.session.drain()
        elif self.cycle is not None:
            self.cycle.drain()
        elif self.reader.waits_for_request() and not has_input(self.conn.fd):
            if idle_until:  # the first request of a new connection is probably on its way
                self.deadline = min(self.deadline, idle_until)
            else:
                self.close("the server stops")

    def complete_record(self, *, complete: bool) -> None:
        record, cycle = self.conn.record, self.cycle
        if record is not None and cycle is not None:
            if isinstance(cycle.incoming, BodyStream):
                record.received = cycle.incoming.size
            elif isinstance(cycle.incoming, bytes):
                record.received = len(cycle.incoming)
        super().complete_record(complete=complete)

    def close(self, reason: str) -> None:
        if self.closed:
            return
        super().close(reason)
        if self.cycle is not None:
            cycle, self.cycle = self.cycle, None
            cycle.disconnect()
        if self.session is not None:
            self.session.lost()
