"""Frames that cost this server something and ask for nothing are counted.

HTTP/2 has many: a reset, a ping, a change of settings, an empty frame. Each is allowed, and a flood
of them is how servers are stopped (CVE-2019-9512 to 9518, CVE-2023-44487, CVE-2025-8671). They are
counted by their nine octets, before anything else is done for them. What is too large is refused by
them, too: h2 looks when it has all of a frame, which may be 16 MiB, or of a head.
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
# RFC 9113, 7.
_CALM, _FRAME_SIZE = 0xB, 0x6

# A burst, and what is forgiven a second. Resets: as Netty, 200 in 10 seconds; a browser that leaves
# a page resets all that is under way, and again on the next page.
_RESETS, _RESETS_FORGIVEN = 200, 20.0
_FRAMES, _FRAMES_FORGIVEN = 1000, 100.0
# For each frame of a body that is sent a client may say twice, for stream and connection, that
# there is room again; but not for the tiny ones that its own tiny windows have made.
_CREDIT = 2
_SMALLEST_CREDITED = 512


class TooMuchError(Exception):
    """The client has gone over a limit of what it may do to this server. `code` tells it so."""

    def __init__(self, what: str, code: int = _CALM) -> None:
        super().__init__(what)
        self.code = code


class _Bucket:
    """Leaks at a rate, and must not flow over."""

    __slots__ = ("_at", "_leak", "_level", "_size", "_what")

    def __init__(self, what: str, size: int, leak: float) -> None:
        self._what = what
        self._size = size
        self._leak = leak
        self._level = 0.0
        self._at = 0.0

    def add(self, now: float) -> None:
        self._level = max(self._level - (now - self._at) * self._leak, 0.0) + 1
        self._at = now
        if self._level > self._size:
            raise TooMuchError(self._what)

    def credit(self, amount: int) -> None:
        self._level = max(self._level - amount, 0.0)


class FloodGuard:
    """Looks at the frames of one connection on their way in. Belongs to its loop."""

    __slots__ = ("_block", "_dropping", "_frames", "_held", "_in_block", "_kind", "_largest_block",
                 "_left", "_preface", "_resets", "seen")  # fmt: skip

    def __init__(self, largest_block: int = 65536) -> None:
        self._largest_block = largest_block
        self._block = 0  # octets of a head, as they are on the wire
        self._preface = _PREFACE
        self._held = b""  # the beginning of a frame's head
        self._left = 0  # what is still to come of a frame
        self._kind = _DATA
        self._dropping = False
        self._in_block = False  # a head is not whole
        self._resets = _Bucket("too many streams were reset", _RESETS, _RESETS_FORGIVEN)
        self._frames = _Bucket("too many frames that ask for nothing", _FRAMES, _FRAMES_FORGIVEN)
        #: How many frames have begun; a head in several is one.
        self.seen = 0

    @property
    def unfinished(self) -> bool:
        """Whether something other than a body has begun to come and is not whole."""
        partial = self._held or self._preface or (self._left and self._kind != _DATA)
        return bool(partial or self._in_block)

    def admit(self, data: bytes, now: float) -> bytes:
        """Count the frames in `data`; what is to be gone on with. Raises `TooMuchError`.

        A client's GOAWAY is left out. All that it says is that no pushed stream is wanted, but h2
        takes it for the end, and would neither read nor answer what the client has asked before.
        """
        if self._held:
            data, self._held = self._held + data, b""
        size = len(data)
        at = min(self._preface, size)
        self._preface -= at
        kept: list[bytes] = []
        begin = 0
        while True:
            if self._left:
                step = min(self._left, size - at)
                at += step
                self._left -= step
                if self._left:
                    break
            if self._dropping:
                self._dropping = False
                begin = at
            if size - at < _FRAME_HEAD:
                self._held = data[at:]
                break
            length = int.from_bytes(data[at : at + 3], "big")
            if length > LARGEST_FRAME:
                raise TooMuchError("a frame is too large", _FRAME_SIZE)
            if self._is_dropped(data[at + 3], length):
                self._dropping = True
                kept.append(data[begin:at])
            self._count(data[at + 3], data[at + 4], length, now)
            at += _FRAME_HEAD
            self._left = length
        if not self._dropping:
            kept.append(data[begin:at])
        return kept[0] if len(kept) == 1 else b"".join(kept)

    def _is_dropped(self, kind: int, length: int) -> bool:
        return kind == _GOAWAY and not self._in_block and 8 <= length <= LARGEST_FRAME

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
        """A head has `length`, until now."""
        if length > self._largest_block:
            raise TooMuchError("a head is too large")
        self._block = length
        self._in_block = not flags & _END_HEADERS

    def wasted(self, now: float) -> None:
        """A frame came that brought nothing, such as one of padding. Raises `TooMuchError`."""
        self._frames.add(now)

    def reset(self, now: float) -> None:
        """The client made this server reset a stream. Raises `TooMuchError`."""
        self._resets.add(now)

    def sent(self, size: int) -> None:
        """A frame with `size` octets of a body was sent."""
        if size >= _SMALLEST_CREDITED:
            self._frames.credit(_CREDIT)
