"""An HTTP/2 connection on an event loop.

    HTTP2Connection.on_readable     FrameReader.frames, then Framing.receive for each frame
      request_received              HeadReader.read; a Stream, its body to come or not
        submit                      a SyncApp: an HTTP2ThreadTask for the threads
        Stream.call                 an ASGI application: a Cycle on this loop
    HTTP2Sender.flush               the send queues, as far as windows and kernel have room

A frame that is not allowed ends its stream if that is possible, and else the connection.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any, NamedTuple

from ..connection import State
from ..deadlines import EXPIRIES, idle_reason
from ..errors import ClientDisconnected, ProtocolError
from ..http.response_body import close_body
from ..http1.budgets import RECV_SIZE
from ..lifecycle import ClientGone, Refused
from .call_queue import CallQueue
from .fair_queue import FairQueue
from .flood_guard import TooMuchError
from .frames import (
    INTERNAL_ERROR,
    LAST_STREAM,
    NO_ERROR,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    HTTP2ConnectionError,
)
from .request_head import HeadReader, MalformedError, check_trailers
from .sender import HTTP2Sender
from .stream import Stream
from .thread_task import HTTP2ThreadTask
from .writer import HTTP2Writer

if TYPE_CHECKING:
    from typing import BinaryIO

    from ..asgi.interfaces import ConnectionFactory, LoopContext
    from ..asgi.scope import Scope
    from ..config import ServerConfig
    from ..connection import Connection, RequestSource
    from ..interfaces import OriginPool
    from .interfaces import Fields
    from .send_budget import ProcessBudget

log = logging.getLogger("threadwell")

_GOAWAY_PING = b"farewell"

# Seconds for the client to acknowledge the ping that follows the first GOAWAY.
_GOAWAY_WAIT = 1.0


class Shared(NamedTuple):
    """What the connections of one loop share; `budget` is that of all loops."""

    writer: HTTP2Writer
    head_reader: HeadReader
    budget: ProcessBudget

    @classmethod
    def make(cls, config: ServerConfig, budget: ProcessBudget) -> Shared:
        return cls(HTTP2Writer(config), HeadReader(config.limits), budget)


def connection_factory(budget: ProcessBudget, worker: LoopContext) -> ConnectionFactory:
    """The factory for the HTTP/2 connections of one loop; see `asgi.interfaces.ALPNTable`."""
    shared = Shared.make(worker.config, budget)

    def make(conn: Connection, origin_pool: OriginPool | None) -> HTTP2Connection:
        return HTTP2Connection(worker, shared, conn, origin_pool)

    return make


class HTTP2Connection(HTTP2Sender):
    """A connection whose TLS handshake has agreed on h2. Belongs to the loop's thread.

    The threads of `origin_pool` run a sync application; None where the application is on the loop.
    """

    __slots__ = (
        "_calls", "_final_goaway_at", "_frame_deadline", "_frames_seen", "_head_reader", "_leaving",
        "_lingering", "_max_streams", "fair_queue", "origin_pool", "template", "writer",
    )  # fmt: skip

    def __init__(
        self,
        worker: LoopContext,
        shared: Shared,
        conn: Connection,
        origin_pool: OriginPool | None = None,
    ) -> None:
        super().__init__(worker, conn, shared.budget)
        self.writer = shared.writer
        self._head_reader = shared.head_reader
        self.origin_pool = origin_pool
        self.fair_queue: FairQueue | None = None
        if origin_pool is not None:
            self.fair_queue = FairQueue(origin_pool.poller, self.budget)
        self._calls = CallQueue(self.budget, self._start_call)
        #: The common part of the scopes of all streams, unless proxies name a client for each.
        self.template = self.template_of(conn)
        self._max_streams = worker.config.http2.streams
        self._frames_seen = -1
        self._frame_deadline = 0.0
        #: The server stops: see `drain`.
        self._leaving = False
        self._final_goaway_at = 0.0
        self._lingering = False

    def start(self) -> None:
        """Send the settings, and wait for the first request. The TLS handshake is done."""
        self.deadline = time.monotonic() + self.worker.config.timeouts.head
        if self.conn.encrypted:
            # looked up now: a thread must not ask the session while the loop uses it
            _ = self.conn.tls
        self.flush()
        if not self.closed:
            self.resume_reading()
            self.on_readable()  # the first request may have come with the end of the handshake
        if self.worker.draining:  # streams that the client has opened meanwhile are served
            self.drain(time.monotonic() + _GOAWAY_WAIT)

    # ---- In -------------------------------------------------------------------------------

    def on_readable(self) -> None:
        if self._lingering:
            self.discard_input()
            return
        try:
            data = self.conn.recv(RECV_SIZE)
        except BlockingIOError:
            self.on_nothing_received()
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
        self.begin_batch(now)
        try:
            self._handle_frames(data, now)
        except TooMuchError as error:
            self.record_refusal("flood")
            self._terminate(error.code, str(error))
            return
        except HTTP2ConnectionError as error:
            self._terminate(error.code, f"broke HTTP/2: {error}")
            return
        except Exception:
            # a bug of threadwell ends this connection, and not the loop
            log.exception("A connection was dropped because of an internal error")
            self._terminate(INTERNAL_ERROR, "internal error")
            return
        finally:
            self.end_batch()
        self.flush()

    def _handle_frames(self, data: bytes, now: float) -> None:
        framing = self._framing
        for frame in framing.frames(data, now):
            if self.closed or self._lingering:
                # a frame may show that the client has left. What would be opened now, `close`
                # has not seen, so that nothing would ever end it
                return
            framing.receive(frame, self)
        self._check_frame(now)

    def _check_frame(self, now: float) -> None:
        """Give a frame that is not complete the time that a head has."""
        reader = self._framing.reader
        if not reader.unfinished:
            self._frame_deadline = 0.0
        elif not self._frame_deadline or reader.seen != self._frames_seen:
            self._frame_deadline = now + self.worker.config.timeouts.head
        self._frames_seen = reader.seen

    # ---- What a `Framing` tells: see `FrameListener` ----------------------------------------

    def request_received(self, number: int, fields: Fields, *, ended: bool) -> None:
        if len(self.streams) >= self._max_streams or (self._leaving and not self._final_goaway_at):
            # not processed at all: the client may retry it (RFC 9113, 8.7)
            self.reset(number, REFUSED_STREAM)
            self._framing.flood_guard.reset(time.monotonic())
            return
        stream = Stream(self, number, None)
        stream.received = ended
        self.streams[number] = stream
        self.conn.unbounded = False
        self.conn.requests += 1
        try:
            stream.head = self._head_reader.read(fields, ended=ended)
            stream.head = stream.origin.prepare(self.worker, stream.head)
            if not ended:
                stream.expect_body(streamed=self.origin_pool is None)
        except MalformedError as error:
            self.reset_malformed(stream, error)
            return
        except ProtocolError as error:
            stream.refuse(error.status, error.message, error.limit)
            return
        if self.origin_pool is None:
            self._calls.begin(stream, stream.incoming)
        elif ended:
            self.submit(stream, b"")
        else:
            stream.send_continue()

    def reset_malformed(self, stream: Stream, error: MalformedError) -> None:
        """Reset `stream`, whose request is malformed, and no other (RFC 9113, 8.1.1).

        Raises `TooMuchError` if the client does it too often.
        """
        self._framing.flood_guard.reset(time.monotonic())
        if self.worker.collector is not None:
            self.worker.collector.record(Refused(stream.origin.client, "400"))
        stream.reset(PROTOCOL_ERROR, f"malformed: {error}")

    def data_received(self, number: int, data: bytes, size: int) -> None:
        stream = self.streams.get(number)
        if stream is not None and not stream.closed:
            stream.receive_data(data, size)

    def stream_ended(self, number: int) -> None:
        stream = self.streams.get(number)
        if stream is not None and not stream.received:
            stream.receive_end()

    def trailers_received(self, number: int, fields: Fields, *, ended: bool) -> None:
        stream = self.streams.get(number)
        try:
            check_trailers(fields, ended=ended)
        except MalformedError as error:
            if stream is not None:
                self.reset_malformed(stream, error)

    def stream_reset(self, number: int) -> None:
        stream = self.streams.get(number)
        if stream is not None and not stream.closed:
            self._forget(stream)
            if not stream.finished and stream.record is not None:
                self._record_client_gone(stream)
            stream.cut("reset by the client")

    def _record_client_gone(self, stream: Stream) -> None:
        if self.worker.collector is not None and stream.record is not None:
            request = stream.record.request
            if request is not None:
                self.worker.collector.record(ClientGone(request))

    def window_opened(self, number: int) -> None:
        if number:
            stream = self._blocked.pop(number, None)
            if stream is not None:
                self._ready[number] = stream
        else:
            self._ready.update(self._blocked)
            self._blocked.clear()

    def ping_acknowledged(self, data: bytes) -> None:
        if data == _GOAWAY_PING and self._final_goaway_at:
            self._send_final_goaway()

    # ---- To the application ---------------------------------------------------------------

    def submit(self, stream: Stream, body: bytes | BinaryIO) -> None:
        """Have a thread answer the request of `stream`, which has arrived in full."""
        assert self.fair_queue is not None
        assert stream.head is not None
        stream.running = True
        self.fair_queue.add(HTTP2ThreadTask(stream, stream.head, body))

    def call_asgi(self, stream: Stream, body: Any) -> None:
        """Have the ASGI application answer a request that the sync application has declined."""
        assert self.origin_pool is not None
        self.worker.shared_state = self.origin_pool.lifespan_state
        self._calls.begin(stream, body or None)

    def _start_call(self, stream: Stream, body: Any) -> None:
        """Call the ASGI application, unless the request was reset or refused while it waited."""
        if not stream.closed and not stream.headers_sent:
            self.worker.served += 1
            stream.call(self.worker.app, body)
        elif stream.running:  # a thread had it before
            if body is not None:
                close_body(body)
            stream.over()

    def resume_held(self) -> None:
        self.budget.holds = False
        self._calls.resume()
        if self.fair_queue is not None:
            self.fair_queue.resume()

    # ---- Streams that end -----------------------------------------------------------------

    def forget_if_done(self, stream: Stream) -> None:
        """Forget `stream` if nothing of it is to come any more."""
        if stream.closed:
            self._forget(stream)
        if stream.closed or stream.finished:
            self._calls.release(stream.number)
        if not stream.is_done() or self.streams.pop(stream.number, None) is None:
            return
        self._check_unbounded()
        if not self.streams:
            self.deadline = time.monotonic() + self.worker.config.timeouts.keep_alive
            if self._leaving and not self.closed:
                self.worker.loop.call_soon(self.flush)

    def mark_unbounded(self, stream: Stream) -> None:
        """`stream` may never end. The server does not wait for a connection of such streams."""
        stream.unbounded = True
        self._check_unbounded()

    def _check_unbounded(self) -> None:
        streams = self.streams
        self.conn.unbounded = bool(streams) and all(each.unbounded for each in streams.values())

    def on_flushed(self) -> None:
        if not self._lingering:
            super().on_flushed()

    def _on_all_sent(self) -> None:
        if self._leaving and not self._final_goaway_at and not self.streams and not self.closed:
            self._finish()

    # ---- Time -----------------------------------------------------------------------------

    def check_deadline(self, now: float) -> None:
        if self.conn.send_buffer is not None and now >= self.conn.send_buffer.deadline:
            self.conn.abort_with_reset()
            self.lost(EXPIRIES[State.WRITING].reason)
        elif self._lingering:
            if now >= self.deadline:
                self.close(EXPIRIES[State.LINGERING].reason)
        elif self._frame_deadline and now >= self._frame_deadline:
            self._terminate(NO_ERROR, "a frame did not arrive in time")
        elif self._final_goaway_at and now >= self._final_goaway_at:
            self._send_final_goaway()
        elif not self.streams and now >= self.deadline:
            self._terminate(NO_ERROR, idle_reason(self.conn))
        else:
            self.check_budget(now)
            for stream in list(self.streams.values()):
                stream.check_deadline(now)

    def state_name(self) -> str:
        if self.conn.send_buffer is not None:
            return "writing"
        if self._lingering:
            return "lingering"
        return "serving" if self.streams else "idle"

    def template_of(self, origin: RequestSource) -> Scope:
        """The common part of the scopes of requests from `origin`."""
        return {**self.worker.scopes.template(origin), "http_version": "2"}

    def is_busy(self) -> bool:
        """Whether a request is under way. Any thread may call."""
        return bool(self.streams)

    def idle_since(self) -> float | None:
        """When the last stream ended; None while there is one."""
        if self.streams or self._lingering:
            return None
        timeouts = self.worker.config.timeouts
        return self.deadline - (timeouts.keep_alive if self.conn.requests else timeouts.head)

    # ---- The end --------------------------------------------------------------------------

    def drain(self, idle_until: float) -> None:
        """The server stops. The client learns which streams are still served, and may retry others
        elsewhere (RFC 9113, 6.8).

        Until `idle_until`, a first GOAWAY only announces this: the client opens no more streams.
        """
        if self._leaving or self._lingering:
            return
        self._leaving = True
        now = time.monotonic()
        linger = idle_until > now
        if linger:
            self._final_goaway_at = min(idle_until, now + _GOAWAY_WAIT)
            self._send_goaway(LAST_STREAM, NO_ERROR)
            self._framing.ping(_GOAWAY_PING)
        for stream in list(self.streams.values()):
            if stream.cycle is not None:
                stream.cycle.drain()
        if linger:
            self.flush()
        else:
            self._send_final_goaway()

    @property
    def leaving(self) -> bool:
        """Whether the server stops. Any thread may call."""
        return self._leaving

    def _send_final_goaway(self) -> None:
        """Serve the streams that the client has opened until now, and no others."""
        self._final_goaway_at = 0.0
        self._send_goaway(self._framing.last_stream, NO_ERROR)
        self.flush()

    def _send_goaway(self, last: int, code: int) -> None:
        """Send GOAWAY at once, after all frames that wait."""
        self._framing.goaway(last, code)
        try:
            self.write(self._framing.data_to_send())
        except ClientDisconnected as error:
            self.lost(str(error))

    def _terminate(self, code: int, why: str) -> None:
        """End the connection, whatever is under way. `code` is for GOAWAY."""
        if self.closed:
            return
        log.debug("The HTTP/2 connection of %s ends: %s", self.conn.client[0], why)
        self._cut_streams(why)
        self._send_goaway(self._framing.last_stream, code)
        self._finish(why)

    def _finish(self, why: str = "answered the last request") -> None:
        """Close the connection, after lingering; everything is sent."""
        if self.closed or self._lingering:
            return
        if self.conn.send_buffer is not None:  # the client does not read
            self.close(why)
            return
        self._lingering = True
        if self.begin_lingering():
            self.discard_input()

    def _cut_streams(self, why: str) -> None:
        self._ready.clear()
        self._blocked.clear()
        for stream in list(self.streams.values()):
            if not stream.closed:
                self._record_client_gone(stream)
            stream.cut(why)

    def close(self, reason: str) -> None:
        if self.closed:
            return
        self._cut_streams(reason)
        super().close(reason)
        if self.fair_queue is not None:
            self.fair_queue.drop()
        if self.origin_pool is not None:
            self.origin_pool.poller.forget(self.conn)
