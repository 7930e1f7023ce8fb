"""Waiting for what has no event, and for a moment in which the machine is not busy elsewhere."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Return when `condition` holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.001)


def quick_once(measure: Callable[[], list[float]], seconds: float = 0.05) -> float:
    """The median of what `measure` returns, of the first time that it is below `seconds`.

    A server that holds the requests up does so each time, and others on the machine do not.
    """
    for _ in range(5):
        median = statistics.median(measure())
        if median < seconds:
            break
    assert median < seconds
    return median
