"""Fairness between connections: each has at most one request in the queue for the threads."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..polling.base import Poller
    from ..polling.task import AnyTask
    from .send_budget import SendBudget


class FairQueue:
    """The requests of one connection that wait for a thread. Any thread may call.

    The poller's queue is first in, first out. With one entry per connection, the connections take
    turns, however many requests each of them sends at once. A request that the budget does not
    admit stays here until `resume`.
    """

    __slots__ = ("_budget", "_is_queued", "_lock", "_poller", "_waiting")

    def __init__(self, poller: Poller, budget: SendBudget) -> None:
        self._poller = poller
        self._budget = budget
        self._lock = threading.Lock()
        self._is_queued = False
        self._waiting: deque[AnyTask] = deque()

    def add(self, task: AnyTask) -> None:
        """Let a thread do `task`, in its turn."""
        with self._lock:
            self._waiting.append(task)
            next_task = self._next()
        if next_task is not None:
            self._poller.submit(next_task)

    def taken(self) -> None:
        """A thread has taken the task that was queued. Queue the next one."""
        with self._lock:
            self._is_queued = False
            task = self._next()
        if task is not None:
            self._poller.submit(task)

    def resume(self) -> None:
        """Queue the next task, if none is queued and the budget admits it now."""
        with self._lock:
            task = self._next()
        if task is not None:
            self._poller.submit(task)

    def _next(self) -> AnyTask | None:
        if self._is_queued or not self._waiting or not self._budget.admits():
            return None
        self._is_queued = True
        return self._waiting.popleft()

    def drop(self) -> None:
        """Drop all tasks: no thread will run them."""
        with self._lock:
            self._is_queued = False
            waiting, self._waiting = self._waiting, deque()
        for task in waiting:
            task.drop()
