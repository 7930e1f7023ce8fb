"""Readiness of descriptors by poll(2), which has no limit of 1024 as select(2) has."""

from __future__ import annotations

import select
import sys
from collections.abc import Iterable

if sys.platform != "win32":
    import fcntl
    import termios

# What FIONREAD returns where nothing waits: a C int.
_NOTHING = bytes(4)


def has_input(fd: int, seconds: float | None = 0) -> bool:
    """Whether `fd` becomes readable, or reaches its end of input, within `seconds`.

    None waits without limit.
    """
    if not hasattr(select, "poll"):
        return bool(select.select([fd], [], [], seconds and max(seconds, 0))[0])
    return _poll(fd, select.POLLIN, seconds)


def has_octets(fd: int) -> bool:
    """Whether a stream socket has received octets that were not read; False at the end of input.

    Raises `OSError` for a descriptor that is none.
    """
    if sys.platform == "win32":
        return has_input(fd)
    return fcntl.ioctl(fd, termios.FIONREAD, _NOTHING) != _NOTHING


def wait_for_input(fds: Iterable[int], seconds: float | None) -> None:
    """Wait until one of `fds` is readable, at most for `seconds`. Only on POSIX."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    poll.poll(None if seconds is None else max(seconds, 0) * 1000)


def has_room(fd: int, seconds: float = 0) -> bool:
    """Whether `fd` becomes writable, or fails, within `seconds`."""
    if not hasattr(select, "poll"):
        return bool(select.select([], [fd], [], max(seconds, 0))[1])
    return _poll(fd, select.POLLOUT, seconds)


def in_error(fds: Iterable[int]) -> set[int]:
    """Return those of `fds` that were reset or have ended in both directions."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, 0)  # POLLERR and POLLHUP are always reported
    return {fd for fd, _ in poll.poll(0)}


def count_readable(fds: Iterable[int]) -> int:
    """How many of `fds` have input, or have reached its end; 0 on a system without poll(2)."""
    if not hasattr(select, "poll"):
        return 0
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    return sum(bool(event & select.POLLIN) for _, event in poll.poll(0))


def _poll(fd: int, wanted: int, seconds: float | None) -> bool:
    poll = select.poll()
    poll.register(fd, wanted)
    return bool(poll.poll(None if seconds is None else max(seconds, 0) * 1000))
