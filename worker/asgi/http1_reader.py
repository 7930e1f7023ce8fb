"""The input side of an HTTP/1.1 connection on a loop: from octets to request heads and bodies."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import ProtocolError
from ..http1.budgets import LONGEST_REPEATED_HEAD
from ..http1.head_buffer import HeadBuffer
from ..messages import RequestReceived
from ..tls.wrong_port import WITH_TLS
from .request_stream import MOST_DISCARDED, BodyStream
from .states import READ_STATE_NAMES, READ_TRANSITIONS, ReadState, checked

if TYPE_CHECKING:
    from ..config import ServerConfig
    from ..connection import Connection
    from ..http1.parser import RequestParser
    from ..tls.wrong_port import WrongPort


class HTTP1Reader:
    """Reads the requests of one connection. Belongs to the loop's thread.

    It takes heads from the connection's buffer and passes octets on to bodies. What a request leads
    to is decided by its owner, the HTTP1Connection.
    """

    __slots__ = ("_conn", "_discarded", "_parser", "_wrong_port", "eof", "state")

    def __init__(self, conn: Connection, parser: RequestParser, wrong_port: WrongPort) -> None:
        self._conn = conn
        self._parser = parser
        self._wrong_port = wrong_port
        #: Changed by `become`; and directly, to save the look-up that every request would pay for,
        #: where the state before is known: READY to BUSY and back, BUSY to BODY and back.
        self.state = ReadState.READY
        #: The client has sent an end of input.
        self.eof = False
        #: Octets that were discarded of the body under way.
        self._discarded = 0

    def become(self, state: ReadState) -> None:
        """Move to `state`. Raises `IllegalTransition` where the table has no such step."""
        self.state = checked(READ_TRANSITIONS, self.state, state)

    def waits_for_request(self) -> bool:
        """Whether no octet of the next request has come."""
        return self.state is ReadState.READY and not (self._conn.buffer or self._conn.head_buffer)

    def state_name(self) -> str:
        """The name of the state in metrics. Any thread may call."""
        state = self.state  # read once: the loop may change it meanwhile
        if state is ReadState.READY:
            return "head" if self._conn.buffer or self._conn.head_buffer else "idle"
        return READ_STATE_NAMES[state]

    def head_of(self, data: bytes) -> RequestReceived | None:
        """The head that `data` begins with, where nothing has come before; what follows it is then
        the buffer. None, and all of it is the buffer, if `next_head` must see more.

        Raises `ProtocolError`.
        """
        conn = self._conn
        if data == conn.repeated and conn.repeated_head is not None:
            # a client that polls sends the same octets each time
            conn.buffer = b""
            return conn.repeated_head
        raw_head, end, rest = data.partition(b"\r\n\r\n")
        if not end or not raw_head:
            conn.buffer = data
            return None
        head = self._parser.parse(raw_head)
        conn.buffer = rest
        conn.head_deadline = 0.0
        if head.is_simple and not rest and len(data) <= LONGEST_REPEATED_HEAD:
            conn.repeated = data
            conn.repeated_head = head
        return head

    def next_head(self) -> RequestReceived | None:
        """Take the head that the buffer begins with; None while it is not complete.

        Raises `ProtocolError`.
        """
        conn = self._conn
        if conn.head_buffer is None:
            head = self.head_of(conn.buffer)
            if head is not None:
                return head
        return self._next_head_in_pieces()

    def _next_head_in_pieces(self) -> RequestReceived | None:
        """`next_head` for a head that did not come in one piece, or has empty lines before it."""
        conn = self._conn
        pieces = conn.head_buffer
        if pieces is None:
            pieces = conn.head_buffer = HeadBuffer(conn.buffer)
        else:
            assert isinstance(pieces, HeadBuffer)
            pieces.append(conn.buffer)
        conn.buffer = b""
        try:
            whole = pieces.take(self._parser)
            if whole is None:
                return None
            raw_head, conn.buffer = whole
            conn.head_buffer = None
            conn.head_deadline = 0.0
            return self._parser.parse(raw_head)
        except ProtocolError as error:
            if pieces.began_handshake():
                self._wrong_port.with_tls(conn.peer, conn.server)
                raise ProtocolError(error.status, WITH_TLS) from error
            raise

    def body(self, head: RequestReceived, config: ServerConfig) -> bytes | BodyStream:
        """The body of `head`: taken from the buffer if all of it is here, else to be received.

        Raises `ProtocolError`.
        """
        length, buffer = head.content_length, self._conn.buffer
        if length is None or len(buffer) < length or length > config.limits.body:
            return BodyStream(head, config)
        self._conn.buffer = buffer[length:]
        return buffer[:length]

    def expect_body(self) -> bytes:
        """The next octets are those of a body. Returns the octets of it that are here already."""
        self._discarded = 0
        self.state = ReadState.BODY
        data, self._conn.buffer = self._conn.buffer, b""
        return data

    def feed(self, body: BodyStream, data: bytes) -> None:
        """Pass `data` on to `body`. Octets behind the end of the body go back to the buffer.

        Raises `ProtocolError`.
        """
        body.feed(data)
        if body.done:
            self._conn.buffer = body.rest
            self.state = ReadState.BUSY

    def discard(self, body: BodyStream) -> None:
        """Drop what has come of `body`, whose request has its response."""
        self._discarded += len(body.take())

    def has_discarded_enough(self) -> bool:
        """Whether the rest of a body is not worth the connection that would carry it."""
        return self._discarded > MOST_DISCARDED
