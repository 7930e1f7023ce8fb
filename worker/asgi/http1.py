"""HTTP/1.1 on an event loop: the same parser, body rules and writer as on the threads."""

from __future__ import annotations

import logging
import math
import time
from typing import TYPE_CHECKING, cast

from ..errors import ClientDisconnected, ProtocolError
from ..http.request_meta import _classify_request
from ..lifecycle import SAMPLED, RequestStarted, RequestWaited, ResponseCompleted
from ..messages import IS_SIMPLE, Request, RequestReceived, Response
from ..system.readiness import has_input
from ..tls.wrong_port import WITHOUT_TLS
from .cycle import Cycle
from .http1_reader import ReadState, RequestLine, gone
from .request_stream import BodyStream

if TYPE_CHECKING:
    from ..connection import Connection
    from ..sync_worker import SyncWorker
    from ..tls.session import TLSSocket
    from .loop_worker import LoopWorker
    from .scope import Headers, Scope
    from .websocket import Session

log = logging.getLogger("threadwell")

_TEXT = ("Content-Type", "text/plain; charset=utf-8")

_NAMES = {
    ReadState.BUSY: "serving",
    ReadState.BODY: "body",
    ReadState.SESSION: "websocket",
    ReadState.LINGER: "lingering",
    ReadState.SHAKING: "handshake",
    ReadState.PROXY_HEADER: "proxy_header",
}

_READY, _BUSY, _BODY = ReadState.READY, ReadState.BUSY, ReadState.BODY


