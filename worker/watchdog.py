"""Whether every part of a server still takes requests."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable


# Seconds between two looks at `shutdown_event`, which cannot wake a poller.
POLL_INTERVAL = 1.0
#: Seconds for which a part that is well may seem to take no request: so seldom it looks up.
UNSEEN = POLL_INTERVAL


class Probed(Protocol):
    """A part of a server that can hang by itself: the threads together, or an event loop."""

    @property
    def looked(self) -> float:
        """Changes about once a second, while somebody comes by to see what there is to do."""

    def activity(self) -> object:
        """Something that is the same at two looks if no request was begun between them."""

    def is_full(self) -> bool:
        """Whether nobody is free to begin another."""


class Watchdog:
    """Whether all `parts` take requests. One that is idle, or full of short ones, is well."""

    def __init__(self, parts: Iterable[Probed]) -> None:
        self._probes = [_Probe(part) for part in parts]

    def age(self) -> float:
        """For how many seconds some part has taken no request, nor could have."""
        return max((beat.age() for beat in self._probes), default=0.0)


class _Probe:
    def __init__(self, part: Probed) -> None:
        self._part = part
        self._activity = part.activity()
        self._looked = part.looked
        self._well_at = time.monotonic()

    def age(self) -> float:
        activity, looked = self._part.activity(), self._part.looked
        # somebody came by, and was free to serve
        waiting = looked != self._looked and not self._part.is_full()
        if waiting or activity != self._activity:
            self._activity, self._looked = activity, looked
            self._well_at = time.monotonic()
        return time.monotonic() - self._well_at
