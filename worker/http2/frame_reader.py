"""Frames from octets (RFC 9113, 4 and 6): their headers, sizes and padding, and whole field blocks.

A frame is refused by its header if that is possible: its payload is then not waited for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from .flood_guard import FloodGuard, TooMuchError
from .frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADER,
    HEADER_LENGTH,
    HEADERS,
    LARGEST_FRAME,
    LAST_STREAM,
    PADDED,
    PING,
    PREFACE,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    WITH_PRIORITY,
    HTTP2ConnectionError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The type, the flags, the stream and the payload of a frame, and the length of the payload with
#: its padding. A HEADERS frame has the whole field block, without what precedes that.
Frame = tuple[int, int, int, bytes, int]

# Frames of the connection: their stream is 0. Those of the others here are of a stream.
_OF_CONNECTION = frozenset((SETTINGS, PING, GOAWAY))
_OF_STREAM = frozenset((DATA, HEADERS, PRIORITY, RST_STREAM, PUSH_PROMISE))
_LENGTHS = {PRIORITY: 5, RST_STREAM: 4, PING: 8, WINDOW_UPDATE: 4}
_SMALLEST_GOAWAY = 8
_A_SETTING = 6
_PRIORITY_LENGTH = 5
# How many frames a field block may have: each may be empty (CVE-2024-27316).
_MOST_PIECES = 64

_unpack = HEADER.unpack_from


class FrameReader:
    """Reads what one client sends, in any pieces. Belongs to the connection's loop."""

    __slots__ = (
        "_block", "_block_flags", "_block_number", "_block_size", "_flood_guard", "_has_begun",
        "_kind", "_largest_block", "_partial", "_preface", "_wanted", "seen",
    )  # fmt: skip

    def __init__(self, flood_guard: FloodGuard, largest_block: int) -> None:
        """`largest_block`: how many octets of a field block are taken, as they are on the wire."""
        self._flood_guard = flood_guard
        self._largest_block = largest_block
        self._preface = PREFACE  # what is still to come of it
        # the beginning of a frame, and how many octets it needs to go on
        self._partial = bytearray()
        self._wanted = HEADER_LENGTH
        # whether the header of that frame was checked, and its type then
        self._has_begun = False
        self._kind = DATA
        # the parts of the field block under way; the flags and the stream of its HEADERS frame
        self._block: list[bytes] = []
        self._block_flags = 0
        self._block_number = 0
        self._block_size = 0
        #: How many frames have begun; a field block counts as one.
        self.seen = 0

    @property
    def unfinished(self) -> bool:
        """Whether a frame other than DATA, or a field block, has begun and is not complete."""
        if self._preface or self._block_number:
            return True
        return bool(self._partial) and not (self._has_begun and self._kind == DATA)

    def frames(self, data: bytes, now: float) -> Iterator[Frame]:
        """The frames that `data` completes. Raises `HTTP2ConnectionError`."""
        if self._preface:
            data = self._after_preface(data)
        if self._partial:
            self._partial += data
            if len(self._partial) < self._wanted:
                return
            data, self._partial = bytes(self._partial), bytearray()
        size = len(data)
        position = 0
        self._wanted = HEADER_LENGTH
        while size - position >= HEADER_LENGTH:
            high, low, kind, flags, number = _unpack(data, position)
            number &= LAST_STREAM
            length = high << 16 | low
            if not self._has_begun:
                self._begin(kind, flags, number, length, now)
            begin = position + HEADER_LENGTH
            if begin + length > size:
                self._has_begun = True
                self._kind = kind
                self._wanted = HEADER_LENGTH + length
                break
            self._has_begun = False
            position = begin + length
            payload = data[begin:position]
            if kind == HEADERS:
                if flags & (PADDED | WITH_PRIORITY):
                    payload = _block_of(payload, flags, number)
                if flags & END_HEADERS:
                    yield HEADERS, flags, number, payload, length
                else:
                    self._block = [payload]
            elif kind == CONTINUATION:
                self._block.append(payload)
                if flags & END_HEADERS:
                    payload, self._block = b"".join(self._block), []
                    flags, self._block_number = self._block_flags, 0
                    yield HEADERS, flags, number, payload, self._block_size
            else:
                if kind == DATA and flags & PADDED:
                    payload = _without_padding(payload, 0)
                yield kind, flags, number, payload, length
        self._partial = bytearray(data[position:])

    def _after_preface(self, data: bytes) -> bytes:
        """What of `data` follows the preface."""
        size = min(len(self._preface), len(data))
        if data[:size] != self._preface[:size]:
            raise HTTP2ConnectionError("the preface is not that of HTTP/2")
        self._preface = self._preface[size:]
        return data[size:]

    def _begin(self, kind: int, flags: int, number: int, length: int, now: float) -> None:
        """Check the header of a frame, and count the frame."""
        if length > LARGEST_FRAME:
            raise TooMuchError("a frame is too large", FRAME_SIZE_ERROR)
        if kind == CONTINUATION:
            self._flood_guard.count(kind, flags, length, now)
            self._continue(number, length)
            return
        if self._block_number:
            raise HTTP2ConnectionError("a frame within a field block")
        if not self.seen and (kind != SETTINGS or flags & ACK):  # RFC 9113, 3.4
            raise HTTP2ConnectionError("the first frame is not SETTINGS")
        self.seen += 1
        if number:
            if kind in _OF_CONNECTION:
                raise HTTP2ConnectionError("a frame of the connection is on a stream")
        elif kind in _OF_STREAM:
            raise HTTP2ConnectionError("a frame of a stream is on stream 0")
        if kind == HEADERS:
            self._measure_block(length)
            if not flags & END_HEADERS:
                self._block_number, self._block_flags = number, flags
            return
        self._flood_guard.count(kind, flags, length, now)
        if kind != DATA:
            _check_length(kind, flags, length)

    def _continue(self, number: int, length: int) -> None:
        """Check a CONTINUATION frame against the field block under way."""
        if not number or number != self._block_number:
            raise HTTP2ConnectionError("a CONTINUATION that continues nothing")
        if len(self._block) >= _MOST_PIECES:
            raise HTTP2ConnectionError("a field block in too many pieces")
        self._measure_block(self._block_size + length)

    def _measure_block(self, size: int) -> None:
        """The field block under way has `size` octets so far."""
        if size > self._largest_block:
            raise TooMuchError("a head is too large")
        self._block_size = size


