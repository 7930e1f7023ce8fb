"""What there is in a process just now: threads, connections, memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ..connection import State
from ..system.resources import resident_memory
from ..threads.pool import Crew
from .counters import LOST

if TYPE_CHECKING:
    from ..asgi.pool import LoopCrew
    from ..server import Server

#: The states of `connection.State`, and those of connections on event loops.
STATES = (
    "preface",
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


def take_stock(server: Server, numbers: memoryview[int]) -> None:
    """Write what there is in `server` into a page. One thread at a time."""
    stock = [0] * (CONNECTIONS + len(STATES))
    for crew in server.crews():
        if isinstance(crew, Crew):
            _count_threads(crew, stock)
            if crew.http2 is not None and crew.http2 not in server.crews():
                _count_lines(crew.http2, stock)
        else:
            _count_loops(cast("LoopCrew", crew), stock)
    stock[MEMORY] = resident_memory()
    for place, number in enumerate(stock):
        numbers[place] = number
    numbers[LOST] = server.lost_lines


def _count_threads(crew: Crew, stock: list[int]) -> None:
    with crew.lock:
        workers = list(crew.workers)
    stock[THREADS] += len(workers)
    stock[BUSY] += sum(worker.serving is not None for worker in workers)
    stock[LENT] += crew.rota.lent
    stock[SEATS] += crew.rota.threads
    # each may be another's at any time: what it was in a moment ago will do
    for connection in crew.poller.connections.copy():
        if connection.state is not State.ADOPTED:  # which the loops count
            stock[_PLACES.get(connection.state.value, _OTHER)] += 1


def _count_loops(crew: LoopCrew, stock: list[int]) -> None:
    stock[LOOPS] += len(crew.workers)
    _count_lines(crew, stock)


def _count_lines(crew: LoopCrew, stock: list[int]) -> None:
    for worker in crew.workers:
        for line in worker.lines.copy():
            stock[_PLACES.get(line.at(), _OTHER)] += 1
