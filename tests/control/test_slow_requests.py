"""Requests that take too long: logged once while they run, counted, and given up."""

from __future__ import annotations

import asyncio
import logging
import re
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from threadwell import Response, ServerConfig, ThreadedServer
from threadwell.worker import ConfigError, Server

from ..helpers.asgi_tools import no_lifespan
from ..helpers.control import PATHS, ask, requests_to, running
from ..helpers.metrics import HERE, Numbers, metrics_url
from ..helpers.supervised import Load, Start, starting
from ..helpers.waiting import until

LOCKS, STREAMS = PATHS[:5], PATHS[5:7]

ASGI = """
import asyncio, os, pathlib, time

async def wait_for_go(stubborn):
    while not pathlib.Path("go").exists():
        try:
            await asyncio.sleep(0.01)
        except asyncio.CancelledError:
            if not stubborn:
                raise

async def app(scope, receive, send):
    assert scope["type"] == "http"
    if scope["path"] == "/wait":
        await wait_for_go(False)
    elif scope["path"] == "/stubborn":
        await wait_for_go(True)
    elif scope["path"] == "/block":
        while not pathlib.Path("go").exists():
            time.sleep(0.01)
    body = f"old {os.getpid()}".encode()
    headers = [(b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})
"""


@pytest.fixture
def start_asgi(tmp_path: Path) -> Iterator[Start]:
    with starting(tmp_path, ASGI) as run:
        yield run


def log_of(server: Any) -> str:
    return "".join(server.lines)


# ---- Logged -------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["1", "3"])
def test_five_stacks_once_each(start: Start, tmp_path: Path, path: Path, workers: str) -> None:
    options = ["--workers", workers, "--threads", "8", "--slow-request", "1"]
    options += ["--control", f"unix:{path}", "--metrics-bind", HERE]
    server = start("app:app", *options)
    url = metrics_url(server)
    with requests_to(server.port, [*LOCKS, *STREAMS]), Load(server.port, 2) as load:
        server.await_line("Slow request: ", 5)
        # a second look after the last line
        until(lambda: all(running(path)[each]["age"] > 4 for each in LOCKS))
        load.more()
        until(lambda: Numbers(url)["slow_requests_total"] == 5)
        (tmp_path / "go").touch()
    assert not load.failures
    assert server.end() == 0
    text = log_of(server)
    found = re.findall(r"WARNING Slow request: GET (\S+) of 127.0.0.1 has run for", text)
    assert sorted(found) == LOCKS
    assert text.count("in wait_for_the_lock\n") == 5


def test_a_task_that_waits_and_a_loop_that_is_blocked(
    start_asgi: Start, tmp_path: Path, path: Path
) -> None:
    server = start_asgi("app:app", "--workers", "1", "--slow-request", "0.5", "--loops", "1")
    with requests_to(server.port, ["/wait"]):
        server.await_line("Slow request: GET /wait")
        server.await_line("in wait_for_go")
        server.await_line("await asyncio.sleep(0.01)")
        with requests_to(server.port, ["/block"]):
            server.await_line("Slow request: GET /block")
            server.await_line("in app")
            (tmp_path / "go").touch()
    assert server.end() == 0
    assert log_of(server).count("Slow request: ") == 2


def test_the_id_is_in_the_line(caplog: pytest.LogCaptureFixture) -> None:
    gate = threading.Event()

    def app(request: Any) -> Response:
        assert gate.wait(20)
        return Response(200, [], b"ok")

    options: dict[str, Any] = {"slow_request": 0.2, "request_id_header": "X-Request-ID"}
    with (
        caplog.at_level(logging.WARNING, "threadwell"),
        ThreadedServer(app, bind="127.0.0.1:0", **options) as server,
        requests_to(server.port, ["/one"]),
    ):
        until(lambda: re.search(r"GET /one \[[0-9a-f]{32}\] of 127\.0\.0\.1", caplog.text))
        assert "assert gate.wait(20)" in caplog.text
        gate.set()


# ---- Given up -----------------------------------------------------------------------------


