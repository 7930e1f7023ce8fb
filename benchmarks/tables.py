"""The results as tables in Markdown."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

Results = dict[str, Any]
Row = dict[str, Any]
Cell = Callable[[Row], str]
#: A column: its heading, and the text of its cell, from what was measured of a server.
Column = tuple[str, Cell]


def number(value: float) -> str:
    """`value` with three digits, or all of them if it has more before the point."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def rounded(value: float) -> str:
    """`value` to three significant digits: more does not repeat."""
    unit = 10 ** max(0, len(str(int(value))) - 3)
    return f"{round(value / unit) * unit:,}"


def _at(*keys: str, form: Callable[[float], str] = number) -> Cell:
    def cell(row: Row) -> str:
        value: Any = row
        for key in keys:
            value = value.get(key)
            if value is None:
                return ""
        return form(value)

    return cell


def milliseconds(key: str, percentile: str) -> Cell:
    """A time; at least so much, where requests were given up."""

    def cell(row: Row) -> str:
        found = row.get(key)
        if found is None:
            return ""
        given_up = found["given_up"] and found[percentile] >= 5000
        return "over 5 s" if given_up else f"{number(found[percentile])} ms"

    return cell


def _failed(row: Row) -> str:
    return f"{row['failed']:,} of {row['requests']:,}"


COLUMNS: dict[str, Sequence[Column]] = {
    "instructions": (
        ("the same head each time", _at("hello-browser", form=rounded)),
        ("another path, query, cookie and ETag each time", _at("hello-varied", form=rounded)),
    ),
    "syscalls": (("system calls a request", _at("hello-browser")),),
    "cpu": (
        ("hello, the same head", _at("hello-browser")),
        ("hello, varied heads", _at("hello-varied")),
        ("POST of 1 KiB", _at("post1k")),
        ("ten small blocks", _at("stream")),
        ("Flask, JSON", _at("flask-varied")),
        ("Django, JSON", _at("django-varied")),
    ),
    "latency": tuple(
        (f"{label}, {percentile}", milliseconds(key, percentile))
        for key, label in (
            ("alone", "alone"),
            ("slow", "beside slow uploads"),
            ("streams", "beside event streams"),
        )
        for percentile in ("p50", "p99")
    ),
    "reload": (
        ("reloads", _at("reloads", form=str)),
        ("failed requests", _failed),
    ),
}
TITLES = {
    "instructions": "User instructions a request",
    "syscalls": "System calls a request",
    "cpu": "CPU milliseconds for a thousand requests",
    "latency": "Waiting times of four quick clients",
    "memory": "KiB for an idle connection, after its first request",
    "reload": "Failed requests in reloads",
    "threads": "Requests in the same time, relative to one thread",
}


def tables(results: Results) -> str:
    """All tables, each with its title."""
    parts = [f"### {TITLES[name]}\n\n{table(results, name)}" for name in results["cases"]]
    return "\n".join([about(results) + "\n", *parts])


def about(results: Results) -> str:
    """What the figures depend on, as a sentence."""
    known = results["about"]
    return (
        f"{known['python']}, {known['system']}, {known['cores']} cores; the load came from"
        f" {known['load']}; {known['date']}, commit {known['commit']}."
    )


def summary(results: Results) -> str:
    """One table of what a user feels, a row for each server."""
    cases = results["cases"]
    most = _counts(cases["memory"])[-1]
    columns = (
        ("CPU for 1,000 requests", "cpu", _at("hello-varied", form=lambda n: f"{number(n)} ms")),
        ("p99 alone", "latency", milliseconds("alone", "p99")),
        ("p99 beside 32 slow uploads", "latency", milliseconds("slow", "p99")),
        ("p99 beside 32 event streams", "latency", milliseconds("streams", "p99")),
        (
            "an idle connection",
            "memory",
            _at(str(most), "asked", form=lambda n: f"{number(n)} KiB"),
        ),
        ("failed in 5 reloads", "reload", _at("failed", form=lambda n: f"{n:,}")),
    )
    lines = [_line("server", *(heading for heading, _, _ in columns))]
    lines.append("|---" * (len(columns) + 1) + "|")
    for server in cases["cpu"]:
        cells = []
        for _, name, cell in columns:
            row = cases[name].get(server, {})
            cells.append(row.get("lacks") or cell(row))
        lines.append(_line(_label(results, server), *cells))
    return "\n".join(lines) + "\n"


def table(results: Results, name: str) -> str:
    """The table of the case `name`."""
    if name == "threads":
        return _threads(results["cases"][name])
    rows: dict[str, Row] = results["cases"][name]
    columns = _memory(rows) if name == "memory" else COLUMNS[name]
    lines = [_line("server", *(heading for heading, _ in columns))]
    lines.append("|---" * (len(columns) + 1) + "|")
    for server, row in rows.items():
        label = _label(results, server)
        if reason := row.get("lacks"):
            cells = [reason, *[""] * (len(columns) - 1)]
        else:
            cells = [cell(row) for _, cell in columns]
        lines.append(_line(label, *cells))
    return "\n".join(lines) + "\n"


def _label(results: Results, server: str) -> str:
    version = results["servers"].get(server)
    return f"{server} ({version})" if version else server


def _memory(rows: dict[str, Row]) -> Sequence[Column]:
    counts = _counts(rows)
    columns = [(f"with {count:,}", _at(str(count), "asked")) for count in counts]
    silent = (f"with {counts[-1]:,}, before it", _at(str(counts[-1]), "silent")) if counts else None
    return [*columns, *([silent] if silent else [])]


def _counts(rows: dict[str, Row]) -> list[int]:
    return sorted({int(count) for row in rows.values() for count in row if count.isdigit()})


def _threads(rows: dict[str, Any]) -> str:
    counts = sorted({int(n) for each in rows.values() for row in each.values() for n in row})
    lines = [_line("server", "Python", *(f"{count} threads" for count in counts))]
    lines[0] = lines[0].replace("| 1 threads |", "| 1 thread |")
    lines.append("|---" * (len(counts) + 2) + "|")
    for server, pythons in rows.items():
        for python, row in pythons.items():
            lines.append(_line(server, python, *(f"{row[str(n)]:.2f}" for n in counts)))
    return "\n".join(lines) + "\n"


def _line(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
