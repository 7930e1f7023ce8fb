"""Samples of how long requests take."""

from __future__ import annotations

from collections import deque

# Of the requests of a thread so many are sampled within a second: at least, at most, and one of.
_LEAST_SAMPLES = 8
_MOST_SAMPLES = 256
_ONE_SAMPLE_OF = 16


class Durations:
    """The durations of some requests of one thread, or of one loop.

    The thread itself calls `add` and `wants_more`; one other thread at a time calls `take`.
    """

    def __init__(self) -> None:
        self._kept: deque[float] = deque(maxlen=_MOST_SAMPLES)
        self._left = 0
        self._served = 0

    def add(self, seconds: float) -> None:
        """Note the duration of a request."""
        self._kept.append(seconds)
        self._left -= 1

    def wants_more(self) -> bool:
        """Whether the next request is to be sampled too."""
        return self._left > 0

    def take(self, served: int) -> list[tuple[float, int]]:
        """The durations noted since the last call, and how many requests each one represents.

        `served` is how many requests there were in all. Afterwards more samples are wanted.
        """
        found: list[float] = []
        while self._kept and len(found) < _MOST_SAMPLES:  # only this takes away
            found.append(self._kept.popleft())
        new, self._served = served - self._served, served
        self._left = min(max(new // _ONE_SAMPLE_OF, _LEAST_SAMPLES), _MOST_SAMPLES)
        weight = max(round(new / len(found)), 1) if found else 0
        return [(seconds, weight) for seconds in found]
