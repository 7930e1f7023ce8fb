"""HTTP/2 with what the server does beside it: proxies, ids, metrics, files, asynchronous bodies."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.request
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from threadwell import Request, Response, ThreadedServer
from threadwell.worker.request_id import request_id

from ..helpers.asgi_tools import Receive, Scope, Send, answer, no_lifespan
from ..helpers.http2_client import Http2Client
from ..helpers.waiting import until

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Http2Client]

FORWARDED = (
    ("x-forwarded-for", "203.0.113.9"),
    ("x-forwarded-proto", "http"),
    ("x-forwarded-host", "shop.example"),
)


def native(request: Request) -> Response:
    assert request.channel is not None
    told = [request.channel.client[0], request.scheme, request.header("host"), request_id()]
    return Response(200, [], json.dumps(told).encode())


async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
    await no_lifespan(scope)
    host = dict(scope["headers"])[b"host"].decode()
    assert scope["extensions"]["tls"]["tls_version"] >= 0x0303
    told = [scope["client"][0], scope["scheme"], host, request_id()]
    await answer(send, json.dumps(told).encode())


APPS = pytest.mark.parametrize("app", [native, asgi], ids=["threads", "loop"])


@APPS
@pytest.mark.parametrize("trusted", [True, False])
def test_proxies(serve_http2: Serve, http2: Connect, app: Any, trusted: bool) -> None:
    network = "127.0.0.0/8" if trusted else "192.0.2.0/24"
    headers = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"]
    client = http2(serve_http2(app, trusted_proxies=network, forwarded_header=headers))
    # streams of one connection come from different clients
    first, plain = client.get("/", *FORWARDED), client.get("/")
    believed = ["203.0.113.9", "http", "shop.example", ""]
    itself = ["127.0.0.1", "https", "127.0.0.1", ""]
    assert json.loads(client.answer(first).body) == (believed if trusted else itself)
    assert json.loads(client.answer(plain).body) == itself


@APPS
def test_request_ids(serve_http2: Serve, http2: Connect, app: Any) -> None:
    options = {"request_id_header": "X-Request-ID", "request_id_echo": True}
    client = http2(serve_http2(app, **options))
    numbers = [client.get("/", ("x-request-id", "forged")) for _ in range(5)]
    answers = [client.answer(number) for number in numbers]
    ids = [each.headers["x-request-id"] for each in answers]
    assert [json.loads(each.body)[3] for each in answers] == ids
    assert len(set(ids)) == 5
    assert "forged" not in ids


@APPS
def test_metrics(serve_http2: Serve, http2: Connect, app: Any) -> None:
    server = serve_http2(app, metrics_bind="127.0.0.1:0")
    client = http2(server)
    for _ in range(7):
        assert client.fetch().status == 200

    def counted() -> bool:
        with urllib.request.urlopen(f"{server.metrics_urls[0]}/metrics", timeout=10) as page:
            return b'requests_total{method="GET",status="2xx"} 7\n' in page.read()

    until(counted)


@APPS
def test_static_files(serve_http2: Serve, http2: Connect, app: Any, tmp_path: Path) -> None:
    folder = tmp_path / "public"
    folder.mkdir()
    (folder / "a.txt").write_bytes(b"0123456789" * 20_000)
    (tmp_path / "secret").write_text("secret")
    client = http2(serve_http2(app, static=f"/static={folder}"))
    whole = client.fetch("/static/a.txt")
    assert (whole.status, whole.body) == (200, b"0123456789" * 20_000)
    part = client.fetch("/static/a.txt", ("range", "bytes=5-14"))
    assert (part.status, part.body) == (206, b"5678901234")
    same = client.fetch("/static/a.txt", ("if-none-match", whole.headers["etag"]))
    assert (same.status, same.body) == (304, b"")
    for path in ("/static/../secret", "/static/..%2fsecret", "/static/nothing"):
        assert client.fetch(path).status == 404
    assert json.loads(client.fetch("/").body)[1] == "https"


def test_an_asynchronous_body_of_a_sync_application(serve_http2: Serve, http2: Connect) -> None:
    closed: list[bool] = []

    async def blocks() -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"%d" % number

    def app(request: Request) -> Response:
        return Response(200, [], blocks(), lambda: closed.append(True))  # type: ignore[arg-type]

    client = http2(serve_http2(app, asgi_app=asgi))
    assert client.fetch().body == b"012"
    until(lambda: closed == [True])


def test_an_asynchronous_body_whose_client_has_left_before(
    serve_http2: Serve, http2: Connect
) -> None:
    begun, left, closed = threading.Event(), threading.Event(), threading.Event()

    async def blocks() -> AsyncIterator[bytes]:
        yield b"first"
        await asyncio.Event().wait()

    def app(request: Request) -> Response:
        if request.path == "/":
            return Response(200, [], b"")
        begun.set()
        assert left.wait(10)
        return Response(200, [], blocks(), closed.set)  # type: ignore[arg-type]

    client = http2(serve_http2(app, asgi_app=asgi))
    number = client.get("/stream")
    assert begun.wait(10)
    client.conn.reset_stream(number)
    client.flush()
    client.settle()
    left.set()
    assert closed.wait(10)
