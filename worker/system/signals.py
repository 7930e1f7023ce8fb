"""Signals that the main thread waits for, instead of handlers that interrupt it."""

from __future__ import annotations

import contextlib
import logging
import signal
import socket
from collections import deque
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from .readiness import has_input

log = logging.getLogger("threadwell")

#: To gunicorn, nginx and others it means to start a new program beside the old one. By default it
#: ends a process, so that a script written for them would end a server. Windows has none.
UPGRADE = getattr(signal, "SIGUSR2", 0)


def refuse_upgrade() -> None:
    """Log that SIGUSR2 does nothing."""
    log.warning(
        "SIGUSR2 is ignored: threadwell does not execute itself again; for new code"
        " send SIGHUP to a server with --workers, for a new Python restart it"
    )


class Signals:
    """Receives the signals `numbers` while it is open, then restores the previous handlers.

    The handlers only record the signal: the code that they interrupt may hold a lock that they
    would need. The interpreter writes to the wake-up descriptor, so that `wait` returns. Open it
    and wait in the main thread; `wake` may be called from any thread.
    """

    def __init__(self, numbers: Iterable[int]) -> None:
        self._numbers = tuple(numbers)
        self._pending: deque[int] = deque()
        self._previous: list[Any] = []
        self._descriptor = -1
        self._reader, self._writer = socket.socketpair()
        self._reader.setblocking(False)
        self._writer.setblocking(False)

    def __enter__(self) -> Self:
        self._descriptor = signal.set_wakeup_fd(self._writer.fileno(), warn_on_full_buffer=False)
        self._previous = [signal.signal(number, self._on_signal) for number in self._numbers]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in zip(self._numbers, self._previous, strict=True):
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._descriptor)
        self.close()

    def fileno(self) -> int:
        """Return a descriptor that is readable when `take` would return something."""
        return self._reader.fileno()

    def wait(self, seconds: float | None = None) -> list[int]:
        """Wait for a signal or `wake`, at most `seconds`, and return what `take` returns."""
        if not self._pending:
            has_input(self._reader.fileno(), seconds)
        return self.take()

    def take(self) -> list[int]:
        """Return the signals received since the last call, in order."""
        with contextlib.suppress(BlockingIOError):
            while self._reader.recv(4096):
                pass
        taken = []
        while self._pending:
            taken.append(self._pending.popleft())
        return taken

    def wake(self) -> None:
        """Make `wait` return."""
        with contextlib.suppress(OSError):  # full, or closed meanwhile
            self._writer.send(b"!")

    def close(self) -> None:
        """Close the descriptors and keep the handlers, as a forked process needs it."""
        self._reader.close()
        self._writer.close()

    def _on_signal(self, number: int, _frame: object) -> None:
        self._pending.append(number)
