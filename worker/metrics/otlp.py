"""Sends the metrics by OTLP, the protocol of OpenTelemetry. It needs the extra `otel`.

Each process sends its own metrics, as OpenTelemetry wants it: it is an instance of the service. The
environment says where to, how often and under which name: OTEL_EXPORTER_OTLP_ENDPOINT,
OTEL_METRIC_EXPORT_INTERVAL and OTEL_SERVICE_NAME, among others.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Any

from ..errors import ConfigError
from ..system.threads import start_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from .prometheus import Metric

log = logging.getLogger("threadwell")

# OpenTelemetry's default, in milliseconds.
_INTERVAL = "60000"
# Seconds to send the last numbers when the server has stopped.
_LAST_MOMENT = 3.0


def interval() -> float:
    """Seconds between two exports. Raises `ConfigError`."""
    text = os.environ.get("OTEL_METRIC_EXPORT_INTERVAL") or _INTERVAL
    if not text.isdecimal() or int(text) == 0:
        raise ConfigError(
            f"OTEL_METRIC_EXPORT_INTERVAL: {text!r} is not a number of milliseconds; give one such"
            " as 10000"
        )
    return int(text) / 1000


class OTLPExporter:
    """Sends what `gather` returns from a thread of its own. `close` sends it once more.

    The constructor raises `ConfigError` if the extra is missing or the environment is wrong.
    """

    def __init__(self, gather: Callable[[], list[Metric]]) -> None:
        self._gather = gather
        self._interval = interval()
        self._exporter, self._resource = _connect()
        self._began = time.time_ns()
        self._failed = False
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="threadwell-otlp", daemon=True)

    def start(self) -> None:
        """Start the thread. Raises `OSError` if none can be started."""
        start_thread(self._thread)

    def close(self) -> None:
        """Send the last numbers, and end the thread."""
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join(_LAST_MOMENT)

    def _run(self) -> None:
        while not self._over.wait(self._interval):
            self._export()
        self._export()
        self._exporter.shutdown()

    def _export(self) -> None:
        from opentelemetry.sdk.metrics.export import MetricExportResult

        try:
            data = as_otlp(self._gather(), self._resource, self._began)
            why = ""
            if self._exporter.export(data) is not MetricExportResult.SUCCESS:
                why = "the collector did not take them"
        except Exception as error:
            why = str(error)
        if why and not self._failed:
            log.error("The metrics cannot be sent by OTLP: %s", why)
        elif self._failed and not why:
            log.info("The metrics are sent by OTLP again")
        self._failed = bool(why)


def _connect() -> tuple[Any, Any]:
    try:
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.resources import Resource
    except ImportError:
        raise ConfigError(
            "otlp_metrics: OpenTelemetry is not installed; pip install 'threadwell[otel]'"
        ) from None
    # the SDK logs each failure with a traceback; ours is one line
    logging.getLogger("opentelemetry.exporter.otlp").addFilter(lambda record: False)  # noqa: ARG005
    attributes = {"service.instance.id": f"{os.uname().nodename}:{os.getpid()}"}
    if "OTEL_SERVICE_NAME" not in os.environ:
        attributes["service.name"] = "threadwell"
    return OTLPMetricExporter(), Resource.create(attributes)


def as_otlp(metrics: Iterable[Metric], resource: Any, began: int) -> Any:
    """`metrics` as the data of an export. `began` is when counting has begun, in nanoseconds."""
    from opentelemetry.sdk.metrics import export
    from opentelemetry.sdk.util.instrumentation import InstrumentationScope

    now = time.time_ns()
    cumulative = export.AggregationTemporality.CUMULATIVE

    def points(metric: Metric) -> list[export.NumberDataPoint]:
        return [
            export.NumberDataPoint(attributes_of(labels), began, now, value)
            for _, labels, value in metric.samples
        ]

    def data(metric: Metric) -> Any:
        if metric.kind == "counter":
            return export.Sum(points(metric), cumulative, is_monotonic=True)
        if metric.kind == "gauge":
            return export.Gauge(points(metric))
        return export.Histogram([_histogram_point(metric, began, now)], cumulative)

    found = [export.Metric(each.name, each.help, "", data(each)) for each in metrics]
    scope = export.ScopeMetrics(InstrumentationScope("threadwell"), found, "")
    return export.MetricsData([export.ResourceMetrics(resource, [scope], "")])


def _histogram_point(metric: Metric, began: int, now: int) -> Any:
    from opentelemetry.sdk.metrics import export

    totals = [int(value) for end, _, value in metric.samples if end == "_bucket"]
    bounds = [
        float(attributes_of(labels)["le"]) for end, labels, _ in metric.samples if end == "_bucket"
    ]
    counts = [after - before for before, after in zip([0, *totals], totals, strict=False)]
    (total,) = [value for end, _, value in metric.samples if end == "_sum"]
    # the bounds are finite: what is above the last one is the last count
    return export.HistogramDataPoint(
        {}, began, now, totals[-1], total, counts, bounds[:-1], min=0.0, max=0.0
    )


def attributes_of(labels: str) -> dict[str, str]:
    """Rendered labels as attributes."""
    pairs = (pair.partition("=") for pair in labels.strip("{}").split(",") if pair)
    return {name: value.strip('"') for name, _, value in pairs}
