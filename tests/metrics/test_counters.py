"""Blocks of counters and their shared pages, each by itself."""

from __future__ import annotations

import http
import re
import threading
import time
from types import SimpleNamespace
from typing import Any

import pytest

from threadwell import Request, Response, ServerConfig
from threadwell.worker.config.groups import Limits
from threadwell.worker.http1.parser import RequestParser
from threadwell.worker.lifecycle import ConnectionOpened, Refused, RequestWaited
from threadwell.worker.metrics import counters
from threadwell.worker.metrics.counters import BLOCK, MetricsCollector, gauges_of, private_page
from threadwell.worker.metrics.prometheus import counter_metrics, render
from threadwell.worker.metrics.shared_pages import SharedPages, read_page

from ..helpers.recorder import completed

COMPLETED = completed(size=10, seconds=0.004)


def test_a_request_is_counted_when_the_rest_of_it_was() -> None:
    """Who sees the request finds its duration and its octets, too."""
    order: list[int] = []

    class Numbered(list[int]):
        def tolist(self) -> list[int]:
            return list(self)

        def __setitem__(self, at: Any, value: Any) -> None:
            order.append(at)
            super().__setitem__(at, value)

    block: Any = Numbered([0] * BLOCK)
    event = completed(size=10, seconds=0.004)
    counters.ThreadCounters(block, 0, None, None).completed(event)
    assert len(order) == len(set(order)) == 4
    assert counters.REQUESTS <= order[-1] < counters.DURATIONS


def test_a_thread_that_has_ended_leaves_its_block_to_another() -> None:
    shared_pages = SharedPages(1, 4)
    counter = MetricsCollector(shared_pages.page(shared_pages.take()))
    for _ in range(20):
        thread = threading.Thread(target=counter.record, args=(COMPLETED,))
        thread.start()
        thread.join()
    assert shared_pages.totals()[counters.SENT] == 200
    assert counter.numbers[counters.USED] == 3


