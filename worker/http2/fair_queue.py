"""Whose request is next: a connection with a hundred has one in the queue for the threads."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..polling.base import Poller
    from ..polling.task import AnyTask


class FairQueue:
    """The requests of one connection that no thread has. Any thread may call.

    The queue of the poller is first come, first served: so each connection has its turn after that
    of each other, however many requests it makes at once.
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
        """A thread has the one that was queued."""
        with self._lock:
            if not self._waiting:
                self._is_queued = False
                return
            task = self._waiting.popleft()
        self._poller.submit(task)

    def drop(self) -> None:
        """No thread will do any of them."""
        with self._lock:
            self._is_queued = False
            waiting, self._waiting = self._waiting, deque()
        for task in waiting:
            task.drop()
