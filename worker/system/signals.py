"""Signals as something that is waited for, instead of something that interrupts."""

from __future__ import annotations

import contextlib
import signal
import socket
from collections import deque
from collections.abc import Iterable
from types import TracebackType
from typing import Any, Self

from .readiness import has_input


class Signals:
    """Takes the signals `numbers` while it is open; the handlers before it are put back.

    The handlers only take note: what they interrupt may hold the lock that they would take. The
    interpreter itself writes to the wake-up descriptor, so that no signal is slept over. Opened
    and waited at in the main thread; `wake` may be called by any.
    """

    def __init__(self, numbers: Iterable[int]) -> None:
        self._numbers = tuple(numbers)
        self._came: deque[int] = deque()
        self._before: list[Any] = []
        self._descriptor = -1
        self._waiting, self._waking = socket.socketpair()
        self._waiting.setblocking(False)
        self._waking.setblocking(False)

    def __enter__(self) -> Self:
        self._descriptor = signal.set_wakeup_fd(self._waking.fileno(), warn_on_full_buffer=False)
        self._before = [signal.signal(number, self._note) for number in self._numbers]
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in zip(self._numbers, self._before, strict=True):
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._descriptor)
        self.close()

    def fileno(self) -> int:
        """Readable when there is something to `take`."""
        return self._waiting.fileno()

    def wait(self, seconds: float | None = None) -> list[int]:
        """Wait for a signal, or for `wake`, or until the time is over; then `take`."""
        if not self._came:
            has_input(self._waiting.fileno(), seconds)
        return self.take()

    def take(self) -> list[int]:
        """The signals that came since the last look, in their order."""
        with contextlib.suppress(BlockingIOError):
            while self._waiting.recv(4096):
                pass
        came = []
        while self._came:
            came.append(self._came.popleft())
        return came

    def wake(self) -> None:
        """Make `wait` return."""
        with contextlib.suppress(OSError):  # full, or closed meanwhile
            self._waking.send(b"!")

    def close(self) -> None:
        """Let go of the descriptors; the handlers stay. For a process that was forked."""
        self._waiting.close()
        self._waking.close()

    def _note(self, number: int, _frame: object) -> None:
        self._came.append(number)
