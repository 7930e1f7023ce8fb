"""What the supervisor knows of its processes: workers, fork servers, and generations of them."""

from __future__ import annotations

import contextlib
import os
import signal

from ..system.processes import open_process, parent_of, send_signal
from .answers import Question
from .phase import Phase, Phased
from .pipe import Message, Pipe
from .reports import Reports
from .start_trace import StartTrace

# A worker that exits later than so many seconds after it became ready is replaced at once. One
# that exits earlier counts as a failed start.
_STABLE_AFTER = 1.0
# How many failed starts in a row are followed by another start at once. From then on the delay, in
# seconds, doubles with each.
_IMMEDIATE_RESTARTS = 2
_FIRST_DELAY = 0.25
_LONGEST_DELAY = 30.0
# How many starts of a new generation may fail before any worker is ready.
_ATTEMPTS = 3


class Child(Phased):
    """A process at the other end of a pipe. `pid` is None until its fork server reports it."""

    def __init__(self, pipe: Pipe, pid: int | None, reports: Reports | None = None) -> None:
        super().__init__()
        self.pipe = pipe
        self.pid = pid
        self.reports = reports or Reports()
        #: The process whose child it must be to be signalled; None if its id is beyond doubt.
        self.parent: int | None = None
        # A descriptor of the reported process; negative if there is none.
        self._handle = -1
        #: It has reported that its start begins.
        self.announced = False
        #: It has sent what it may not send: nothing of it is read any more.
        self.rejected = False
        #: When it is killed, by `time.monotonic`; 0 for never.
        self.deadline = 0.0
        #: When its end of the pipe was closed; 0 while it is open.
        self.closed_at = 0.0
        #: How it has exited, as `os.waitstatus_to_exitcode` says; None if that is not known.
        self.status: int | None = None
        #: The error and the traceback that it has sent, if the application could not be loaded.
        self.failed = ""
        self.trace = ""
        #: Where faulthandler writes until it is ready; None if there is nothing.
        self.start_trace: StartTrace | None = None
        #: It was told to end before it was ready.
        self.dismissed = False

    def is_asked_for(self, message: Message) -> bool:  # noqa: ARG002
        """Whether `message` is a part of an answer to a question that is open."""
        return False

    def clear_start_deadline(self) -> None:
        """It has become ready in time. A deadline for another reason stays."""
        if not self.dismissed:
            self.deadline = 0.0
        self._close_start_trace()

    def _close_start_trace(self) -> None:
        if self.start_trace is not None:
            self.start_trace.close()
            self.start_trace = None

    def kill(self, number: int | None = None) -> None:
        """Send a signal, SIGKILL by default. Nothing happens once it is known to have exited."""
        if self.pid is None or self.status is not None:
            return
        # no default value: Windows, where the module is imported too, has no SIGKILL
        number = signal.SIGKILL if number is None else number
        with contextlib.suppress(ProcessLookupError):
            if self._handle >= 0:
                send_signal(self._handle, number)
            elif self.parent is None or parent_of(self.pid) == self.parent:
                os.kill(self.pid, number)

    def adopt(self, pid: int, parent: int, *, privileged: bool) -> bool:
        """Take over `pid` as the fork server `parent` has reported it; False if that is a lie.

        The fork server runs code of the application. If this process is `privileged`, it signals
        only what certainly is a child of the fork server. A process that has ended already has no
        parent any more: `pid` is then a mere name.
        """
        handle = open_process(pid)  # first: it pins the process whose parent is looked up
        found = parent_of(pid)
        if found == parent or (found is None and not privileged):
            self._handle = handle
        elif handle >= 0:
            os.close(handle)
        if found not in (parent, None):
            return False
        self.pid = pid
        if found == parent or privileged:
            self.parent = parent
        return True

    def release(self) -> None:
        """Close the descriptors of the process."""
        self._close_start_trace()
        if self._handle >= 0:
            os.close(self._handle)
            self._handle = -1


