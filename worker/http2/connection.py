"""An HTTP/2 connection on an event loop. With `sending` and `framing` all that knows h2.

    HTTP2Line.on_readable     FrameMeter.admit, h2, then an event each
      _opened                 HeadReader.read; a Stream, its body to come or not
        hand_over             a SyncApp: an errand for the threads
        Stream.call           an ASGI application: a Cycle on this loop
    SendingLine.flush         what waits in the outboxes, as windows and kernel have room

An event or a frame that is not allowed ends the stream where it can, and else the connection.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

import h2.events
import h2.exceptions
from hyperframe.frame import GoAwayFrame

from ..asgi.connection import RECEIVED_AT_ONCE
from ..errors import ClientDisconnected, ProtocolError
from ..lifecycle import ClientGone, Refused
from .fair_queue import FairQueue
from .flood_guard import TooMuchError
from .h2_adapter import WINDOW
from .request_head import MalformedError, check_trailers
from .sender import SendingLine
from .stream import INTERNAL_ERROR, NO_ERROR, Stream
from .thread_task import HTTP2ThreadTask

if TYPE_CHECKING:
    from typing import BinaryIO

    from ..asgi.loop_worker import LoopWorker
    from ..connection import Connection, RequestSource
    from ..interfaces import OriginPool

log = logging.getLogger("threadwell")

# RFC 9113, 7.
_PROTOCOL_ERROR, _REFUSED = 0x1, 0x7
_LAST_STREAM = 2**31 - 1
_FAREWELL = b"farewell"

# Seconds for the client to say that it knows of the farewell.
_PATIENCE = 1.0


class HTTP2Connection(SendingLine):
    """A connection that has agreed on h2 in its handshake. Belongs to its loop.

    `origin_pool` has the threads that run a sync application; None where there is none.
    """

    __slots__ = (
        "_frame_deadline", "_frames_seen", "_leave_at", "_leaving", "_lingering", "_most",
        "_reader", "_unread", "origin_pool", "template", "fair_queue",
    )  # fmt: skip

    def __init__(
        self, worker: LoopWorker, conn: Connection, origin_pool: OriginPool | None = None
    ) -> None:
        super().__init__(worker, conn)
        tools = worker.http2()
        self.writer: Any = tools.writer
        self._reader = tools.reader
        self.origin_pool = origin_pool
        self.fair_queue = None if origin_pool is None else FairQueue(origin_pool.poller)
        #: What the scopes of all streams begin with, unless proxies say something else of each.
        self.template = self.template_of(conn)
        self._most = worker.config.http2.streams
        self._frames_seen = -1
        self._frame_deadline = 0.0
        self._unread = 0
        #: The client was told to open no more streams; and when it must have heard.
        self._leaving = False
        self._leave_at = 0.0
        self._lingering = False

    def start(self) -> None:
        """Say what is allowed here, and wait for the first request. The handshake is done."""
        self.deadline = time.monotonic() + self.worker.config.timeouts.head
        if self.conn.encrypted:
            _ = (
                self.conn.tls
            )  # now, for the threads must not ask the session while the loop uses it
        self.flush()
        if not self.closed:
            self.resume_reading()
            self.on_readable()  # the first request may have come with the end of the handshake

    # ---- In -------------------------------------------------------------------------------

    def on_readable(self) -> None:
        if self._lingering:
            self.throw_away()
            return
        try:
            data = self.conn.recv(RECEIVED_AT_ONCE)
        except BlockingIOError:
            self.received_nothing()
            return
        except OSError as error:
            self.lost(error.strerror or str(error))
            return
        if not data:
            if self.streams:
                self.lost("closed by the client")
            else:
                self.close("closed by the client")
            return
        now = time.monotonic()
        self.gather(now)
        try:
            self._take_in(data, now)
        except TooMuchError as error:
            self.refused("flood")
            self._cut_off(error.code, str(error))
            return
        except h2.exceptions.ProtocolError as error:
            # h2 has written its GOAWAY
            self._cut_off(None, f"broke HTTP/2: {error}")
            return
        except Exception:
            # a bug of threadwell, or of h2: this connection pays
            log.exception("A connection was dropped for an internal error")
            self._cut_off(INTERNAL_ERROR, "internal error")
            return
        finally:
            self.gathered()
        self.flush()

    def _take_in(self, data: bytes, now: float) -> None:
        for event in self._h2.receive_data(self._flood_guard.admit(data, now)):
            handle = _HANDLERS.get(type(event))
            if handle is not None:
                handle(self, event)
        self._watch_frame(now)

    def _watch_frame(self, now: float) -> None:
        """A frame that is not whole has the time of a head."""
        meter = self._flood_guard
        if not meter.unfinished:
            self._frame_deadline = 0.0
        elif not self._frame_deadline or meter.seen != self._frames_seen:
            self._frame_deadline = now + self.worker.config.timeouts.head
        self._frames_seen = meter.seen

    def _opened(self, event: h2.events.RequestReceived) -> None:
        number = event.stream_id
        if len(self.streams) >= self._most or (self._leaving and not self._leave_at):
            # it was not looked at, so that it may be sent again elsewhere (RFC 9113, 8.7)
            self.reset(number, _REFUSED)
            self._flood_guard.reset(time.monotonic())
            return
        ended = event.stream_ended is not None
        stream = Stream(self, number, None)
        stream.received = ended
        self.streams[number] = stream
        self.conn.unbounded = False
        self.conn.requests += 1
        try:
            stream.head = self._reader.read(event.headers, ended=ended)
            stream.head = stream.origin.introduce(self.worker, stream.head)
            if not ended:
                stream.expect_body(streamed=self.origin_pool is None)
        except MalformedError as error:
            self.malformed(stream, error)
            return
        except ProtocolError as error:
            stream.refuse(error.status, error.message)
            return
        if self.origin_pool is None:
            self.worker.served += 1
            stream.call(self.worker.app, stream.incoming)
        elif ended:
            self.submit(stream, b"")
        else:
            stream.invite()

    def malformed(self, stream: Stream, error: MalformedError) -> None:
        """RFC 9113, 8.1.1: `stream` is reset, and no other. Raises `TooMuchError`."""
        self._flood_guard.reset(time.monotonic())
        if self.worker.collector is not None:
            self.worker.collector.record(Refused(stream.origin.client, "400"))
        stream.reset(_PROTOCOL_ERROR, f"malformed: {error}")

    def _data(self, event: h2.events.DataReceived) -> None:
        size = event.flow_controlled_length
        if size and not event.data:
            self._flood_guard.wasted(time.monotonic())
        self._unread += size
        if self._unread >= WINDOW // 2:
            self.open_window(self._unread)
            self._unread = 0
        stream = self.streams.get(event.stream_id)
        if stream is not None and not stream.closed:
            stream.take_in(event.data, size)

    def _ended(self, event: h2.events.StreamEnded) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is not None and not stream.received:
            stream.take_end()

    def _trailers(self, event: h2.events.TrailersReceived) -> None:
        stream = self.streams.get(event.stream_id)
        try:
            check_trailers(event.headers, ended=event.stream_ended is not None)
        except MalformedError as error:
            if stream is not None:
                self.malformed(stream, error)

    def _reset(self, event: h2.events.StreamReset) -> None:
        stream = self.streams.get(event.stream_id)
        if stream is not None and not stream.closed:
            self._forget(stream)
            if not event.remote_reset:
                self._flood_guard.reset(time.monotonic())
            if not stream.finished and stream.record is not None:
                self._gone(stream)
            stream.cut("reset by the client")

    def _gone(self, stream: Stream) -> None:
        if self.worker.collector is not None and stream.record is not None:
            request = stream.record.request
            if request is not None:
                self.worker.collector.record(ClientGone(request))

    def _room_made(self, event: Any) -> None:
        """The client's windows have opened, perhaps."""
        number = getattr(event, "stream_id", 0)
        if number:
            stream = self._shut.pop(number, None)
            if stream is not None:
                self._wanting[number] = stream
        else:
            self._wanting.update(self._shut)
            self._shut.clear()

    def _heard(self, event: h2.events.PingAckReceived) -> None:
        if event.ping_data == _FAREWELL and self._leave_at:
            self._leave()

    # ---- To the application ---------------------------------------------------------------

    def submit(self, stream: Stream, body: bytes | BinaryIO) -> None:
        """A request is whole: it is the threads' to answer."""
        assert self.fair_queue is not None
        assert stream.head is not None
        stream.running = True
        self.fair_queue.add(HTTP2ThreadTask(stream, stream.head, body))

    def call_asgi(self, stream: Stream, body: Any) -> None:
        """The sync application has left a request to the one beside it."""
        if stream.closed:
            if not isinstance(body, bytes):
                body.close()
            stream.over()
            return
        assert self.origin_pool is not None
        self.worker.given = self.origin_pool.lifespan_state
        self.worker.served += 1
        stream.call(self.worker.app, body or None)

    # ---- Streams that end -----------------------------------------------------------------

    def settle(self, stream: Stream) -> None:
        """Let go of `stream` if nothing of it is to come any more."""
        if stream.closed:
            self._forget(stream)
        if not stream.settled() or self.streams.pop(stream.number, None) is None:
            return
        self._check_unbounded()
        if not self.streams:
            self.deadline = time.monotonic() + self.worker.config.timeouts.keep_alive
            if self._leaving and not self.closed:
                self.worker.loop.call_soon(self.flush)

    def mark_unbounded(self, stream: Stream) -> None:
        """`stream` has no end of its own. Where all are like that nobody waits for the line."""
        stream.unbounded = True
        self._check_unbounded()

    def _check_unbounded(self) -> None:
        streams = self.streams
        self.conn.unbounded = bool(streams) and all(each.unbounded for each in streams.values())

    def flushed(self) -> None:
        if not self._lingering:
            super().flushed()

    def _all_is_out(self) -> None:
        if self._leaving and not self._leave_at and not self.streams and not self.closed:
            self._end()

    # ---- Time -----------------------------------------------------------------------------

    def look(self, now: float) -> None:
        if self.conn.send_buffer is not None and now >= self.conn.send_buffer.deadline:
            self.conn.abort_with_reset()
            self.lost("the client did not read its response in time")
        elif self._lingering:
            if now >= self.deadline:
                self.close("answered the last request")
        elif self._frame_deadline and now >= self._frame_deadline:
            self._cut_off(NO_ERROR, "a frame did not arrive in time")
        elif self._leave_at and now >= self._leave_at:
            self._leave()
        elif not self.streams and now >= self.deadline:
            why = "keep-alive timeout" if self.conn.requests else "no request came"
            self._cut_off(NO_ERROR, why)
        else:
            for stream in list(self.streams.values()):
                stream.look(now)

    def at(self) -> str:
        if self.conn.send_buffer is not None:
            return "writing"
        if self._lingering:
            return "lingering"
        return "serving" if self.streams else "idle"

    def template_of(self, origin: RequestSource) -> dict[str, Any]:
        """What the scope of a request of `origin` begins with."""
        template = self.worker.scopes.template(origin)
        return {**template, "http_version": "2"}

    def is_busy(self) -> bool:
        """Whether a request is under way. Any thread may ask."""
        return bool(self.streams)

    def idle_since(self) -> float | None:
        """When the last stream has ended; None while there is one."""
        if self.streams or self._lingering:
            return None
        timeouts = self.worker.config.timeouts
        return self.deadline - (timeouts.keep_alive if self.conn.requests else timeouts.head)

    # ---- The end --------------------------------------------------------------------------

    def drain(self, idle_until: float) -> None:
        """The server stops. RFC 9113, 6.8: the client is told which streams are still served, and
        may send any other again elsewhere. With some time left it is told first that this is to
        come."""
        if self._leaving or self._lingering:
            return
        self._leaving = True
        now = time.monotonic()
        linger = idle_until > now
        if linger:
            self._leave_at = min(idle_until, now + _PATIENCE)
            self._say_goaway(_LAST_STREAM, NO_ERROR)
            self._h2.ping(_FAREWELL)
        for stream in list(self.streams.values()):
            if stream.cycle is not None:
                stream.cycle.drain()
        if linger:
            self.flush()
        else:
            self._leave()

    @property
    def leaving(self) -> bool:
        """The server stops. Any thread may ask."""
        return self._leaving

    def _leave(self) -> None:
        """What the client has begun until now is the last."""
        self._leave_at = 0.0
        self._say_goaway(self._h2.highest_inbound_stream_id, NO_ERROR)
        self.flush()

    def _say_goaway(self, last: int, code: int) -> None:
        """Past h2, for which nothing would come after it."""
        data = self._h2.data_to_send()
        frame = GoAwayFrame(0, last_stream_id=last, error_code=code)
        try:
            self.write(data + frame.serialize())
        except ClientDisconnected as error:
            self.lost(str(error))

    def _cut_off(self, code: int | None, why: str) -> None:
        """End the connection, whatever is under way; `code` is None where h2 has said it."""
        if self.closed:
            return
        log.debug("The HTTP/2 connection of %s ends: %s", self.conn.client[0], why)
        self._cut_streams(why)
        if code is not None:
            self._say_goaway(self._h2.highest_inbound_stream_id, code)
        else:
            self._say_rest()
        self._end(why)

    def _say_rest(self) -> None:
        try:
            self.write(self._h2.data_to_send())
        except ClientDisconnected as error:
            self.lost(str(error))

    def _end(self, why: str = "answered the last request") -> None:
        """All is said."""
        if self.closed or self._lingering:
            return
        if self.conn.send_buffer is not None:  # to a client that reads nothing this must do
            self.close(why)
            return
        self._lingering = True
        if self.say_this_was_all():
            self.throw_away()

    def _cut_streams(self, why: str) -> None:
        self._wanting.clear()
        self._shut.clear()
        for stream in list(self.streams.values()):
            if not stream.closed:
                self._gone(stream)
            stream.cut(why)

    def close(self, reason: str) -> None:
        if self.closed:
            return
        self._cut_streams(reason)
        super().close(reason)
        if self.origin_pool is not None:
            self.origin_pool.poller.forget(self.conn)


_HANDLERS: dict[type, Any] = {
    h2.events.RequestReceived: HTTP2Connection._opened,
    h2.events.DataReceived: HTTP2Connection._data,
    h2.events.StreamEnded: HTTP2Connection._ended,
    h2.events.TrailersReceived: HTTP2Connection._trailers,
    h2.events.StreamReset: HTTP2Connection._reset,
    h2.events.WindowUpdated: HTTP2Connection._room_made,
    h2.events.RemoteSettingsChanged: HTTP2Connection._room_made,
    h2.events.PingAckReceived: HTTP2Connection._heard,
}
