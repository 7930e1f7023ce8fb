"""What a process has at one moment: threads, event loops, connections, memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..system.resources import resident_memory
from .counters import LOST, SLOW, TIMED_OUT

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..interfaces import PoolSnapshot

#: The states of `connection.State`, and those of connections on event loops.
STATES = (
    "proxy_header",
    "handshake",
    "idle",
    "head",
    "body",
    "serving",
    "streaming",
    "writing",
    "yielded",
    "lingering",
    "hijacked",
    "websocket",
    "other",
)

# Offsets in the first block of a page.
THREADS = 0
BUSY = 1
LENT = 2
SLOTS = 3
LOOPS = 4
MEMORY = 5
CONNECTIONS = 6

_OFFSETS = {state: CONNECTIONS + index for index, state in enumerate(STATES)}
_OTHER = _OFFSETS["other"]


def write_gauges(
    numbers: memoryview[int] | list[int],
    snapshots: Iterable[PoolSnapshot],
    lost_lines: int,
    slow: int = 0,
    timed_out: int = 0,
) -> None:
    """Write the sum of `snapshots`, and the memory of this process, into the first block of a page.

    `lost_lines` counts lines of the access log, `slow` and `timed_out` requests. One thread of a
    process at a time may call it.
    """
    values = [0] * (CONNECTIONS + len(STATES))
    for snapshot in snapshots:
        values[THREADS] += snapshot.threads
        values[BUSY] += snapshot.busy
        values[LENT] += snapshot.lent
        values[SLOTS] += snapshot.slots
        values[LOOPS] += snapshot.loops
        for state, count in snapshot.connections.items():
            values[_OFFSETS.get(state, _OTHER)] += count
    values[MEMORY] = resident_memory()
    for offset, value in enumerate(values):
        numbers[offset] = value
    numbers[LOST] = lost_lines
    numbers[SLOW] = slow
    numbers[TIMED_OUT] = timed_out
