"""HTTP/2 with what the server does beside it: proxies, ids, metrics, files, asynchronous bodies."""

from __future__ import annotations

import asyncio
import json
import threading
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from threadwell import Request, Response, ThreadedServer
from threadwell.worker.request_id import request_id

from ..helpers.asgi_tools import Receive, Scope, Seen, Send, answer, no_lifespan
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


async def reset_on_loop(scope: Scope, receive: Receive, send: Send) -> None:
    await no_lifespan(scope)
    length = [(b"content-length", b"5")]
    await send({"type": "http.response.start", "status": 205, "headers": length})
    for block in (b"he", b"llo")[scope["path"] == "/whole" :]:
        more = block == b"he"
        await send({"type": "http.response.body", "body": block, "more_body": more})


def reset_on_threads(request: Request) -> Response:
    whole = request.path == "/whole"
    return Response(205, [("Content-Length", "5")], b"hello" if whole else iter([b"he", b"llo"]))


async def _blocks() -> AsyncIterator[bytes]:
    yield b"hello"


def reset_by_both(request: Request) -> Response:
    return Response(205, [("Content-Length", "5")], _blocks())  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("path", ["/whole", "/stream"])
@pytest.mark.parametrize("app", [reset_on_threads, reset_on_loop, reset_by_both])
def test_205_has_no_body(
    serve_http2: Serve, http2: Connect, app: Any, path: str, method: str
) -> None:
    """RFC 9110, 15.3.6."""
    options = {"asgi_app": asgi} if app is reset_by_both else {}
    got = http2(serve_http2(app, **options)).fetch(path, method=method)
    assert (got.status, got.headers["content-length"], got.body) == (205, "0", b"")
    assert got.ended


@pytest.mark.parametrize("blocks", [[b"hello"], [b"he", b"llo"]])
@pytest.mark.parametrize("fails", [False, True])
def test_the_code_behind_the_last_block_runs(
    serve_http2: Serve, http2: Connect, blocks: list[bytes], fails: bool
) -> None:
    seen = Seen()

    def body() -> Iterator[bytes]:
        yield from blocks
        seen.add("behind")
        if fails:
            raise LookupError
        while True:
            yield b""

    client = http2(serve_http2(lambda _: Response(200, [("Content-Length", "5")], body())))
    for number in (1, 2):
        got = client.fetch()
        assert (got.status, got.body, got.reset) == (200, b"hello", None)
        seen.wait(number)


@pytest.mark.parametrize("declared", [2, 3, 5, 7])
@pytest.mark.parametrize("kind", ["bytes", "one", "blocks", "loop", "all"])
def test_a_wrong_length_is_warned_of_once_with_the_request(
    serve_http2: Serve,
    http2: Connect,
    kind: str,
    declared: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def native(request: Request) -> Response:
        body: Any = {"bytes": b"hello", "one": iter([b"hello"]), "blocks": iter([b"he", b"llo"])}
        return Response(200, [("Content-Length", str(declared))], body[kind])

    async def on_loop(scope: Scope, receive: Receive, send: Send) -> None:
        await no_lifespan(scope)
        headers = [(b"content-length", b"%d" % declared)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for block in [b"hello"] if kind == "all" else [b"h", b"ell", b"o"]:
            more = block != b"o" and kind != "all"
            await send({"type": "http.response.body", "body": block, "more_body": more})

    server = serve_http2(on_loop if kind in ("loop", "all") else native, threads=1)
    got = http2(server).fetch("/who?x")
    assert got.body == b"hello"[:declared]
    assert got.ended == (declared <= 5)
    server.stop()
    said = [record.getMessage() for record in caplog.records]
    warnings = [message for message in said if "body" in message]
    if declared == 5:
        assert warnings == []
    elif declared < 5:
        assert warnings == ["The answer to GET /who has a longer body than declared; it was cut"]
    else:
        assert warnings == ["The answer to GET /who has a body 2 bytes shorter than declared"]


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
