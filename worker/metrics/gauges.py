"""What there is in a process just now: threads, connections, memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ..connection import State
from ..system.resources import resident_memory
from ..threads.pool import ThreadPool
from .counters import LOST

if TYPE_CHECKING:
    from ..asgi.pool import EventLoopPool
    from ..server import Server

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

# Where the numbers are in the first block of a page.
THREADS = 0
BUSY = 1
LENT = 2
SEATS = 3
LOOPS = 4
MEMORY = 5
CONNECTIONS = 6

_PLACES = {state: CONNECTIONS + place for place, state in enumerate(STATES)}
_OTHER = _PLACES["other"]


def write_gauges(server: Server, numbers: memoryview[int]) -> None:
    """Write what there is in `server` into a page. One thread at a time."""
    values = [0] * (CONNECTIONS + len(STATES))
    for pool in server.pools():
        if isinstance(pool, ThreadPool):
            _count_threads(pool, values)
            if pool.http2 is not None and pool.http2 not in server.pools():
                _count_connections(pool.http2, values)
        else:
            _count_loops(cast("EventLoopPool", pool), values)
    values[MEMORY] = resident_memory()
    for place, number in enumerate(values):
        numbers[place] = number
    numbers[LOST] = server.lost_lines


def _count_threads(pool: ThreadPool, values: list[int]) -> None:
    with pool.lock:
        workers = list(pool.workers)
    values[THREADS] += len(workers)
    values[BUSY] += sum(worker.serving is not None for worker in workers)
    values[LENT] += pool.leader_follower.lent
    values[SEATS] += pool.leader_follower.threads
    # each may be another's at any time: what it was in a moment ago will do
    for connection in pool.poller.connections.copy():
        if connection.state is not State.ADOPTED:  # which the loops count
            values[_PLACES.get(connection.state.value, _OTHER)] += 1


def _count_loops(pool: EventLoopPool, values: list[int]) -> None:
    values[LOOPS] += len(pool.workers)
    _count_connections(pool, values)


def _count_connections(pool: EventLoopPool, values: list[int]) -> None:
    for worker in pool.workers:
        for connection in worker.connections.copy():
            values[_PLACES.get(connection.state_name(), _OTHER)] += 1
