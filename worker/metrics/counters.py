"""What is counted, and where: a page of memory a process, a block of it a thread.

A block is written by one thread alone, so that counting takes no lock; whoever reads sums them up.
The memory may be shared with other processes: a number is eight octets at its own boundary, which
is written and read as one. The first block of a page has what there is, instead of what happened.
"""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import deque
from typing import TYPE_CHECKING

from ..lifecycle import ConnectionOpened, LifecycleEvent, Refused, RequestWaited, ResponseCompleted

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..config import ServerConfig

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other", "none")
CLASSES = ("none", "1xx", "2xx", "3xx", "4xx", "5xx")
#: Upper bounds, in seconds; beyond the last is one more bucket.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
CAUSES = (
    "400",
    "408",
    "413",
    "414",
    "417",
    "431",
    "501",
    "503",
    "505",
    "streams",
    "tls",
    "proxy",
    "flood",
    "other",
)

_HISTOGRAM = len(BUCKETS) + 2  # and the sum, in nanoseconds

# Where the numbers are in a block of a thread.
REQUESTS = 0
DURATIONS = REQUESTS + len(METHODS) * len(CLASSES)
WAITS = DURATIONS + _HISTOGRAM
REFUSALS = WAITS + _HISTOGRAM
RECEIVED = REFUSALS + len(CAUSES)
SENT = RECEIVED + 1
OPENED = SENT + 1
CUT = OPENED + 1
#: How many there are.
COUNTERS = CUT + 1

#: Numbers in a block: whole cache lines, so that threads do not share any.
BLOCK = (COUNTERS // 8 + 1) * 8

# In the first block: lines of the access log that were lost, and blocks in use.
LOST = BLOCK - 1
USED = BLOCK - 2
# The second is shared by threads that find none for themselves.
_SHARED = 1

# Threads with a block of their own; the others take a lock.
_MOST_BLOCKS = 256
_ROWS = {method: row * len(CLASSES) for row, method in enumerate(METHODS)}
_OTHER, _NONE = _ROWS["other"], _ROWS["none"]
_DURATIONS_SUM = DURATIONS + len(BUCKETS) + 1
_WAITS_SUM = WAITS + len(BUCKETS) + 1
_CAUSES = {cause: REFUSALS + place for place, cause in enumerate(CAUSES)}
_OTHER_CAUSE = _CAUSES["other"]


def blocks_for(config: ServerConfig) -> int:
    """How many blocks a process with `config` needs: one for itself, and one to be shared."""
    threads = config.thread_count() + config.threads.max_streams + 16
    return 2 + min(threads, _MOST_BLOCKS)


class Counts:
    """A thread's block."""

    __slots__ = ("_free", "_mine", "_numbers", "_place", "lock")

    def __init__(
        self,
        numbers: memoryview[int],
        place: int,
        free: deque[tuple[int, memoryview[int]]] | None,
        lock: threading.Lock | None,
    ) -> None:
        self._numbers = numbers
        self._place = place
        self._free = free
        #: To be held, where the block is shared.
        self.lock = lock
        # the same numbers: a list is read and added to in half the time
        self._mine = self._numbers.tolist()

    def __del__(self) -> None:
        # the thread has ended: another one may count on
        if self._free is not None:
            self._free.appendleft((self._place, self._numbers))

    def take(self, event: LifecycleEvent) -> None:
        """Count `event`."""
        if isinstance(event, ResponseCompleted):
            self.completed(event)
        elif isinstance(event, ConnectionOpened):
            self._add(OPENED, 1)
        elif isinstance(event, Refused):
            self._add(_CAUSES.get(event.cause, _OTHER_CAUSE), 1)
        elif isinstance(event, RequestWaited):
            self._add(WAITS + bisect_left(BUCKETS, event.seconds), 1)
            self._add(_WAITS_SUM, int(event.seconds * 1e9))

    def completed(self, event: ResponseCompleted) -> None:
        """`take`, for what comes with every request."""
        request, status, seconds, sent = (
            event.request,
            event.status,
            event.seconds,
            event.body_bytes,
        )
        mine, numbers = self._mine, self._numbers
        # most are quick, and to ask costs less than to search
        at = DURATIONS if seconds <= BUCKETS[0] else DURATIONS + bisect_left(BUCKETS, seconds)
        mine[at] = numbers[at] = mine[at] + 1
        at = _DURATIONS_SUM
        mine[at] = numbers[at] = mine[at] + int(seconds * 1e9)
        if sent:
            mine[SENT] = numbers[SENT] = mine[SENT] + sent
        if event.received:
            self._add(RECEIVED, event.received)
        if not event.complete:
            self._add(CUT, 1)
        # last: whoever sees that there was a request finds the rest of it, too
        row = _NONE if request is None else _ROWS.get(request[0][0], _OTHER)
        at = row + (status // 100 if status < 600 else 0)
        mine[at] = numbers[at] = mine[at] + 1

    def _add(self, at: int, number: int) -> None:
        self._mine[at] = self._numbers[at] = self._mine[at] + number


class Counter:
    """A `LifecycleCollector` that counts into a page, whose `numbers` are zero at first."""

    def __init__(self, numbers: memoryview[int]) -> None:
        self.numbers = numbers
        self.event_types = (ResponseCompleted, ConnectionOpened, Refused, RequestWaited)
        # all of them now: without a GIL, threads that slice one memoryview at once break it, since
        # they count its slices together
        starts = range(0, len(numbers) // BLOCK * BLOCK, BLOCK)
        blocks = list(enumerate(numbers[start : start + BLOCK] for start in starts))
        self._free = deque(blocks[_SHARED + 1 :])
        self._shared = Counts(blocks[_SHARED][1], _SHARED, None, threading.Lock())
        self._local = threading.local()
        self._lock = threading.Lock()  # guards the number of blocks in use

    def record(self, event: LifecycleEvent) -> None:
        counts = self._of_thread()
        if counts.lock is None:
            counts.take(event)
        else:
            with counts.lock:
                counts.take(event)

    def for_thread(self) -> Callable[[ResponseCompleted], None]:
        """See `lifecycle.for_thread`."""
        counts = self._of_thread()
        return counts.completed if counts.lock is None else self.record

    def _of_thread(self) -> Counts:
        counts: Counts | None = getattr(self._local, "counts", None)
        return counts or self._enlist()

    def _enlist(self) -> Counts:
        try:
            place, block = self._free.popleft()
        except IndexError:
            counts = self._shared
        else:
            with self._lock:
                self.numbers[USED] = max(self.numbers[USED], place + 1)
            counts = Counts(block, place, self._free, None)
        self._local.counts = counts
        return counts
