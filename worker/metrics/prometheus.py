"""Metrics in the formats that Prometheus reads: its text format 0.0.4, and OpenMetrics 1.0."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from . import gauges
from .counters import (
    BUCKETS,
    CAUSES,
    CLASSES,
    CUT,
    DURATIONS,
    LOST,
    METHODS,
    OPENED,
    RECEIVED,
    REFUSALS,
    REQUESTS,
    SENT,
    SLOW,
    TIMED_OUT,
    WAITS,
)

PLAIN = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"


class Metric(NamedTuple):
    """A metric. Each of `samples` is a suffix of the name, rendered labels, and a value."""

    name: str
    kind: str
    help: str
    samples: list[tuple[str, str, float]]


def render(metrics: Iterable[Metric], *, openmetrics: bool) -> str:
    """The body of an answer to Prometheus."""
    lines = []
    for name, kind, text, samples in metrics:
        # OpenMetrics 1.0: the name of a counter's family lacks the suffix `_total` of its samples
        title = name + "_total" if kind == "counter" and not openmetrics else name
        lines.append(f"# HELP {title} {text}")
        lines.append(f"# TYPE {title} {kind}")
        lines += [f"{name}{end}{labels} {_number(value)}" for end, labels, value in samples]
    if openmetrics:
        lines.append("# EOF")
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    return str(value) if isinstance(value, int) else repr(float(value))


def labels(**pairs: str) -> str:
    """Render labels. Their values are the server's own, and need no escaping."""
    return "{" + ",".join(f'{name}="{value}"' for name, value in pairs.items()) + "}"


def counter(name: str, text: str, samples: dict[str, int] | int) -> Metric:
    """A counter: its one value, or values by rendered labels."""
    values = samples if isinstance(samples, dict) else {"": samples}
    return Metric(name, "counter", text, [("_total", at, value) for at, value in values.items()])


def gauge(name: str, text: str, samples: dict[str, float] | float) -> Metric:
    """A gauge: its one value, or values by rendered labels."""
    values = samples if isinstance(samples, dict) else {"": samples}
    return Metric(name, "gauge", text, [("", at, value) for at, value in values.items()])


def _histogram(name: str, text: str, totals: list[int], first: int) -> Metric:
    samples: list[tuple[str, str, float]] = []
    count = 0
    for index, bound in enumerate((*map(str, BUCKETS), "+Inf")):
        count += totals[first + index]
        samples.append(("_bucket", labels(le=bound), count))
    samples.append(("_count", "", count))
    samples.append(("_sum", "", totals[first + len(BUCKETS) + 1] / 1e9))
    return Metric(name, "histogram", text, samples)


def counter_metrics(totals: list[int]) -> list[Metric]:
    """The metrics of `SharedPages.totals`."""
    requests = {
        labels(method=method, status=status): totals[REQUESTS + row * len(CLASSES) + column]
        for row, method in enumerate(METHODS)
        for column, status in enumerate(CLASSES)
    }
    refusals = {labels(cause=cause): totals[REFUSALS + at] for at, cause in enumerate(CAUSES)}
    return [
        counter(
            "threadwell_requests",
            "Responses, complete or not, by method and status class.",
            {at: number for at, number in requests.items() if number} or {_ANY: 0},
        ),
        _histogram(
            "threadwell_request_duration_seconds",
            "Time from the complete request (on loops, from its head) to the end of the response.",
            totals,
            DURATIONS,
        ),
        _histogram(
            "threadwell_queue_wait_seconds",
            "Time until a thread runs a request; one request in 16 is sampled.",
            totals,
            WAITS,
        ),
        counter("threadwell_request_body_bytes", "Bytes of request bodies.", totals[RECEIVED]),
        counter(
            "threadwell_response_body_bytes",
            "Bytes of response bodies, without heads and framing.",
            totals[SENT],
        ),
        counter(
            "threadwell_responses_cut", "Responses that were cut before their end.", totals[CUT]
        ),
        counter("threadwell_connections_opened", "Connections accepted.", totals[OPENED]),
        counter(
            "threadwell_refusals", "Connections and requests that were refused, by cause.", refusals
        ),
        counter("threadwell_slow_requests", "Requests that were logged as slow.", totals[SLOW]),
        counter(
            "threadwell_request_timeouts",
            "Requests that were abandoned by request_timeout.",
            totals[TIMED_OUT],
        ),
        counter(
            "threadwell_access_log_lost_lines",
            "Access log lines that could not be written.",
            totals[LOST],
        ),
    ]


_ANY = labels(method="GET", status="2xx")


def gauge_metrics(pages: dict[int, list[int]]) -> list[Metric]:
    """The metrics of `SharedPages.gauges`."""

    def total(offset: int) -> int:
        return sum(numbers[offset] for numbers in pages.values())

    threads = {
        labels(state="total"): total(gauges.THREADS),
        labels(state="busy"): total(gauges.BUSY),
        labels(state="lent"): total(gauges.LENT),
    }
    connections = {
        labels(state=state): total(gauges.CONNECTIONS + at)
        for at, state in enumerate(gauges.STATES)
    }
    memory = {labels(worker=str(slot)): each[gauges.MEMORY] for slot, each in pages.items()}
    return [
        gauge(
            "threadwell_threads",
            "Threads: all, those in a request, and those lent to long responses.",
            {**threads},
        ),
        gauge(
            "threadwell_thread_slots", "Threads that may run requests at once.", total(gauges.SLOTS)
        ),
        gauge("threadwell_event_loops", "Event loops.", total(gauges.LOOPS)),
        gauge("threadwell_connections", "Open connections, by state.", {**connections}),
        gauge("threadwell_resident_memory_bytes", "Resident memory of each worker.", {**memory}),
    ]
