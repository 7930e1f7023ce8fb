"""h2, adapted: an error of a stream does not end the connection, and memory has limits.

A malformed request ends its stream (RFC 9113, 8.1.1). h2 would end the connection for an invalid
field or length, and with it the requests of many users of a proxy. So h2 checks no fields here:
`request_head` and `stream` check them, more strictly, and reset that stream.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import h2.config
import h2.connection
import h2.settings
import h2.stream
from hyperframe.frame import ContinuationFrame, HeadersFrame

from .flood_guard import LARGEST_FRAME
from .hpack import FieldDecoder, FieldEncoder
from .request_head import FIELD_OVERHEAD

if TYPE_CHECKING:
    from ..config import ServerConfig

_WITHOUT_LIMIT = 2**31 - 1

# How much a client may send without a WINDOW_UPDATE: on a stream, and on the connection.
STREAM_WINDOW = 128 * 1024
WINDOW = 1024 * 1024
_WINDOW_AT_FIRST = 65535


class _Stream(h2.stream.H2Stream):
    """A stream that does not check fields."""

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

    def send_headers(self, headers: Any, encoder: Any, end_stream: bool = False) -> Any:
        """The frames of a head or of trailers, which were checked before."""
        inputs = h2.stream.StreamInputs
        name, value = headers[0]
        interim = name == b":status" and value.startswith(b"1")
        process = self.state_machine.process_input
        process(inputs.SEND_INFORMATIONAL_HEADERS if interim else inputs.SEND_HEADERS)
        block = encoder.encode(headers)
        size = self.max_outbound_frame_size or LARGEST_FRAME
        frames: list[Any] = [HeadersFrame(self.stream_id, block[:size])]
        frames.extend(
            ContinuationFrame(self.stream_id, block[at : at + size])
            for at in range(size, len(block), size)
        )
        frames[-1].flags.add("END_HEADERS")
        if end_stream:
            process(inputs.SEND_END_STREAM)
            frames[0].flags.add("END_STREAM")
        return frames


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
        self.initiate_connection()
        # h2 would end the connection for an excess stream, which a client may open before it has
        # received the settings; `HTTP2Connection` refuses that stream instead
        settings.max_concurrent_streams = _WITHOUT_LIMIT
        settings.acknowledge()
        self.increment_flow_control_window(WINDOW - _WINDOW_AT_FIRST)

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
