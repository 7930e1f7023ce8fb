"""Results of the control socket as text for people."""

from __future__ import annotations

from bisect import bisect_left
from itertools import accumulate
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

PERCENTILES = (50, 95, 99)
_UNITS = "KMGT"


def as_text(verb: str, result: dict[str, Any]) -> str:
    """The result of `verb`, in lines."""
    if verb == "status":
        return status_text(result)
    if verb == "requests":
        return requests_text(result)
    if verb == "stack":
        return stacks_text(result)
    if verb == "config":
        return "\n".join(f"{name} = {value!r}" for name, value in result["settings"].items())
    return str(result.get("message", result))


def status_text(result: dict[str, Any]) -> str:
    """The server in a line or two, then a line for each process."""
    kind = "supervisor" if result["supervised"] else "process"
    lines = [
        f"{result['state']} since {duration(result['age'])} on {' '.join(result['urls']) or '-'},"
        f" {kind} {result['pid']}",
        f"{summary(result)}",
        "",
    ]
    lines += table(
        ["PID", "STATE", "AGE", "MEMORY", "REQUESTS", "BUSY", "LENT", "LOOPS", "OPEN", "NOTE"],
        [
            [
                str(each["pid"]),
                each["state"],
                duration(each["age"]),
                size(each["memory"]),
                str(each["served"]),
                busy(each),
                str(each["threads"]["lent"]),
                str(each["loops"]),
                str(sum(each["connections"].values())),
                each["note"],
            ]
            for each in result["workers"]
        ],
    )
    return "\n".join(lines)


def summary(result: dict[str, Any]) -> str:
    """Threads, queue, connections and latencies of all processes together."""
    workers = result["workers"]
    threads = {
        name: sum(each["threads"][name] for each in workers) for name in ("busy", "slots", "lent")
    }
    parts = []
    if threads["slots"]:
        parts.append(
            f"{threads['busy']} of {threads['slots']} threads busy, {threads['lent']} lent"
        )
    loops = sum(each["loops"] for each in workers)
    if loops:
        parts.append(f"{loops} event loops" if loops > 1 else "1 event loop")
    waiting = sum(each["waiting"] for each in workers)
    parts.append(f"queue {waiting + result['backlog']}")
    states = connections(workers)
    open_ones = ", ".join(f"{count} {state}" for state, count in states.items() if count)
    parts.append(f"connections: {open_ones or 'none'}")
    counts = [sum(column) for column in zip(*(each["latencies"] for each in workers), strict=True)]
    if any(counts):
        times = percentiles(result["latency_bounds"], counts)
        parts.append("latency " + latencies(times))
    return "; ".join(parts)


def connections(workers: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Open connections of all `workers` by their state, the most first."""
    found: dict[str, int] = {}
    for each in workers:
        for state, count in each["connections"].items():
            found[state] = found.get(state, 0) + count
    return dict(sorted(found.items(), key=lambda item: -item[1]))


def percentiles(bounds: Sequence[float], counts: Sequence[int]) -> list[float]:
    """The `PERCENTILES` of durations, in seconds, of which `counts` are in the classes of `bounds`.

    All are 0 if there are none.
    """
    totals = list(accumulate(counts))
    if not totals or not totals[-1]:
        return [0.0] * len(PERCENTILES)
    places = [bisect_left(totals, totals[-1] * each / 100) for each in PERCENTILES]
    return [bounds[min(place, len(bounds) - 1)] for place in places]


def latencies(times: Sequence[float]) -> str:
    """The `PERCENTILES` with their names."""
    return " ".join(
        f"p{each} {short_time(at)}" for each, at in zip(PERCENTILES, times, strict=True)
    )


def requests_text(result: dict[str, Any]) -> str:
    """A line for each request."""
    rows = [
        [
            row["id"],
            short_time(row["age"]),
            row["state"] + (" (lent)" if row["lent"] else ""),
            f"{row['method']} {row['path']}",
            row["client"],
            size(row["sent"]),
            row["thread"],
            row["request_id"],
        ]
        for row in result["requests"]
    ]
    if not rows:
        return "no request is under way"
    titles = ["ID", "AGE", "STATE", "REQUEST", "CLIENT", "SENT", "THREAD", "REQUEST ID"]
    lines = table(titles, rows)
    if result["more"]:
        lines.append(f"and {result['more']} more, which are younger")
    return "\n".join(lines)


def stacks_text(result: dict[str, Any]) -> str:
    """The stacks, each below a line that says of what."""
    parts = []
    for row in result["stacks"]:
        what = f", {row['request']} ({row['id']})" if row["id"] else ""
        parts.append(f"process {row['pid']}, {row['thread'] or 'a thread'}{what}:\n{row['stack']}")
    parts += [f"process {pid} does not answer\n" for pid in result.get("silent", ())]
    if result["more"]:
        parts.append(f"and {result['more']} more\n")
    return "\n".join(parts).rstrip("\n")


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines with columns as wide as they need be."""
    columns = list(zip(titles, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (titles, *rows)
    ]


def busy(worker: dict[str, Any]) -> str:
    """How many of how many threads are inside a request."""
    threads = worker["threads"]
    return f"{threads['busy']}/{threads['slots']}" if threads["slots"] else "-"


def duration(seconds: float) -> str:
    """A long time, such as `2h05m`."""
    whole = int(seconds)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    if whole < 86400:
        return f"{whole // 3600}h{whole % 3600 // 60:02}m"
    return f"{whole // 86400}d{whole % 86400 // 3600:02}h"


def short_time(seconds: float) -> str:
    """A time of a request, such as `3.2ms` or `12.0s`."""
    if seconds < 0.001:
        return f"{seconds * 1000:.2f}ms"
    if seconds < 0.9995:
        return f"{seconds * 1000:.1f}ms"
    return f"{seconds:.1f}s" if seconds < 60 else duration(seconds)


def size(octets: int) -> str:
    """A number of octets, such as `12.5M`."""
    if octets < 1024:
        return str(octets)
    power = min((octets.bit_length() - 1) // 10, len(_UNITS))
    return f"{octets / 1024**power:.1f}{_UNITS[power - 1]}"
