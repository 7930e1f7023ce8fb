"""The status page: what it says, and that it loads nothing."""

from __future__ import annotations

import html
import re
from collections.abc import Callable
from pathlib import Path

from threadwell import ThreadedServer
from threadwell.worker.metrics.prometheus import Metric, counter, gauge, labels
from threadwell.worker.metrics.status_page import StatusPage

from ..helpers.browser import chromium, needs_browser
from ..helpers.metrics import HERE, App, fetch, url_of
from ..helpers.waiting import until
from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]


def text_of(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", page.partition("</style>")[2])).split())


def test_what_a_server_shows(serve: Serve, connect: Connect, app: App) -> None:
    server = serve(app, threads=4, metrics_bind=HERE)
    url = url_of(server)
    for target in ("/", "/?404", "/?503"):
        connect(server).get(target)
    connect(server).send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
    assert app.inside.acquire(timeout=10)
    until(lambda: "3 requests 1 answers of 5xx" in text_of(fetch(url, "/status")[1]))
    status, page = fetch(url, "/status")
    assert status == 200
    text = text_of(page)
    assert text.startswith("threadwell: ready ")
    assert "Threads: 1 of 4 busy, 0 lent to long answers" in text
    assert "Connections idle 3 serving 1" in text
    app.gate.set()


def test_it_loads_nothing_and_runs_nothing(serve: Serve, app: App) -> None:
    url = url_of(serve(app, metrics_bind=HERE))
    _, page = fetch(url, "/status")
    assert not re.search(r"<script|<link|<img|src=|href=|url\(|@import", page)
    assert '<meta http-equiv="refresh" content="2">' in page


@needs_browser
def test_in_a_browser(serve: Serve, connect: Connect, app: App, tmp_path: Path) -> None:
    server = serve(app, threads=2, metrics_bind=HERE)
    connect(server).send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
    assert app.inside.acquire(timeout=10)
    with chromium(tmp_path / "profile") as browser:
        browser.set_window_size(1000, 800)
        browser.get(url_of(server) + "/status")
        assert "Threads: 1 of 2 busy" in browser.find_element("tag name", "body").text
        picture = browser.get_screenshot_as_png()
        bar = browser.find_element("css selector", ".bar")
        (busy,) = bar.find_elements("css selector", "i.busy")
        assert 0.4 < busy.size["width"] / bar.size["width"] < 0.6
        assert browser.get_log("browser") == []  # the policy has forbidden nothing
    assert len(picture) > 5000  # one without text, of one colour, has fewer octets
    app.gate.set()


def histogram(*counts: int) -> Metric:
    bounds = ("0.1", "1.0", "+Inf")
    samples = [("_bucket", labels(le=bound), n) for bound, n in zip(bounds, counts, strict=True)]
    return Metric("threadwell_request_duration_seconds", "histogram", "", [*samples])


def shown(page: StatusPage, requests: int, *durations: int) -> str:
    by_status = {labels(method="GET", status="2xx"): requests}
    metrics = [
        counter("threadwell_requests", "", by_status),
        counter("threadwell_response_body_bytes", "", 0),
        histogram(*durations),
        gauge("threadwell_workers", "", 1),
        gauge("threadwell_workers_wanted", "", 2),
    ]
    return text_of(page.render(metrics, "draining").decode())


def test_rates_and_percentiles_are_of_the_time_since_the_last_view() -> None:
    page = StatusPage()
    first = shown(page, 10, 9, 9, 10)
    assert "≤ 100 ms 50 % of requests, since the start" in first
    assert "> 10 s 95 % of requests, since the start" in first
    assert "requests/s" not in first
    assert first.startswith("threadwell: draining ")
    assert "1 of 2 workers" in first
    second = shown(page, 20, 9, 19, 20)
    assert "≤ 1000 ms 50 % of requests, now" in second
    assert re.search(r"[\d,]+\.\d requests/s", second)
    assert "- 50 % of requests, now" in shown(page, 20, 9, 19, 20)
