"""The settings of either side of a connection (RFC 9113, 6.5)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from .frames import FLOW_CONTROL_ERROR, LARGEST_FRAME, LARGEST_WINDOW, HTTP2ConnectionError
from .request_head import FIELD_OVERHEAD

if TYPE_CHECKING:
    from ..config import ServerConfig

HEADER_TABLE_SIZE, ENABLE_PUSH, MAX_CONCURRENT_STREAMS, INITIAL_WINDOW_SIZE = 0x1, 0x2, 0x3, 0x4
MAX_FRAME_SIZE, MAX_HEADER_LIST_SIZE = 0x5, 0x6
ENABLE_CONNECT_PROTOCOL = 0x8  # RFC 8441, 3
# The first size of a frame that a setting cannot have (RFC 9113, 6.5.2).
_BEYOND_FRAMES = 2**24

# How much a client may send without a WINDOW_UPDATE: on a stream, and on the connection.
STREAM_WINDOW = 128 * 1024
WINDOW = 1024 * 1024

_unpack = struct.Struct(">HL").iter_unpack


def own_settings(config: ServerConfig) -> list[tuple[int, int]]:
    """What the server sends. All else is as RFC 9113 has it at first."""
    return [
        (MAX_CONCURRENT_STREAMS, config.http2.streams),
        (INITIAL_WINDOW_SIZE, STREAM_WINDOW),
        (MAX_HEADER_LIST_SIZE, _fields(config)),
    ]


def read_settings(payload: bytes) -> dict[int, list[int]]:
    """What a SETTINGS frame has of INITIAL_WINDOW_SIZE and HEADER_TABLE_SIZE, the smallest and the
    last value of each. The others are checked, and mean nothing to a server.

    A frame may repeat an identifier 2730 times. Only the last value counts, except that the
    encoder has to know the smallest size of its table (RFC 7541, 4.2). Raises
    `HTTP2ConnectionError`.
    """
    settings: dict[int, list[int]] = {}
    for identifier, value in _unpack(payload):
        if identifier == INITIAL_WINDOW_SIZE:
            if value > LARGEST_WINDOW:
                raise HTTP2ConnectionError("an initial window is too large", FLOW_CONTROL_ERROR)
        elif identifier == MAX_FRAME_SIZE:
            if not LARGEST_FRAME <= value < _BEYOND_FRAMES:
                raise HTTP2ConnectionError("a size of frames is not valid")
        elif identifier in (ENABLE_PUSH, ENABLE_CONNECT_PROTOCOL) and value > 1:
            raise HTTP2ConnectionError("a setting is neither 0 nor 1")
        if identifier not in (INITIAL_WINDOW_SIZE, HEADER_TABLE_SIZE):
            continue
        values = settings.setdefault(identifier, [value, value])
        values[:] = min(values[0], value), value
    return settings


def _fields(config: ServerConfig) -> int:
    """The largest allowed size of a field list, as RFC 9113, 6.5.2 counts it."""
    return config.limits.head + FIELD_OVERHEAD * config.limits.field_count


def largest_list(config: ServerConfig) -> int:
    """The size up to which a field list is decoded, and answered with 431 if it is not allowed. A
    larger list ends the connection."""
    return 2 * _fields(config) + LARGEST_FRAME
