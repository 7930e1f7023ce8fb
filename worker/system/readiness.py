"""Whether a descriptor is ready, of any number: `select` knows those below 1024 only."""

from __future__ import annotations

import select
from collections.abc import Iterable


def has_input(fd: int, seconds: float | None = 0) -> bool:
    """Whether something can be read of `fd`, an end of input included, within `seconds`.

    None waits for ever.
    """
    if not hasattr(select, "poll"):
        return bool(select.select([fd], [], [], seconds and max(seconds, 0))[0])
    return _poll(fd, select.POLLIN, seconds)


def wait_for_input(fds: Iterable[int], seconds: float | None) -> None:
    """Until something can be read of one of `fds`, or for `seconds`; POSIX."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, select.POLLIN)
    poll.poll(None if seconds is None else max(seconds, 0) * 1000)


def has_room(fd: int, seconds: float = 0) -> bool:
    """Whether something can be written to `fd`, or it is broken, within `seconds`."""
    if not hasattr(select, "poll"):
        return bool(select.select([], [fd], [], max(seconds, 0))[1])
    return _poll(fd, select.POLLOUT, seconds)


def in_error(fds: Iterable[int]) -> set[int]:
    """Those that were reset, or whose both directions have ended."""
    poll = select.poll()
    for fd in fds:
        poll.register(fd, 0)  # these two are always told
    return {fd for fd, _ in poll.poll(0)}


def _poll(fd: int, wanted: int, seconds: float | None) -> bool:
    poll = select.poll()
    poll.register(fd, wanted)
    return bool(poll.poll(None if seconds is None else max(seconds, 0) * 1000))
