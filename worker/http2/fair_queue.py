"""Fairness between connections: each has at most one request in the queue for the threads."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..polling.base import Poller
    from ..polling.task import AnyTask


class FairQueue:
    """The requests of one connection that wait for a thread. Any thread may call.

    The poller's queue is first in, first out. With one entry per connection, the connections take
    turns, however many requests each of them sends at once.
    """

    __slots__ = ("_is_queued", "_lock", "_poller", "_waiting")

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self._lock = threading.Lock()
        self._is_queued = False
        self._waiting: deque[AnyTask] = deque()

    def add(self, task: AnyTask) -> None:
        """Let a thread do `task`, in its turn."""
        with self._lock:
            if self._is_queued:
                self._waiting.append(task)
                return
            self._is_queued = True
        self._poller.submit(task)

    def taken(self) -> None:
        """A thread has taken the task that was queued. Queue the next one."""
        with self._lock:
            if not self._waiting:
                self._is_queued = False
                return
            task = self._waiting.popleft()
        self._poller.submit(task)

    def drop(self) -> None:
        """Drop all tasks: no thread will run them."""
        with self._lock:
            self._is_queued = False
            waiting, self._waiting = self._waiting, deque()
        for task in waiting:
            task.drop()