class HTTP1Connection(RequestLine):
    """A connection that speaks HTTP, and perhaps changes to a WebSocket.

    `origin_pool` is the worker that a connection came from and goes back to, in hybrid mode.
    """

    __slots__ = ("_headers", "_headers_of", "origin_pool", "template")

    def __init__(
        self, worker: LoopWorker, conn: Connection, origin_pool: SyncWorker | None = None
    ) -> None:
        super().__init__(worker, conn)
        self.origin_pool = origin_pool
        self.template: Scope = worker.scopes.template(conn)
        # the headers of the last head, in case it comes again
        self._headers_of: RequestReceived | None = None
        self._headers: Headers = []

    def start(self) -> None:
        """Wait for what comes first on a new connection."""
        proxies = self.worker.config.proxies
        if proxies.protocol:
            self.read_state = ReadState.PROXY_HEADER
            self.deadline = time.monotonic() + proxies.timeout
            self.read_proxy_header()
        else:
            self.begin()

    def begin(self) -> None:
        """Wait for a TLS handshake, or the first request."""
        timeouts = self.worker.config.timeouts
        if self.conn.encrypted:
            self.read_state = ReadState.SHAKING
            self.deadline = time.monotonic() + timeouts.handshake
            self.shake_hands()
        else:
            self.read_state = _READY
            self.deadline = time.monotonic() + timeouts.head
            self.resume_reading()

    def at(self) -> str:
        if self.conn.send_buffer is not None:
            return "writing"
        read_state = self.read_state  # which may be another one the next time
        if read_state is _READY:
            return "head" if self.conn.buffer or self.conn.head_buffer else "idle"
        return _NAMES[read_state]

    def hears(self) -> bool:
        return self.reading and self.read_state not in (ReadState.SHAKING, ReadState.PROXY_HEADER)

    def _introduce(self) -> None:
        self.template = self.worker.scopes.template(self.conn)

    def is_busy(self) -> bool:
        return self.read_state in (_BUSY, _BODY, ReadState.SESSION)

    def idle_since(self) -> float | None:
        if self.read_state is not _READY or self.conn.buffer or self.conn.head_buffer:
            return None
        timeouts = self.worker.config.timeouts
        return self.deadline - (timeouts.keep_alive if self.conn.requests else timeouts.head)

    def answer_plainly(self) -> None:
        sock = cast("TLSSocket", self.conn.sock).without_tls()
        self.conn.sock, self.conn.recv, self.conn.send = sock, sock.recv, sock.send
        conn = self.conn
        conn.origin, conn.encrypted = conn.origin._replace(scheme="http"), False
        self.worker.pool.wrong_port.without_tls(conn.peer, conn.server)
        self.refuse(400, WITHOUT_TLS)

    def handshake_failed(self) -> None:
        self.pause_reading()
        if has_input(self.conn.fd):
            self._linger()
        else:
            self.close("TLS handshake failed")

    # ---- A request ------------------------------------------------------------------------

    def _begin(self, head: RequestReceived) -> None:
        conn, worker = self.conn, self.worker
        conn.requests += 1
        worker.served += 1
        self.read_state = _BUSY
        if worker.request_ids is not None:
            trusted = conn.direct is not None and conn.direct.trusted
            conn.request_id, head = worker.request_ids.give(head, trusted=trusted)
        self.cycle = cycle = Cycle(self, head)
        cycle.persistent = worker.persistent
        if not head[IS_SIMPLE] and not self._steer(cycle, head):
            return
        if worker.collector is not None:
            self._started(head)
        self._call(cycle)

    def _call(self, cycle: Cycle) -> None:
        worker = self.worker
        head = cycle.head
        scope = worker.scopes.http(self.template, head, self.headers(head))
        worker.begin(cycle, scope, request_id=self.conn.request_id)

    def headers(self, head: RequestReceived) -> Headers:
        """The header lines for a scope, which may change them."""
        if head is not self._headers_of:
            self._headers_of = head
            self._headers = self.worker.scopes.headers(head.block)
        return self._headers.copy()

    def _started(self, head: RequestReceived) -> None:
        worker, conn = self.worker, self.conn
        assert worker.collector is not None
        request = Request(head, b"", conn)
        conn.record = record = ResponseCompleted(request, time.monotonic())
        if conn.request_id:
            record.request_id = conn.request_id
        if worker.announcing:
            worker.collector.record(RequestStarted(request))
        if worker.sampling and worker.served % SAMPLED == 1:
            waited = conn.waited()
            if waited is not None:
                worker.collector.record(RequestWaited(request, waited))

    def _steer(self, cycle: Cycle, head: RequestReceived) -> bool:
        """What is special about a request. Whether it goes to the application as HTTP."""
        meta = _classify_request(head)
        cycle.persistent = cycle.persistent and not meta.close
        if meta.websocket:
            self.cycle = None
            if self.worker.collector is not None:
                self._started(head)
            self._upgrade(head)
            return False
        if head.content_length or head.chunked:
            try:
                cycle.incoming = BodyStream(head, self.worker.config)
            except ProtocolError as error:
                self.refuse(error.status, error.message)
                return False
            cycle.expects = "100-continue" in head.field("expect").lower() and (
                head.version == "1.1"
            )
            self._expect_body()
        return not self.closed and self.cycle is cycle

    # ---- After an answer ------------------------------------------------------------------

    def answered(self, cycle: Cycle) -> None:
        """The answer of `cycle` was given to the kernel, or what is left of it waits."""
        if self.conn.send_buffer is not None:
            self.wait_for_room()
            self.body_wanted()
            return
        conn = self.conn
        if conn.record is not None:
            self.completed(complete=True)
        incoming = cycle.incoming
        if isinstance(incoming, BodyStream) and not incoming.done:
            if not cycle.persistent or incoming.missing == math.inf or cycle.expects:
                self._linger()
            else:
                self.body_wanted()
                self._discard(cycle, incoming)
            return
        self._next(cycle)

    def flushed(self) -> None:
        if self.session is not None:
            self.session.flushed()
        elif self.cycle is not None and self.cycle.answered:
            self.answered(self.cycle)

    def _next(self, cycle: Cycle) -> None:
        conn, worker = self.conn, self.worker
        self.cycle = None
        now = time.monotonic()
        ended = self.eof and not conn.buffer
        if not cycle.persistent or ended or (worker.draining and now >= worker.idle_until):
            self._part("answered the last request")
            return
        if self.origin_pool is not None:
            # the threads have the next request, if they still take one
            if not self.origin_pool.adopt_back(conn, self.give_back):
                self._part("the server stops")
            return
        self.read_state = _READY
        self.deadline = now + worker.config.timeouts.keep_alive
        if worker.draining:
            self.deadline = min(self.deadline, worker.idle_until)
        if not self.reading and not self.eof:
            self.resume_reading()
        if conn.buffer and not self._advancing:
            self.advance_soon()

    def _part(self, reason: str) -> None:
        """Close, but not while the client sends: that would reset what it has not read."""
        if self.conn.buffer or (not self.eof and has_input(self.conn.fd)):
            self._linger()
        else:
            self.close(reason)

    def _linger(self) -> None:
        self.cycle = None
        self.read_state = ReadState.LINGER
        if self.say_this_was_all():
            self.throw_away()

    def refuse(self, status: int, message: str) -> None:
        self.cycle = None
        conn = self.conn
        conn.reset_origin()
        self.refused(str(status))
        if conn.record is None and self.worker.collector is not None:
            conn.record = ResponseCompleted(None, time.monotonic())
        self._last_answer(Response(status, [_TEXT], message.encode("latin-1", "replace") + b"\n"))

    def _last_answer(self, response: Response) -> None:
        conn = self.conn
        try:
            self.worker.writer.answer(conn, None, response, False)
        except ClientDisconnected as error:
            self.lost(str(error))
            return
        if conn.record is not None:
            conn.record.status = response.code
            conn.record.body_bytes = len(response.body)  # type: ignore[arg-type]
        # to a client that reads nothing, what the kernel took of it must do
        conn.send_buffer = None
        self.completed(complete=True)
        self._linger()

    # ---- WebSockets -----------------------------------------------------------------------

    def _upgrade(self, head: RequestReceived) -> None:
        try:
            from .websocket import Session
        except ImportError:
            log.error("A WebSocket was refused: wsproto is missing; pip install wsproto")
            self.refuse(501, "Not Implemented")
            return
        Session.open(self, head)

    def hold(self, session: Session) -> None:
        """From now on the octets are those of `session`."""
        self.cycle = None
        self.session = session
        self.read_state = ReadState.SESSION

    def release(self, session: Session) -> None:
        """`session` is over, and all of it is written."""
        assert self.session is session
        self.session = None
        self.completed(complete=True)
        self._linger()

    def deny(self, head: RequestReceived) -> Cycle:
        """Answer a request for a WebSocket with HTTP after all."""
        self.session = None
        self.read_state = _BUSY
        self.cycle = cycle = Cycle(self, head)
        cycle.persistent = False
        return cycle

    def upgrade_required(self, version: str) -> None:
        """Say which version of WebSockets is spoken here (RFC 6455, 4.4)."""
        headers = [("Sec-WebSocket-Version", version), _TEXT]
        self._last_answer(Response(426, headers, b"This version of WebSockets is not spoken\n"))

    # ---- Time -----------------------------------------------------------------------------

    def look(self, now: float) -> None:
        conn = self.conn
        if conn.send_buffer is not None:
            if now >= conn.send_buffer.deadline:
                conn.abort_with_reset()
                self.lost("the client did not read its response in time")
        elif self.read_state is ReadState.SESSION:
            assert self.session is not None
            self.session.look(now)
        elif self.read_state is _BODY:
            self._look_at_body(now)
        elif self.read_state is _BUSY:
            self._look_for_the_end()
        elif now >= self.deadline:
            self._overdue()

    def _look_at_body(self, now: float) -> None:
        cycle = self.cycle
        assert cycle is not None
        assert isinstance(cycle.incoming, BodyStream)
        if now < cycle.incoming.deadline:
            return
        if cycle.answered:
            self.close("the rest of the request did not arrive in time")
        else:
            self._broken_body(ProtocolError(408, "The request did not arrive in time"))

    def _look_for_the_end(self) -> None:
        """Tell the application of a client that has left, where it is not read from. What that has
        sent before is still read, and answered, in its turn."""
        cycle = self.cycle
        if cycle is None or cycle.disconnected or self.reading or self.eof:
            return
        if gone(self.conn.fd):
            cycle.disconnect()

    def _overdue(self) -> None:
        if self.read_state is ReadState.PROXY_HEADER:
            self.refused("proxy")
            self.close("no PROXY header came in time")
        elif self.read_state is ReadState.SHAKING:
            self.refused("tls")
            self.close("TLS handshake timeout")
        elif self.read_state is ReadState.LINGER:
            self.close("answered the last request")
        elif self.conn.head_deadline:
            self.refuse(408, "The request did not arrive in time")
        else:
            self.close("keep-alive timeout" if self.conn.requests else "no request came")

    def drain(self, idle_until: float) -> None:
        """The server stops: what is idle closes, what is answered ends with its answer."""
        if self.session is not None:
            self.session.drain()
        elif self.cycle is not None:
            self.cycle.drain()
        elif self.read_state is _READY and not self.conn.buffer and not has_input(self.conn.fd):
            if idle_until:  # a new connection has a request on its way more than any other
                self.deadline = min(self.deadline, idle_until)
            else:
                self.close("the server stops")

    def completed(self, *, complete: bool) -> None:
        record, cycle = self.conn.record, self.cycle
        if record is not None and cycle is not None and isinstance(cycle.incoming, BodyStream):
            record.received = cycle.incoming.size
        super().completed(complete=complete)

    def close(self, reason: str) -> None:
        if self.closed:
            return
        super().close(reason)
        if self.cycle is not None:
            cycle, self.cycle = self.cycle, None
            cycle.disconnect(gone=True)
        if self.session is not None:
            self.session.lost()


