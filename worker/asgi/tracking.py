"""Which calls of the application run on a loop, for observers in other threads.

The calls that wait are in `LoopWorker.calls`. One that has not waited yet keeps the loop busy: the
look finds it among the frames of the loop's thread. Some calls are sampled, for their durations.
Where frames cannot be looked at, each call is noted, if the server tracks requests.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Protocol

from ..lifecycle import RunningRequest
from ..system.durations import Durations
from ..system.stacks import can_see_frames, find_frame, stack_of_coroutine

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import CodeType, FrameType

    from ..config import ServerConfig
    from .interfaces import Call

_monotonic = time.monotonic


class TrackedLoop(Protocol):
    """What is used here of a `LoopWorker`."""

    calls: dict[Call, float]
    served: int

    def begin(self, call: Any, scope: dict[str, Any]) -> None: ...

    def replace_begin(self, begin: Any) -> None: ...

    def call(self, function: Any, *arguments: Any) -> bool: ...


class LoopTracking:
    """The calls of one loop. Belongs to its thread, but for what says that any thread may call."""

    def __init__(self, loop_worker: TrackedLoop, config: ServerConfig) -> None:
        self._worker = loop_worker
        #: When the call that is being started has begun; 0 if that is not noted.
        self.began = 0.0
        self.durations = Durations()
        #: The loop's thread.
        self._ident = 0
        self._thread_name = ""
        # the call that is being started, if calls are noted
        self._starting: Call | None = None
        self._is_on = config.tracks_requests()
        self._stays = not can_see_frames()
        # tasks of calls that have taken too long, and were cancelled
        self._timed_out: weakref.WeakSet[asyncio.Task[None]] = weakref.WeakSet()
        self._begin: Callable[..., None] = loop_worker.begin
        self._code: CodeType = type(loop_worker).begin.__code__

    def enter_thread(self) -> None:
        """The calling thread is the loop's from now on."""
        self._ident, self._thread_name = threading.get_ident(), threading.current_thread().name
        if self._is_on and self._stays:
            self._worker.replace_begin(self._tracked_begin)

    def _tracked_begin(self, call: Call, *arguments: Any, **keywords: Any) -> None:
        """`LoopWorker.begin`, with a note of the call, and of when it has begun."""
        self._starting, self.began = call, _monotonic()
        try:
            self._begin(call, *arguments, **keywords)
        finally:
            if call not in self._worker.calls:
                self.durations.add(_monotonic() - self.began)
            self._starting, self.began = None, 0.0
        if not (self._stays or self.durations.wants_more()):
            self._worker.replace_begin(None)

    def has_timed_out(self) -> bool:
        """Whether the running task was cancelled because its call takes too long."""
        return bool(self._timed_out) and asyncio.current_task() in self._timed_out

    def _cancel(self, call: Call) -> None:
        """Cancel `call`, unless it has ended, or its response has begun."""
        if call in self._worker.calls and call.task is not None and call.progress[0] == "running":
            self._timed_out.add(call.task)
            call.task.cancel()

    # ---- Any thread -------------------------------------------------------------------------

    def cancel(self, call: Any) -> None:
        """Cancel `call`, if it is one of this loop's, as soon as the loop runs."""
        self._worker.call(self._cancel, call)

    def take_durations(self) -> list[tuple[float, int]]:
        """The durations of calls since the last call, and how many calls each one represents."""
        if not self._is_on:
            return []
        found = self.durations.take(self._worker.served)
        self._worker.replace_begin(self._tracked_begin)
        return found

    def requests(self, frames: dict[int, FrameType]) -> list[RunningRequest]:
        """The requests under way. `frames` are those of `current_frames`."""
        calls = self._worker.calls.copy()
        starting, began = self._starting, self.began
        if starting is None and (frame := frames.get(self._ident)) is not None:
            found = find_frame(frame, self._code)
            starting, began = (found.f_locals.get("call"), 0.0) if found else (None, 0.0)
        if starting is not None:
            calls.setdefault(starting, began)
        return [self._describe(call, began) for call, began in calls.items()]

    def _describe(self, call: Call, began: float) -> RunningRequest:
        head, (client, request_id, age), (state, sent) = call.head, call.source, call.progress
        ran = max(_monotonic() - began, 0.0) if began else 0.0
        return RunningRequest(
            key=f"l{self._thread_name.rpartition('-')[2]}.{id(call):x}",
            state=state,
            method=head.method,
            path=head.path,
            client=client,
            request_id=request_id,
            age=ran or age,
            ran=ran,
            sent=sent,
            thread=self._thread_name,
            ident=self._ident,
            call=call,
        )

    def ask_stacks(self, calls: Sequence[object]) -> StackAnswer:
        """Ask the loop for the stacks of those of `calls` that are its own."""
        answer = StackAnswer()
        if not self._worker.call(self._answer_stacks, calls, answer):
            answer.ready.set()
        return answer

    def _answer_stacks(self, calls: Sequence[object], answer: StackAnswer) -> None:
        """On the loop, where no task runs meanwhile."""
        wanted = set(map(id, calls))
        for call in self._worker.calls:
            if id(call) in wanted and call.task is not None:
                with contextlib.suppress(Exception):  # the coroutine may be of any kind
                    answer.stacks[id(call)] = stack_of_coroutine(call.task.get_coro())
        answer.ready.set()


class StackAnswer:
    """The stacks of calls, by the `id` of each, once their loop has answered."""

    def __init__(self) -> None:
        self.ready = threading.Event()
        self.stacks: dict[int, str] = {}

    def wait(self, seconds: float) -> dict[int, str]:
        """What the loop has answered within `seconds`."""
        return self.stacks if self.ready.wait(seconds) else {}