class Worker(Child):
    """A worker process, as the supervisor sees it."""

    def __init__(
        self,
        pipe: Pipe,
        pid: int | None,
        number: int,
        generation: Generation,
        page: int = -1,
    ) -> None:
        super().__init__(pipe, pid)
        self.number = number
        #: The page that it counts on, see `statistics`; negative without metrics.
        self.page = page
        self.generation = generation
        self.ready_at = 0.0
        #: When the last heartbeat came, and for how long no request had been taken then.
        self.heartbeat_at = 0.0
        self.idle_for = 0.0
        #: Why it is to be replaced; empty if it is not.
        self.replace_reason = ""
        self.hangs = False
        #: It has served its last request, and reads no questions any more. The threads and the
        #: `atexit` functions of the application may keep it from exiting.
        self.exiting = False
        #: What it was asked and has not answered, by numbers that grow.
        self.questions: dict[int, Question] = {}
        self.last_question = 0
        #: What it has reported before its fork server has reported its `pid`.
        self.early: list[Message] = []

    def __str__(self) -> str:
        return f"worker {self.number} (process {self.pid})"

    def ask(self, number: int, question: Question) -> None:
        """Note that it is being asked `question`."""
        self.questions[number] = question
        self.last_question = number

    def is_asked_for(self, message: Message) -> bool:
        number = message.get("answer")
        return type(number) is int and number in self.questions

    def ended_as(self, before: Phase) -> str:
        """How it has ended, one of `statistics.ENDS`; `before` was its last phase."""
        if self.dismissed:
            return "dismissed"
        if self.failed:
            return "failed"
        if self.status is not None and self.status < 0:
            return "signal"
        return "drained" if before is Phase.DRAINING else "exit"

    def is_staying(self) -> bool:
        """Whether it serves or starts, and is not to be replaced."""
        return self.phase in (Phase.STARTING, Phase.SERVING) and not self.replace_reason


class ForkServer(Child):
    """The process that forks the workers. STARTING until it has imported the application."""

    def __init__(self, pipe: Pipe, pid: int, generation: Generation) -> None:
        super().__init__(pipe, pid, Reports(fork_server=True))
        self.generation = generation

    def __str__(self) -> str:
        return f"the template (process {self.pid})"


class Generation(Phased):
    """Workers that serve the same import of the application: those between two reloads."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.workers: set[Worker] = set()
        self.fork_server: ForkServer | None = None
        #: Failures in a row, and those of workers that were never ready.
        self.failures = 0
        self._failed_starts = 0
        #: No worker is started before this time of `time.monotonic`.
        self.not_before = 0.0
        self._last_trace = ""

    def count(self, phase: Phase) -> int:
        """How many of its workers are in `phase`."""
        return sum(worker.phase is phase for worker in self.workers)

    def note_exit(self, child: Child, now: float) -> None:
        """A process exited unexpectedly: delay the next start, if it follows failed starts."""
        ready_at = child.ready_at if isinstance(child, Worker) else 0.0
        if ready_at and now - ready_at >= _STABLE_AFTER:
            self.failures = self._failed_starts = 0
            return
        self.failures += 1
        if not ready_at:
            self._failed_starts += 1
        if self.failures > _IMMEDIATE_RESTARTS:
            doubled = min(self.failures - _IMMEDIATE_RESTARTS - 1, 16)
            self.not_before = now + min(_FIRST_DELAY * 2**doubled, _LONGEST_DELAY)

    def note_failed_fork(self, not_before: float) -> None:
        """The system could not start a process: try again from `not_before` on."""
        self.failures += 1
        self._failed_starts += 1
        self.not_before = not_before

    def has_failed(self) -> bool:
        """Whether so many attempts have failed that it will not start.

        A worker that was ready has started: how it ended says nothing of the next start.
        """
        return self.phase is Phase.STARTING and self._failed_starts >= _ATTEMPTS

    def new_trace(self, trace: str) -> str:
        """`trace`, or an empty text if the one before was the same."""
        if trace == self._last_trace:
            return ""
        self._last_trace = trace
        return trace
