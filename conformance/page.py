"""docs/conformance.md, made of the results."""

from __future__ import annotations

from collections import Counter
from typing import Any

from . import autobahn, http2

Results = dict[str, dict[str, dict[str, Any]]]

_INTRODUCTION = """\
<!-- Written by scripts/conformance. Do not edit. -->
# Conformance

The results of public conformance suites for threadwell and for other servers. One command installs
the suites and the servers in separate environments, tests one server after another, and writes this
page:

    scripts/conformance

`scripts/conformance --help` lists its options: single suites, single servers, the interpreter. The
applications are in `conformance/served/applications.py`, the command lines in
`conformance/servers.py`.
"""
_AUTOBAHN = """\
## WebSockets: Autobahn

The fuzzing client of the Autobahn suite sends {cases} cases to an application that echoes messages.
All limits are the defaults. Pings by the server itself are turned off: the suite counts a ping that
it did not ask for as a failure, and some cases take longer than the interval of the pings.

*NON-STRICT*: the suite sends a good frame and a bad one behind it, and prefers an echo of the good
one. If both arrive in one segment, a server may fail the connection before its application has
answered. *Not clean*: the closing handshake has another verdict than OK. *UNIMPLEMENTED*: no
compression was agreed. *Not run*: the server was not tested, or the cases took too long.
"""
_HTTP1 = """\
## HTTP/1.1: requests as octets

The corpus of threadwell's own tests (`tests/end_to_end/wire/corpus`) has {valid} valid requests and
{invalid} invalid ones, by RFC 9110, RFC 9112 and PEP 3333. A valid file counts if the application
has seen what was sent. An invalid one is *refused* if the server has answered with an error or
closed the connection, and *taken* if the application was called. A server is *silent* if it waits
for more. The last columns show the subjects of the taken files.

The corpus is stricter than the RFCs in two points, so not every file that a peer takes is a fault.
It refuses line ends that are a single LF, which a server may take (RFC 9112, 2.2). And {limits} of
its files exceed limits that are threadwell's defaults. It was written for threadwell, so its own
line shows that nothing has changed, and no more.
"""
_HTTP2 = """\
## HTTP/2

h2load sends {requests} requests by eight connections of 32 streams each. The columns say how many
of them succeeded, as GET, and as POST with a body of 64 KiB. h2spec has some 147 cases of RFC 9113
and RFC 7541.
"""
_GROUPS = {
    "Host, target": ("host", "absolute", "target", "asterisk", "authority", "connect"),
    "control characters": ("cr", "nul", "soh", "vt", "ff", "esc", "del", "control"),
    "LF": ("lf",),
    "lines, names": ("fold", "blank", "tab", "space", "field", "name", "method", "line", "version"),
    "framing": ("length", "coding"),
    "chunks": ("chunk",),
    "limits": ("limit", "empty"),
}


def page(results: Results, versions: dict[str, str], skipped: dict[str, str]) -> str:
    """The text of the page. `versions`: of the suites and of the system."""
    parts = [_INTRODUCTION, _versions(versions)]
    if results.get("autobahn"):
        parts += [_AUTOBAHN.format(cases=autobahn.CASES), _autobahn(results["autobahn"])]
    if results.get("http1"):
        first = next(iter(results["http1"].values()))["result"]
        limits = sum(_group(name) == "limits" for name in first["invalid"])
        counts = {"valid": len(first["valid"]), "invalid": len(first["invalid"])}
        parts += [_HTTP1.format(limits=limits, **counts), _http1(results["http1"])]
    if results.get("http2"):
        parts += [_HTTP2.format(requests=http2.REQUESTS), _http2(results["http2"])]
    lines = [f"* **{name}**: {why}." for name, why in sorted(skipped.items())]
    parts.append("## Not run\n\n" + "\n".join(lines or ["Nothing was left out."]) + "\n")
    return "\n".join(parts)


def _versions(versions: dict[str, str]) -> str:
    said = ", ".join(f"{name} {version}" for name, version in versions.items())
    return f"The run on this page: {said}.\n"


def _table(columns: list[str], rows: list[list[object]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


# ---- WebSockets ----------------------------------------------------------------------------


def _autobahn(found: dict[str, dict[str, Any]]) -> str:
    verdicts = ["OK", "INFORMATIONAL", "NON-STRICT", "UNIMPLEMENTED", "FAILED"]
    rows: list[list[object]] = []
    notes = []
    for name, entry in found.items():
        cases = entry["result"]["cases"]
        counts = Counter(behavior for behavior, _ in cases.values())
        unclean = [case for case, (_, close) in cases.items() if not _is_clean(close)]
        missing = autobahn.CASES - len(cases)
        row = [f"{name} {entry['version']}", *(counts[verdict] for verdict in verdicts)]
        rows.append([*row, len(unclean), missing])
        for verdict in ("NON-STRICT", "FAILED"):
            these = [case for case, (behavior, _) in cases.items() if behavior == verdict]
            if these:
                notes.append(f"* {name}, {verdict}: {_shortened(these)}")
        if unclean:
            notes.append(f"* {name}, not clean: {_shortened(unclean)}")
    return _table(["server", *verdicts, "not clean", "not run"], rows) + "\n" + _lines(notes)


def _is_clean(close: str) -> bool:
    return close in ("OK", "INFORMATIONAL")


def _shortened(cases: list[str]) -> str:
    """The cases by their numbers; those of a group with many of them together."""
    groups: dict[str, list[str]] = {}
    for case in autobahn.in_order(cases):
        groups.setdefault(".".join(case.split(".")[:2]), []).append(case)
    return ", ".join(
        f"{len(names)} of {group}.*" if len(names) > 3 else ", ".join(names)
        for group, names in groups.items()
    )


def _lines(notes: list[str]) -> str:
    return "".join(f"{note}\n" for note in notes)


# ---- HTTP ----------------------------------------------------------------------------------


def _group(name: str) -> str:
    """The group of an invalid file, by the first word behind its number."""
    word = name.split("_")[1]
    return next((group for group, words in _GROUPS.items() if word in words), "others")


def _http1(found: dict[str, dict[str, Any]]) -> str:
    groups = [*_GROUPS, "others"]
    rows: list[list[object]] = []
    for name, entry in found.items():
        valid, invalid = entry["result"]["valid"], entry["result"]["invalid"]
        right = sum(not wrong for wrong in valid.values())
        counts = Counter(invalid.values())
        taken = Counter(_group(file) for file, what in invalid.items() if what == "taken")
        row = [f"{name} {entry['version']}", f"{right} of {len(valid)}", counts["refused"]]
        rows.append([*row, counts["taken"], counts["silent"], *(taken[group] for group in groups)])
    columns = ["server", "valid", "refused", "taken", "silent", *groups]
    return _table(columns, rows)


def _http2(found: dict[str, dict[str, Any]]) -> str:
    rows: list[list[object]] = []
    for name, entry in found.items():
        result = entry["result"]
        cells = [result.get(key, "not run") for key in ("get", "post", "h2spec")]
        rows.append([f"{name} {entry['version']}", *cells])
    return _table(["server", "h2load, GET", "h2load, POST", "h2spec"], rows)
