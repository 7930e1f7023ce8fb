"""The frames of HTTP/2 as octets (RFC 9113, 4.1 and 6), and the codes of its errors (7)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

# RFC 9113, 6: the types of frames.
(
    DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE,
    CONTINUATION,
) = range(10)  # fmt: skip
# The flags. ACK is that of SETTINGS and PING, WITH_PRIORITY that of HEADERS.
END_STREAM, END_HEADERS, PADDED, WITH_PRIORITY = 0x1, 0x4, 0x8, 0x20
ACK = 0x1

# RFC 9113, 7: the codes of errors.
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0x0, 0x1, 0x2, 0x3
STREAM_CLOSED, FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL = 0x5, 0x6, 0x7, 0x8
COMPRESSION_ERROR, ENHANCE_YOUR_CALM = 0x9, 0xB

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
#: The length of the header of a frame, and what it contains: the length of the payload (in two
#: parts), the type, the flags and the number of the stream, whose first bit is reserved.
HEADER_LENGTH = 9
HEADER = struct.Struct(">BHBBL")
#: The largest payload of a frame of either side: what RFC 9113, 4.2 allows without a setting.
LARGEST_FRAME = 16384
LAST_STREAM = 2**31 - 1
#: The largest window (RFC 9113, 6.9.1).
LARGEST_WINDOW = 2**31 - 1
#: The windows of a connection and of its streams before any setting (RFC 9113, 6.9.2).
INITIAL_WINDOW = 65535

_pack = HEADER.pack
_pack_number = struct.Struct(">L").pack
_pack_setting = struct.Struct(">HL").pack


class HTTP2ConnectionError(Exception):
    """A connection error (RFC 9113, 5.4.1). `code` is the error code for GOAWAY."""

    def __init__(self, message: str, code: int = PROTOCOL_ERROR) -> None:
        super().__init__(message)
        self.code = code


def frame(kind: int, flags: int, number: int, payload: bytes = b"") -> bytes:
    """A frame of stream `number`, 0 for the connection."""
    size = len(payload)
    return _pack(size >> 16, size & 0xFFFF, kind, flags, number) + payload


def header_of_data(size: int, number: int, *, end: bool) -> bytes:
    """The header of a DATA frame, before `size` octets."""
    return _pack(size >> 16, size & 0xFFFF, DATA, END_STREAM if end else 0, number)


def head_frames(number: int, block: bytes, *, end: bool) -> bytes:
    """The field block `block` in a HEADERS frame, and CONTINUATION frames if it is large."""
    flags = END_STREAM if end else 0
    if len(block) <= LARGEST_FRAME:
        return frame(HEADERS, flags | END_HEADERS, number, block)
    frames = [frame(HEADERS, flags, number, block[:LARGEST_FRAME])]
    for at in range(LARGEST_FRAME, len(block), LARGEST_FRAME):
        flags = END_HEADERS if at + LARGEST_FRAME >= len(block) else 0
        frames.append(frame(CONTINUATION, flags, number, block[at : at + LARGEST_FRAME]))
    return b"".join(frames)


def settings_frame(settings: Iterable[tuple[int, int]]) -> bytes:
    """A SETTINGS frame with these identifiers and values."""
    return frame(SETTINGS, 0, 0, b"".join(_pack_setting(*setting) for setting in settings))


def rst_stream(number: int, code: int) -> bytes:
    """A RST_STREAM frame."""
    return frame(RST_STREAM, 0, number, _pack_number(code))


def window_update(number: int, increment: int) -> bytes:
    """A WINDOW_UPDATE frame."""
    return frame(WINDOW_UPDATE, 0, number, _pack_number(increment))


def goaway(last: int, code: int) -> bytes:
    """A GOAWAY frame. `last` is the last stream that is, or was, served."""
    return frame(GOAWAY, 0, 0, _pack_number(last) + _pack_number(code))
