"""A WebSocket (RFC 6455) and its ASGI messages. wsproto reads and writes the frames."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from wsproto import events
from wsproto.connection import Connection as Frames
from wsproto.connection import ConnectionState, ConnectionType
from wsproto.frame_protocol import CloseReason

from ..errors import ClientDisconnected, InvalidResponseError, is_client_disconnect
from ..http.response_head import TEXT_PLAIN
from ..messages import Response
from ..request_id import named
from .message_limit import TOO_BIG, MessageLimit
from .permessage_deflate import BoundedDeflate
from .states import SESSION_TRANSITIONS, SessionState, checked
from .websocket_handshake import agree, is_handshake_key

if TYPE_CHECKING:
    from ..messages import Address, ASGIApp, RequestReceived
    from .interfaces import DenialResponse, Message, WebSocketTransport

log = logging.getLogger("threadwell")

_VERSION = "13"
# How much a client may send before it is accepted.
_MOST_EARLY = 65536
# How many octets of messages may wait for the application, whatever their number.
_MOST_QUEUED = 1024 * 1024
# How many frames are handled, or messages sent, before other connections get a turn.
_FRAMES_A_TURN = 32
# Seconds for a client to answer a close.
_CLOSE_TIMEOUT = 2.0


class Session:
    """One WebSocket under way. Belongs to its loop."""

    def __init__(self, transport: WebSocketTransport, head: RequestReceived) -> None:
        config = transport.worker.config.asgi
        self.transport = transport
        self.head = head
        self.task: asyncio.Task[None] | None = None
        self._config = config
        self._state = SessionState.CONNECTING  # changed by `_become` only
        self._frames: Frames | None = None
        self._extensions: list[MessageLimit | BoundedDeflate] = []
        self._denial: DenialResponse | None = None
        self._queue: deque[tuple[Message, int]] = deque([({"type": "websocket.connect"}, 0)])
        self._queued = 0
        self._receivers: deque[asyncio.Future[None]] = deque()
        self._disconnect: Message | None = None
        self._closed_by_application = False
        # the fragments of a message as octets: a list of them would take many times the memory
        self._parts = bytearray()
        # more frames are handled after other connections had their turn
        self._is_pump_scheduled = False
        # the client broke the protocol: nothing more of it is handled
        self._is_failing = False
        self._sends = 0
        # the payload of the last ping, if its pong could not be sent yet
        self._pong: bytes | None = None
        self._ending = False
        self._next_ping = self._pong_by = self._close_by = 0.0

    @classmethod
    def open(cls, transport: WebSocketTransport, head: RequestReceived) -> None:
        """Begin a WebSocket, or refuse a handshake that is not valid (RFC 6455, 4.2.1)."""
        if transport.worker.draining:
            transport.refuse(503, "The server stops")
        elif head.field("sec-websocket-version") != _VERSION:
            # RFC 6455, 4.4: the answer has the version that is supported
            headers = [("Sec-WebSocket-Version", _VERSION), TEXT_PLAIN]
            body = b"This version of WebSockets is not spoken\n"
            transport.send_last(Response(426, headers, body))
        elif (
            not is_handshake_key(head.field("sec-websocket-key"))
            or head.content_length
            or head.chunked
        ):
            transport.refuse(400, "This is not a WebSocket handshake")
        else:
            session = cls(transport, head)
            transport.begin_session(session)
            scope = transport.scopes.websocket(head)
            transport.worker.begin(session, scope, request_id=transport.conn.request_id)

    @property
    def source(self) -> tuple[Address, str, float]:
        return self.transport.source

    @property
    def progress(self) -> tuple[str, int]:
        return "running" if self._state is SessionState.CONNECTING else "websocket", 0

    def _become(self, state: SessionState) -> None:
        """Move to `state`. Raises `IllegalTransition` where the table has no such step."""
        self._state = checked(SESSION_TRANSITIONS, self._state, state)

    # ---- The application's call -----------------------------------------------------------

    async def run(self, app: ASGIApp, scope: dict[str, Any]) -> None:
        """Call the application, once. An exception of the application does not leave `run`."""
        error: BaseException | None = None
        try:
            await app(scope, self.receive, self.send)
        except BaseException as raised:
            error = raised
        finally:
            try:
                self._returned(error)
            finally:
                if self.task is not None:
                    self.transport.worker.call_over(self)

    def _returned(self, error: BaseException | None) -> None:
        if isinstance(error, asyncio.CancelledError) and self.transport.worker.is_cancelled():
            pass
        elif error is not None and not is_client_disconnect(error):
            log.error(
                "The application failed on the WebSocket %s", named(self.head), exc_info=error
            )
        if self._state is SessionState.DENYING:
            assert self._denial is not None
            self._denial.application_returned()
        elif self._state is SessionState.CONNECTING:
            if error is None and not self.transport.closed:
                log.error(
                    "The application left the WebSocket %s without an answer", named(self.head)
                )
            self._deny(500, b"Internal Server Error\n")
        elif self._state is SessionState.OPEN:
            self._close(1000 if error is None else 1011, "")

    # ---- receive --------------------------------------------------------------------------

    async def receive(self) -> Message:
        """See the ASGI specification."""
        while not self._queue:
            if self._disconnect is not None:
                return self._disconnect.copy()
            receiver: asyncio.Future[None] = self.transport.worker.loop.create_future()
            self._receivers.append(receiver)
            try:
                await receiver
            finally:
                if receiver in self._receivers:
                    self._receivers.remove(receiver)
        message, size = self._queue.popleft()
        self._queued -= size
        if not self.transport.reading and self._state is SessionState.OPEN and not self._is_full():
            self._pump_later()
        return message

    def _enqueue(self, message: Message, size: int) -> None:
        self._queue.append((message, size))
        self._queued += size
        self._wake_receivers()

    def _wake_receivers(self) -> None:
        for receiver in self._receivers:
            if not receiver.done():
                receiver.set_result(None)

    def _is_full(self) -> bool:
        return len(self._queue) >= self._config.ws_queue or self._queued > _MOST_QUEUED

    # ---- send -----------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """See the ASGI specification. Raises `RuntimeError` for messages in a wrong order,
        `InvalidResponseError` for headers that must not go on the wire, and `ClientDisconnected`
        once the client has left."""
        kind = message["type"]
        state = self._state
        if kind == "websocket.send" and state is SessionState.OPEN:
            await self._send_message(message)
        elif kind == "websocket.close" and state is SessionState.OPEN:
            self._close(message.get("code", 1000) or 1000, message.get("reason") or "")
            self._closed_by_application = True
        elif kind == "websocket.accept" and state is SessionState.CONNECTING:
            self._accept(message)
        elif kind == "websocket.close" and state is SessionState.CONNECTING:
            self._deny(403, b"Forbidden\n")
        elif kind == "websocket.http.response.start" and state is SessionState.CONNECTING:
            denial = self._begin_denial()
            try:
                await denial.send({**message, "type": "http.response.start"})
            except BaseException:
                self._become(SessionState.CONNECTING)
                self.transport.begin_session(self)
                raise
        elif kind == "websocket.http.response.body" and state is SessionState.DENYING:
            assert self._denial is not None
            await self._denial.send({**message, "type": "http.response.body"})
            if not message.get("more_body", False):
                self._end_of_messages(1006, "")
        elif self._closed_by_application or not self._is_gone():
            raise RuntimeError(f"{kind!r} cannot be sent to a WebSocket that is {state.value}")
        elif kind != "websocket.close":
            raise ClientDisconnected("the client has left the WebSocket")

    def _is_gone(self) -> bool:
        return self._state in (SessionState.CLOSING, SessionState.CLOSED)

    async def _send_message(self, message: Message) -> None:
        data = message.get("bytes")
        if data is None:
            data = message.get("text")
        event: events.Message[Any]
        if isinstance(data, str):
            event = events.TextMessage(data)
        elif isinstance(data, (bytes, bytearray, memoryview)):
            event = events.BytesMessage(bytes(data))
        else:
            raise TypeError("a WebSocket message has bytes or text")
        if self.transport.conn.send_buffer is not None:
            await self.transport.drained()
        self._write(event)
        self._sends += 1
        if self.transport.conn.send_buffer is not None:
            await self.transport.drained()
        elif self._sends % _FRAMES_A_TURN == 0:
            await asyncio.sleep(0)

    def _write(self, event: events.Event) -> None:
        assert self._frames is not None
        self._send_frame(self._frames.send(event))

    def _send_frame(self, data: bytes) -> None:
        if self.transport.conn.record is not None:
            self.transport.conn.record.body_bytes += len(data)
        try:
            self.transport.write(data)
        except ClientDisconnected as error:
            self.transport.lost(str(error))
            raise

    # ---- Accepted or not ------------------------------------------------------------------

    def _accept(self, message: Message) -> None:
        transport, head = self.transport, self.head
        if transport.closed:
            raise ClientDisconnected("the client has left before it was accepted")
        fields, headers, extensions = agree(head, message, self._config)
        data = transport.worker.writer.switching(fields, headers)
        self._extensions = extensions
        self._frames = Frames(ConnectionType.SERVER, extensions)  # type: ignore[arg-type]
        self._become(SessionState.OPEN)
        if transport.conn.record is not None:
            transport.conn.record.status, transport.conn.record.headers = 101, headers
        self._next_ping = time.monotonic() + self._config.ws_ping
        try:
            transport.write(data)
        except ClientDisconnected as error:
            transport.lost(str(error))
            raise
        early, transport.conn.buffer = transport.conn.buffer, b""
        if early:
            self._feed(early)
        elif not transport.reading:
            transport.resume_reading()

    def _begin_denial(self) -> DenialResponse:
        self._become(SessionState.DENYING)
        self._denial = self.transport.begin_denial(self.head)
        return self._denial

    def _deny(self, status: int, body: bytes) -> None:
        if not self.transport.closed:
            self._begin_denial().answer_for_the_server(status, body)
        self._end_of_messages(1006, "")

    # ---- In -------------------------------------------------------------------------------

    def received(self, data: bytes) -> None:
        """Take octets from the client; none is the end of input."""
        if not data:
            self.transport.close("closed by the client")
        elif self._state is SessionState.CONNECTING:
            self.transport.conn.buffer += data
            if len(self.transport.conn.buffer) > _MOST_EARLY:
                self.transport.pause_reading()
        else:
            self._feed(data)

    def _feed(self, data: bytes) -> None:
        if self._state in (SessionState.OPEN, SessionState.CLOSING):
            assert self._frames is not None
            self._frames.receive_data(data)
            self._pump()

    def _pump(self) -> None:
        """Handle the frames that have come, while the application keeps up."""
        if self._is_pump_scheduled or self._is_failing:
            return
        assert self._frames is not None
        try:
            for count, event in enumerate(self._frames.events(), 1):
                self._handle_event(event)
                if self._state is SessionState.CLOSED or self._is_failing:
                    return
                if self._state is SessionState.OPEN and self._is_full():
                    self.transport.pause_reading()
                    return
                if count == _FRAMES_A_TURN:
                    self.transport.pause_reading()
                    self._pump_later()
                    return
        except ClientDisconnected:
            return
        if not self.transport.reading:
            self.transport.resume_reading()

    def _pump_later(self) -> None:
        """Call `_pump` after other connections had their turn."""
        if not self._is_pump_scheduled:
            self._is_pump_scheduled = True
            self.transport.worker.loop.call_soon(self._pump_again)

    def _pump_again(self) -> None:
        self._is_pump_scheduled = False
        if self._state is SessionState.CLOSING or (
            self._state is SessionState.OPEN and not self._is_full()
        ):
            self._pump()

    def _handle_event(self, event: events.Event) -> None:
        if isinstance(event, (events.TextMessage, events.BytesMessage)):
            if self._state is SessionState.OPEN:
                self._add_fragment(event)
        elif isinstance(event, events.Ping):
            if self.transport.conn.send_buffer is not None:
                # RFC 6455, 5.5.3: only the last one needs an answer
                self._pong = bytes(event.payload)
            elif self._state is SessionState.OPEN:
                self._write(event.response())
        elif isinstance(event, events.Pong):
            self._pong_by = 0.0
        elif isinstance(event, events.CloseConnection):
            assert self._frames is not None
            if self._frames.state in (ConnectionState.OPEN, ConnectionState.LOCAL_CLOSING):
                # not a close frame of the client: wsproto reports invalid frames like this
                failures = (each.failure for each in self._extensions if each.failure)
                self._fail_later(int(event.code), next(failures, event.reason or ""))
            else:
                self._closed_by_client(event)

    def _add_fragment(self, event: events.TextMessage | events.BytesMessage) -> None:
        data: Any = event.data
        kind, octets = ("text", data.encode()) if isinstance(data, str) else ("bytes", data)
        size = len(self._parts) + len(octets)
        if size > self._config.ws_message:
            self._fail_later(1009, TOO_BIG)
            return
        if not event.message_finished:
            self._parts += octets
            return
        if self._parts:
            parts, self._parts = self._parts, bytearray()
            parts += octets
            data = parts.decode() if kind == "text" else bytes(parts)
        self._enqueue({"type": "websocket.receive", kind: data}, size)

    # ---- The end --------------------------------------------------------------------------

    def _closed_by_client(self, event: events.CloseConnection) -> None:
        before = self._state
        self._become(SessionState.CLOSED)
        if before is SessionState.OPEN:
            self._end_of_messages(int(event.code), event.reason or "")
            try:
                self._write(event.response())
            except ClientDisconnected:
                return
        self._end_session()

    def _close(self, code: int, reason: str) -> None:
        """Begin the closing handshake. Raises `InvalidResponseError`."""
        assert self._frames is not None
        try:
            if not 1000 <= code <= 4999:  # RFC 6455, 7.4.2
                raise ValueError("not a close code")
            frame = self._frames.send(events.CloseConnection(code=code, reason=reason))
        except (AttributeError, TypeError, ValueError) as error:
            raise InvalidResponseError(f"close with {code!r} and {reason!r}: {error}") from error
        self._become(SessionState.CLOSING)
        self._end_of_messages(code, reason)
        self._close_by = time.monotonic() + _CLOSE_TIMEOUT
        self.transport.deadline = self._close_by
        try:
            self._send_frame(frame)
        except ClientDisconnected:
            return
        if not self.transport.reading:
            self._pump()

    def _fail_later(self, code: int, why: str) -> None:
        """`_fail`, once the application has had a turn for what came before in the same segment."""
        self._is_failing = True
        self.transport.pause_reading()
        self.transport.worker.loop.call_soon(self._fail, code, why)

    def _fail(self, code: int, why: str) -> None:
        """End a WebSocket whose client broke the protocol or a limit."""
        if self._state is SessionState.CLOSED:
            return
        log.info("A WebSocket was closed with %d: %s", code, why)
        was_open = self._state is SessionState.OPEN
        self._become(SessionState.CLOSED)
        self._end_of_messages(code, "")
        if was_open:
            try:
                self._write(events.CloseConnection(code=code, reason=None))
            except ClientDisconnected:
                return
        self._end_session()

    def _end_of_messages(self, code: int, reason: str) -> None:
        """Tell the application that no more messages come, after those that have come."""
        if self._disconnect is None:
            self._disconnect = {"type": "websocket.disconnect", "code": code, "reason": reason}
            self._parts = bytearray()
            self._wake_receivers()

    def _end_session(self) -> None:
        """Close the connection once everything is written. RFC 6455, 7.1.1: the server closes
        first."""
        if self.transport.closed:
            return
        if self.transport.conn.send_buffer is not None:
            self._ending = True
            return
        self.transport.end_session(self)

    def flushed(self) -> None:
        """What had to wait is written."""
        if self._ending:
            self._end_session()
        elif self._pong is not None and self._state is SessionState.OPEN:
            payload, self._pong = self._pong, None
            try:
                self._write(events.Pong(payload))
            except ClientDisconnected:
                pass

    def lost(self) -> None:
        """The connection is closed."""
        if self._state not in (SessionState.DENYING, SessionState.CLOSED):
            self._become(SessionState.CLOSED)
        self._end_of_messages(int(CloseReason.ABNORMAL_CLOSURE), "")

    def drain(self) -> None:
        """The server stops."""
        if self._state is SessionState.OPEN:
            self._close(int(CloseReason.SERVICE_RESTART), "the server stops")
        elif self._state is SessionState.CONNECTING:
            self._deny(503, b"The server stops\n")
            self._become(SessionState.CLOSED)

    def ask_to_end(self) -> None:
        """Nothing to do: `drain` has closed the WebSocket, and the application was told."""

    # ---- Time -----------------------------------------------------------------------------

    def check_deadline(self, now: float) -> None:
        """Send a ping that is due; end what has taken too long. Called about once a second."""
        if self._state is SessionState.CLOSING:
            if now >= self._close_by:
                self._become(SessionState.CLOSED)
                self._end_session()
        elif self._state is SessionState.OPEN and self._config.ws_ping and self.transport.reading:
            if self._pong_by:
                if now >= self._pong_by:
                    self._fail(1011, "the client does not answer pings")
            elif now >= self._next_ping:
                self._next_ping = now + self._config.ws_ping
                self._pong_by = now + self._config.ws_pong
                try:
                    self._write(events.Ping(b""))
                except ClientDisconnected:
                    pass
        elif self._state is SessionState.OPEN:
            self._pong_by = 0.0  # the pong may be in what is not read
