"""The numbers of all processes, those that have ended included: what is counted never goes down."""

from __future__ import annotations

import mmap
from collections import deque

from .counters import BLOCK, LOST, USED

_OCTETS = 8


class SharedPages:
    """`pages` pages of `blocks` blocks each, in memory that is shared with what is forked later.

    Used by one thread of the process that made it; the others get their `page` of it.
    """

    def __init__(self, pages: int, blocks: int) -> None:
        self._size = blocks * BLOCK
        # no page of it is really there before somebody counts on it
        self._memory = mmap.mmap(-1, pages * self._size * _OCTETS)
        self._numbers = memoryview(self._memory).cast("Q")
        self._seen = memoryview(self._memory).cast("Q")
        self._free = deque(range(pages))
        self._used: set[int] = set()
        self._retired = [0] * BLOCK

    def take(self) -> int:
        """The number of a page that nobody uses; -1 if there is none."""
        if not self._free:
            return -1
        number = self._free.popleft()
        self._used.add(number)
        return number

    def page(self, number: int) -> memoryview[int]:
        """A page, for a `Counter`."""
        return self._numbers[number * self._size : (number + 1) * self._size]

    def _look(self, number: int) -> memoryview[int]:
        """The same, for this object: a slice of another memoryview, as `Counter` says why."""
        return self._seen[number * self._size : (number + 1) * self._size]

    def retire(self, number: int) -> None:
        """The process of a page has ended: what it has counted is kept."""
        if number < 0:
            return
        self._retired = _sum([self._retired, _totals(self._look(number))])
        self._used.discard(number)
        start = number * self._size * _OCTETS
        self._memory[start : start + self._size * _OCTETS] = bytes(self._size * _OCTETS)
        self._free.append(number)

    def totals(self) -> list[int]:
        """What was counted, by the offsets of `counts`."""
        return _sum([self._retired, *(_totals(self._look(number)) for number in self._used)])

    def stocks(self) -> dict[int, list[int]]:
        """What there is in each process, by the offsets of `stock`, under its page."""
        pages = {number: self._look(number) for number in sorted(self._used)}
        return {number: page[:BLOCK].tolist() for number, page in pages.items()}


def _totals(page: memoryview[int]) -> list[int]:
    used = max(page[USED], 2)
    blocks = [page[at * BLOCK : at * BLOCK + BLOCK].tolist() for at in range(1, used)]
    totals = _sum(blocks)
    totals[LOST] = page[LOST]
    return totals


def _sum(rows: list[list[int]]) -> list[int]:
    return [sum(column) for column in zip(*rows, strict=True)]
