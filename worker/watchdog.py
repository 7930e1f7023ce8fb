"""Detects parts of a server that take no requests any more: they hang."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable


#: The longest wait of a serving thread, in seconds: `shutdown_event` cannot wake a poller.
POLL_INTERVAL = 1.0
#: For so many seconds a healthy part may seem to hang: its `looked` changes once in that time.
UNSEEN = POLL_INTERVAL


class Probed(Protocol):
    """A part of a server that can hang by itself: all threads together, or one event loop."""

    @property
    def looked(self) -> float:
        """Changes about once a second, while a thread of this part polls for events."""

    def activity(self) -> object:
        """A value that differs from the last one if a request was begun in between."""

    def is_full(self) -> bool:
        """Whether no thread of this part is free to begin another request."""


class Watchdog:
    """Watches `parts`. One that is idle, or busy with short requests, is healthy.

    One thread at a time may call `age`.
    """

    def __init__(self, parts: Iterable[Probed]) -> None:
        self._probes = [_Probe(part) for part in parts]

    def age(self) -> float:
        """Seconds since the last time that every part took a request, or was free for one."""
        return max((probe.age() for probe in self._probes), default=0.0)


class _Probe:
    def __init__(self, part: Probed) -> None:
        self._part = part
        self._activity = part.activity()
        self._looked = part.looked
        self._healthy_at = time.monotonic()

    def age(self) -> float:
        activity, looked = self._part.activity(), self._part.looked
        # it has polled since, with a thread free to serve
        waiting = looked != self._looked and not self._part.is_full()
        if waiting or activity != self._activity:
            self._activity, self._looked = activity, looked
            self._healthy_at = time.monotonic()
        return time.monotonic() - self._healthy_at