def test_threads_come_and_go_while_somebody_looks() -> None:
    # Without a GIL threads that slice one memoryview at the same time may break it for all
    shared_pages = SharedPages(1, 8)
    counter = MetricsCollector(shared_pages.page(shared_pages.take()))
    end = time.monotonic() + 0.3

    def look() -> None:
        while time.monotonic() < end:
            shared_pages.totals()
            shared_pages.gauges()

    def come_and_go() -> None:
        while time.monotonic() < end:
            counter._assign_block().take(COMPLETED)

    threads = [threading.Thread(target=each) for each in (look, come_and_go, come_and_go)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    before = shared_pages.totals()[counters.SENT]
    counter.record(COMPLETED)
    assert shared_pages.totals()[counters.SENT] == before + 10


def test_threads_without_a_block_of_their_own_share_one() -> None:
    shared_pages = SharedPages(1, 3)
    counter = MetricsCollector(shared_pages.page(shared_pages.take()))
    barrier = threading.Barrier(6)

    def count() -> None:
        counter.record(ConnectionOpened(("", 0)))
        barrier.wait(20)
        for _ in range(500):
            counter.record(COMPLETED)
        counter.record(Refused(("", 0), "418"))
        counter.record(RequestWaited(Request(None), 0.2))  # type: ignore[arg-type]

    threads = [threading.Thread(target=count) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    sums = shared_pages.totals()
    assert sums[counters.SENT] == 6 * 500 * 10
    assert sums[counters.OPENED] == 6
    assert sum(sums[counters.WAITS : counters.WAITS + len(counters.BUCKETS) + 1]) == 6
    assert sums[counters.REFUSALS + counters.CAUSES.index("other")] == 6


def test_what_a_process_has_counted_is_kept_when_it_ends() -> None:
    shared_pages = SharedPages(2, 3)
    for _ in range(5):
        page = shared_pages.take()
        MetricsCollector(shared_pages.page(page)).record(COMPLETED)
        shared_pages.retire(page)
    assert shared_pages.totals()[counters.SENT] == 50
    assert shared_pages.gauges() == {}
    assert (shared_pages.take(), shared_pages.take(), shared_pages.take()) != (-1, -1, -1)
    assert shared_pages.take() == -1
    shared_pages.retire(-1)
    assert len(shared_pages.page(0)) == 3 * BLOCK


@pytest.mark.parametrize("shared", [False, True])
def test_the_quick_way_counts_what_the_event_would(*, shared: bool) -> None:
    """Whatever objects the application's statuses are, on either kind of page."""
    page: counters.Page = SharedPages(1, 4).page(0) if shared else private_page(4)
    collector = MetricsCollector(page)
    answered = collector.take_answers()
    assert answered is not None
    conn: Any = SimpleNamespace(
        started=5.0, origin=SimpleNamespace(client=("", 0)), peer=("", 0), request_id=""
    )
    equal = (200, http.HTTPStatus.OK, "200 OK", "".join(["200", " ", "OK"]))
    bodies = {"GET": b"", "POST": b"abc", "HEAD": b""}
    for method, body in bodies.items():
        raw = f"{method} / HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}"
        request = Request(RequestParser(Limits()).parse(raw.encode()), body)
        for status in (*equal, "200 Fine", 404, 204):
            for seconds in (0.0005, 0.02):
                response = Response(status, [], b"ten octets")
                answered(conn, request, response, conn.started + seconds)
    totals, _ = read_page(page)
    for method in bodies:
        row = counters.REQUESTS + counters.METHODS.index(method) * len(counters.CLASSES)
        assert totals[row : row + len(counters.CLASSES)] == [0, 0, 12, 0, 2, 0]
    assert totals[counters.DURATIONS] == 21
    assert sum(totals[counters.DURATIONS : counters.WAITS - 1]) == 42
    assert totals[counters.WAITS - 1] == pytest.approx(21 * 20_500_000, abs=100)
    assert totals[counters.SENT] == 2 * 2 * 6 * 10
    assert totals[counters.RECEIVED] == 14 * 3


def test_a_private_page_has_the_gauges_and_the_waits() -> None:
    page = private_page(4)
    collector = MetricsCollector(page)
    take_wait = collector.take_waits()
    assert take_wait is not None
    for seconds in (0.0, 0.001, 0.25, 20.0):
        take_wait(seconds)
    gauges_of(page)[counters.LOST] = 7
    totals, gauges = read_page(page)
    waits = totals[counters.WAITS : counters.WAITS + len(counters.BUCKETS) + 2]
    assert (waits[0], waits[7], waits[-2], sum(waits[:-1])) == (2, 1, 1, 4)
    assert waits[-1] == pytest.approx(20.251e9, abs=100)
    assert totals[counters.LOST] == gauges[counters.LOST] == 7
    assert gauges[counters.USED] == 3


@pytest.mark.parametrize(
    ("seconds", "bucket"), [(0.0, "0.001"), (0.001, "0.001"), (0.0011, "0.0025"), (11.0, "+Inf")]
)
def test_the_buckets_are_upper_bounds(seconds: float, bucket: str) -> None:
    shared_pages = SharedPages(1, 3)
    MetricsCollector(shared_pages.page(shared_pages.take())).record(completed(999, seconds=seconds))
    text = render(counter_metrics(shared_pages.totals()), openmetrics=False)
    found = re.findall(r'_duration_seconds_bucket\{le="([^"]+)"\} 1', text)
    assert found[0] == bucket
    assert 'requests_total{method="none",status="none"} 1' in text


def test_the_blocks_fit_the_threads() -> None:
    few = counters.blocks_for(ServerConfig.from_options(threads=2, max_streams=1))
    many = counters.blocks_for(ServerConfig.from_options(threads=2, max_streams=10**6))
    assert 5 <= few < many < 300
