"""Tells the lifecycle collector of the requests on a loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..lifecycle import (
    SAMPLED,
    RequestStarted,
    RequestWaited,
    answer_taker,
    event_types_of,
    for_thread,
    take_answers,
    take_waits,
    tell_wait,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..connection import Connection
    from ..lifecycle import LifecycleCollector, ResponseCompleted, TakeAnswer
    from ..messages import Request


class Reporter:
    """What a loop tells a collector. Belongs to the thread of the loop, except `start`."""

    def __init__(self, collector: LifecycleCollector) -> None:
        self._collector = collector
        event_types = event_types_of(collector)
        #: The collector wants `RequestStarted`.
        self.announces = RequestStarted in event_types
        #: The request, by its number, whose wait is measured next; None if no wait is wanted.
        self.next_sample = 1 if RequestWaited in event_types else None
        #: Tells of a response that is out, or was given up.
        self.completed: Callable[[ResponseCompleted], None] = collector.record
        #: Tells of a response that has left in one send, and needs no `ResponseCompleted`.
        self.take_answer: TakeAnswer = answer_taker(collector)
        self._take_wait: Callable[[float], None] | None = None

    def enter_thread(self) -> None:
        """Get what belongs to the calling thread, which is the loop's."""
        self.completed = for_thread(self._collector)
        self.take_answer = take_answers(self._collector)
        self._take_wait = take_waits(self._collector)

    def start(self, request: Request) -> None:
        """Tell of the beginning of `request`. Any thread may call."""
        self._collector.record(RequestStarted(request))

    def sample(self, conn: Connection, request: Request) -> None:
        """Tell how long `request` has waited. The next one is that after `SAMPLED` others."""
        assert self.next_sample is not None
        self.next_sample += SAMPLED
        tell_wait(self._collector, self._take_wait, request, conn.waited())
