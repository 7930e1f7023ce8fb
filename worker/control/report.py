"""The report of one process: its state, its current requests, and stacks."""

from __future__ import annotations

import time
from bisect import bisect_left
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..system.resources import resident_memory
from ..system.stacks import stacks, thread_names

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..interfaces import PoolSnapshot
    from ..lifecycle import RunningRequest
    from .interfaces import Observed

#: Upper bounds of the classes of durations, in seconds: from 0.01 ms to 2 minutes.
BOUNDS = tuple(round(0.00001 * 1.5**power, 6) for power in range(42))
#: At most so many requests are reported: the oldest.
MOST_REQUESTS = 500
#: At most so many stacks are reported, and so many characters of each: those that say where it is.
MOST_STACKS = 200
LONGEST_STACK = 8000
#: Characters of a path, an id and other texts of a request.
LONGEST_TEXT = 300
# Seconds for a loop to answer.
_LOOP_TIMEOUT = 0.5


class ProcessReport:
    """One thread at a time may call. `tick` is called about once a second."""

    def __init__(self, server: Observed) -> None:
        self._server = server
        self._began = time.monotonic()
        # Since when each request has existed and run at least, and its call: so the id of the call
        # cannot become that of another one.
        self._seen: dict[str, tuple[float, float, object]] = {}
        self._latencies = [0] * (len(BOUNDS) + 1)

    def tick(self) -> list[RunningRequest]:
        """Look at the requests under way, and take the samples of durations."""
        for pool in self._server.pools:
            for seconds, weight in pool.take_durations():
                self._latencies[bisect_left(BOUNDS, seconds)] += weight
        return self.running()

    def running(self) -> list[RunningRequest]:
        """The requests under way, the oldest first. `ran` is right within a second."""
        now = time.monotonic()
        found, seen = [], {}
        for pool in self._server.pools:
            for request in pool.requests():
                since, began, _ = self._seen.get(request.key, (now, now, None))
                since, began = min(since, now - request.age), min(began, now - request.ran)
                seen[request.key] = since, began, request.call
                found.append(replace(request, age=now - since, ran=now - began))
        self._seen = seen
        return sorted(found, key=lambda each: -each.age)

    # ---- For clients of the control socket --------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Numbers of this process, see docs/control.md."""
        pools = self._server.pools
        snapshots = [pool.snapshot() for pool in pools]
        return {
            "state": self._server.state,
            "age": round(time.monotonic() - self._began, 3),
            "memory": resident_memory(),
            "served": self._server.served(),
            "threads": _threads(snapshots),
            "loops": sum(each.loops for each in snapshots),
            "connections": _connections(snapshots),
            "waiting": sum(pool.waiting() for pool in pools),
            "latencies": self._latencies.copy(),
        }

    def requests(self) -> dict[str, Any]:
        """The requests under way, and how many more there are than are shown."""
        running = self.running()
        shown = [_shown(request) for request in running[:MOST_REQUESTS]]
        return {"requests": shown, "more": len(running) - len(shown)}

    def stacks(self, wanted: str = "") -> dict[str, Any]:
        """The stacks of the requests with the key or the request id `wanted`; of all threads and
        calls if it is empty."""
        running = self.running()
        if wanted:
            running = [each for each in running if wanted in (each.key, each.request_id)]
        of_calls = self.stacks_of_calls(running)
        of_threads = stacks()
        names = thread_names()
        found = []
        for request in running:
            stack = of_calls.get(id(request.call)) or of_threads.get(request.ident, "")
            found.append(_stack(request.thread, request, stack))
        if not wanted:
            shown = {request.ident for request in running if id(request.call) not in of_calls}
            found += [
                _stack(names.get(ident, ""), None, stack)
                for ident, stack in of_threads.items()
                if ident not in shown
            ]
        return {"stacks": found[:MOST_STACKS], "more": max(len(found) - MOST_STACKS, 0)}

    def stacks_of_calls(self, running: Iterable[RunningRequest]) -> dict[int, str]:
        """The stacks of the calls on loops, as far as the loops answer, by the `id` of each."""
        calls = [each.call for each in running if each.call is not None]
        found: dict[int, str] = {}
        if calls:
            for pool in self._server.pools:
                found.update(pool.call_stacks(calls, _LOOP_TIMEOUT))
        return found


def _threads(snapshots: list[PoolSnapshot]) -> dict[str, int]:
    lent = sum(each.lent for each in snapshots)
    return {
        "slots": sum(each.slots for each in snapshots),
        "busy": max(sum(each.busy for each in snapshots) - lent, 0),
        "lent": lent,
        "total": sum(each.threads for each in snapshots),
    }


def _connections(snapshots: list[PoolSnapshot]) -> dict[str, int]:
    found: dict[str, int] = {}
    for snapshot in snapshots:
        for state, count in snapshot.connections.items():
            found[state] = found.get(state, 0) + count
    return found


def _shown(request: RunningRequest) -> dict[str, Any]:
    return {
        "id": request.key,
        "state": request.state,
        "method": request.method[:LONGEST_TEXT],
        "path": request.path[:LONGEST_TEXT],
        "client": request.client[0][:LONGEST_TEXT],
        "request_id": request.request_id[:LONGEST_TEXT],
        "age": round(request.age, 3),
        "sent": request.sent,
        "thread": request.thread[:LONGEST_TEXT],
        "lent": request.lent,
    }


def _stack(thread: str, request: RunningRequest | None, stack: str) -> dict[str, Any]:
    title = "" if request is None else f"{request.method} {request.path}"
    return {
        "thread": thread[:LONGEST_TEXT],
        "id": "" if request is None else request.key,
        "request": title[:LONGEST_TEXT],
        "stack": stack[-LONGEST_STACK:],
    }
