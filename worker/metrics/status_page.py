"""`/status`: the metrics as a page for people. It has no script, and loads nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from .prometheus import Metric

#: The page may use its own style, and nothing else.
CONTENT_SECURITY_POLICY = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"

# Seconds between two views of one browser.
_REFRESH = 2
# Rates are of the time since the last view, or since the start if that is longer ago.
_LONGEST_INTERVAL = 60.0
_QUANTILES = (0.5, 0.95, 0.99)

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --bar: #2a7; --lent: #c83; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.3rem; } h2 { font-size: 1rem; margin: 2rem 0 .5rem; }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: 1rem; }
.fact { border: 1px solid var(--line); border-radius: .5rem; padding: .6rem .8rem; }
.fact b { display: block; font-size: 1.4rem; font-weight: 600; }
.bar { display: flex; height: .8rem; border: 1px solid var(--line); border-radius: .4rem;
  overflow: hidden; margin: .4rem 0; }
.bar i { background: var(--bar); } .bar i.lent { background: var(--lent); }
table { border-collapse: collapse; } td, th { text-align: left; padding: .15rem 1.5rem .15rem 0; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
.bad { color: #c33; }
"""


class _View(NamedTuple):
    """What a view remembers for the rates of the next one."""

    at: float
    requests: float
    errors: float
    octets: float
    #: The counts of the histogram of durations, by upper bound.
    durations: dict[str, float]


class StatusPage:
    """Renders the page. One thread calls it."""

    def __init__(self) -> None:
        self._last: _View | None = None

    def render(self, metrics: Iterable[Metric], unready: str) -> bytes:
        """The page that shows `metrics`; `unready` is why no requests should be sent here."""
        known = {metric.name.removeprefix("threadwell_"): metric for metric in metrics}
        now = time.monotonic()
        view = _view(known, now)
        last, self._last = self._last, view
        if last is None or now - last.at > _LONGEST_INTERVAL:
            last = None
        sections = [
            _facts(_speed(view, last) + _state(known)),
            _threads(known),
            _table("Connections", known, "connections", "state"),
            _table("Refused", known, "refusals", "cause"),
            _table("Waiting to be accepted", known, "backlog", "address"),
            _table("Memory of each worker, MiB", known, "resident_memory_bytes", "worker", 1 << 20),
            _table("Workers replaced", known, "worker_replacements", "cause"),
            _table("Workers ended", known, "worker_ends", "end"),
        ]
        state = f'<span class="bad">{escape(unready)}</span>' if unready else "ready"
        return (
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>threadwell</title>'
            f'<meta http-equiv="refresh" content="{_REFRESH}">'
            f'<meta name="viewport" content="width=device-width"><style>{_STYLE}</style>'
            f"<h1>threadwell: {state}</h1>{''.join(sections)}</html>\n"
        ).encode()


def _view(known: dict[str, Metric], now: float) -> _View:
    requests = _values(known, "requests", "status")
    return _View(
        now,
        sum(requests.values()),
        requests.get("5xx", 0),
        sum(_values(known, "response_body_bytes", "").values()),
        {
            _label(labels, "le"): value
            for end, labels, value in known["request_duration_seconds"].samples
            if end == "_bucket"
        },
    )


# ---- Reading the metrics ------------------------------------------------------------------


def _values(known: dict[str, Metric], name: str, label: str) -> dict[str, float]:
    """The values of a metric by one of its labels, those of other labels added up."""
    values: dict[str, float] = {}
    metric = known.get(name)
    for _, labels, value in metric.samples if metric is not None else ():
        key = _label(labels, label)
        values[key] = values.get(key, 0) + value
    return values


def _label(labels: str, name: str) -> str:
    for pair in labels.strip("{}").split(","):
        key, _, value = pair.partition("=")
        if key == name:
            return value.strip('"')
    return ""


def _quantile(view: _View, last: _View | None, share: float) -> str:
    """The bound of the bucket in which the `share` of the durations ends."""
    before = last.durations if last is not None else {}
    counts = {bound: count - before.get(bound, 0) for bound, count in view.durations.items()}
    total = counts.get("+Inf", 0)
    for bound, count in counts.items():
        if total and count >= share * total and bound != "+Inf":
            return f"≤ {float(bound) * 1000:g} ms"
    return "> 10 s" if total else "-"


# ---- Sections -----------------------------------------------------------------------------


def _speed(view: _View, last: _View | None) -> list[tuple[str, str]]:
    facts = [
        ("requests", f"{view.requests:,.0f}"),
        ("answers of 5xx", f"{view.errors:,.0f}"),
    ]
    if last is not None and view.at > last.at:
        seconds = view.at - last.at
        rate = (view.requests - last.requests) / seconds
        octets = (view.octets - last.octets) / seconds / 1e6
        facts += [("requests/s", f"{rate:,.1f}"), ("MB/s of answers", f"{octets:,.2f}")]
    span = "now" if last is not None else "since the start"
    for share in _QUANTILES:
        facts.append((f"{share * 100:g} % of requests, {span}", _quantile(view, last, share)))
    return facts


def _state(known: dict[str, Metric]) -> list[tuple[str, str]]:
    facts = [("open connections", f"{sum(_values(known, 'connections', 'state').values()):,.0f}")]
    if "workers" in known:
        serving = sum(_values(known, "workers", "").values())
        wanted = sum(_values(known, "workers_wanted", "").values())
        facts.append(("workers", f"{serving:.0f} of {wanted:.0f}"))
    if loops := sum(_values(known, "event_loops", "").values()):
        facts.append(("event loops", f"{loops:.0f}"))
    return facts


def _facts(facts: list[tuple[str, str]]) -> str:
    cells = "".join(
        f'<div class="fact"><b>{escape(value)}</b>{escape(name)}</div>' for name, value in facts
    )
    return f'<div class="facts">{cells}</div>'


def _threads(known: dict[str, Metric]) -> str:
    slots = sum(_values(known, "thread_slots", "").values())
    if not slots:
        return ""  # event loops alone
    threads = _values(known, "threads", "state")
    lent = threads.get("lent", 0)
    busy = max(threads.get("busy", 0) - lent, 0)
    full = ' class="bad"' if busy >= slots else ""
    bars = "".join(
        f'<i class="{kind}" style="width: {100 * count / (slots + lent):.1f}%"></i>'
        for kind, count in (("busy", busy), ("lent", lent))
    )
    return (
        f"<h2{full}>Threads: {busy:.0f} of {slots:.0f} busy, {lent:.0f} lent to long answers</h2>"
        f'<div class="bar">{bars}</div>'
    )


def _table(title: str, known: dict[str, Metric], name: str, label: str, divisor: float = 1) -> str:
    rows = "".join(
        f'<tr><td>{escape(key)}<td class="n">{value / divisor:,.0f}'
        for key, value in _values(known, name, label).items()
        if value
    )
    return f"<h2>{escape(title)}</h2><table>{rows}</table>" if rows else ""
