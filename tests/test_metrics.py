"""Metrics, /healthz and /readyz: that the numbers are right, and stay so when processes end."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import ssl
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from threadwell import ConfigError, Request, Response, ServerConfig, ThreadedServer
from threadwell.worker.lifecycle import (
    ConnectionOpened,
    Refused,
    RequestWaited,
)
from threadwell.worker.metrics import counters
from threadwell.worker.metrics.counters import BLOCK, MetricsCollector
from threadwell.worker.metrics.prometheus import counter_metrics, render
from threadwell.worker.metrics.shared_pages import SharedPages

from .asgi_tools import UPGRADE, Receive, Scope, Send, answer, no_lifespan, read_body
from .certificates import Authority
from .recorder import completed
from .supervised import APP, Supervised
from .waiting import until
from .wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

HERE = "127.0.0.1:0"


class App:
    threadwell_interface = "sync"

    def __init__(self) -> None:
        self.inside = threading.Semaphore(0)
        self.gate = threading.Event()

    def __call__(self, request: Request) -> Response:
        if request.path == "/wait":
            self.inside.release()
            assert self.gate.wait(20)
        if request.path == "/stream":
            return Response(200, [], self.stream())
        if request.path == "/fail":
            raise ValueError("on purpose")
        return Response(int(request.query or 200), [], b"hello")

    def stream(self) -> Iterator[bytes]:
        yield b"one"
        self.inside.release()
        assert self.gate.wait(20)
        yield b"three"


def fetch(url: str, path: str = "/metrics", accept: str = "") -> tuple[int, str]:
    request = urllib.request.Request(url + path, headers={"Accept": accept} if accept else {})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


class Numbers:
    """The metrics of a server, read as Prometheus does."""

    def __init__(self, url: str) -> None:
        _, text = fetch(url)
        self.samples = {
            (sample.name.removeprefix("threadwell_"), *sample.labels.values()): sample.value
            for family in prometheus(text)
            for sample in family.samples
        }

    def __getitem__(self, key: str | tuple[str, ...]) -> float:
        return self.samples.get((key,) if isinstance(key, str) else key, 0)

    def total(self, name: str) -> float:
        return sum(value for key, value in self.samples.items() if key[0] == name)


@pytest.fixture
def app() -> Iterator[App]:
    app = App()
    yield app
    app.gate.set()


def url_of(server: ThreadedServer) -> str:
    [url] = server.metrics_urls
    return url


# ---- What is counted ------------------------------------------------------------------------


def test_requests_by_method_and_class(serve: Serve, connect: Connect, app: App) -> None:
    server = serve(app, metrics_bind=HERE)
    client = connect(server)
    for query in ("200", "201", "301", "404", "503"):
        client.get(f"/?{query}")
    client.get("/fail")
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\n\r\n1234567")
    client.answer()
    client.send(b"BREW / HTTP/1.1\r\nHost: x\r\n\r\n")
    client.answer()
    client.send(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
    client.answer("HEAD")
    client.send(b"bad\r\n\r\n")
    client.answer()
    until(lambda: Numbers(url_of(server)).total("requests_total") == 10)
    numbers = Numbers(url_of(server))
    assert numbers["requests_total", "GET", "2xx"] == 2
    assert numbers["requests_total", "GET", "3xx"] == 1
    assert numbers["requests_total", "GET", "4xx"] == 1
    assert numbers["requests_total", "GET", "5xx"] == 2
    assert numbers["requests_total", "POST", "2xx"] == 1
    assert numbers["requests_total", "other", "2xx"] == 1
    assert numbers["requests_total", "HEAD", "2xx"] == 1
    assert numbers["requests_total", "none", "4xx"] == 1
    assert numbers["refusals_total", "400"] == 1
    assert numbers.total("refusals_total") == 1
    assert numbers["request_body_bytes_total"] == 7
    assert numbers["connections_opened_total"] == 1
    assert numbers["request_duration_seconds_count"] == 10
    assert numbers["request_duration_seconds_bucket", "+Inf"] == 10
    assert 0 < numbers["request_duration_seconds_sum"] < 5
    assert numbers["ready"] == 1


def test_bytes_and_what_was_cut(serve: Serve, connect: Connect, app: App) -> None:
    server = serve(app, metrics_bind=HERE)
    app.gate.set()
    client = connect(server)
    assert client.get("/stream").body == b"onethree"
    app.gate.clear()
    gone = connect(server)
    gone.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    assert gone.sock.recv(1000)
    gone.close()
    app.gate.set()
    until(lambda: Numbers(url_of(server)).total("requests_total") == 2)
    until(lambda: Numbers(url_of(server))["connections_opened_total"] == 2)
    numbers = Numbers(url_of(server))
    assert numbers["response_body_bytes_total"] >= 8 + 3
    assert numbers["responses_cut_total"] <= 1


def test_refusals_by_cause(serve: Serve, connect: Connect, app: App) -> None:
    server = serve(app, metrics_bind=HERE, limit_body=10, max_streams=0, head_timeout=1.5)
    for raw, status in (
        (b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", 505),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 9000 + b"\r\n\r\n", 431),
        (b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 11\r\n\r\n", 413),
        (b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n", 503),
        (b"GET / HT", 408),
    ):
        client = connect(server)
        client.send(raw)
        assert client.answer().status == status
    until(lambda: Numbers(url_of(server)).total("refusals_total") == 6)
    numbers = Numbers(url_of(server))
    for cause in ("505", "414", "431", "413", "streams", "408"):
        assert numbers["refusals_total", cause] == 1, cause


def test_handshakes_that_fail(serve: Serve, tmp_path: Path, app: App) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("localhost")
    server = serve(app, certfile=str(certificate), keyfile=str(key), metrics_bind=HERE)
    context = ssl.create_default_context()
    with (
        socket.create_connection(("127.0.0.1", server.port), 10) as sock,
        contextlib.suppress(ssl.SSLError),
    ):
        context.wrap_socket(sock, server_hostname="localhost")
    until(lambda: Numbers(url_of(server))["refusals_total", "tls"] == 1)


@pytest.mark.parametrize("served", ["threads", "loops"])
def test_proxies_that_are_not_trusted(
    serve: Serve, connect: Connect, app: App, served: str
) -> None:
    options = {"proxy_protocol": True, "trusted_proxies": "192.0.2.1", "metrics_bind": HERE}
    server = serve(app if served == "threads" else asgi, **options)
    client = connect(server)
    client.send(b"PROXY UNKNOWN\r\n")
    assert client.closed()
    until(lambda: Numbers(url_of(server))["refusals_total", "proxy"] == 1)


def test_threads_and_connections(serve: Serve, connect: Connect, app: App) -> None:
    server = serve(app, threads=3, metrics_bind=HERE)
    busy, lent, idle, head = (connect(server) for _ in range(4))
    busy.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
    lent.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    for _ in range(2):
        assert app.inside.acquire(timeout=10)
    idle.get()
    head.send(b"GET / HT")

    def connections() -> list[float]:
        numbers = Numbers(url_of(server))
        states = ("serving", "streaming", "idle", "head")
        return [numbers["connections", state] for state in states]

    until(lambda: connections() == [1, 1, 1, 1])
    # a thread is busy for a moment after it has given its connection back
    until(lambda: Numbers(url_of(server))["threads", "busy"] == 2)
    numbers = Numbers(url_of(server))
    assert numbers["threads", "total"] == 4
    assert numbers["threads", "busy"] == 2
    assert numbers["threads", "lent"] == 1
    assert numbers["thread_seats"] == 3
    assert 5 << 20 < numbers["resident_memory_bytes", "0"] < 1 << 40
    app.gate.set()


@pytest.mark.skipif(not hasattr(socket, "TCP_INFO"), reason="the system does not tell")
def test_how_long_a_request_has_waited(serve: Serve, connect: Connect, app: App) -> None:
    server = serve(app, threads=1, metrics_bind=HERE)
    clients = [connect(server) for _ in range(20)]
    clients[0].send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
    assert app.inside.acquire(timeout=10)
    for client in clients[1:]:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    threading.Timer(0.3, app.gate.set).start()
    for client in clients:
        assert client.answer().status == 200
    numbers = Numbers(url_of(server))
    assert numbers["queue_wait_seconds_count"] == 2  # the first, and one of sixteen after it
    assert 0.2 < numbers["queue_wait_seconds_sum"] < 5


def test_without_the_option_nothing_is_there(serve: Serve, app: App) -> None:
    server = serve(app)
    assert server.metrics_urls == []
    assert not [each for each in threading.enumerate() if each.name == "threadwell-metrics"]


# ---- Event loops ----------------------------------------------------------------------------


async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
    await no_lifespan(scope)
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        return
    body = await read_body(receive)
    await answer(send, b"%d" % len(body))


def test_event_loops_count_too(serve: Serve, connect: Connect) -> None:
    server = serve(asgi, metrics_bind=HERE)
    client = connect(server)
    client.get()
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    client.send(b"5\r\n12345\r\n0\r\n\r\n")
    assert client.answer().body == b"5"
    socket_client = connect(server)
    socket_client.send(f"GET / HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n".encode())
    assert socket_client.answer().status == 101
    until(lambda: Numbers(url_of(server)).total("requests_total") == 2)
    numbers = Numbers(url_of(server))
    assert numbers["requests_total", "GET", "2xx"] == 1
    assert numbers["requests_total", "POST", "2xx"] == 1
    assert numbers["request_body_bytes_total"] == 5
    assert numbers["event_loops"] >= 1
    assert numbers["connections", "idle"] == 1
    assert numbers["connections", "websocket"] == 1
    socket_client.close()
    until(lambda: Numbers(url_of(server))["requests_total", "GET", "1xx"] == 1)


def test_a_hybrid_counts_each_request_once(serve: Serve, connect: Connect) -> None:
    def first(request: Request) -> Response | None:
        return None if request.path == "/loop" else Response(200, [], b"thread")

    first.threadwell_interface = "sync"  # type: ignore[attr-defined]
    server = serve(first, asgi_app=asgi, metrics_bind=HERE)
    client = connect(server)
    assert client.get().body == b"thread"
    assert client.get("/loop").body == b"0"
    assert client.get().body == b"thread"
    # an answer is counted a moment after the client has it
    until(lambda: Numbers(url_of(server))["requests_total", "GET", "2xx"] == 3)
    numbers = Numbers(url_of(server))
    assert sum(numbers["connections", state] for state in ("idle", "serving")) == 1
    assert numbers.total("connections") == 1


# ---- The page ------------------------------------------------------------------------------


def test_both_formats_are_read_by_those_who_know_them(serve: Serve, app: App) -> None:
    url = url_of(serve(app, metrics_bind=HERE))
    _, plain = fetch(url)
    _, open_text = fetch(url, accept="application/openmetrics-text; version=1.0.0")
    families = {family.name: family for family in openmetrics(open_text)}
    assert families["threadwell_requests"].type == "counter"
    assert families["threadwell_request_duration_seconds"].type == "histogram"
    assert {family.name for family in prometheus(plain)} == set(families)
    assert all(family.documentation for family in families.values())


def test_the_other_paths(serve: Serve, app: App) -> None:
    url = url_of(serve(app, metrics_bind=HERE))
    assert fetch(url, "/healthz") == (200, "alive\n")
    assert fetch(url, "/readyz") == (200, "ready\n")
    assert fetch(url, "/")[0] == 404
    request = urllib.request.Request(url + "/metrics", data=b"", method="POST")
    with pytest.raises(urllib.error.HTTPError) as raised:
        urllib.request.urlopen(request, timeout=10)
    with raised.value:
        assert raised.value.code == 405


def test_what_is_asked_here_is_not_counted(serve: Serve, app: App) -> None:
    url = url_of(serve(app, metrics_bind=HERE))
    for _ in range(3):
        numbers = Numbers(url)
    assert numbers.total("requests_total") == 0
    assert numbers["connections_opened_total"] == 0


def test_not_ready_while_it_starts_and_while_it_drains(serve: Serve, connect: Connect) -> None:
    starting, go_on, in_request, answer_now = (threading.Event() for _ in range(4))

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        import asyncio

        if scope["type"] == "lifespan":
            await receive()
            starting.set()
            await asyncio.to_thread(go_on.wait, 20)
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
        else:
            in_request.set()
            await asyncio.to_thread(answer_now.wait, 20)
            await answer(send)

    server = ThreadedServer(slow, bind=HERE, metrics_bind=HERE)
    starter = threading.Thread(target=server.start)
    starter.start()
    try:
        assert starting.wait(20)
        url = url_of(server)
        assert fetch(url, "/readyz") == (503, "starting\n")
        assert fetch(url, "/healthz")[0] == 200
        assert Numbers(url)["ready"] == 0
        go_on.set()
        starter.join()
        assert fetch(url, "/readyz") == (200, "ready\n")
        connect(server).send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert in_request.wait(20)
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        until(lambda: fetch(url, "/readyz") == (503, "draining\n"))
        assert fetch(url, "/healthz")[0] == 200
        answer_now.set()
        stopper.join()
        with pytest.raises(OSError, match="refused"):
            fetch(url)
    finally:
        go_on.set()
        answer_now.set()
        server.stop()


def test_not_ready_when_no_request_is_taken(serve: Serve, connect: Connect, app: App) -> None:
    server = serve(app, threads=1, metrics_bind=HERE, worker_timeout=0.3)
    url = url_of(server)
    assert fetch(url, "/readyz")[0] == 200
    connect(server).send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
    assert app.inside.acquire(timeout=10)
    until(lambda: fetch(url, "/readyz")[0] == 503)
    assert re.fullmatch(r"no request was taken for \d+ seconds\n", fetch(url, "/readyz")[1])
    app.gate.set()
    until(lambda: fetch(url, "/readyz")[0] == 200)


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("nonsense", "metrics_bind: 'nonsense' is no address"),
        ("https://127.0.0.1:0", "metrics_bind: .* there is no TLS"),
        ("192.0.2.77:9100", "metrics_bind: cannot listen on 192.0.2.77:9100"),
    ],
)
def test_an_address_that_cannot_be(app: App, address: str, message: str) -> None:
    server = ThreadedServer(app, bind=HERE, metrics_bind=address)
    try:
        with pytest.raises(ConfigError, match=message):
            server.start()
    finally:
        server.stop()


def test_several_addresses(serve: Serve, app: App, tmp_path: Path) -> None:
    server = serve(app, metrics_bind=(HERE, f"unix:{tmp_path}/metrics"))
    url, unix = server.metrics_urls
    assert unix == f"unix:{tmp_path}/metrics"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(tmp_path / "metrics"))
        client = Client(sock)
        assert client.get("/healthz").body == b"alive\n"
    assert fetch(url, "/healthz")[0] == 200
    server.stop()
    assert not (tmp_path / "metrics").exists()


# ---- Blocks and pages -----------------------------------------------------------------------

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


# ---- Several processes ----------------------------------------------------------------------


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    with contextlib.ExitStack() as stack:

        def started(*arguments: str, app: str = APP, **options: Any) -> Supervised:
            (tmp_path / "app.py").write_text(app.format(version="1"))
            command = ["app:app", "--bind", HERE, "--metrics-bind", HERE, *arguments]
            return stack.enter_context(
                contextlib.closing(Supervised(tmp_path, *command, **options))
            )

        yield started


def metrics_url(server: Supervised) -> str:
    match = re.search(r"Metrics at (http://\S+)/metrics", "".join(server.lines))
    assert match
    return match[1]


@pytest.mark.parametrize("preload", [[], ["--preload"]])
def test_nothing_goes_down_when_workers_end(start: Callable[..., Supervised], preload: Any) -> None:
    server = start("--workers", "2", *preload)
    url = metrics_url(server)
    for _ in range(10):
        server.get()
    until(lambda: Numbers(url)["requests_total", "GET", "2xx"] == 10)
    victim = server.ready_workers()[0]
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(server.ready_workers()) == 3)
    server.send(signal.SIGHUP)
    server.await_line("The new application is served")
    server.get()
    until(lambda: Numbers(url)["worker_ends_total", "drained"] == 2)
    until(lambda: Numbers(url)["requests_total", "GET", "2xx"] == 11)
    numbers = Numbers(url)
    assert numbers["worker_starts_total"] == 5
    assert numbers["worker_ends_total", "signal"] == 1
    assert numbers["reloads_total"] == 1
    assert numbers["workers"] == numbers["workers_wanted"] == 2
    assert numbers["connections_opened_total"] == 11
    until(lambda: Numbers(url)["threads", "total"] == 16)
    assert len([key for key in numbers.samples if key[0] == "resident_memory_bytes"]) == 2
    assert server.end() == 0


def test_why_workers_are_replaced(start: Callable[..., Supervised]) -> None:
    server = start("--workers", "1", "--max-requests", "3")
    url = metrics_url(server)
    for _ in range(3):
        server.get()
    until(lambda: Numbers(url)["worker_replacements_total", "max_requests"] == 1)
    until(lambda: Numbers(url)["worker_ends_total", "drained"] == 1)
    until(lambda: len(server.ready_workers()) == 2)
    os.kill(server.ready_workers()[-1], signal.SIGTERM)
    until(lambda: Numbers(url)["worker_replacements_total", "signal"] == 1)


def test_it_is_alive_but_not_ready_until_a_worker_is(
    start: Callable[..., Supervised], tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    slow = f"""