def test_the_worker_is_replaced_and_no_other_request_fails(
    start: Start, tmp_path: Path, path: Path
) -> None:
    options = ["--workers", "2", "--threads", "4", "--request-timeout", "1.5"]
    options += ["--control", f"unix:{path}", "--metrics-bind", HERE]
    server = start("app:app", *options)
    url = metrics_url(server)
    with Load(server.port, 4) as load:
        with requests_to(server.port, ["/lock0", "/stream0"]) as socks:
            until(lambda: {"/lock0", "/stream0"} <= running(path).keys())
            victim = running(path)["/lock0"]["pid"]
            streams_elsewhere = running(path)["/stream0"]["pid"] != victim
            server.await_line("Request timeout: GET /lock0 of 127.0.0.1 has run for")
            server.await_line("in wait_for_the_lock")
            server.await_line(f"(process {victim}): GET /lock0 of 127.0.0.1 has run for")
            until(lambda: len(server.ready_workers()) == 3)
            assert socks["/stream0"].recv(100), "a response that has begun goes on"
            if not streams_elsewhere:
                socks["/stream0"].close()  # else the old worker waits for its end
            # it does not wait for the request that it has given up: no answer comes
            assert socks["/lock0"].recv(100) == b""
            until(lambda: victim not in pids(path))
            load.more()
            (tmp_path / "go").touch()
        until(lambda: Numbers(url)["worker_replacements_total", "request_timeout"] == 1)
        assert Numbers(url)["request_timeouts_total"] == 1
        load.more()
    assert not load.failures
    assert server.end() == 0
    assert log_of(server).count("Request timeout: ") == 1


def pids(path: Path) -> list[int]:
    return [each["pid"] for each in ask(path, "status")["workers"]]


def test_one_worker_has_a_supervisor(start: Start, tmp_path: Path) -> None:
    server = start("app:app", "--workers", "1", "--request-timeout", "0.5")
    (victim,) = server.ready_workers()
    with requests_to(server.port, ["/lock0"]) as socks:
        assert socks["/lock0"].recv(100) == b""
    until(lambda: len(server.ready_workers()) == 2)
    assert server.get().split()[1] != str(victim)
    assert server.end() == 0


def test_a_loop_cancels_it(start_asgi: Start, tmp_path: Path) -> None:
    server = start_asgi("app:app", "--workers", "1", "--request-timeout", "0.5", "--loops", "1")
    with requests_to(server.port, ["/wait"]) as socks:
        head = socks["/wait"].recv(1000)
        assert head.startswith(b"HTTP/1.1 503 ")
        # and the connection goes on
        socks["/wait"].sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        while b"old " not in head:
            head += socks["/wait"].recv(1000)
    server.await_line("Request timeout: GET /wait of 127.0.0.1")
    assert len(server.ready_workers()) == 1
    assert server.end() == 0
    assert "The application failed" not in log_of(server)
    assert log_of(server).count("in wait_for_go") == 1


@pytest.mark.parametrize("kind", ["/stubborn", "/block"])
def test_what_cannot_be_cancelled_costs_the_worker(
    start_asgi: Start, tmp_path: Path, kind: str
) -> None:
    server = start_asgi("app:app", "--workers", "1", "--request-timeout", "0.5", "--loops", "1")
    with requests_to(server.port, [kind]) as socks:
        server.await_line(f"Request timeout: GET {kind} of 127.0.0.1")
        until(lambda: len(server.ready_workers()) == 2, 30)
        assert server.get().startswith("old ")
        assert isinstance(socks[kind], socket.socket)
        (tmp_path / "go").touch()
    assert server.end() == 0


def test_a_server_object_says_what_it_needs() -> None:
    with pytest.raises(ConfigError, match="request_timeout: a server object serves in this"):
        ThreadedServer(lambda request: Response(200), interface="sync", request_timeout=1)


def test_a_server_on_its_own_ends_as_failed() -> None:
    gate = threading.Event()

    def app(request: Any) -> Response:
        gate.wait(20)
        return Response(200, [], b"late")

    config = ServerConfig.from_options(bind="127.0.0.1:0", request_timeout=0.5)
    with Server(app, config) as server:
        with requests_to(server.port, ["/"]) as socks:
            until(lambda: server.failed)
            gate.set()
            data = b"".join(iter(lambda: socks["/"].recv(1000), b""))
        assert data.endswith(b"late")
        assert server.state in ("draining", "stopped")


def test_a_cancelled_websocket_handshake_is_refused() -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await no_lifespan(scope)
        await asyncio.sleep(1000)

    config = ServerConfig.from_options(bind="127.0.0.1:0", request_timeout=0.5)
    with Server(app, config) as server, socket.create_connection(("127.0.0.1", server.port)) as ws:
        ws.settimeout(20)
        ws.sendall(
            b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
        )
        assert ws.recv(1000).startswith(b"HTTP/1.1 500 ")
