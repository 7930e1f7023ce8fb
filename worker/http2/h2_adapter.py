"""h2, adapted: an error of a stream does not end the connection, and memory has limits.

A malformed request ends its stream (RFC 9113, 8.1.1). h2 would end the connection for an invalid
field or length, and with it the requests of many users of a proxy. So h2 checks no fields here:
`request_head` and `stream` check them, more strictly, and reset that stream.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.exceptions
import h2.settings
import h2.stream

from .flood_guard import LARGEST_FRAME
from .hpack import FieldDecoder, FieldEncoder
from .request_head import FIELD_OVERHEAD

if TYPE_CHECKING:
    from ..config import ServerConfig

_WITHOUT_LIMIT = 2**31 - 1

# RFC 9113, 4.1 and 6: the header of a frame, kinds and flags.
_FRAME_HEAD = struct.Struct(">BHBBL").pack
_DATA, _HEADERS, _CONTINUATION = 0x0, 0x1, 0x9
_END_STREAM, _END_HEADERS = 0x1, 0x4
# So many streams of a connection need no look for closed ones.
_FEW_STREAMS = 64

# How much a client may send without a WINDOW_UPDATE: on a stream, and on the connection.
STREAM_WINDOW = 128 * 1024
WINDOW = 1024 * 1024
_WINDOW_AT_FIRST = 65535


class _Stream(h2.stream.H2Stream):
    """A stream that does not check fields, and makes the frames of heads itself."""

    def receive_headers(self, headers: Any, end_stream: bool, header_encoding: Any) -> Any:  # noqa: ARG002
        """Take a head or trailers, also trailers that do not end the stream."""
        inputs = h2.stream.StreamInputs
        events: list[Any] = self.state_machine.process_input(inputs.RECV_HEADERS)
        events[0].headers = headers
        if end_stream:
            ended = self.state_machine.process_input(inputs.RECV_END_STREAM)
            events[0].stream_ended = ended[0]
            events += ended
        return [], events

    def head_block(self, headers: Any, encoder: Any, end_stream: bool) -> bytes:
        """The frames of a head or of trailers, which were checked before."""
        inputs = h2.stream.StreamInputs
        name, value = headers[0]
        interim = name == b":status" and value.startswith(b"1")
        process = self.state_machine.process_input
        process(inputs.SEND_INFORMATIONAL_HEADERS if interim else inputs.SEND_HEADERS)
        block = encoder.encode(headers)
        flags = 0
        if end_stream:
            process(inputs.SEND_END_STREAM)
            flags = _END_STREAM
        size = self.max_outbound_frame_size or LARGEST_FRAME
        if len(block) <= size:
            return _frame(_HEADERS, flags | _END_HEADERS, self.stream_id, block)
        frames = [_frame(_HEADERS, flags, self.stream_id, block[:size])]
        for at in range(size, len(block), size):
            flags = _END_HEADERS if at + size >= len(block) else 0
            frames.append(_frame(_CONTINUATION, flags, self.stream_id, block[at : at + size]))
        return b"".join(frames)


def _frame(kind: int, flags: int, number: int, payload: bytes) -> bytes:
    """A frame (RFC 9113, 4.1)."""
    size = len(payload)
    return _FRAME_HEAD(size >> 16, size & 0xFFFF, kind, flags, number) + payload


class Framing(h2.connection.H2Connection):
    """The server's side of a connection, with its settings sent."""

    # How many closed streams h2 remembers. Its default of 65536 would be 8 MiB per connection.
    MAX_CLOSED_STREAMS = 1024

    def __init__(self, config: ServerConfig) -> None:
        super().__init__(
            h2.config.H2Configuration(
                client_side=False,
                validate_inbound_headers=False,
                normalize_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        codes = h2.settings.SettingCodes
        self.local_settings = settings = h2.settings.Settings(
            client=False,
            initial_values={
                codes.MAX_CONCURRENT_STREAMS: config.http2.streams,
                codes.MAX_HEADER_LIST_SIZE: _fields(config),
                codes.INITIAL_WINDOW_SIZE: STREAM_WINDOW,
            },
        )
        self.decoder = FieldDecoder(largest_list(config))
        self.encoder = FieldEncoder()
        self._cleaned_at = _FEW_STREAMS
        self.initiate_connection()
        # h2 would end the connection for an excess stream, which a client may open before it has
        # received the settings; `HTTP2Connection` refuses that stream instead
        settings.max_concurrent_streams = _WITHOUT_LIMIT
        settings.acknowledge()
        self.increment_flow_control_window(WINDOW - _WINDOW_AT_FIRST)

    @property
    def open_inbound_streams(self) -> int:
        """0: `HTTP2Connection` counts the streams that a client may open.

        h2 counts all of them for each new one, and forgets those that are closed. Here it does so
        when there are twice as many as the last time.
        """
        if len(self.streams) >= self._cleaned_at:
            self._open_streams(1)
            self._cleaned_at = 2 * len(self.streams) + _FEW_STREAMS
        return 0

    def send_headers(self, stream_id: int, headers: Any, end_stream: bool = False) -> None:  # type: ignore[override]
        """As h2 does it, without an object for each frame. Raises `ProtocolError`."""
        self.state_machine.process_input(h2.connection.ConnectionInputs.SEND_HEADERS)
        stream: Any = self._get_stream_by_id(stream_id)
        self._data_to_send += stream.head_block(headers, self.encoder, end_stream)

    def send_data(self, stream_id: int, data: Any, end_stream: bool = False) -> None:  # type: ignore[override]
        """As h2 does it, without an object for each frame. Raises `ProtocolError`."""
        stream = self._get_stream_by_id(stream_id)
        size = len(data)
        window = min(self.outbound_flow_control_window, stream.outbound_flow_control_window)
        if size and size > window:
            raise h2.exceptions.FlowControlError(f"{size} octets do not fit a window of {window}")
        if size > self.max_outbound_frame_size:
            raise h2.exceptions.FrameTooLargeError(f"a frame of {size} octets is too large")
        self.state_machine.process_input(h2.connection.ConnectionInputs.SEND_DATA)
        process, inputs = stream.state_machine.process_input, h2.stream.StreamInputs
        process(inputs.SEND_DATA)
        if end_stream:
            process(inputs.SEND_END_STREAM)
        stream.outbound_flow_control_window -= size
        self.outbound_flow_control_window -= size
        flags = _END_STREAM if end_stream else 0
        self._data_to_send += _FRAME_HEAD(size >> 16, size & 0xFFFF, _DATA, flags, stream_id)
        self._data_to_send += data

    def _begin_new_stream(self, *arguments: Any) -> h2.stream.H2Stream:
        stream = super()._begin_new_stream(*arguments)
        stream.__class__ = _Stream
        return stream


def _fields(config: ServerConfig) -> int:
    """The largest allowed size of a field list, as RFC 9113, 6.5.2 counts it."""
    return config.limits.head + FIELD_OVERHEAD * config.limits.field_count


def largest_list(config: ServerConfig) -> int:
    """The size up to which a field list is decoded, and answered with 431 if it is not allowed. A
    larger list ends the connection."""
    return 2 * _fields(config) + LARGEST_FRAME