import os, time
while not os.path.exists({str(gate)!r}):
    time.sleep(0.01)
{APP}"""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        # its number is known before the server says it, and nobody else can have it meanwhile
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        given = listening.fileno()
        arguments = ("--metrics-bind", f"fd://{given}", "--workers", "2")
        server = start(*arguments, app=slow, ready=False, pass_fds=[given])
    assert fetch(url, "/healthz")[0] == 200
    assert fetch(url, "/readyz") == (503, "starting\n")
    gate.touch()
    until(lambda: fetch(url, "/readyz") == (200, "ready\n"))
    server.await_line("Ctrl-C")
    gate.unlink()
    for pid in server.ready_workers():
        os.kill(pid, signal.SIGKILL)
    until(lambda: fetch(url, "/readyz") == (503, "no worker serves\n"))
    assert fetch(url, "/healthz")[0] == 200
    gate.touch()
    until(lambda: fetch(url, "/readyz")[0] == 200)


def test_not_ready_while_the_workers_drain(start: Callable[..., Supervised]) -> None:
    server = start("--workers", "2", "--drain-idle", "10")
    url = metrics_url(server)
    with socket.create_connection(("127.0.0.1", server.port), 10) as sock:
        client = Client(sock)
        client.get()
        server.send(signal.SIGTERM)
        until(lambda: fetch(url, "/readyz") == (503, "draining\n"))
        assert fetch(url, "/healthz")[0] == 200
        # a moment after the answer
        until(lambda: Numbers(url)["requests_total", "GET", "2xx"] == 1)
    assert server.end(0) == 0


def test_a_worker_keeps_no_connection_of_the_supervisors_open(
    start: Callable[..., Supervised],
) -> None:
    """A fork copies descriptors: a copy left open would leave the client waiting for the end."""
    server = start("--workers", "2")
    host, port = metrics_url(server).removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as sock:
        client = Client(sock)
        assert client.get("/healthz").status == 200
        os.kill(server.ready_workers()[0], signal.SIGKILL)
        until(lambda: len(server.ready_workers()) == 3)  # forked while this was open
        assert client.get("/healthz", headers="Connection: close\r\n").status == 200
        assert client.closed()
    worker = server.ready_workers()[-1]
    links, mine = _links(worker), _links(server.process.pid)
    listening = _inode_of_listener(int(port))
    assert listening in mine
    assert listening not in links


def _links(pid: int) -> set[str]:
    """What the descriptors of a process are; it may be closing one."""
    found = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return found


def _inode_of_listener(port: int) -> str:
    with open("/proc/net/tcp") as table:
        for line in table:
            fields = line.split()
            if fields[1].endswith(f":{port:04X}") and fields[3] == "0A":
                return f"socket:[{fields[9]}]"
    raise AssertionError("nobody listens")


def test_a_bad_address_is_a_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP.format(version="1"))
    for more in ([], ["--workers", "2"]):
        arguments = ["app:app", "--bind", HERE, "--metrics-bind", "192.0.2.77:9100", *more]
        server = Supervised(tmp_path, *arguments, ready=False)
        assert server.process.wait(20) == 2
        server.end()
        assert len(server.lines) == 1
        assert "metrics_bind: cannot listen on 192.0.2.77:9100" in server.lines[0].replace("-", "_")
