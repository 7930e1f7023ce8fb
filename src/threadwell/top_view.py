"""What `threadwell top` shows: numbers of a server between two looks at it."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .control_client import ControlClient, ControlError
from .control_text import (
    PERCENTILES,
    busy,
    connections,
    duration,
    percentiles,
    short_time,
    size,
    table,
)

if TYPE_CHECKING:
    from collections.abc import Callable

# How many requests are shown: the oldest.
_MOST_REQUESTS = 100
# Percentiles are of the samples of so many looks: one look has few.
_LOOKS = 10

WORKER_TITLES = ("PID", "STATE", "AGE", "MEMORY", "REQ/S", "BUSY", "LENT", "LOOPS", "OPEN", "NOTE")
REQUEST_TITLES = ("AGE", "STATE", "REQUEST", "CLIENT", "SENT", "PROCESS", "THREAD", "ID")


@dataclass
class View:
    """A server at one moment, in texts. `error` is not empty if it could not be reached."""

    title: str = ""
    #: Names and values.
    facts: list[tuple[str, str]] = field(default_factory=list)
    workers: list[tuple[str, ...]] = field(default_factory=list)
    #: Cells by `REQUEST_TITLES`; the last is the id.
    requests: list[tuple[str, ...]] = field(default_factory=list)
    error: str = ""


class Watcher:
    """Looks at the server behind the control socket at `path`. One thread at a time may call."""

    def __init__(self, path: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._client: ControlClient | None = None
        # of the last look: when it was, and what each process had served
        self._looked = 0.0
        self._served: dict[int, int] = {}
        # samples of durations so far, by process; and the new ones of each of the last looks
        self._counts: dict[int, list[int]] = {}
        self._new_counts: deque[list[int]] = deque(maxlen=_LOOKS)

    def ask(self, verb: str, *arguments: str) -> dict[str, Any]:
        """The result of a command. Connects again if need be. Raises `ControlError`."""
        if self._client is None:
            self._client = ControlClient(self._path)
        try:
            return self._client.ask(verb, *arguments)
        except ControlError as error:
            if error.is_lost:
                self.close()
            raise

    def close(self) -> None:
        """Close the connection."""
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def look(self) -> View:
        """What the server does. Rates are those since the last call."""
        try:
            status, requests = self.ask("status"), self.ask("requests")
        except ControlError as error:
            return View(title=self._path, error=str(error))
        now = self._clock()
        seconds, self._looked = now - self._looked, now
        workers = status["workers"]
        rates = {each["pid"]: self._rate(each, seconds) for each in workers}
        self._served = {each["pid"]: each["served"] for each in workers}
        return View(
            title=_title(status),
            facts=self._facts(status, sum(rates.values())),
            workers=[_worker_row(each, rates[each["pid"]]) for each in workers],
            requests=[_request_row(each) for each in requests["requests"][:_MOST_REQUESTS]],
        )

    def _rate(self, worker: dict[str, Any], seconds: float) -> float:
        before = self._served.get(worker["pid"])
        if before is None or seconds <= 0:
            return 0.0
        return float(max(worker["served"] - before, 0) / seconds)

    def _facts(self, status: dict[str, Any], rate: float) -> list[tuple[str, str]]:
        workers = status["workers"]
        names = ("busy", "slots", "lent")
        threads = {name: sum(each["threads"][name] for each in workers) for name in names}
        states = connections(workers)
        queue = status["backlog"] + sum(each["waiting"] for each in workers)
        open_ones = ", ".join(f"{count} {state}" for state, count in states.items() if count)
        facts = [("rate", f"{rate:.1f} requests/s"), ("latency", self._latency(status))]
        if threads["slots"]:
            bar = _bar(threads["busy"], threads["slots"])
            text = f"{bar} {threads['busy']} of {threads['slots']} busy, {threads['lent']} lent"
            facts.append(("threads", text))
        if loops := sum(each["loops"] for each in workers):
            facts.append(("loops", str(loops)))
        facts.append(("queue", str(queue)))
        facts.append(("connections", f"{sum(states.values())} open: {open_ones or 'none'}"))
        facts.append(("memory", size(sum(each["memory"] for each in workers))))
        return facts

    def _latency(self, status: dict[str, Any]) -> str:
        bounds, new = status["latency_bounds"], [0] * (len(status["latency_bounds"]) + 1)
        for worker in status["workers"]:
            counts = worker["latencies"]
            before = self._counts.get(worker["pid"], counts)
            new = [sum(each) for each in zip(new, counts, (-old for old in before), strict=True)]
        self._counts = {each["pid"]: each["latencies"] for each in status["workers"]}
        self._new_counts.append([max(each, 0) for each in new])
        recent = [sum(column) for column in zip(*self._new_counts, strict=True)]
        if not any(recent):
            return "-"
        times = percentiles(bounds, recent)
        return "  ".join(
            f"p{each} {short_time(at)}" for each, at in zip(PERCENTILES, times, strict=True)
        )


def as_text(view: View) -> str:
    """`view` in lines."""
    if view.error:
        return view.error
    width = max(len(name) for name, _ in view.facts)
    lines = [view.title, *(f"{name.ljust(width)}  {value}" for name, value in view.facts), ""]
    lines += table(WORKER_TITLES, view.workers)
    lines += ["", *table(REQUEST_TITLES, view.requests)] if view.requests else []
    return "\n".join(lines)


def _title(status: dict[str, Any]) -> str:
    count = sum(each["state"] == "serving" for each in status["workers"])
    of = f"{count} of {status['wanted']} workers" if status["supervised"] else "one process"
    urls = " ".join(status["urls"])
    return f"{status['state']} for {duration(status['age'])}  {of}, {status['pid']}  {urls}"


def _bar(value: int, most: int, width: int = 20) -> str:
    """A bar of `width` characters; one for each thread, if there are fewer."""
    width = min(width, most)
    full = round(width * min(value, most) / most)
    if value and not full:
        full = 1
    return "[" + "#" * full + "." * (width - full) + "]"


def _worker_row(worker: dict[str, Any], rate: float) -> tuple[str, ...]:
    return (
        str(worker["pid"]),
        worker["state"],
        duration(worker["age"]),
        size(worker["memory"]),
        f"{rate:.1f}",
        busy(worker),
        str(worker["threads"]["lent"]),
        str(worker["loops"]),
        str(sum(worker["connections"].values())),
        worker["note"],
    )


def _request_row(request: dict[str, Any]) -> tuple[str, ...]:
    return (
        short_time(request["age"]),
        request["state"] + (" (lent)" if request["lent"] else ""),
        f"{request['method']} {request['path']}",
        request["client"],
        size(request["sent"]),
        str(request["pid"]),
        request["thread"],
        request["id"],
    )
