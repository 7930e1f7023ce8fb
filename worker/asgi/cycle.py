"""One request and its answer, as an ASGI application has them: `receive` and `send`."""

from __future__ import annotations

import asyncio
import logging
import os
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from ..errors import ClientDisconnected, InvalidResponseError, is_about_the_client
from ..messages import FileBody, Response
from ..request_id import named
from .request_stream import MOST_DISCARDED, BodyStream

if TYPE_CHECKING:
    from typing import BinaryIO

    from ..messages import ASGIApp, RequestReceived
    from .http1 import HTTP1Connection
    from .writer import LoopStream

log = logging.getLogger("threadwell")

Message = Any

# How much of a body that a thread has put into a file is given at once.
_FILE_BLOCK = 65536
# How many blocks may leave one after the other before other connections get a turn.
_SENDS_A_TURN = 32
# How often an application that was told that nobody reads may send on.
_MOST_SENDS_TO_NOBODY = 100

_TEXT = (b"content-type", b"text/plain; charset=utf-8")
# The constructor of a named tuple, without the Python function around it.
_new = tuple.__new__


class ResponseState(IntEnum):
    """How far the answer is."""

    NEW = 0
    STARTED = 1  # status and headers are known, and not sent
    STREAMING = 2  # the head is sent, and a part of the body
    TRAILERS = 3  # the body is sent
    DONE = 4


_NEW, _STARTED, _STREAMING, _DONE = (
    ResponseState.NEW,
    ResponseState.STARTED,
    ResponseState.STREAMING,
    ResponseState.DONE,
)


