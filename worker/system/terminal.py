"""The controlling terminal, which sends SIGHUP when it closes, as an operator does for a reload."""

from __future__ import annotations

import os
import signal


class Terminal:
    """The controlling terminal of this process. Make it before a handler of SIGHUP is set."""

    def __init__(self) -> None:
        sighup = getattr(signal, "SIGHUP", None)
        # nohup(1) ignores SIGHUP, for a program that outlives its terminal
        self._matters = (
            sighup is not None and signal.getsignal(sighup) is not signal.SIG_IGN and _exists()
        )

    def hung_up(self) -> bool:
        """Whether this process had a terminal which was closed, or whose connection has ended.

        The kernel takes the terminal away from all processes of the session before it sends
        SIGHUP. An operator who sends SIGHUP leaves the terminal as it is.
        """
        return self._matters and not _exists()


def _exists() -> bool:
    """Whether this process has a controlling terminal (tty(4))."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY | os.O_CLOEXEC))
    except OSError:
        return False
    return True
