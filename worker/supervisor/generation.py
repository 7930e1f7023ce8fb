"""What the supervisor knows of its processes: workers, templates, and generations of them."""

from __future__ import annotations

import contextlib
import os
import signal
import time

from .phase import Phase, Phased
from .pipe import Channel

# Seconds that a worker must have served for the next one to be started at once: less would be
# too little for a start to pay.
_SETTLED = 1.0
# How many others in a row are replaced at once; then it is waited for so many seconds, and with
# each for twice as long.
_FREE = 2
_FIRST_DELAY = 0.25
_LONGEST_DELAY = 30.0
# How many workers of a generation may end before one is ready.
_ATTEMPTS = 3


class Child(Phased):
    """A process at the other end of a channel. `pid` is None until whoever forks it says."""

    def __init__(self, channel: Channel, pid: int | None) -> None:
        super().__init__()
        self.channel = channel
        self.pid = pid
        #: When it is killed, in the seconds of `time.monotonic`; 0 never.
        self.deadline = 0.0
        #: When its channel ended; it is given a moment to be reaped.
        self.silent_since = 0.0
        #: What became of it, as `os.waitstatus_to_exitcode` says; None when nobody knows.
        self.status: int | None = None
        #: What it said of an application that could not be loaded.
        self.failed = ""
        self.trace = ""
        #: Its end was asked for.
        self.dismissed = False

    def in_time(self) -> None:
        """It was ready before its deadline; one that it has for another reason stays."""
        if not self.dismissed:
            self.deadline = 0.0

    def kill(self, number: int | None = None) -> None:
        """Send a signal, SIGKILL by default. It was not reaped yet, so the id is its own."""
        if self.pid is not None:
            # no default value: Windows, where the module is imported too, has no such name
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL if number is None else number)


class Worker(Child):
    """A worker as the supervisor sees it."""

    def __init__(
        self,
        channel: Channel,
        pid: int | None,
        number: int,
        generation: Generation,
        page: int = -1,
    ) -> None:
        super().__init__(channel, pid)
        self.number = number
        #: Where it counts, see `statistics`.
        self.page = page
        self.generation = generation
        self.ready_at = 0.0
        self.beat_at = 0.0
        #: For how long it had taken no request when it last said so.
        self.watchdog = 0.0
        #: Why it is to be replaced; empty when it is not.
        self.outgoing = ""
        self.hangs = False

    def __str__(self) -> str:
        return f"worker {self.number} (process {self.pid})"

    def end(self, before: Phase) -> str:
        """How it has ended, in a word of `statistics.ENDS`, if it was in the phase `before`."""
        if self.dismissed:
            return "dismissed"
        if self.failed:
            return "failed"
        if self.status is not None and self.status < 0:
            return "signal"
        return "drained" if before is Phase.DRAINING else "exit"

    def is_staff(self) -> bool:
        """Whether it serves, or will, and is not about to be replaced."""
        return self.phase in (Phase.STARTING, Phase.SERVING) and not self.outgoing


class Template(Child):
    """The process that workers are forked from. STARTING until the application is imported."""

    def __init__(self, channel: Channel, pid: int, generation: Generation) -> None:
        super().__init__(channel, pid)
        self.generation = generation

    def __str__(self) -> str:
        return f"the template (process {self.pid})"


class Generation(Phased):
    """The workers that have imported the application at about the same time."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.workers: set[Worker] = set()
        self.template: Template | None = None
        self.failures = 0
        #: No worker is started before this time.
        self.not_before = 0.0
        self._last_trace = ""

    def count(self, phase: Phase) -> int:
        """How many of its workers are in `phase`."""
        return sum(worker.phase is phase for worker in self.workers)

    def lost(self, child: Child, now: float) -> None:
        """A process has ended that nobody told to: the next is waited for the longer."""
        ready_at = child.ready_at if isinstance(child, Worker) else 0.0
        if ready_at and now - ready_at >= _SETTLED:
            self.failures = 0
            return
        self.failures += 1
        if self.failures > _FREE:
            doubled = min(self.failures - _FREE - 1, 16)
            self.not_before = now + min(_FIRST_DELAY * 2**doubled, _LONGEST_DELAY)

    def is_hopeless(self) -> bool:
        """Whether no worker has ever been ready, and enough have been tried."""
        return self.phase is Phase.STARTING and self.failures >= _ATTEMPTS

    def wait(self) -> float:
        """The seconds until a worker may be started."""
        return max(self.not_before - time.monotonic(), 0.0)

    def new_trace(self, trace: str) -> str:
        """`trace`, if it is not the one that was shown last."""
        if trace == self._last_trace:
            return ""
        self._last_trace = trace
        return trace
