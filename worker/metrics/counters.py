"""Counters of events: each process has a page of memory, each thread a block of its page.

Only one thread writes a block, so counting takes no lock; a reader adds up the blocks. The memory
may be shared with other processes: a number is eight aligned octets, which CPUs write and read in
one access. The first block of a page is different: it has gauges, see `gauges`.
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
#: Upper bounds of a histogram's buckets, in seconds; one more bucket has the rest.
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

_HISTOGRAM = len(BUCKETS) + 2  # the last is the sum, in nanoseconds

# Offsets in the block of a thread.
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

#: Numbers in a block: whole cache lines of 64 octets, so that no two threads share one.
BLOCK = ((COUNTERS + 4) // 8 + 1) * 8

# In the first block: lost lines of the access log, blocks in use, requests that were slow, and
# those that were given up. The other blocks have nothing there.
LOST = BLOCK - 1
USED = BLOCK - 2
SLOW = BLOCK - 3
TIMED_OUT = BLOCK - 4
# The second block is shared, under a lock, by threads that get no block of their own.
_SHARED = 1

# At most so many threads have a block of their own.
_MOST_BLOCKS = 256
_ROWS = {method: row * len(CLASSES) for row, method in enumerate(METHODS)}
_OTHER, _NONE = _ROWS["other"], _ROWS["none"]
_DURATIONS_SUM = DURATIONS + len(BUCKETS) + 1
_WAITS_SUM = WAITS + len(BUCKETS) + 1
_CAUSES = {cause: REFUSALS + index for index, cause in enumerate(CAUSES)}
_OTHER_CAUSE = _CAUSES["other"]


def blocks_for(config: ServerConfig) -> int:
    """How many blocks the page of a process needs: gauges, the shared block, one per thread."""
    threads = config.thread_count() + config.threads.max_streams + 16
    return 2 + min(threads, _MOST_BLOCKS)


class ThreadCounters:
    """The block of one thread."""

    __slots__ = ("_copy", "_free", "_index", "_numbers", "lock")

    def __init__(
        self,
        numbers: memoryview[int],
        index: int,
        free: deque[tuple[int, memoryview[int]]] | None,
        lock: threading.Lock | None,
    ) -> None:
        self._numbers = numbers
        self._index = index
        self._free = free
        #: Held while counting, if threads share the block.
        self.lock = lock
        # a copy of the numbers: a list takes half the time to read and to add to
        self._copy = self._numbers.tolist()

    def __del__(self) -> None:
        # the thread has ended: the next one adds to its numbers
        if self._free is not None:
            self._free.appendleft((self._index, self._numbers))

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
        """Count `event`; the quick way for the one event that every request has."""
        request, status, seconds, sent = (
            event.request,
            event.status,
            event.seconds,
            event.body_bytes,
        )
        copy, numbers = self._copy, self._numbers
        # most requests are quick, and a comparison costs less than a search
        at = DURATIONS if seconds <= BUCKETS[0] else DURATIONS + bisect_left(BUCKETS, seconds)
        copy[at] = numbers[at] = copy[at] + 1
        at = _DURATIONS_SUM
        copy[at] = numbers[at] = copy[at] + int(seconds * 1e9)
        if sent:
            copy[SENT] = numbers[SENT] = copy[SENT] + sent
        if event.received:
            self._add(RECEIVED, event.received)
        if not event.complete:
            self._add(CUT, 1)
        # last, so that a reader who sees the request also sees its other numbers
        row = _NONE if request is None else _ROWS.get(request.head.method, _OTHER)
        at = row + (status // 100 if status < 600 else 0)
        copy[at] = numbers[at] = copy[at] + 1

    def _add(self, at: int, number: int) -> None:
        self._copy[at] = self._numbers[at] = self._copy[at] + number


class MetricsCollector:
    """A `LifecycleCollector` that counts on a page, whose `numbers` are zero at first."""

    def __init__(self, numbers: memoryview[int]) -> None:
        self.numbers = numbers
        self.event_types = (ResponseCompleted, ConnectionOpened, Refused, RequestWaited)
        # sliced here, on one thread: a memoryview counts its slices without a lock, so that without
        # a GIL concurrent slicing corrupts it
        starts = range(0, len(numbers) // BLOCK * BLOCK, BLOCK)
        blocks = list(enumerate(numbers[start : start + BLOCK] for start in starts))
        self._free = deque(blocks[_SHARED + 1 :])
        self._shared = ThreadCounters(blocks[_SHARED][1], _SHARED, None, threading.Lock())
        self._local = threading.local()
        self._lock = threading.Lock()  # guards numbers[USED]

    def record(self, event: LifecycleEvent) -> None:
        """Count `event` in the block of the calling thread."""
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

    def _of_thread(self) -> ThreadCounters:
        counts: ThreadCounters | None = getattr(self._local, "counts", None)
        return counts or self._assign_block()

    def _assign_block(self) -> ThreadCounters:
        try:
            index, block = self._free.popleft()
        except IndexError:
            counts = self._shared
        else:
            with self._lock:
                self.numbers[USED] = max(self.numbers[USED], index + 1)
            counts = ThreadCounters(block, index, self._free, None)
        self._local.counts = counts
        return counts