class Cycle:
    """A request under way. Belongs to its loop.

    The connection may be at its next request already while the application still runs: an answer
    is complete when its last message was sent, and not when the application returns.
    """

    __slots__ = (
        "_body_given",
        "_drained",
        "_flushing",
        "_headers",
        "_receivers",
        "_sends",
        "_state",
        "_status",
        "_stream",
        "_told",
        "_trailers",
        "answered",
        "disconnected",
        "expects",
        "head",
        "incoming",
        "transport",
        "persistent",
        "task",
    )

    def __init__(self, transport: HTTP1Connection, head: RequestReceived) -> None:
        self.transport = transport
        self.head = head
        self.persistent = True
        #: The body: on its way, or whole in memory or a file; None without one.
        self.incoming: BodyStream | bytes | BinaryIO | None = None
        #: The client waits for 100 before it sends its body.
        self.expects = False
        #: Nothing more of the answer is to come.
        self.answered = False
        self.disconnected = False
        self.task: asyncio.Task[None] | None = None
        self._state: ResponseState = _NEW
        self._status = 0
        self._headers: list[Any] = []
        self._stream: LoopStream | None = None
        self._body_given = False
        self._receivers: list[asyncio.Future[None]] | None = None
        self._told = False
        self._drained = False
        #: What will follow the body; None where nothing may.
        self._trailers: list[Any] | None = None
        self._sends = 0
        #: `_flush` is to be called.
        self._flushing = False

    @property
    def headers_sent(self) -> bool:
        """Whether something of the answer is sent."""
        return self._state > _STARTED

    # ---- The application's call -----------------------------------------------------------

    async def run(self, app: ASGIApp, scope: dict[str, Any]) -> None:
        """Call the application, once. Nothing that it raises escapes."""
        try:
            await app(scope, self.receive, self.send)
            if self._state is not _DONE:
                self._unfinished()
        except BaseException as error:
            # SystemExit too costs a request, and not the loop
            self._failed(error)
        finally:
            if self._receivers:
                self.wake()
            if self.task is not None:
                self.transport.worker.call_over(self)
            if self.incoming is not None and not isinstance(self.incoming, (BodyStream, bytes)):
                self.incoming.close()

    def _unfinished(self) -> None:
        transport = self.transport
        if transport.closed or self.answered:
            return
        if self._drained and self._state is _STREAMING and self._is_event_stream():
            # it was asked to end, and such a stream has no other end
            self._finish()
        elif self.disconnected and self.headers_sent:
            transport.lost("closed by the client")
        else:
            log.error("The application left %s without an answer", named(self.head))
            self._fail()

    def _failed(self, error: BaseException) -> None:
        transport = self.transport
        if isinstance(error, asyncio.CancelledError) and transport.worker.cancelling:
            pass
        elif is_about_the_client(error):
            log.debug("%s: the client left", named(self.head))
        else:
            log.error("The application failed on %s", named(self.head), exc_info=error)
        if not transport.closed and not self.answered:
            self._fail()

    def _fail(self) -> None:
        """Answer for the application, or make it visible that its answer is not whole."""
        if self.headers_sent:
            self._flush()  # what came before the failure
            self.transport.conn.abort_with_reset()
            self.transport.close("the application failed")
            return
        self.answer_for_the_server(500, b"Internal Server Error\n")

    def answer_for_the_server(self, status: int, body: bytes) -> None:
        """Give an answer that is not the application's."""
        self._status = status
        self._headers = [_TEXT]
        self._answer(body)

    def returned(self) -> None:
        """The application has ended that was to give the answer by `send` alone."""
        if self._state is not _DONE:
            self._unfinished()

    # ---- receive --------------------------------------------------------------------------

    async def receive(self) -> Message:
        """See the ASGI specification; may be called by several tasks at once."""
        if not self._body_given and not self.answered:
            incoming = self.incoming
            if incoming is None:
                self._body_given = True
                return {"type": "http.request", "body": b"", "more_body": False}
            message = await self._receive_body(incoming)
            if message is not None:
                return message
        while not self.disconnected and not self.answered:
            await self._changed()
        self._told = True
        return {"type": "http.disconnect"}

    async def _receive_body(self, incoming: BodyStream | bytes | BinaryIO) -> Message | None:
        """The next part of the body; None when none will come any more."""
        if isinstance(incoming, bytes):
            self._body_given = True
            return {"type": "http.request", "body": incoming, "more_body": False}
        if not isinstance(incoming, BodyStream):
            await asyncio.sleep(0)  # a whole file at one go would keep the loop from the others
            data = incoming.read(_FILE_BLOCK)
            self._body_given = len(data) < _FILE_BLOCK
            return {"type": "http.request", "body": data, "more_body": not self._body_given}
        while not self.answered and not self._body_given:
            if incoming.done or (incoming.buffered and not self.disconnected):
                data = incoming.take()
                self._body_given = incoming.done
                if not incoming.done:
                    self.transport.body_wanted()
                return {"type": "http.request", "body": data, "more_body": not incoming.done}
            if self.disconnected:
                break
            self._continue()
            await self._changed()
        return None

    def _continue(self) -> None:
        """Send 100 to a client that waits for it (RFC 9110, 10.1.1)."""
        if self.expects and not self.headers_sent:
            self.expects = False
            self._inform(100, ())

    async def _changed(self) -> None:
        receiver: asyncio.Future[None] = self.transport.worker.loop.create_future()
        if self._receivers is None:
            self._receivers = []
        self._receivers.append(receiver)
        try:
            await receiver
        finally:
            if self._receivers and receiver in self._receivers:
                self._receivers.remove(receiver)

    def wake(self) -> None:
        """Let whoever waits in `receive` look again."""
        receivers, self._receivers = self._receivers, None
        for receiver in receivers or ():
            if not receiver.done():
                receiver.set_result(None)
                self._told = self._told or self.disconnected

    def disconnect(self, *, gone: bool = False) -> None:  # noqa: ARG002
        """The client has closed, or nothing more can be sent to it."""
        self.disconnected = True
        self._sends = 0
        self.wake()

    def drain(self) -> None:
        """The server stops: what has no end of its own is asked to end."""
        if self._state is _STREAMING and self._is_event_stream():
            self.ask_to_end()

    def ask_to_end(self) -> None:
        """Tell the application that the client left, because it has to soon."""
        self._drained = True
        self.disconnect()

    def _is_event_stream(self) -> bool:
        return any(
            bytes(name).lower() == b"content-type" and bytes(value).startswith(b"text/event-stream")
            for name, value in self._headers
        )

    # ---- send -----------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """See the ASGI specification. Raises `RuntimeError` for messages in a wrong order,
        `InvalidResponseError` for what must not go on the wire, `ClientDisconnected` for a stream
        that nobody reads, where the application does not learn it from `receive`."""
        kind = message["type"]
        state = self._state
        if kind == "http.response.body" and (state is _STARTED or state is _STREAMING):
            body = message.get("body", b"")
            if type(body) is not bytes:
                body = _as_bytes(body)
            more = message.get("more_body", False)
            if state is _STARTED and not more and self._trailers is None:
                self._answer(body)
            elif more and body and state is _STREAMING and self._push(body):
                if self.transport.conn.send_buffer is not None:
                    await self._wait_for_client(more)
            else:
                await self._send_block(body, more)
        elif kind == "http.response.start" and state is _NEW:
            self._start(message)
        elif kind == "http.response.pathsend" and state is _STARTED and self._trailers is None:
            self._answer(_file_body(message["path"]))
        elif kind == "http.response.trailers" and state is ResponseState.TRAILERS:
            self._send_trailers(message)
        elif kind == "http.response.early_hint" and state is _NEW:
            self._inform(103, [("Link", _text(link)) for link in message["links"]])
        else:
            raise RuntimeError(f"{kind!r} cannot be sent when the answer is {state.name.lower()}")

    def _start(self, message: Message) -> None:
        status = message["status"]
        if not isinstance(status, int) or not 200 <= status <= 999:
            raise InvalidResponseError(f"{status!r} is not the status of a final response")
        self._status = int(status)
        self._headers = list(message.get("headers", ()))
        if message.get("trailers"):
            # they need chunks, which a length would rule out
            self._trailers = []
            self._headers = [
                pair for pair in self._headers if bytes(pair[0]).lower() != b"content-length"
            ]
        self._state = _STARTED

    def _persists(self) -> bool:
        if not self.persistent or self.transport.worker.draining:
            return False
        incoming = self.incoming
        if isinstance(incoming, BodyStream) and not incoming.done:
            # more than would be read for nothing: the answer says that it is the last
            return not self.expects and incoming.missing <= MOST_DISCARDED
        return True

    def _answer(self, body: bytes | FileBody) -> None:
        """Send an answer that is whole. Raises `InvalidResponseError`."""
        transport = self.transport
        if transport.closed or self.answered:
            if isinstance(body, FileBody):
                os.close(body.fd)
            self._state = _DONE
            self.answered = True
            return
        conn = transport.conn
        worker = transport.worker
        response = _new(Response, (self._status, self._headers, body, None, None))
        if self.incoming is not None or worker.draining:
            self.persistent = self._persists()
        try:
            self.persistent = transport.writer.answer(conn, self.head, response, self.persistent)
        except ClientDisconnected as error:
            self._state = _DONE
            self.answered = True
            transport.lost(str(error))
            return
        self._state = _DONE
        self.answered = True
        if self._receivers:
            self.wake()
        if conn.record is not None:
            conn.record.note(self.head, response)
        transport.answered(self)

    async def _send_block(self, body: bytes, more: bool) -> None:
        transport = self.transport
        if transport.closed or self.answered:
            await self._send_to_nobody(more)
            return
        try:
            stream = self._stream or self._open()
            bodiless = self.head.method == "HEAD" or self._status in (204, 304)
            if not more and not bodiless and self._trailers is None:
                stream.finish_with_last(body)
                self._state = _DONE
                self._complete(stream)
                return
            if body:
                stream.write(body)
            if more or bodiless:
                stream.open()
        except ClientDisconnected as error:
            transport.lost(str(error))
            await self._send_to_nobody(more)
            return
        if bodiless:
            self._complete(stream)  # from here on the connection may be another's
            await self._send_to_nobody(more)
            return
        if not more:
            self._state = ResponseState.TRAILERS
        if transport.conn.send_buffer is not None:
            await self._wait_for_client(more)
        self._sends += 1
        if self._sends % _SENDS_A_TURN == 0:
            await asyncio.sleep(0)

    def _push(self, body: bytes) -> bool:
        """The short way of `_send_block`; False where that must be gone."""
        stream, transport = self._stream, self.transport
        if stream is None or transport.closed or (self._sends + 1) % _SENDS_A_TURN == 0:
            return False
        try:
            if not stream.push(body):
                return False
        except ClientDisconnected as error:
            transport.lost(str(error))
            return False
        self._sends += 1
        if not self._flushing and stream.holds:
            self._flushing = True
            transport.worker.loop.call_soon(self._flush)
        return True

    def _flush(self) -> None:
        """Send what the stream has held, since the application does something else now."""
        self._flushing = False
        stream, transport = self._stream, self.transport
        if stream is None or not stream.holds or transport.closed:
            return
        try:
            stream.flush()
        except ClientDisconnected as error:
            transport.lost(str(error))
            return
        if transport.conn.send_buffer is not None:
            transport.wait_for_room()

    async def _wait_for_client(self, more: bool) -> None:
        try:
            await self.transport.drained()
        except ClientDisconnected:
            await self._send_to_nobody(more)

    def _open(self) -> LoopStream:
        transport = self.transport
        self.persistent = self._persists()
        response = Response(self._status, self._headers)
        self._stream = transport.writer.stream(transport.conn, self.head, response, self.persistent)
        self._state = _STREAMING
        if transport.conn.record is not None:
            transport.conn.record.status = self._status
        if transport.worker.draining and self._is_event_stream():
            self.ask_to_end()
        return self._stream

    def _finish(self) -> None:
        """End a stream, with its trailers if there are to be any."""
        stream = self._stream
        assert stream is not None
        try:
            if self._trailers is None:
                stream.finish()
            else:
                stream.finish_with_trailers(self._trailers)
        except ClientDisconnected as error:
            self._state = _DONE
            self.transport.lost(str(error))
            return
        self._state = _DONE
        self._complete(stream)

    def _complete(self, stream: LoopStream) -> None:
        self.answered = True
        self._sends = 0
        if self._receivers:
            self.wake()
        self.persistent = stream.persistent
        if self.transport.conn.record is not None:
            self.transport.conn.record.body_bytes = stream.sent
        self.transport.answered(self)

    def _send_trailers(self, message: Message) -> None:
        assert self._trailers is not None
        self._trailers += message.get("headers", ())
        if message.get("more_trailers", False):
            return
        if self.transport.closed or self.answered or self._stream is None:
            self._state = _DONE
        else:
            self._finish()

    async def _send_to_nobody(self, more: bool) -> None:
        """The client has left, or wants no body. Whoever listens is told by `receive`, and whoever
        does not, here: at once, and behind HEAD, 204 and 304 when there is no end to it."""
        if not more:
            self._state = _DONE if self._trailers is None else ResponseState.TRAILERS
            return
        self._state = _STREAMING
        self._sends += 1
        patient = self.answered or self._told or self._receivers
        if self._sends > _MOST_SENDS_TO_NOBODY or not patient:
            raise ClientDisconnected("nobody reads the rest of the answer")
        await asyncio.sleep(0)

    def _inform(self, status: int, headers: list[tuple[str, str]] | tuple[()]) -> None:
        transport = self.transport
        if (
            self.head.version != "1.0"
            and not transport.closed
            and transport.conn.send_buffer is None
        ):
            try:
                transport.writer.interim(transport.conn, status, headers)
            except ClientDisconnected as error:
                transport.lost(str(error))


def _as_bytes(body: Any) -> bytes:
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    raise TypeError(f"a body is made of bytes, not {type(body).__name__}")


def _text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def _file_body(path: str | os.PathLike[str]) -> FileBody:
    """The file at `path`. Raises `OSError`."""
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
    return FileBody(fd, 0, os.fstat(fd).st_size)
