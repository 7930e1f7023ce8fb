"""Limits for frames that cost the server work and request nothing.

Resets, pings, settings and empty frames are allowed, and a flood of them is a known attack
(CVE-2019-9512 to 9518, CVE-2023-44487, CVE-2025-8671). They are counted by their headers of nine
octets, before anything else is done for them.
"""

from __future__ import annotations

from .frames import DATA, END_STREAM, ENHANCE_YOUR_CALM, RST_STREAM, HTTP2ConnectionError

# The size of a burst, and how many are forgiven per second. Resets: as Netty, 200 in 10 seconds. A
# browser that leaves a page resets all requests under way, and does so again on the next page.
_RESETS, _RESETS_FORGIVEN = 200, 20.0
_FRAMES, _FRAMES_FORGIVEN = 1000, 100.0
# A client may send two WINDOW_UPDATE frames, for the stream and the connection, for each DATA frame
# that it gets; but not for tiny frames, which a client can cause by tiny windows.
_CREDIT = 2
_SMALLEST_CREDITED = 512


class TooMuchError(HTTP2ConnectionError):
    """The client has exceeded a limit."""

    def __init__(self, message: str, code: int = ENHANCE_YOUR_CALM) -> None:
        super().__init__(message, code)


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
        # `now` may be a little behind: frames count from the moment at which they were received
        elapsed = max(now - self._updated, 0.0)
        self._level = max(self._level - elapsed * self._leak, 0.0) + 1
        self._updated += elapsed
        if self._level > self._size:
            raise TooMuchError(self._message)

    def credit(self, amount: int) -> None:
        if self._level:
            self._level = max(self._level - amount, 0.0)


class FloodGuard:
    """Counts the frames that one client sends. Belongs to the connection's loop."""

    __slots__ = ("_frames", "_resets")

    def __init__(self) -> None:
        self._resets = _Bucket("too many streams were reset", _RESETS, _RESETS_FORGIVEN)
        self._frames = _Bucket("too many frames that ask for nothing", _FRAMES, _FRAMES_FORGIVEN)

    def count(self, kind: int, flags: int, length: int, now: float) -> None:
        """Count a frame other than HEADERS by its header, if it asks for nothing.

        Raises `TooMuchError`.
        """
        if kind == DATA:
            if not length and not flags & END_STREAM:
                self._frames.add(now)
        elif kind == RST_STREAM:
            self._resets.add(now)
        else:
            self._frames.add(now)

    def wasted(self, now: float) -> None:
        """A frame had no use, such as DATA of padding only. Raises `TooMuchError`."""
        self._frames.add(now)

    def reset(self, now: float) -> None:
        """The client caused the reset of a stream. Raises `TooMuchError`."""
        self._resets.add(now)

    def sent(self, size: int) -> None:
        """A DATA frame with `size` octets was sent."""
        if size >= _SMALLEST_CREDITED:
            self._frames.credit(_CREDIT)
