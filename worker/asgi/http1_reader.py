"""What comes on a connection of a loop: octets to requests and their bodies."""

from __future__ import annotations

import time
from enum import IntEnum
from typing import TYPE_CHECKING

from ..errors import ProtocolError
from ..http1.head_buffer import LONGEST_REPEATED, HeadBuffer
from ..messages import IS_SIMPLE, RequestReceived
from ..tls.wrong_port import WITH_TLS
from .connection import RECEIVED_AT_ONCE, LoopConnection
from .request_stream import MOST_DISCARDED, BodyStream

if TYPE_CHECKING:
    from ..connection import Connection
    from .cycle import Cycle
    from .loop_worker import LoopWorker
    from .websocket import Session

# How many requests a connection may have pipelined before others get a turn.
_REQUESTS_A_TURN = 16
# What may wait behind a request that is being answered, and of a body that nobody reads.
_MOST_HELD = 65536


class ReadState(IntEnum):
    """What the octets that come are."""

    READY = 0  # the next request, or a part of its head
    BUSY = 1  # what a client pipelines behind the request that is being answered
    BODY = 2  # the body of that request
    SESSION = 3  # a WebSocket's
    LINGER = 4  # thrown away: the last answer is out
    SHAKING = 5  # a TLS handshake
    PROXY_HEADER = 6  # a PROXY header


_READY, _BUSY, _BODY = ReadState.READY, ReadState.BUSY, ReadState.BODY


