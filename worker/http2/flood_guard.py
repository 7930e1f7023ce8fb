"""Limits for frames that cost the server work and request nothing.

Resets, pings, settings and empty frames are allowed, and a flood of them is a known attack
(CVE-2019-9512 to 9518, CVE-2023-44487, CVE-2025-8671). They are counted by their headers of nine
octets, before anything else is done for them. A frame or a head that is too large is refused by its
header, too: h2 checks only a complete frame, which may have 16 MiB.
"""

from __future__ import annotations

# RFC 9113, 6.
_DATA, _HEADERS, _PRIORITY, _RESET, _SETTINGS, _PING, _GOAWAY, _UPDATE, _CONTINUATION = (
    *range(5),
    *range(6, 10),
)
_END_STREAM, _END_HEADERS = 0x1, 0x4
_FRAME_HEAD = 9
_PREFACE = len(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
LARGEST_FRAME = 16384
_LAST_STREAM = 2**31 - 1
_SMALLEST_GOAWAY = 8
# RFC 9113, 7.
_ENHANCE_YOUR_CALM, _FRAME_SIZE_ERROR = 0xB, 0x6

# The size of a burst, and how many are forgiven per second. Resets: as Netty, 200 in 10 seconds. A
# browser that leaves a page resets all requests under way, and does so again on the next page.
_RESETS, _RESETS_FORGIVEN = 200, 20.0
_FRAMES, _FRAMES_FORGIVEN = 1000, 100.0
# A client may send two WINDOW_UPDATE frames, for the stream and the connection, for each DATA frame
# that it gets; but not for tiny frames, which a client can cause by tiny windows.
_CREDIT = 2
_SMALLEST_CREDITED = 512


class TooMuchError(Exception):
    """The client has exceeded a limit. `code` is the error code for GOAWAY."""

    def __init__(self, message: str, code: int = _ENHANCE_YOUR_CALM) -> None:
        super().__init__(message)
        self.code = code


class _Bucket:
    """A leaky bucket: drains at a rate, and raises when it is full."""

    __slots__ = ("_updated", "_leak", "_level", "_size", "_message")

    def __init__(self, message: str, size: int, leak: float) -> None:
        self._message = message
        self._size = size
        self._leak = leak
        self._level = 0.0
        self._updated = 0.0

    def add(self, now: float) -> None:
        self._level = max(self._level - (now - self._updated) * self._leak, 0.0) + 1
        self._updated = now
        if self._level > self._size:
            raise TooMuchError(self._message)

    def credit(self, amount: int) -> None:
        self._level = max(self._level - amount, 0.0)


class FloodGuard:
    """Checks the frames that one client sends. Belongs to the connection's loop."""

    __slots__ = (
        "_block", "_frames", "_in_block", "_is_dropping", "_kind", "_largest_block", "_left",
        "_partial_head", "_preface", "_resets", "seen",
    )  # fmt: skip

    def __init__(self, largest_block: int = 65536) -> None:
        self._largest_block = largest_block
        self._block = 0  # octets of the head under way, as they are on the wire
        self._preface = _PREFACE
        self._partial_head = b""  # the beginning of a frame's header
        self._left = 0  # octets that are still to come of a frame
        self._kind = _DATA
        self._is_dropping = False
        self._in_block = False  # a head is not complete
        self._resets = _Bucket("too many streams were reset", _RESETS, _RESETS_FORGIVEN)
        self._frames = _Bucket("too many frames that ask for nothing", _FRAMES, _FRAMES_FORGIVEN)
        #: How many frames have begun; a head and its continuations count as one.
        self.seen = 0

    @property
    def unfinished(self) -> bool:
        """Whether a frame other than DATA, or a head, has begun and is not complete."""
        partial = self._partial_head or self._preface or (self._left and self._kind != _DATA)
        return bool(partial or self._in_block)

    def admit(self, data: bytes, now: float) -> bytes:
        """Count the frames in `data`; the octets to pass on to h2. Raises `TooMuchError`.

        A GOAWAY frame of a client is not passed on. It says only that the client accepts no more
        pushed streams, but h2 would take it for the end and serve no stream any more.
        """
        if self._partial_head:
            data, self._partial_head = self._partial_head + data, b""
        size = len(data)
        position = min(self._preface, size)
        self._preface -= position
        admitted: list[bytes] = []
        start = 0
        while True:
            if self._left:
                size_here = min(self._left, size - position)
                position += size_here
                self._left -= size_here
                if self._left:
                    break
            if self._is_dropping:
                self._is_dropping = False
                start = position
            if size - position < _FRAME_HEAD:
                self._partial_head = data[position:]
                break
            length = int.from_bytes(data[position : position + 3], "big")
            if length > LARGEST_FRAME:
                raise TooMuchError("a frame is too large", _FRAME_SIZE_ERROR)
            if data[position + 3] == _GOAWAY and self._is_farewell(data, position, length):
                self._is_dropping = True
                admitted.append(data[start:position])
            self._count(data[position + 3], data[position + 4], length, now)
            position += _FRAME_HEAD
            self._left = length
        if not self._is_dropping:
            admitted.append(data[start:position])
        return admitted[0] if len(admitted) == 1 else b"".join(admitted)

    def _is_farewell(self, data: bytes, position: int, length: int) -> bool:
        """Whether the GOAWAY frame at `position` is well-formed; h2 refuses one that is not.

        It must be on stream 0 (RFC 9113, 6.8); the first bit of the number is reserved.
        """
        stream = int.from_bytes(data[position + 5 : position + _FRAME_HEAD], "big") & _LAST_STREAM
        return not stream and not self._in_block and length >= _SMALLEST_GOAWAY

    def _count(self, kind: int, flags: int, length: int, now: float) -> None:
        self._kind = kind
        if kind != _CONTINUATION:
            self.seen += 1
        if kind == _HEADERS:
            self._measure_block(length, flags)
        elif kind == _DATA:
            if not length and not flags & _END_STREAM:
                self._frames.add(now)
        elif kind == _RESET:
            self._resets.add(now)
        else:
            if kind == _CONTINUATION:
                self._measure_block(self._block + length, flags)
            self._frames.add(now)

    def _measure_block(self, length: int, flags: int) -> None:
        """The head under way has `length` octets so far."""
        if length > self._largest_block:
            raise TooMuchError("a head is too large")
        self._block = length
        self._in_block = not flags & _END_HEADERS

    def wasted(self, now: float) -> None:
        """A DATA frame had no data, such as one of padding only. Raises `TooMuchError`."""
        self._frames.add(now)

    def reset(self, now: float) -> None:
        """The client caused the reset of a stream. Raises `TooMuchError`."""
        self._resets.add(now)

    def sent(self, size: int) -> None:
        """A DATA frame with `size` octets was sent."""
        if size >= _SMALLEST_CREDITED:
            self._frames.credit(_CREDIT)
