"""Counters of events: each process has a page, each thread a block of its page.

Only one thread writes a block, so counting takes no lock; a reader adds up the blocks. A page that
other processes read is shared memory, where a number is eight aligned octets, which CPUs write and
read in one access. A page that only its own process reads has lists, which are quicker to write.
The first block of a page is different: it has gauges, see `gauges`.
"""

from __future__ import annotations

import mmap
import struct
import threading
from bisect import bisect_left
from collections import deque
from typing import TYPE_CHECKING, Any, Union

from ..lifecycle import (
    CODES_WITH_BODY,
    ConnectionOpened,
    LifecycleEvent,
    Refused,
    RequestWaited,
    ResponseCompleted,
    complain,
    completed_at,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..config import ServerConfig
    from ..lifecycle import RecordedConnection, TakeAnswer
    from ..messages import Request, Response

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

# The last is the sum, which a thread keeps as a float in seconds: an integer of nanoseconds would
# take three times as long. See `totals_of`.
_HISTOGRAM = len(BUCKETS) + 2

# Offsets in the block of a thread.
REQUESTS = 0
# Requests that fit the first bucket of durations, by method and class: one number counts them there
# and as requests. Neither `REQUESTS` nor `DURATIONS` has them; see `totals_of`.
_QUICK = REQUESTS + len(METHODS) * len(CLASSES)
DURATIONS = _QUICK + len(METHODS) * len(CLASSES)
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

#: No honest number is as large: in nanoseconds it is 146 years.
MOST = 2**62

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
# Where quick requests are counted, by method and status, if the response has a body.
# A dict in a dict is quicker than a tuple as the key.
_QUICK_ROWS = {
    method: {status: _QUICK + row + code // 100 for status, code in CODES_WITH_BODY.items()}
    for method, row in _ROWS.items()
    if method != "HEAD"
}
_DURATIONS_SUM = DURATIONS + len(BUCKETS) + 1
_WAITS_SUM = WAITS + len(BUCKETS) + 1
_CAUSES = {cause: REFUSALS + index for index, cause in enumerate(CAUSES)}
_OTHER_CAUSE = _CAUSES["other"]


def blocks_for(config: ServerConfig) -> int:
    """How many blocks the page of a process needs: gauges, the shared block, one per thread."""
    threads = config.thread_count() + config.threads.max_streams + 16
    return 2 + min(threads, _MOST_BLOCKS)


#: The numbers of all blocks, one after the other in shared memory, or each block for itself.
Page = Union["memoryview[int]", list["memoryview[int] | list[int]"]]

# The index of a block, its numbers, and the same memory as floats, if it is shared.
Block = tuple[int, Union["memoryview[int]", list[int]], "memoryview[float] | None"]


def private_page(blocks: int) -> Page:
    """A page of `blocks` blocks, which only this process can read. Raises `OSError`.

    The gauges are in the same kind of memory as on a shared page, which refuses impossible ones.
    """
    gauges = memoryview(mmap.mmap(-1, BLOCK * 8)).cast("Q")
    return [gauges, *([0] * BLOCK for _ in range(1, blocks))]


def gauges_of(page: Page) -> memoryview[int] | list[int]:
    """The block of `page` that has its gauges; shared memory behind it has the others."""
    return page if isinstance(page, memoryview) else page[0]


def totals_of(blocks: Iterable[list[int]]) -> list[int]:
    """The sums of the numbers of threads. Those of durations are in nanoseconds.

    Anything may be in a block: a number that cannot be true is 0.
    """
    totals = [0] * BLOCK
    for block in blocks:
        for at in (_DURATIONS_SUM, _WAITS_SUM):
            seconds: float = block[at]
            if not isinstance(seconds, float):
                seconds = struct.unpack("d", struct.pack("Q", seconds))[0]
            block[at] = int(seconds * 1e9) if 0 <= seconds < MOST / 1e9 else 0
        totals = [
            total + (number if number < MOST else 0)
            for total, number in zip(totals, block, strict=True)
        ]
    for at in range(_QUICK, DURATIONS):
        totals[REQUESTS + at - _QUICK] += totals[at]
        totals[DURATIONS] += totals[at]
        totals[at] = 0
    return totals


class ThreadCounters:
    """The block of one thread."""

    __slots__ = ("_block", "_copy", "_free", "_index", "answered", "completed", "lock", "waited")

    def __init__(
        self,
        numbers: memoryview[int] | list[int],
        index: int,
        free: deque[Block] | None,
        lock: threading.Lock | None,
        seconds: memoryview[float] | None = None,
    ) -> None:
        self._block = (index, numbers, seconds)
        self._free = free
        #: Held while counting, if threads share the block.
        self.lock = lock
        # a copy of shared numbers: a list takes half the time to read and to add to
        self._copy = numbers if type(numbers) is list else numbers.tolist()  # type: ignore[union-attr]
        #: Count a `ResponseCompleted`; the quick way for the one event that every request has.
        self.completed: Callable[[ResponseCompleted], None]
        #: Count an answer that has left in one send; quicker still.
        self.answered: TakeAnswer
        #: Count how many seconds a request has waited.
        self.waited: Callable[[float], None]
        sums: Any = numbers if seconds is None else seconds
        self.completed, self.answered = _count_answers(self._copy, numbers, sums)
        self.waited = _count_waits(self._copy, numbers, sums)

    def __del__(self) -> None:
        # the thread has ended: the next one adds to its numbers
        if self._free is not None:
            self._free.appendleft(self._block)

    def take(self, event: LifecycleEvent) -> None:
        """Count `event`."""
        if isinstance(event, ResponseCompleted):
            self.completed(event)
        elif isinstance(event, RequestWaited):
            self.waited(event.seconds)
        elif isinstance(event, ConnectionOpened):
            self._add(OPENED, 1)
        elif isinstance(event, Refused):
            self._add(_CAUSES.get(event.cause, _OTHER_CAUSE), 1)

    def _add(self, at: int, number: int) -> None:
        self._copy[at] = self._block[1][at] = self._copy[at] + number


def _count_waits(
    copy: list[int], numbers: memoryview[int] | list[int], sums: memoryview[float]
) -> Callable[[float], None]:
    total = sums[_WAITS_SUM]
    shortest = BUCKETS[0]

    def waited(seconds: float) -> None:
        nonlocal total
        at = WAITS
        if seconds:  # most have not waited for a step of the kernel's clock
            total += seconds
            sums[_WAITS_SUM] = total
            if seconds > shortest:
                at += bisect_left(BUCKETS, seconds)
        copy[at] = numbers[at] = copy[at] + 1

    return waited


def _count_answers(
    copy: list[int], numbers: memoryview[int] | list[int], sums: memoryview[float]
) -> tuple[Callable[[ResponseCompleted], None], TakeAnswer]:
    """The ways to count answers in `numbers`, of which `copy` is a copy or the same list; `sums`
    are the same memory."""
    # closures, because a variable is found more quickly than an attribute
    rows, quick, longest, at_sum, at_sent = _ROWS, _QUICK_ROWS, BUCKETS[0], _DURATIONS_SUM, SENT
    sum_of_durations, sum_of_sent = sums[at_sum], copy[at_sent]
    # The row of GET, with the application's own objects as keys: an object is found in half the
    # time that an equal text takes.
    gets: dict[int | str, int] = {}

    def completed(event: ResponseCompleted) -> None:
        nonlocal sum_of_durations, sum_of_sent
        request, status, seconds = event.request, event.status, event.seconds
        at = _NONE if request is None else rows.get(request.method, _OTHER)
        at += status // 100 if status < 600 else 0
        # most requests are quick, and a comparison costs less than a search
        if seconds <= longest:
            at += _QUICK - REQUESTS
        else:
            bucket = DURATIONS + bisect_left(BUCKETS, seconds)
            copy[bucket] = numbers[bucket] = copy[bucket] + 1
        sum_of_durations += seconds
        sums[at_sum] = sum_of_durations
        if event.body_bytes:
            sum_of_sent += event.body_bytes
            numbers[at_sent] = sum_of_sent
        if event.received:
            copy[RECEIVED] = numbers[RECEIVED] = copy[RECEIVED] + event.received
        if not event.complete:
            copy[CUT] = numbers[CUT] = copy[CUT] + 1
        # last, so that a reader who sees the request also sees its other numbers
        copy[at] = numbers[at] = copy[at] + 1

    def answered(
        conn: RecordedConnection, request: Request, response: Response, now: float
    ) -> None:
        # what `completed` does, for the commonest answers
        nonlocal sum_of_durations, sum_of_sent
        head, seconds = request.head, now - conn.started
        try:
            at = (gets if head.method == "GET" else quick[head.method])[response.status]
        except (KeyError, TypeError):
            _learn(gets, head.method, response)
            _take_event(completed, conn, request, response, now)
            return
        if seconds > longest:
            _take_event(completed, conn, request, response, now)
            return
        sum_of_durations += seconds
        sums[at_sum] = sum_of_durations
        sum_of_sent += len(response.body)  # type: ignore[arg-type]
        numbers[at_sent] = sum_of_sent
        if not head.is_simple and request.body:
            received = len(request.body)  # type: ignore[arg-type]
            copy[RECEIVED] = numbers[RECEIVED] = copy[RECEIVED] + received
        copy[at] = numbers[at] = copy[at] + 1

    return completed, answered


def _learn(gets: dict[int | str, int], method: str, response: Response) -> None:
    row, status = _QUICK_ROWS["GET"], response.status
    if method == "GET" and isinstance(status, (int, str)) and status in row:
        gets[status] = row[status]


def _take_event(
    completed: Callable[[ResponseCompleted], None],
    conn: RecordedConnection,
    request: Request,
    response: Response,
    now: float,
) -> None:
    try:
        completed(completed_at(conn, request, response, now))
    except Exception as error:
        complain(ResponseCompleted, error)


def _blocks_of(page: Page) -> list[Block]:
    """The blocks of `page`. Shared memory is sliced here, on one thread: a memoryview counts its
    slices without a lock, so that without a GIL concurrent slicing corrupts it."""
    if not isinstance(page, memoryview):
        return [(index, block, None) for index, block in enumerate(page)]
    floats = page.cast("B").cast("d")
    starts = range(0, len(page) // BLOCK * BLOCK, BLOCK)
    slices = [slice(start, start + BLOCK) for start in starts]
    return [(index, page[part], floats[part]) for index, part in enumerate(slices)]


class MetricsCollector:
    """A `LifecycleCollector` that counts on a page, whose numbers are zero at first."""

    def __init__(self, page: Page) -> None:
        self.numbers = gauges_of(page)
        self.event_types = (ResponseCompleted, ConnectionOpened, Refused, RequestWaited)
        blocks = _blocks_of(page)
        self._free = deque(blocks[_SHARED + 1 :])
        _, shared, seconds = blocks[_SHARED]
        self._shared = ThreadCounters(shared, _SHARED, None, threading.Lock(), seconds)
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

    def take_answers(self) -> TakeAnswer | None:
        """See `lifecycle.take_answers`."""
        counts = self._of_thread()
        return counts.answered if counts.lock is None else None

    def take_waits(self) -> Callable[[float], None] | None:
        """See `lifecycle.take_waits`."""
        counts = self._of_thread()
        return counts.waited if counts.lock is None else None

    def _of_thread(self) -> ThreadCounters:
        counts: ThreadCounters | None = getattr(self._local, "counts", None)
        return counts or self._assign_block()

    def _assign_block(self) -> ThreadCounters:
        try:
            index, block, seconds = self._free.popleft()
        except IndexError:
            counts = self._shared
        else:
            with self._lock:
                self.numbers[USED] = max(self.numbers[USED], index + 1)
            counts = ThreadCounters(block, index, self._free, None, seconds)
        self._local.counts = counts
        return counts
