"""The pages of all processes of a server. Counters of ended processes stay in the totals."""

from __future__ import annotations

import mmap
from collections import deque

from .counters import BLOCK, LOST, MOST, SLOW, TIMED_OUT, USED, Page, gauges_of, totals_of

_OCTETS = 8


class SharedPages:
    """`pages` pages of `blocks` blocks each, in memory that processes forked later share.

    One thread, of the process that made it, calls it. Each other process has only its `page`.
    """

    def __init__(self, pages: int, blocks: int) -> None:
        self._size = blocks * BLOCK
        # the kernel backs a page with memory only once it is written to
        self._memory = mmap.mmap(-1, pages * self._size * _OCTETS)
        self._numbers = memoryview(self._memory).cast("Q")
        self._read_only = memoryview(self._memory).cast("Q")
        self._free = deque(range(pages))
        self._used: set[int] = set()
        self._retired = [0] * BLOCK

    def take(self) -> int:
        """The number of a free page, in use from now on; -1 if there is none."""
        if not self._free:
            return -1
        number = self._free.popleft()
        self._used.add(number)
        return number

    def page(self, number: int) -> memoryview[int]:
        """The page `number`, for a `MetricsCollector`."""
        return self._numbers[number * self._size : (number + 1) * self._size]

    def _reading(self, number: int) -> memoryview[int]:
        # of another memoryview than `page`: see `MetricsCollector` on concurrent slices
        return self._read_only[number * self._size : (number + 1) * self._size]

    def retire(self, number: int) -> None:
        """Free the page of a process that has ended, and keep what it has counted."""
        if number < 0:
            return
        self._retired = _sum([self._retired, _totals(self._reading(number))])
        self._used.discard(number)
        start = number * self._size * _OCTETS
        self._memory[start : start + self._size * _OCTETS] = bytes(self._size * _OCTETS)
        self._free.append(number)

    def totals(self) -> list[int]:
        """The counters of all processes, at the offsets of `counters`."""
        return _sum([self._retired, *(_totals(self._reading(number)) for number in self._used)])

    def gauges(self) -> dict[int, list[int]]:
        """The gauges of each running process, at the offsets of `gauges`, by its page."""
        pages = {number: self._reading(number) for number in sorted(self._used)}
        return {number: _gauges(page) for number, page in pages.items()}


def read_page(page: Page) -> tuple[list[int], list[int]]:
    """The counters and the gauges on `page`, of which no other thread takes slices."""
    return _totals(page), _gauges(page)


def _totals(page: Page) -> list[int]:
    # the process that writes the page may have been taken over: it says nothing about its size
    most = len(page) // BLOCK if isinstance(page, memoryview) else len(page)
    used = min(max(gauges_of(page)[USED], 2), most)
    totals = totals_of([_block(page, at) for at in range(1, used)])
    of_process = _gauges(page)
    for at in (LOST, SLOW, TIMED_OUT):
        totals[at] = of_process[at]
    return totals


def _gauges(page: Page) -> list[int]:
    """The numbers of the first block, with 0 for one that cannot be true."""
    return [number if number < MOST else 0 for number in _block(page, 0)]


def _block(page: Page, block: int) -> list[int]:
    if not isinstance(page, memoryview):
        return list(page[block])
    return page[block * BLOCK : block * BLOCK + BLOCK].tolist()


def _sum(rows: list[list[int]]) -> list[int]:
    return [sum(column) for column in zip(*rows, strict=True)]
