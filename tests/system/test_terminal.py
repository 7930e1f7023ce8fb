"""A terminal that is closed ends the server in it; SIGHUP without that is a wish to reload."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from .serving import COMMANDS, Serving

# Makes standard input the controlling terminal of a new session, and runs Python with the rest.
IN_TERMINAL = (
    "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0);"
    " os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
)
NOHUP = f"import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN); {IN_TERMINAL}"


class TerminalWindow:
    """A new terminal; `close` is what closing its window does."""

    def __init__(self) -> None:
        self._master, self.device = os.openpty()

    def options(self, script: str = IN_TERMINAL) -> dict[str, Any]:
        """For `start`: it runs the command in this terminal."""
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), self.device)
        return {"before": [sys.executable, "-c", script], "start_new_session": True, **streams}

    def close(self) -> None:
        for number in (self._master, self.device):
            if number >= 0:
                os.close(number)
        self._master = self.device = -1


@pytest.fixture
def window() -> Iterator[TerminalWindow]:
    window = TerminalWindow()
    yield window
    window.close()


@pytest.mark.parametrize("name", COMMANDS)
def test_a_closed_terminal_ends_the_server(
    start: Callable[..., Serving], window: TerminalWindow, name: str
) -> None:
    server = start(name, **window.options())
    assert server.get() == b"hello"
    window.close()
    server.process.wait(20)
    with pytest.raises(OSError, match=r"No such file|refused"):
        server.connect()


@pytest.mark.parametrize("name", ["threads", "workers"])
def test_an_operator_reloads_in_a_terminal(
    start: Callable[..., Serving], window: TerminalWindow, name: str
) -> None:
    server = start(name, **window.options())
    assert server.get() == b"hello"
    server.process.send_signal(signal.SIGHUP)
    assert server.get() == b"hello"
    assert server.end() == 0


@pytest.mark.parametrize("name", ["threads", "workers", "reload"])
def test_nohup_outlives_the_terminal(
    start: Callable[..., Serving], window: TerminalWindow, name: str
) -> None:
    server = start(name, **window.options(NOHUP))
    assert server.get() == b"hello"
    window.close()
    assert server.get() == b"hello"
    assert server.end() == 0
