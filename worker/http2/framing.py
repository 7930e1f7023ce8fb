"""The server's side of an HTTP/2 connection (RFC 9113), without input and output.

    FrameReader          octets to frames, whole field blocks
    Framing.receive      a frame: what it changes here, and what it tells the `FrameListener`
    StreamStates         which streams are open, and how others were closed
    Framing.send_...     frames to send, collected for `data_to_send`

An error of a stream (5.4.2) resets that stream, and the listener learns of it. An error of the
connection (5.4.1) is raised as an `HTTP2ConnectionError`. Fields are not checked here: see
`request_head`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import hpack

from .flood_guard import FloodGuard, TooMuchError
from .frame_reader import FrameReader, check_dependency
from .frames import (
    ACK,
    COMPRESSION_ERROR,
    DATA,
    END_STREAM,
    FLOW_CONTROL_ERROR,
    HEADERS,
    INITIAL_WINDOW,
    LARGEST_WINDOW,
    PING,
    PRIORITY,
    PROTOCOL_ERROR,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    HTTP2ConnectionError,
    frame,
    goaway,
    head_frames,
    header_of_data,
    rst_stream,
    settings_frame,
    window_update,
)
from .hpack import FieldDecoder, FieldEncoder
from .settings import (
    HEADER_TABLE_SIZE,
    INITIAL_WINDOW_SIZE,
    STREAM_WINDOW,
    WINDOW,
    largest_list,
    own_settings,
    read_settings,
)
from .stream_states import Closed, StreamState, StreamStates

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..config import ServerConfig
    from .frame_reader import Frame
    from .interfaces import Fields, FrameListener

_SETTINGS_ACK = frame(SETTINGS, ACK, 0)
# A smaller DATA frame on a stream that the server has reset costs more to discard than to send. A
# client that does not know of the reset yet sends few of them.
_SMALL_DATA = 512


class Framing:
    """The frames and streams of one connection. Belongs to its loop."""

    __slots__ = (
        "_decoder", "_encoder", "_initial_window", "_now", "_out", "_receive_window",
        "_send_window", "_streams", "_unread", "flood_guard", "reader",
    )  # fmt: skip

    def __init__(self, config: ServerConfig) -> None:
        """With the settings of the server to send."""
        self.flood_guard = FloodGuard()
        self.reader = FrameReader(self.flood_guard, largest_list(config))
        self._decoder = FieldDecoder(largest_list(config))
        self._encoder = FieldEncoder()
        self._streams = StreamStates()
        self._out: list[bytes | memoryview] = [
            settings_frame(own_settings(config)),
            window_update(0, WINDOW - INITIAL_WINDOW),
        ]
        # the windows of the connection, and the send window of a new stream
        self._send_window = self._initial_window = INITIAL_WINDOW
        self._receive_window = WINDOW
        # how many octets of DATA the client may not send again yet
        self._unread = 0
        self._now = 0.0

    @property
    def last_stream(self) -> int:
        """The highest stream that the client has opened."""
        return self._streams.last

    # ---- In -------------------------------------------------------------------------------

    def frames(self, data: bytes, now: float) -> Iterator[Frame]:
        """The frames that `data` completes, for `receive`. Raises `HTTP2ConnectionError`."""
        self._now = now
        return self.reader.frames(data, now)

    def receive(self, received: Frame, listener: FrameListener) -> None:
        """Take a frame, and tell `listener` what it means. Raises `HTTP2ConnectionError`."""
        kind, flags, number, payload, size = received
        if kind == HEADERS:
            self._receive_headers(number, flags, payload, listener)
        elif kind == DATA:
            self._receive_data(number, flags, payload, size, listener)
        elif kind == WINDOW_UPDATE:
            self._receive_window_update(number, payload, listener)
        elif kind == SETTINGS:
            if not flags & ACK:
                self._receive_settings(payload, listener)
        elif kind == PING:
            if flags & ACK:
                listener.ping_acknowledged(payload)
            else:
                self._out.append(frame(PING, ACK, 0, payload))
        elif kind == RST_STREAM:
            self._receive_reset(number, listener)
        elif kind == PRIORITY:
            check_dependency(payload, number)
        # GOAWAY says only that the client accepts no more pushed streams, and there are none.
        # Unknown types must be ignored (RFC 9113, 5.5).

    def _receive_headers(
        self, number: int, flags: int, block: bytes, listener: FrameListener
    ) -> None:
        fields = self._decode(block)  # whatever comes of it: the table is that of all streams
        ended = bool(flags & END_STREAM)
        state = self._streams.get(number)
        if state is None:
            if number <= self._streams.last:
                self._refuse_headers(number, ended=ended)
                return
            if not number & 1:
                raise HTTP2ConnectionError("a client opens a stream with an even number")
            state = self._streams.open(number, self._initial_window, STREAM_WINDOW)
            state.received = ended
            listener.request_received(number, fields, ended=ended)
            return
        if state.received:
            self._reset_on_error(state, STREAM_CLOSED, listener)
            return
        if state.has_trailers:
            raise HTTP2ConnectionError("trailers after trailers")
        state.has_trailers = True
        if ended:
            self._receive_end(state)
        listener.trailers_received(number, fields, ended=ended)
        if ended:
            listener.stream_ended(number)

    def _decode(self, block: bytes) -> Fields:
        try:
            return self._decoder.decode(block)
        except hpack.OversizedHeaderListError as error:
            raise TooMuchError(str(error)) from error
        except hpack.HPACKError as error:
            raise HTTP2ConnectionError(str(error), COMPRESSION_ERROR) from error

    def _refuse_headers(self, number: int, *, ended: bool) -> None:
        """A head on a stream that is closed."""
        how = self._streams.closed_by(number)
        if how is Closed.ABANDONED:
            self.flood_guard.wasted(self._now)
            if ended:
                self._streams.end_abandoned(number)
        elif how is Closed.RESET:
            self._reset_again(number)
        elif how is Closed.ENDED:
            raise HTTP2ConnectionError("a head on a stream that has ended", STREAM_CLOSED)
        else:
            raise HTTP2ConnectionError("a number of a stream goes down")

    def _reset_again(self, number: int) -> None:
        """The client has sent a frame on a stream that it cannot take for open."""
        self.flood_guard.reset(self._now)
        self._out.append(rst_stream(number, STREAM_CLOSED))

    def _receive_data(
        self, number: int, flags: int, data: bytes, size: int, listener: FrameListener
    ) -> None:
        if size > self._receive_window:
            raise HTTP2ConnectionError("more data than the connection's window", FLOW_CONTROL_ERROR)
        state = self._streams.get(number)
        if state is None and self._streams.is_idle(number):
            raise HTTP2ConnectionError("data on an idle stream")
        self._receive_window -= size
        self._unread += size
        if self._unread >= WINDOW // 2:
            self._out.append(window_update(0, self._unread))
            self._receive_window += self._unread
            self._unread = 0
        if size and not data:
            self.flood_guard.wasted(self._now)
        if state is None:
            self._discard_data(number, flags, size)
            return
        if state.received:
            self._reset_on_error(state, STREAM_CLOSED, listener)
            return
        if size > state.receive_window:
            raise HTTP2ConnectionError("more data than a stream's window", FLOW_CONTROL_ERROR)
        state.receive_window -= size
        ended = bool(flags & END_STREAM)
        if ended:
            self._receive_end(state)
        listener.data_received(number, data, size)
        if ended:
            listener.stream_ended(number)

    def _discard_data(self, number: int, flags: int, size: int) -> None:
        """DATA on a stream that is closed."""
        if self._streams.closed_by(number) is not Closed.ABANDONED:
            self._reset_again(number)
            return
        if size < _SMALL_DATA:
            self.flood_guard.wasted(self._now)
        if flags & END_STREAM:
            self._streams.end_abandoned(number)

    def _receive_window_update(self, number: int, payload: bytes, listener: FrameListener) -> None:
        increment = int.from_bytes(payload, "big") & LARGEST_WINDOW  # the first bit is reserved
        if not number:
            if not increment:
                raise HTTP2ConnectionError("a window is opened by nothing")
            self._send_window += increment
            if self._send_window > LARGEST_WINDOW:
                raise HTTP2ConnectionError("a window is too large", FLOW_CONTROL_ERROR)
            listener.window_opened(0)
            return
        state = self._streams.get(number)
        if state is None:
            if self._streams.is_idle(number):
                raise HTTP2ConnectionError("a window of an idle stream")
            return  # sent before the client knew that the stream has ended
        if not increment:
            self._reset_on_error(state, PROTOCOL_ERROR, listener)
            return
        state.send_window += increment
        if state.send_window > LARGEST_WINDOW:
            self._reset_on_error(state, FLOW_CONTROL_ERROR, listener)
            return
        listener.window_opened(number)

    def _receive_settings(self, payload: bytes, listener: FrameListener) -> None:
        settings = read_settings(payload)
        for size in settings.get(HEADER_TABLE_SIZE, ()):
            self._encoder.header_table_size = size
        if INITIAL_WINDOW_SIZE in settings:
            _, window = settings[INITIAL_WINDOW_SIZE]
            change = window - self._initial_window
            self._initial_window = window
            if not self._streams.change_windows(change):
                raise HTTP2ConnectionError("a window is too large", FLOW_CONTROL_ERROR)
            listener.window_opened(0)
        self._out.append(_SETTINGS_ACK)

    def _receive_reset(self, number: int, listener: FrameListener) -> None:
        state = self._streams.get(number)
        if state is not None:
            self._streams.close(state, Closed.RESET)
            listener.stream_reset(number)
        elif self._streams.is_idle(number):
            raise HTTP2ConnectionError("a reset of an idle stream")

    def _receive_end(self, state: StreamState) -> None:
        state.received = True
        if state.sent:
            self._streams.close(state, Closed.ENDED)

    def _reset_on_error(self, state: StreamState, code: int, listener: FrameListener) -> None:
        """Reset a stream for what its client has sent (RFC 9113, 5.4.2)."""
        self.flood_guard.reset(self._now)
        self.reset(state.number, code)
        listener.stream_reset(state.number)

    # ---- Out ------------------------------------------------------------------------------

    def capacity(self, number: int) -> int:
        """How many octets of DATA may be sent on stream `number` now; 0 or less for none."""
        state = self._streams.get(number)
        return 0 if state is None else min(self._send_window, state.send_window)

    def send_head(self, number: int, fields: Fields, *, end: bool) -> bool:
        """Send a head or trailers; False if the stream is closed, or was ended before."""
        state = self._streams.get(number)
        if state is None or state.sent:
            return False
        self._out.append(head_frames(number, self._encoder.encode(fields), end=end))
        if end:
            self._send_end(state)
        return True

    def send_data(self, number: int, data: bytes | memoryview, *, end: bool) -> bool:
        """Send `data`, within `capacity`; False if the stream is closed, or was ended before."""
        state = self._streams.get(number)
        if state is None or state.sent:
            return False
        size = len(data)
        if size:
            if size > min(self._send_window, state.send_window):
                raise ValueError(f"{size} octets do not fit the windows of a stream")
            state.send_window -= size
            self._send_window -= size
        self._out += header_of_data(size, number, end=end), data
        if end:
            self._send_end(state)
        return True

    def _send_end(self, state: StreamState) -> None:
        state.sent = True
        if state.received:
            self._streams.close(state, Closed.ENDED)

    def reset(self, number: int, code: int) -> None:
        """Send RST_STREAM, unless the stream is closed."""
        state = self._streams.get(number)
        if state is not None:
            self._out.append(rst_stream(number, code))
            self._streams.close(state, Closed.RESET if state.received else Closed.ABANDONED)

    def open_window(self, number: int, size: int) -> None:
        """Let the client send `size` octets more on a stream, unless that is closed."""
        state = self._streams.get(number)
        if state is not None:
            state.receive_window += size
            self._out.append(window_update(number, size))

    def ping(self, data: bytes) -> None:
        """Send PING with eight octets of `data`."""
        self._out.append(frame(PING, 0, 0, data))

    def goaway(self, last: int, code: int) -> None:
        """Send GOAWAY: streams up to `last` are, or were, served."""
        self._out.append(goaway(last, code))

    def data_to_send(self) -> bytes:
        """What is to be sent, once."""
        out, self._out = self._out, []
        return b"".join(out)
