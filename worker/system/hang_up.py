"""Detects that the client of a connection has left while the server does not read from it."""

from __future__ import annotations

import select
import time

# How often a socket is looked at, in seconds: an application may produce nothing in a tight loop.
_INTERVAL = 0.05
# A client that has only ended its sending side may wait for its response, and one that has closed
# looks the same until something is sent. So it is left after so many looks.
_LOOKS = 10


def has_hung_up(fd: int, *, half: bool = True) -> bool:
    """Whether the other side of the socket `fd` was closed, or has failed; with `half` also whether
    it sends nothing more. Only Linux tells of that; without poll(2) nothing is told."""
    if not hasattr(select, "poll"):
        return False
    poll = select.poll()
    # POLLERR and POLLHUP are always reported
    poll.register(fd, getattr(select, "POLLRDHUP", 0) if half else 0)
    return bool(poll.poll(0))


class HangUpWatch:
    """Looks whether a client has left, while its response has nothing for it that could fail.

    Used by one thread. `reset` is called when something was sent.
    """

    __slots__ = ("_looked_at", "_looks")

    def __init__(self) -> None:
        self._looked_at = 0.0
        self._looks = 0

    def reset(self) -> None:
        """Something was sent: if the client has left, the next block fails."""
        self._looks = 0

    def has_left(self, fd: int) -> bool:
        """Whether the client of the socket `fd` has left. Cheap, however often it is called."""
        now = time.monotonic()
        if now < self._looked_at + _INTERVAL:
            return False
        self._looked_at = now
        self._looks += 1
        return has_hung_up(fd, half=self._looks >= _LOOKS)
