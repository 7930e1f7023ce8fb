"""Where a process hangs that does not become ready: what faulthandler has printed.

Processes that start together hang together, and faulthandler writes its text word by word. On the
standard error that they share the texts would mix. So each has a file of its own, which the
supervisor reads before it kills the process.
"""

from __future__ import annotations

import os
import weakref

from .reports import printable

# Octets that are read: the stacks of a hundred threads, of which faulthandler prints no more.
_LONGEST = 1 << 18

# Closed in every forked process: none may write for another.
_open: weakref.WeakSet[StartTrace] = weakref.WeakSet()


class StartTrace:
    """The supervisor's side of the file. Raises `OSError` if there is no descriptor left."""

    def __init__(self) -> None:
        self._fd = _make_file()
        _open.add(self)

    def copy(self) -> int:
        """A descriptor for the process that starts. The caller closes it. Raises `OSError`."""
        return os.dup(self._fd)

    def read(self) -> str:
        """What was printed; empty if nothing was. The process may have written anything."""
        return printable(os.pread(self._fd, _LONGEST, 0).decode(errors="replace"))

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        _open.discard(self)
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def _make_file() -> int:
    try:
        return os.memfd_create("threadwell-start")
    except (AttributeError, OSError):  # not Linux, or a policy of the system is against it
        pass
    import tempfile

    try:
        fd, path = tempfile.mkstemp(prefix="threadwell-start-")
    except OSError:  # no folder can be written to: then it will not be known where a start hangs
        return os.open(os.devnull, os.O_RDWR)
    os.unlink(path)
    return fd


def _close_in_child() -> None:
    for trace in list(_open):
        trace.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_close_in_child)
