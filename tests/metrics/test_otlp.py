"""Metrics by OTLP: a collector gets the numbers, and a server is not harmed without one."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from threadwell import ConfigError, ThreadedServer
from threadwell.worker.metrics.otlp import attributes_of

from ..helpers.metrics import App
from ..helpers.supervised import APP, Supervised
from ..helpers.waiting import until
from ..helpers.wire_client import Client

pytest.importorskip("opentelemetry.exporter.otlp.proto.http")

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]


class Collector:
    """An OTLP collector: the last numbers of each instance, by metric and attributes."""

    def __init__(self) -> None:
        collector = self
        self.instances: dict[str, dict[Any, Any]] = {}
        self.services: set[str] = set()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                collector.take(self.path, body)
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_arguments: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}"

    def take(self, path: str, body: bytes) -> None:
        from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2

        assert path == "/v1/metrics"
        export = metrics_service_pb2.ExportMetricsServiceRequest.FromString(body)
        for resource in export.resource_metrics:
            known = {each.key: each.value.string_value for each in resource.resource.attributes}
            self.services.add(known["service.name"])
            numbers: dict[Any, Any] = {}
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    self._note(numbers, metric)
            # all at once, for the test that reads them meanwhile
            self.instances.setdefault(known["service.instance.id"], {}).update(numbers)

    def _note(self, numbers: dict[Any, Any], metric: Any) -> None:
        kind = metric.WhichOneof("data")
        for point in getattr(metric, kind).data_points:
            key = (metric.name, *(each.value.string_value for each in point.attributes))
            if kind == "histogram":
                numbers[key] = (point.count, list(point.bucket_counts), list(point.explicit_bounds))
            else:
                numbers[key] = point.as_int or point.as_double

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    made = Collector()
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", made.url)
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "100")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    yield made
    made.close()


def test_a_collector_gets_the_numbers(
    serve: Serve, connect: Connect, app: App, collector: Collector
) -> None:
    server = serve(app, threads=3, otlp_metrics=True)
    client = connect(server)
    for target in ("/", "/?404", "/"):
        client.get(target)
    until(lambda: collector.instances)
    (numbers,) = collector.instances.values()
    until(lambda: numbers.get(("threadwell_requests", "GET", "2xx")) == 2)
    assert numbers["threadwell_requests", "GET", "4xx"] == 1
    assert numbers["threadwell_threads", "total"] == 3
    count, buckets, bounds = numbers["threadwell_request_duration_seconds",]
    assert (count, sum(buckets), len(buckets)) == (3, 3, len(bounds) + 1)
    assert bounds[0] == 0.001
    assert collector.services == {"threadwell"}
    client.get("/")
    server.stop()  # the last numbers are sent
    assert numbers["threadwell_requests", "GET", "2xx"] == 3


def test_each_worker_sends_its_own(tmp_path: Path, collector: Collector) -> None:
    (tmp_path / "app.py").write_text(APP.format(version="x"))
    arguments = ["app:app", "--bind", "127.0.0.1:0", "--workers", "2", "--otlp-metrics"]
    server = Supervised(tmp_path, *arguments)
    try:
        for _ in range(5):
            server.get()
        assert server.end() == 0
    finally:
        server.close()
    assert len(collector.instances) == 2
    requests = [
        numbers.get(("threadwell_requests", "GET", "2xx"), 0)
        for numbers in collector.instances.values()
    ]
    assert sum(requests) == 5


def test_without_a_collector_the_log_says_it_once(
    serve: Serve,
    connect: Connect,
    app: App,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "20")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    server = serve(app, otlp_metrics=True)

    def said() -> list[str]:
        return [each.getMessage() for each in caplog.records if "OTLP" in each.getMessage()]

    until(said)
    assert connect(server).get().status == 200
    server.stop()
    assert said() == ["The metrics cannot be sent by OTLP: the collector did not take them"]


def test_an_interval_that_is_none(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "often")
    with pytest.raises(ConfigError, match=r"^OTEL_METRIC_EXPORT_INTERVAL: 'often' is not a number"):
        ThreadedServer(app, bind="127.0.0.1:0", otlp_metrics=True).start()


def test_attributes() -> None:
    assert attributes_of('{method="GET",status="2xx"}') == {"method": "GET", "status": "2xx"}
    assert attributes_of("") == {}
