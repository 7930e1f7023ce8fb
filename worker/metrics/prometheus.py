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
            "Answers, complete or not, by method and class of status.",
            {at: number for at, number in requests.items() if number} or {_ANY: 0},
        ),
        _histogram(
            "threadwell_request_duration_seconds",
            "From the whole request (on event loops from its head) to the end of its answer.",
            totals,
            DURATIONS,
        ),
        _histogram(
            "threadwell_queue_wait_seconds",
            "From the arrival of a request to a thread for it; one request of 16 is asked.",
            totals,
            WAITS,
        ),
        counter("threadwell_request_body_bytes", "Octets of request bodies.", totals[RECEIVED]),
        counter(
            "threadwell_response_body_bytes",
            "Octets of answers, without their heads and framing.",
            totals[SENT],
        ),
        counter("threadwell_responses_cut", "Answers that did not reach their end.", totals[CUT]),
        counter("threadwell_connections_opened", "Connections accepted.", totals[OPENED]),
        counter("threadwell_refusals", "What was refused, by cause.", refusals),
        counter("threadwell_slow_requests", "Requests that slow_request logged.", totals[SLOW]),
        counter(
            "threadwell_request_timeouts",
            "Requests that request_timeout gave up.",
            totals[TIMED_OUT],
        ),
        counter(
            "threadwell_access_log_lost_lines",
            "Lines of the access log that could not be written.",
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
            "Threads there are, those inside a request, and those lent to long responses.",
            {**threads},
        ),
        gauge(
            "threadwell_thread_slots", "Threads that may be inside requests.", total(gauges.SLOTS)
        ),
        gauge("threadwell_event_loops", "Event loops.", total(gauges.LOOPS)),
        gauge("threadwell_connections", "Open connections, by state.", {**connections}),
        gauge("threadwell_resident_memory_bytes", "Memory of each worker.", {**memory}),
    ]
