"""One request and its response, as an ASGI application sees them: `receive` and `send`."""

from __future__ import annotations

import asyncio
import logging
import os
from typing import TYPE_CHECKING, Any

from ..errors import ClientDisconnected, InvalidResponseError, is_client_disconnect
from ..http.framing import STATUSES_WITHOUT_BODY
from ..http.mistakes import log_failed_call, log_missing_answer
from ..messages import FileBody, Response
from ..request_id import named
from .receiving import Receiving
from .request_stream import MOST_DISCARDED, BodyStream
from .states import RESPONSE_TRANSITIONS, Pushed, ResponseState, checked
from .writer import as_bytes, file_body, is_event_stream, latin_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..messages import Address, ASGIApp, RequestReceived
    from .interfaces import CycleTransport, Message, ResponseStream

log = logging.getLogger("threadwell")

# How many blocks are sent without a break before other connections get a turn.
_SENDS_A_TURN = 32
# How many blocks an application may send after it was told that the client has left.
_MOST_DISCARDED_BLOCKS = 100
# How many empty blocks an application may send on end after that, for a client that has only ended
# its sending side.
_MOST_EMPTY_BLOCKS = 10

_TEXT = (b"content-type", b"text/plain; charset=utf-8")


_NEW, _STARTED = ResponseState.NEW, ResponseState.STARTED
_STREAMING, _DONE = ResponseState.STREAMING, ResponseState.DONE
_PUSHED, _HELD = Pushed.DONE, Pushed.HELD


