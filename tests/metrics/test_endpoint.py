"""The metrics page, /healthz and /readyz."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as openmetrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

from threadwell import ConfigError, ThreadedServer

from ..helpers.asgi_tools import Receive, Scope, Send, answer
from ..helpers.metrics import HERE, App, Numbers, fetch, metrics_url, url_of
from ..helpers.supervised import APP, starting
from ..helpers.waiting import until
from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]


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
    assert fetch(url, "/status")[0] == 200
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
        ("nonsense", "metrics_bind: 'nonsense' is not an address"),
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


HALF = b"GET /readyz HTTP/1.1\r\nHost:"


@pytest.mark.parametrize("sent", [b"", HALF], ids=["idle", "half"])
@pytest.mark.parametrize("supervised", [False, True], ids=["one-process", "supervisor"])
def test_probes_are_answered_whoever_else_has_connected(
    serve: Serve, app: App, tmp_path: Path, sent: bytes, supervised: bool
) -> None:
    with contextlib.ExitStack() as stack:
        if supervised:
            start = stack.enter_context(starting(tmp_path, APP.format(version=1)))
            server = start("app:app", "--metrics-bind", HERE)
            url = metrics_url(server)
        else:
            url = url_of(serve(app, metrics_bind=HERE))
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        taken = []
        for _ in range(110):
            sock = stack.enter_context(socket.create_connection(address, 20))
            sock.sendall(sent)
            taken.append(sock)
            if len(taken) % 10 == 0:  # those that came before were accepted
                with urllib.request.urlopen(f"{url}/readyz", timeout=5) as probe:
                    assert probe.read() == b"ready\n"
        taken[-1].setblocking(False)
        with pytest.raises(BlockingIOError):  # the latest were left alone
            taken[-1].recv(1)