def _check_length(kind: int, flags: int, length: int) -> None:
    """Raise `HTTP2ConnectionError` if no frame of this type has that length.

    RFC 9113, 6.3 asks for an error of the stream for PRIORITY. That stream may be idle, where
    RST_STREAM is not allowed; 5.4.1 allows an error of the connection for any.
    """
    if kind == PUSH_PROMISE:
        raise HTTP2ConnectionError("a client promises a stream")  # RFC 9113, 8.4
    if kind == SETTINGS:
        is_valid = length % _A_SETTING == 0 and not (flags & ACK and length)
    elif kind == GOAWAY:
        is_valid = length >= _SMALLEST_GOAWAY
    else:
        is_valid = _LENGTHS.get(kind, length) == length
    if not is_valid:
        raise HTTP2ConnectionError("a frame has not the length of its type", FRAME_SIZE_ERROR)


def _block_of(payload: bytes, flags: int, number: int) -> bytes:
    """The part of a field block in a HEADERS frame with padding, a priority or both."""
    at = 1 if flags & PADDED else 0
    start = at
    if flags & WITH_PRIORITY:
        start += _PRIORITY_LENGTH
        if len(payload) < start:
            raise HTTP2ConnectionError("a frame ends within its priority", FRAME_SIZE_ERROR)
        check_dependency(payload[at:start], number)
    return _without_padding(payload, start - at) if at else payload[start:]


def _without_padding(payload: bytes, skipped: int) -> bytes:
    """A padded payload without its padding and the `skipped` octets at its start."""
    if not payload:
        raise HTTP2ConnectionError("a frame ends within its padding", FRAME_SIZE_ERROR)
    start, end = 1 + skipped, len(payload) - payload[0]
    if end < start:
        raise HTTP2ConnectionError("the padding is longer than its frame")
    return payload[start:end]


def check_dependency(priority: bytes, number: int) -> None:
    """Raise `HTTP2ConnectionError` if stream `number` depends on itself (RFC 7540, 5.3.1)."""
    if int.from_bytes(priority[:4], "big") & LAST_STREAM == number:
        raise HTTP2ConnectionError("a stream depends on itself")