class ForwardedLine(HTTP1Connection):
    """A connection whose requests may come through proxies that are trusted."""

    __slots__ = ()

    def begin(self) -> None:
        self._introduce()  # a PROXY header may have come
        super().begin()

    def _begin(self, head: RequestReceived) -> None:
        assert self.worker.forwarding is not None
        try:
            head = self.worker.forwarding.amend(self.conn, head)
        except ProtocolError as error:
            self.refuse(error.status, error.message)
            return
        self._introduce()
        super()._begin(head)


def adopted(connection: HTTP1Connection, request: Request) -> None:
    """Begin with a request that a thread has read, its body too."""
    head, body = request.head, request.body
    if _classify_request(head).websocket:
        connection.read_state = _BUSY
        connection.resume_reading()
        if not isinstance(body, bytes):
            body.close()
        connection._upgrade(head)
        return
    cycle = answering(connection, request)
    cycle.incoming = body or None
    connection._call(cycle)


def answering(connection: HTTP1Connection, request: Request) -> Cycle:
    """The cycle of a request that a thread has read, without its body."""
    connection.read_state = _BUSY
    connection.resume_reading()
    connection.cycle = cycle = Cycle(connection, request.head)
    cycle.persistent = connection.worker.persistent and not _classify_request(request.head).close
    return cycle
