"""What is counted, of threads and of event loops."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from threadwell import Request, Response, ThreadedServer

from ..helpers.asgi_tools import UPGRADE, Receive, Scope, Send, answer, no_lifespan, read_body
from ..helpers.certificates import Authority
from ..helpers.metrics import HERE, App, Numbers, url_of
from ..helpers.waiting import until
from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]


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
    assert numbers["thread_slots"] == 3
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