class Cycle(Receiving):
    """A request under way. Belongs to its loop.

    A response is complete when its last message was sent, and not when the application returns: the
    connection may serve its next request while the application still runs.
    """

    #: Of the response: set when it begins.
    _status: int
    _headers: list[Any]
    #: `_flush` is scheduled. Set with `_stream`.
    _flushing: bool
    #: How many empty blocks came since the client has left, and how much was sent before them.
    _empty: int
    _sent: int

    __slots__ = (
        "_drained", "_empty", "_flushing", "_headers", "_push", "_sends", "_sent", "_state",
        "_status", "_stream", "_trailers", "head", "persistent", "starting", "task", "transport",
    )  # fmt: skip

    def __init__(
        self, transport: CycleTransport[Cycle], head: RequestReceived, persistent: bool = True
    ) -> None:
        self.transport = transport
        self.head = head
        self.persistent = persistent
        self.incoming = None
        self.expects = False
        self.answered = False
        self.disconnected = False
        self.task: asyncio.Task[None] | None = None
        #: The first step of the call runs, and `first_step_over` will be called.
        self.starting = False
        #: Changed by `_become`; and directly, to save the look-up that every request would pay for,
        #: in `_start`, `_answer`, `_open` and `_send_block`, which know the state before.
        self._state: ResponseState = _NEW
        self._stream: ResponseStream | None = None
        #: The fast way for a block that follows another; None while `_send_block` must be called,
        #: or no block can be sent.
        self._push: Callable[[bytes], Pushed] | None = None
        self._body_given = False
        self._receivers = None
        self._was_told = False
        #: The application was asked to end, because the server stops.
        self._drained = False
        #: The trailers; None where the application did not announce any.
        self._trailers: list[Any] | None = None
        self._sends = 0

    @property
    def headers_sent(self) -> bool:
        """Whether something of the response is sent."""
        return self._state > _STARTED

    @property
    def source(self) -> tuple[Address, str, float]:
        return self.transport.source

    @property
    def progress(self) -> tuple[str, int]:
        state = "answered" if self.answered else "streaming" if self.headers_sent else "running"
        return state, 0 if self._stream is None else self._stream.sent

    def _become(self, state: ResponseState) -> None:
        """Move to `state`. Raises `IllegalTransition` where the table has no such step."""
        self._state = checked(RESPONSE_TRANSITIONS, self._state, state)

    # ---- The application's call -----------------------------------------------------------

    async def run(self, app: ASGIApp, scope: dict[str, Any]) -> None:
        """Call the application, once. An exception of the application does not leave `run`."""
        try:
            await app(scope, self.receive, self.send)
            if self._state is not _DONE:
                self._handle_missing_end()
        except BaseException as error:
            # even SystemExit fails one request and not the loop
            self._handle_exception(error, app)
        finally:
            if self._receivers:
                self.wake_receivers()
            if self.task is not None:
                self.transport.worker.call_over(self)
            if self.incoming is not None and not isinstance(self.incoming, (BodyStream, bytes)):
                self.incoming.close()

    def _handle_missing_end(self) -> None:
        """The application has returned before its response was complete."""
        transport = self.transport
        if transport.closed or self.answered:
            return
        if self._drained and self._state is _STREAMING and is_event_stream(self._headers):
            # the application was asked to end, and an event stream has no other end
            self._finish()
        elif self.disconnected and self.headers_sent:
            transport.lost("closed by the client")
        else:
            log_missing_answer(transport.worker.app, self.head)
            self._fail()

    def _handle_exception(self, error: BaseException, app: ASGIApp) -> None:
        transport = self.transport
        if isinstance(error, asyncio.CancelledError) and transport.worker.is_cancelled():
            pass
        elif is_client_disconnect(error):
            log.debug("%s: the client left", named(self.head))
        else:
            log_failed_call(app, self.head, error)
        if not transport.closed and not self.answered:
            self._fail()

    def _fail(self) -> None:
        """Answer 500, or let the client see that the response is not complete."""
        if self.headers_sent:
            self._flush()  # the blocks from before the failure
            self.transport.conn.abort_with_reset()
            self.transport.close("the application failed")
            return
        if self.transport.worker.tracking.has_timed_out():
            self.answer_for_the_server(503, b"Service Unavailable\n")
        else:
            self.answer_for_the_server(500, b"Internal Server Error\n")

    def answer_for_the_server(self, status: int, body: bytes) -> None:
        """Send a response that is not the application's."""
        self._status = status
        self._headers = [_TEXT]
        self._answer(body)

    def application_returned(self) -> None:
        """The application has returned. For a cycle that does not `run` the call itself."""
        if self._state is not _DONE:
            self._handle_missing_end()

    # ---- The client leaves, the server stops ----------------------------------------------

    def disconnect(self) -> None:
        """The client has left: the application learns it by `receive`."""
        self.disconnected = True
        self._push = None
        self._sends = self._empty = self._sent = 0
        self.wake_receivers()

    def drain(self) -> None:
        """The server stops: ask an event stream, which would never end, to end."""
        if self._state is _STREAMING and is_event_stream(self._headers):
            self.ask_to_end()

    def ask_to_end(self) -> None:
        """Tell the application that the client left, because the server stops soon."""
        self._drained = True
        self.disconnect()

    # ---- send -----------------------------------------------------------------------------

    async def send(self, message: Message) -> None:
        """See the ASGI specification.

        Raises `RuntimeError` for messages in a wrong order, `InvalidResponseError` for what must
        not go on the wire, and `ClientDisconnected` for a stream whose client has left, if the
        application does not learn it from `receive`.
        """
        kind = message["type"]
        if kind != "http.response.body":
            if kind == "http.response.start" and self._state is _NEW:
                self._start(message)
            else:
                self._send_other(kind, message)
            return
        try:
            body = message["body"]
        except KeyError:  # which is rare, and `get` would cost each block more
            body = b""
        if type(body) is not bytes:
            body = as_bytes(body)
        more = message.get("more_body")
        push = self._push
        if push is not None and more and body:
            try:
                pushed = push(body)
            except ClientDisconnected as error:
                self.transport.lost(str(error))
                pushed = Pushed.REFUSED
            if pushed is not _PUSHED and not (pushed is _HELD and self.starting):
                await self._follow(body, pushed)
            return
        state = self._state
        if (
            state is _STARTED
            and not more
            and self._trailers is None
            # nothing after HEAD does not say how long the answer to GET is (RFC 9110, 8.6)
            and (body or self.head.method != "HEAD")
        ):
            self._answer(body)
        elif state is _STREAMING or state is _STARTED:
            sent = self._send_block(body, bool(more))
            if sent is not _PUSHED:
                await self._follow_block(sent, bool(more))
        else:
            self._send_other(kind, message)

    def _send_other(self, kind: str, message: Message) -> None:
        """`send` for what is no block of a body, or comes in a wrong order."""
        state = self._state
        if kind == "http.response.pathsend" and state is _STARTED and self._trailers is None:
            self._answer(file_body(message["path"]))
        elif kind == "http.response.trailers" and state is ResponseState.TRAILERS:
            self._send_trailers(message)
        elif kind == "http.response.early_hint" and state is _NEW:
            self._send_interim(103, [("Link", latin_text(link)) for link in message["links"]])
        else:
            raise RuntimeError(f"{kind!r} cannot be sent when the answer is {state.name.lower()}")

    def _start(self, message: Message) -> None:
        status = message["status"]
        if not isinstance(status, int) or not 200 <= status <= 999:
            raise InvalidResponseError(f"{status!r} is not the status of a final response")
        self._status = status if type(status) is int else int(status)
        self._headers = list(message.get("headers", ()))
        if message.get("trailers"):
            # trailers need the chunked coding, which a Content-Length rules out
            self._trailers = []
            self._headers = [
                pair for pair in self._headers if bytes(pair[0]).lower() != b"content-length"
            ]
        self._state = _STARTED  # from NEW: `send` has checked it

    def _persists(self) -> bool:
        if not self.persistent or self.transport.worker.draining:
            return False
        incoming = self.incoming
        if isinstance(incoming, BodyStream) and not incoming.done:
            # a longer body is not worth reading: the response says that it is the last
            return not self.expects and incoming.missing <= MOST_DISCARDED
        return True

    def _answer(self, body: bytes | FileBody) -> None:
        """Send a complete response. Raises `InvalidResponseError`."""
        # Direct steps to DONE: from NEW for the server, from STARTED for the application.
        transport = self.transport
        if transport.closed or self.answered:
            if isinstance(body, FileBody):
                os.close(body.fd)
            self._state = _DONE
            self.answered = True
            return
        conn = transport.conn
        if self.incoming is not None or transport.worker.draining:
            self.persistent = self._persists()
        try:
            self.persistent = transport.writer.answer(
                conn, self.head, self._status, self._headers, body, self.persistent
            )
        except ClientDisconnected as error:
            self._state = _DONE
            self.answered = True
            transport.lost(str(error))
            return
        self._state = _DONE
        self.answered = True
        if self._receivers:
            self.wake_receivers()
        if transport.worker.collector is not None:
            transport.note(self, Response(self._status, self._headers, body))
        transport.answered(self)

    def _send_block(self, body: bytes, more: bool) -> Pushed:
        """Send a block. `_follow_block` must follow where the result is not DONE: nothing was sent
        (REFUSED), the client should read (FULL), or others should have a turn (TURN_OVER)."""
        transport = self.transport
        if transport.closed or self.answered:
            return Pushed.REFUSED
        if self.disconnected and more and not body and self._is_endless():
            return Pushed.REFUSED
        try:
            stream = self._stream or self._open()
            bodiless = self.head.method == "HEAD" or self._status in STATUSES_WITHOUT_BODY
            if not more and not bodiless and self._trailers is None:
                stream.finish_with_last(body)
                self._state = _DONE  # from STREAMING: `_open` was called
                self._complete(stream)
                return _PUSHED
            if body:
                stream.write(body)
            if more or bodiless:
                stream.open()
        except ClientDisconnected as error:
            transport.lost(str(error))
            return Pushed.REFUSED
        if bodiless:
            self._complete(stream)  # the connection may have another owner after this
            return Pushed.REFUSED
        if more:
            self._push = stream.push
        else:
            self._push = None
            self._become(ResponseState.TRAILERS)
        self._sends += 1
        if transport.conn.send_buffer is not None:
            return Pushed.FULL
        return Pushed.TURN_OVER if self._sends % _SENDS_A_TURN == 0 else _PUSHED

    async def _follow_block(self, sent: Pushed, more: bool) -> None:
        """Do what is left to do after `_send_block`."""
        if sent is Pushed.REFUSED:
            await self._discard_block(more)
            return
        if sent is Pushed.FULL:
            await self._wait_for_client(more)
        if self._sends % _SENDS_A_TURN == 0:
            await asyncio.sleep(0)

    async def _follow(self, body: bytes, pushed: Pushed) -> None:
        """Do what is left to do with a block that was pushed."""
        if pushed is Pushed.HELD:
            if not self._flushing:
                self._flushing = True
                self.transport.worker.loop.call_soon(self._flush)
        elif pushed is Pushed.FULL:
            await self._wait_for_client(True)
        else:
            sent = self._send_block(body, True)
            if sent is not _PUSHED:
                await self._follow_block(sent, True)
            if pushed is Pushed.TURN_OVER:
                await asyncio.sleep(0)

    def first_step_over(self) -> None:
        """The call waits, or has ended: send what the stream holds of its first step."""
        self.starting = False
        self._flush()

    def _flush(self) -> None:
        """Send what the stream holds: the application has sent all that it had at once."""
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
            await self._discard_block(more)

    def _open(self) -> ResponseStream:
        transport = self.transport
        if self.incoming is not None or transport.worker.draining:
            self.persistent = self._persists()
        self._stream = transport.writer.stream(
            transport.conn, self.head, self._status, self._headers, self.persistent
        )
        self._flushing = False
        self._state = _STREAMING  # from STARTED: `send` has checked it, and the client is there
        if transport.worker.collector is not None:
            transport.make_record()
        if (record := transport.conn.record) is not None:
            record.status, record.headers = self._status, self._headers
        if transport.worker.draining and is_event_stream(self._headers):
            self.ask_to_end()
        return self._stream

    def _finish(self) -> None:
        """End a stream, with its trailers if it has any."""
        stream = self._stream
        assert stream is not None
        try:
            if self._trailers is None:
                stream.finish()
            else:
                stream.finish_with_trailers(self._trailers)
        except ClientDisconnected as error:
            self._become(_DONE)
            self.transport.lost(str(error))
            return
        self._become(_DONE)
        self._complete(stream)

    def _complete(self, stream: ResponseStream) -> None:
        self.answered = True
        self._push = None
        self._sends = 0
        if self._receivers:
            self.wake_receivers()
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
            self._become(_DONE)
        else:
            self._finish()

    def _is_endless(self) -> bool:
        """Whether the application goes on with empty blocks after the client has left, none of
        which sends anything that could fail. Called for each of them."""
        sent = 0 if self._stream is None else self._stream.sent
        if sent != self._sent:
            self._sent, self._empty = sent, 0
        self._empty += 1
        return self._empty > _MOST_EMPTY_BLOCKS

    async def _discard_block(self, more: bool) -> None:
        """Take a block that is not sent: the client has left, or the response has no body.

        An application that calls `receive` learns there that the client has left. Any other gets
        `ClientDisconnected`: at once, or, behind the head of a response to HEAD, a 204, 205 or 304,
        after many blocks.
        """
        self._push = None
        if not more:
            self._become(_DONE if self._trailers is None else ResponseState.TRAILERS)
            return
        self._become(_STREAMING)
        self._sends += 1
        is_accepted = self.answered or self._was_told or self._receivers
        if self._sends > _MOST_DISCARDED_BLOCKS or not is_accepted:
            raise ClientDisconnected("the client does not read the rest of the answer")
        await asyncio.sleep(0)

    def _send_interim(self, status: int, headers: list[tuple[str, str]] | tuple[()]) -> None:
        transport = self.transport
        has_room = not transport.closed and transport.conn.send_buffer is None
        if self.head.version != "1.0" and has_room:
            try:
                transport.writer.interim(transport.conn, status, headers)
            except ClientDisconnected as error:
                transport.lost(str(error))