class RequestLine(LoopConnection):
    """A connection from which requests are read. A subclass says what is done with them."""

    __slots__ = ("_advancing", "_discarded", "cycle", "eof", "read_state", "session")

    def __init__(self, worker: LoopWorker, conn: Connection) -> None:
        super().__init__(worker, conn)
        self.read_state = _READY
        self.cycle: Cycle | None = None
        self.session: Session | None = None
        self.eof = False
        self._advancing = False
        self._discarded = 0

    # ---- What a subclass does ---------------------------------------------------------------

    def _introduce(self) -> None:
        """The TLS handshake is done: more is known of the connection."""
        raise NotImplementedError

    def _begin(self, head: RequestReceived) -> None:
        """Run the application on a request whose head is there."""
        raise NotImplementedError

    def _next(self, cycle: Cycle) -> None:
        """The answer of `cycle` is out, and its request is read."""
        raise NotImplementedError

    def _linger(self) -> None:
        """That was the last answer; the rest of what comes is thrown away."""
        raise NotImplementedError

    def refuse(self, status: int, message: str) -> None:
        """Answer `status` and end the connection; no more of it is executed (RFC 9112, 2.2)."""
        raise NotImplementedError

    # ---- Heads ----------------------------------------------------------------------------

    def on_readable(self) -> None:
        conn = self.conn
        read_state = self.read_state
        if read_state is ReadState.LINGER:
            self.throw_away()
            return
        if read_state is ReadState.SHAKING:
            self.read_state = read_state = _READY
            self._introduce()
        try:
            data = conn.recv(RECEIVED_AT_ONCE)
        except BlockingIOError:
            self.received_nothing()
            return
        except OSError as error:
            self.lost(error.strerror or str(error))
            return
        try:
            if read_state is not _READY:
                self._received_later(data)
            elif (
                data == conn.repeated
                and conn.repeated_head is not None
                and not conn.buffer
                and conn.head_buffer is None
            ):
                # a client that polls sends the same octets each time
                self._advancing = True
                self._begin(conn.repeated_head)
                self._advancing = False
                if conn.buffer and not self.closed:
                    self.advance()
            elif data:
                conn.buffer = conn.buffer + data if conn.buffer else data
                self.advance()
            else:
                self.eof = True
                self.pause_reading()
                self.advance()
        except Exception as error:
            self.broken(error)

    def _received_later(self, data: bytes) -> None:
        """Something came that is not the beginning of the next request."""
        if self.read_state is ReadState.SESSION:
            assert self.session is not None
            self.session.received(data)
        elif not data:
            self._end_of_input()
        elif self.read_state is _BODY:
            self._received_body(data)
        else:
            self.conn.buffer += data
            if len(self.conn.buffer) > _MOST_HELD:
                self.pause_reading()

    def _end_of_input(self) -> None:
        """The client has closed, or says no more: an answer under way is sent all the same."""
        self.eof = True
        self.pause_reading()
        cycle = self.cycle
        if self.read_state is ReadState.SESSION:
            assert self.session is not None
            self.session.received(b"")
            return
        if cycle is None:
            return
        if self.read_state is _BODY:
            if not cycle.answered or self.conn.send_buffer is None:
                # what did not come whole must not pass for whole
                self.lost("closed by the client within a body")
                return
            self.read_state = _BUSY
            cycle.persistent = False
        cycle.disconnect()

    def advance(self) -> None:
        """Serve what is buffered, as far as it goes. With `eof` nothing comes behind it."""
        if self._advancing:
            return
        self._advancing = True
        try:
            for _ in range(_REQUESTS_A_TURN):
                if self.read_state is not _READY or not self.conn.buffer or self.closed:
                    break
                head = self._next_head()
                if head is None:
                    break
                self._begin(head)
                if self.eof:
                    self._end_of_input()
            else:
                self.advance_soon()
                return
        finally:
            self._advancing = False
        if self.eof and self.read_state is _READY:
            self.close("closed by the client")

    def advance_soon(self) -> None:
        """The same, when others have had their turn."""
        self.worker.loop.call_soon(self._advance_later)

    def _advance_later(self) -> None:
        try:
            self.advance()
        except Exception as error:
            self.broken(error)

    def _next_head(self) -> RequestReceived | None:
        """The head that `conn.buffer` begins with, and takes it from there; None if not whole."""
        conn = self.conn
        parser = self.worker.parser
        data = conn.buffer
        pieces = conn.head_buffer
        try:
            if pieces is None:
                raw_head, end, rest = data.partition(b"\r\n\r\n")
                if end and raw_head:
                    head = parser.parse(raw_head)
                    conn.buffer = rest
                    conn.head_deadline = 0.0
                    if head[IS_SIMPLE] and not rest and len(data) <= LONGEST_REPEATED:
                        conn.repeated = data
                        conn.repeated_head = head
                    return head
                pieces = conn.head_buffer = HeadBuffer(data)
            else:
                assert isinstance(pieces, HeadBuffer)
                pieces.append(data)
            conn.buffer = b""
            whole = pieces.take(parser)
            if whole is not None:
                raw_head, conn.buffer = whole
                conn.head_buffer = None
                conn.head_deadline = 0.0
                return parser.parse(raw_head)
        except ProtocolError as error:
            message = error.message
            if conn.head_buffer is not None and conn.head_buffer.began_handshake():
                self.worker.pool.wrong_port.with_tls(conn.peer, conn.server)
                message = WITH_TLS
            self.refuse(error.status, message)
            return None
        if not conn.head_deadline:
            conn.head_deadline = self.deadline = time.monotonic() + self.worker.config.timeouts.head
        return None

    # ---- A body ---------------------------------------------------------------------------

    def _expect_body(self) -> None:
        """From now on the octets are those of a body."""
        self._discarded = 0
        self.read_state = _BODY
        if self.conn.buffer:
            data, self.conn.buffer = self.conn.buffer, b""
            self._received_body(data)

    def _received_body(self, data: bytes) -> None:
        cycle = self.cycle
        assert cycle is not None
        if cycle.answered and not cycle.persistent:
            return  # the last answer is on its way: nothing wrong behind it may cut that short
        incoming = cycle.incoming
        assert isinstance(incoming, BodyStream)
        try:
            incoming.feed(data)
        except ProtocolError as error:
            self._broken_body(error)
            return
        if incoming.done:
            self.conn.buffer = incoming.rest
            self.read_state = _BUSY
        if cycle.answered:
            self._discard(cycle, incoming)
            return
        if not incoming.done and incoming.buffered > _MOST_HELD and self.reading:
            self.pause_reading()
            incoming.pause()
        cycle.wake()

    def body_wanted(self) -> None:
        """The application has taken what there was of a body."""
        if self.read_state is _BODY and not self.reading:
            assert self.cycle is not None
            assert isinstance(self.cycle.incoming, BodyStream)
            self.cycle.incoming.resume()
            self.resume_reading()

    def _discard(self, cycle: Cycle, incoming: BodyStream) -> None:
        """The answer is given, and its request still comes."""
        self._discarded += len(incoming.take())
        if self.conn.send_buffer is not None:
            return  # the client has not read it all, and may do so only when it has sent its own
        if incoming.done:
            self._next(cycle)
        elif self._discarded > MOST_DISCARDED:
            self._linger()

    def _broken_body(self, error: ProtocolError) -> None:
        """The client broke the framing of its body, or a limit; its application hears no more."""
        cycle = self.cycle
        assert cycle is not None
        if cycle.headers_sent:
            self.conn.abort_with_reset()
            self.lost(error.message)
        else:
            cycle.answered = True  # its own answer would end the lingering of this one
            cycle.disconnect()
            self.refuse(error.status, error.message)


def gone(fd: int) -> bool:
    """Whether the client of a connection that is not read from has closed it."""
    import select

    events = getattr(select, "POLLRDHUP", 0)
    if not events:
        return False
    poll = select.poll()
    poll.register(fd, events)
    return bool(poll.poll(0))
