"""HTTP for ASGI applications: scopes, messages, their order, and what goes over the wire."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import http.client
import logging
import os
import socket
import struct
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from threadwell import ThreadedServer
from threadwell.worker.errors import ClientDisconnected, InvalidResponseError
from threadwell.worker.lifecycle import LifecycleEvent, RequestStarted, ResponseCompleted

from .asgi_tools import LOOPS, TEXT, Message, Receive, Scope, Seen, Send, answer, read_body
from .waiting import until
from .wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

pytestmark = pytest.mark.parametrize("loop", LOOPS)


def routes(**handlers: Any) -> Any:
    """An application of a function a path; `_` for `/`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await handlers[scope["path"].strip("/") or "_"](scope, receive, send)

    return app


def hello(body: bytes = b"hello") -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await answer(send, body)

    return app


# ---- The scope -------------------------------------------------------------------------------


def scope_of(serve: Serve, connect: Connect, data: bytes, **options: Any) -> Scope:
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        seen.add(scope)
        await answer(send)

    client = connect(serve(app, **options))
    client.send(data)
    assert client.answer().status == 200
    return seen.values[0]  # type: ignore[no-any-return]


def test_the_scope(serve: Serve, connect: Connect, loop: str) -> None:
    scope = scope_of(
        serve,
        connect,
        b"GET /a%20b/%C3%A9%2F?q=%20x HTTP/1.1\r\nHost: example.com\r\nX-One: 1\r\n"
        b"Accept:  text/html \r\nx-one: 2\r\nX_Under: u\r\nCookie: a=b\r\n\r\n",
        loop=loop,
    )
    assert scope["type"] == "http"
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.3"}
    assert scope["http_version"] == "1.1"
    assert scope["method"] == "GET"
    assert scope["scheme"] == "http"
    assert scope["path"] == "/a b/é/"
    assert scope["raw_path"] == b"/a%20b/%C3%A9%2F"
    assert scope["query_string"] == b"q=%20x"
    assert scope["root_path"] == ""
    assert scope["headers"] == [
        (b"host", b"example.com"),
        (b"x-one", b"1"),
        (b"accept", b"text/html"),
        (b"x-one", b"2"),
        (b"x_under", b"u"),
        (b"cookie", b"a=b"),
    ]
    assert scope["client"][0] == "127.0.0.1"
    assert isinstance(scope["client"][1], int)
    assert scope["server"][0] == "127.0.0.1"
    assert scope["state"] == {}
    assert set(scope["extensions"]) == {
        "http.response.early_hint",
        "http.response.pathsend",
        "http.response.trailers",
    }


def test_http_1_0(serve: Serve, connect: Connect, loop: str) -> None:
    scope = scope_of(serve, connect, b"GET / HTTP/1.0\r\nHost: x\r\n\r\n", loop=loop)
    assert scope["http_version"] == "1.0"
    assert "http.response.trailers" not in scope["extensions"]


@pytest.mark.parametrize("given", ["/api", "api/", "/api/"])
def test_the_root_path(serve: Serve, connect: Connect, loop: str, given: str) -> None:
    request = b"GET /users?x HTTP/1.1\r\nHost: x\r\n\r\n"
    scope = scope_of(serve, connect, request, loop=loop, root_path=given)
    assert scope["root_path"] == "/api"
    assert scope["path"] == "/api/users"
    assert scope["raw_path"] == b"/users"


def test_a_unix_socket(serve: Serve, tmp_path: Path, loop: str) -> None:
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        seen.add(scope)
        await answer(send)

    path = str(tmp_path / "s")
    serve(app, bind=f"unix:{path}", loop=loop)
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(10)
        raw.connect(path)
        assert Client(raw).get().status == 200
    assert seen.values[0]["client"] is None
    assert seen.values[0]["server"] == (path, None)


def test_a_scope_belongs_to_its_request(serve: Serve, connect: Connect, loop: str) -> None:
    """What one request does to its scope is not there for the next of the connection."""
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        seen.add((sorted(scope), len(scope["headers"]), dict(scope["asgi"]), dict(scope["state"])))
        scope["headers"].append((b"x", b"y"))
        scope["asgi"]["version"] = "9"
        scope["extensions"].clear()
        scope["state"]["x"] = scope["mine"] = 1
        await answer(send)

    client = connect(serve(app, loop=loop))
    for _ in range(3):
        client.get("/", headers="X-A: b\r\n")
    assert len({str(value) for value in seen.values}) == 1


def test_context_variables_do_not_leak(serve: Serve, connect: Connect, loop: str) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        seen.add(variable.get())
        variable.set(1)
        await answer(send)

    client = connect(serve(app, loop=loop))
    for _ in range(3):
        client.get()
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
    for _ in range(3):
        client.answer()
    assert seen.values == [0] * 6


# ---- Answers ---------------------------------------------------------------------------------


def test_a_plain_answer_is_one_segment(serve: Serve, connect: Connect, loop: str) -> None:
    client = connect(serve(hello(), loop=loop))
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    data = client.sock.recv(65536)
    assert data.endswith(b"\r\n\r\nhello")
    assert b"Content-Length: 5\r\n" in data
    assert data.count(b"Date: ") == data.count(b"Server: ") == 1


@pytest.mark.parametrize("pair", [(b"X-A", b"b"), [b"X-A", b"b"]])
def test_headers_in_order_and_repeated(
    serve: Serve, connect: Connect, loop: str, pair: Any
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        headers = [(b"set-cookie", b"a=1"), pair, (b"set-cookie", b"b=2")]
        await send({"type": "http.response.start", "status": 299, "headers": iter(headers)})
        await send({"type": "http.response.body"})

    got = connect(serve(app, loop=loop)).get()
    assert got.status == 299
    assert [pair for pair in got.headers if pair[0] in ("set-cookie", "x-a")] == [
        ("set-cookie", "a=1"),
        ("x-a", "b"),
        ("set-cookie", "b=2"),
    ]


@pytest.mark.parametrize("body", [bytearray(b"hello"), memoryview(b"hello")])
def test_bodies_that_are_not_bytes(serve: Serve, connect: Connect, loop: str, body: Any) -> None:
    assert connect(serve(hello(body), loop=loop)).get().body == b"hello"


def test_a_large_answer(serve: Serve, connect: Connect, loop: str) -> None:
    body = os.urandom(8_000_000)
    client = connect(serve(hello(body), loop=loop))
    assert client.get().body == body
    assert client.get().body == body


def test_head_and_bodiless_statuses(serve: Serve, connect: Connect, loop: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        status = int(scope["path"].strip("/"))
        await send({"type": "http.response.start", "status": status})
        if scope["query_string"]:
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
        await send({"type": "http.response.body", "body": b"bc"})

    client = connect(serve(app, loop=loop))
    for path in ("/200", "/200?stream"):
        client.send(f"HEAD {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert client.answer("HEAD").status == 200
    for path in ("/204", "/204?stream", "/304", "/304?stream"):
        got = client.get(path)
        assert got.status == int(path[1:4])
        assert got.header("transfer-encoding") is None
    assert client.get("/200").body == b"bc"


def test_head_of_an_application_that_never_ends_nor_listens(
    serve: Serve, connect: Connect, loop: str
) -> None:
    ended = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        if scope["path"] == "/":
            return await answer(send, b"next")
        await send({"type": "http.response.start", "status": 200})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x", "more_body": True})
        except OSError as error:
            ended.add(error)
        return None

    client = connect(serve(app, loop=loop))
    client.send(b"HEAD /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.answer("HEAD").status == 200
    assert client.get("/").body == b"next"
    assert isinstance(ended.wait()[0], ClientDisconnected)


def test_an_endless_stream_has_a_head(serve: Serve, connect: Connect, loop: str) -> None:
    ended = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        if scope["path"] == "/":
            return await answer(send, b"next")
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        ended.add(await receive())  # the request
        ended.add(await receive())
        return None

    client = connect(serve(app, loop=loop))
    client.send(b"HEAD /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.answer("HEAD").status == 200
    assert client.get("/").body == b"next"
    assert ended.wait(1)[-1]["type"] == "http.disconnect"


def test_http_1_0_gets_no_chunks_and_no_interim(serve: Serve, connect: Connect, loop: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await read_body(receive)
        await send({"type": "http.response.early_hint", "links": [b"</a>"]})
        await send({"type": "http.response.start", "status": 200})
        for _ in range(3):
            await send({"type": "http.response.body", "body": b"ab", "more_body": True})
        await send({"type": "http.response.body"})

    client = connect(serve(app, loop=loop))
    client.send(b"POST / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\nx")
    got = client.answer()
    assert (got.status, got.body) == (200, b"ababab")
    assert got.header("transfer-encoding") is None


def test_keep_alive_of_http_1_0(serve: Serve, connect: Connect, loop: str) -> None:
    client = connect(serve(hello(), loop=loop))
    for _ in range(2):
        client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert client.answer().header("connection") == "keep-alive"
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert client.answer().header("connection") == "close"
    assert client.closed()


# ---- Streams ---------------------------------------------------------------------------------


def test_each_block_leaves_before_the_next_is_made(
    serve: Serve, connect: Connect, loop: str
) -> None:
    go_on = threading.Semaphore(0)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200})
        for number in range(3):
            await send({"type": "http.response.body", "body": b"%d" % number, "more_body": True})
            await asyncio.to_thread(go_on.acquire)
        await send({"type": "http.response.body"})

    client = connect(serve(app, loop=loop))
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    data = b""
    for number in range(3):
        while not data.endswith(b"1\r\n%d\r\n" % number):
            data += client.sock.recv(65536)
        go_on.release()
    assert client.sock.recv(100) == b"0\r\n\r\n"
    go_on.release()


def test_the_head_of_a_stream_leaves_with_an_empty_block(
    serve: Serve, connect: Connect, loop: str
) -> None:
    go_on = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "more_body": True})
        await asyncio.to_thread(go_on.wait)
        await send({"type": "http.response.body", "body": b"late"})

    client = connect(serve(app, loop=loop))
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert b"\r\n\r\n" in client.sock.recv(65536)
    go_on.set()


@pytest.mark.parametrize(
    ("length", "sizes", "complete", "sent"),
    [(6, [2, 4], True, 6), (6, [2, 8], True, 6), (6, [2, 2], False, 4)],
)
def test_a_declared_length_is_held_to(
    serve: Serve,
    connect: Connect,
    loop: str,
    length: int,
    sizes: list[int],
    complete: bool,
    sent: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        headers = [(b"Content-Length", b"%d" % length)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for size in sizes:
            await send({"type": "http.response.body", "body": b"x" * size, "more_body": True})
        await send({"type": "http.response.body"})

    client = connect(serve(app, loop=loop))
    got = client.get()
    assert got.complete is complete
    assert len(got.body) == sent


def test_backpressure(serve: Serve, connect: Connect, loop: str) -> None:
    """A client that does not read stops the application, and not the others."""
    sent = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        assert scope["type"] == "http"
        if scope["path"] == "/quick":
            return await answer(send, b"quick")
        await send({"type": "http.response.start", "status": 200})
        for _ in range(1000):
            await send({"type": "http.response.body", "body": bytes(100_000), "more_body": True})
            sent += 100_000
        return await send({"type": "http.response.body"})

    server = serve(app, loop=loop)
    slow = connect(server)
    slow.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    other = connect(server)
    before = -1
    while before != sent or not sent:  # the stream may begin after others were served
        before = sent
        assert other.get("/quick").body == b"quick"
        time.sleep(0.1)
    assert 0 < sent < 50_000_000
    received = 0
    while received < 100_000_000:
        received += len(slow.sock.recv(1_000_000))


def test_a_tight_stream_lets_others_go_on(serve: Serve, connect: Connect, loop: str) -> None:
    """An application that never waits, to a client that always reads."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        if scope["path"] == "/quick":
            return await answer(send, b"quick")
        await send({"type": "http.response.start", "status": 200})
        while True:
            await send({"type": "http.response.body", "body": b"x", "more_body": True})

    server = serve(app, loop=loop, graceful_timeout=0.5)
    reading = connect(server)
    reading.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    stop = threading.Event()

    def read() -> None:
        with contextlib.suppress(OSError):
            while not stop.is_set() and reading.sock.recv(65536):
                pass

    thread = threading.Thread(target=read)
    thread.start()
    try:
        for _ in range(20):
            assert connect(server).get("/quick").body == b"quick"
    finally:
        stop.set()
        reading.sock.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_a_thousand_streams_beside_plain_requests(
    serve: Serve, connect: Connect, loop: str
) -> None:
    go_on = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        if scope["path"] == "/quick":
            return await answer(send, b"quick")
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        while not go_on.is_set():
            await asyncio.sleep(0.05)
        return await send({"type": "http.response.body", "body": b"ended"})

    server = serve(app, loop=loop)
    streams = [connect(server) for _ in range(1000)]
    for stream in streams:
        stream.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    for stream in streams:
        while b"begun" not in stream._buffer:
            stream._receive()
    quick = connect(server)
    for _ in range(50):
        assert quick.get("/quick").body == b"quick"
    go_on.set()
    assert {stream.answer().body for stream in streams} == {b"begunended"}


def test_a_post_is_run_once_whatever_it_becomes(serve: Serve, connect: Connect, loop: str) -> None:
    calls: Counter[bytes] = Counter()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        body = await read_body(receive)
        calls[body] += 1
        kind = scope["path"]
        if kind == "/fails":
            raise ValueError
        await send({"type": "http.response.start", "status": 200})
        if kind == "/waits":
            await asyncio.sleep(0.001)
        if kind in ("/stream", "/breaks"):
            await send({"type": "http.response.body", "body": b"a", "more_body": True})
            await asyncio.sleep(0.001)
        if kind == "/breaks":
            raise ValueError
        await send({"type": "http.response.body", "body": b"b"})

    server = serve(app, loop=loop)
    number = 0
    for kind in ("plain", "waits", "stream", "fails", "breaks") * 3:
        number += 1
        client = connect(server)
        client.send(f"POST /{kind} HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\n".encode())
        client.send(b"%03d" % number)
        with contextlib.suppress(EOFError, ConnectionResetError):
            client.answer()
    assert calls == {b"%03d" % n: 1 for n in range(1, number + 1)}


# ---- Request bodies --------------------------------------------------------------------------


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    await answer(send, await read_body(receive))


def test_bodies(serve: Serve, connect: Connect, loop: str) -> None:
    client = connect(serve(echo, loop=loop))
    assert client.get().body == b""
    for body in (b"", b"x", os.urandom(300_000)):
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        assert client.answer().body == body
        chunks = b"".join(
            b"%x\r\n%b\r\n" % (len(part), part)
            for part in (body[at : at + 1000] for at in range(0, len(body), 1000))
        )
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
        client.send(chunks + b"0\r\nX-Trailer: y\r\n\r\n")
        assert client.answer().body == body
    assert client.get().body == b""


def test_any_split(serve: Serve, connect: Connect, loop: str) -> None:
    """A request in two pieces, cut anywhere, is the same request."""
    data = (
        b"\r\nPOST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"3\r\nabc\r\n2;e\r\nde\r\n0\r\n\r\n"
        b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nfg"
    )
    client = connect(serve(echo, loop=loop))
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for at in range(1, len(data)):
        client.send(data[:at])
        client.send(data[at:])
        assert client.answer().body == b"abcde"
        assert client.answer().body == b"fg"


def test_a_body_comes_while_it_is_sent(serve: Serve, connect: Connect, loop: str) -> None:
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        while True:
            message = await receive()
            seen.add((message["body"], message["more_body"]))
            if not message["more_body"]:
                return await answer(send)

    client = connect(serve(app, loop=loop))
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
    assert seen.wait(1) == [(b"ab", True)]
    client.send(b"cd")
    assert seen.wait(2)[1] == (b"cd", False)
    assert client.answer().status == 200


def test_a_body_that_nobody_reads_stops_its_client(
    serve: Serve, connect: Connect, loop: str
) -> None:
    go_on = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await asyncio.to_thread(go_on.wait)
        await answer(send, b"%d" % len(await read_body(receive)))

    client = connect(serve(app, loop=loop, limit_body="1G"))
    size = 100_000_000
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
    client.sock.settimeout(0.5)
    sent = 0
    with contextlib.suppress(TimeoutError):
        while sent < size:
            sent += client.sock.send(bytes(min(1_000_000, size - sent)))
    assert sent < 50_000_000
    go_on.set()
    client.sock.settimeout(20)
    while sent < size:
        sent += client.sock.send(bytes(min(1_000_000, size - sent)))
    assert client.answer().body == b"%d" % size


def test_100_when_the_application_reads(serve: Serve, connect: Connect, loop: str) -> None:
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"

    async def refuses(scope: Scope, receive: Receive, send: Send) -> None:
        await answer(send, b"no", 403)

    client = connect(serve(routes(_=echo, refuses=refuses), loop=loop))
    client.send(head % b"/")
    assert client.answer().status == 100
    client.send(b"ab")
    assert client.answer().body == b"ab"
    client.send(head % b"/refuses")
    got = client.answer()
    assert (got.status, got.header("connection")) == (403, "close")
    assert client.closed()


def test_a_body_that_is_left(serve: Serve, connect: Connect, loop: str) -> None:
    """A short rest is read, so that the connection goes on; a long one ends it."""
    client = connect(serve(hello(), loop=loop))
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\nx")
    assert client.answer().header("connection") is None
    client.send(b"x" * 999 + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.answer().body == b"hello"
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\nx")
    assert client.answer().header("connection") == "close"
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.closed()


@pytest.mark.parametrize(
    ("framing", "rest"),
    [
        (b"Content-Length: 1000\r\n\r\n", b"x" * 1000),
        (b"Content-Length: 1000000\r\n\r\n", b"x" * 1_000_000),
        (b"Transfer-Encoding: chunked\r\n\r\n", b"no size\r\n"),
    ],
)
def test_the_rest_of_a_body_comes_before_the_answer_is_read(
    serve: Serve, connect: Connect, loop: str, framing: bytes, rest: bytes
) -> None:
    """It is read, for its client may read only behind it, and the answer stays whole, even if what
    comes is wrong."""
    large = b"y" * 8_000_000

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await answer(send, large if scope["path"] == "/large" else b"next")

    client = connect(serve(app, loop=loop))
    client.send(b"POST /large HTTP/1.1\r\nHost: x\r\n" + framing)
    assert client.sock.recv(1, socket.MSG_PEEK)
    client.send(rest + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    got = client.answer()
    assert (got.body == large, got.complete) == (True, True)
    if got.header("connection") != "close":
        assert client.answer().body == b"next"


@pytest.mark.parametrize(
    ("options", "data", "status"),
    [
        ({"limit_body": 5}, b"Content-Length: 6\r\n\r\n", 413),
        ({"limit_body": 5}, b"Transfer-Encoding: chunked\r\n\r\n6\r\nabcdef\r\n", 413),
        ({}, b"Transfer-Encoding: chunked\r\n\r\nzz\r\n", 400),
        ({}, b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        ({"limit_fields": 3}, b"A: b\r\n" * 5 + b"\r\n", 431),
        ({"body_timeout": 0.1}, b"Content-Length: 6\r\n\r\nabc", 408),
        ({"head_timeout": 0.1}, b"Content-Le", 408),
    ],
)
def test_the_limits_are_the_same(
    serve: Serve, connect: Connect, loop: str, options: Any, data: bytes, status: int
) -> None:
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        while (message := await receive())["type"] == "http.request":
            pass
        seen.add(message["type"])
        await answer(send, b"too late", 500)

    client = connect(serve(app, loop=loop, **options))
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\n" + data)
    got = client.answer()
    assert (got.status, got.header("connection")) == (status, "close")
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.closed()
    assert set(seen.values) <= {"http.disconnect"}


def test_a_body_that_is_cut_is_not_whole(serve: Serve, connect: Connect, loop: str) -> None:
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        while (message := await receive())["type"] == "http.request":
            seen.add(message["more_body"])
        seen.add(message["type"])

    client = connect(serve(app, loop=loop))
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
    assert seen.wait(1) == [True]
    client.sock.shutdown(socket.SHUT_WR)
    assert seen.wait(2)[1] == "http.disconnect"


# ---- Disconnects -----------------------------------------------------------------------------


def test_disconnect_is_sticky_and_soon(serve: Serve, connect: Connect, loop: str) -> None:
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        assert (await receive())["type"] == "http.request"
        seen.add("begun")
        for _ in range(3):
            seen.add((await receive())["type"])

    client = connect(serve(app, loop=loop))
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    seen.wait(1)
    left = time.monotonic()
    client.close()
    assert seen.wait(4)[1:] == ["http.disconnect"] * 3
    assert time.monotonic() - left < 2


def test_disconnect_of_a_client_that_had_pipelined(
    serve: Serve, connect: Connect, loop: str
) -> None:
    """Where nothing more is read for now the leaving is noticed all the same, and what is not read
    yet is answered all the same."""
    seen = Seen()
    hold = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        if scope["path"] == "/first":
            await receive()
            seen.add("begun")
            hold.wait(10)
            seen.add((await receive())["type"])
        await answer(send)

    client = connect(serve(app, loop=loop))
    client.send(b"GET /first HTTP/1.1\r\nHost: x\r\n\r\n")
    seen.wait(1)
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 5000)
    client.sock.shutdown(socket.SHUT_WR)
    hold.set()
    left = time.monotonic()
    assert seen.wait(2)[1] == "http.disconnect"
    assert time.monotonic() - left < 2.5
    assert client.rest().count(b"HTTP/1.1 200 OK\r\n") == 5001


@pytest.mark.parametrize("octets", [b"", b"body"])
def test_a_reset_that_comes_with_octets(
    serve: Serve, connect: Connect, loop: str, octets: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """The loop is told of both in one event; the octets are of a body, or of the next request."""
    seen = Seen()
    hold, held = threading.Event(), threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        if scope["path"] == "/hold":
            held.set()
            hold.wait(10)
            return await answer(send)
        while (message := await receive())["type"] == "http.request":
            seen.add("begun")
        return seen.add(message["type"])

    server = serve(app, loop=loop)
    client, other = connect(server), connect(server)
    length = 99 if octets else 0
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % length + octets)
    seen.wait(1)
    other.send(b"GET /hold HTTP/1.1\r\nHost: x\r\n\r\n")
    assert held.wait(10)
    client.send(b"GET ")
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    hold.set()
    until(lambda: "http.disconnect" in seen.values, 2)
    assert "internal error" not in caplog.text


def test_disconnect_after_the_answer(serve: Serve, connect: Connect, loop: str) -> None:
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        waiting = asyncio.create_task(receive())  # type: ignore[arg-type]
        seen.add((await waiting)["type"])
        waiting = asyncio.create_task(receive())  # type: ignore[arg-type]
        await asyncio.sleep(0)
        await answer(send)
        seen.add((await waiting)["type"])
        seen.add((await receive())["type"])

    client = connect(serve(app, loop=loop))
    assert client.get().status == 200
    assert seen.wait(3) == ["http.request", "http.disconnect", "http.disconnect"]


def test_a_stream_without_a_reader_ends(
    serve: Serve, connect: Connect, loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    """An application that does not listen learns it from `send`, and nobody is alarmed."""
    caplog.set_level(logging.WARNING, "threadwell")
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200})
        try:
            while True:
                await send({"type": "http.response.body", "body": b"x" * 999, "more_body": True})
                await asyncio.sleep(0.01)
        except OSError as error:
            seen.add(type(error))
            raise RuntimeError("as a framework does") from error

    client = connect(serve(app, loop=loop))
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    client.sock.recv(100)
    client.close()
    assert seen.wait(1) == [ClientDisconnected]
    assert caplog.records == []


def test_whoever_listens_is_told_once(serve: Serve, connect: Connect, loop: str) -> None:
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await receive()
        listening = asyncio.create_task(receive())  # type: ignore[arg-type]
        await send({"type": "http.response.start", "status": 200})
        while not listening.done():
            await send({"type": "http.response.body", "body": b"x" * 999, "more_body": True})
            await asyncio.sleep(0.01)
        await send({"type": "http.response.body", "body": b"x" * 999, "more_body": True})
        await send({"type": "http.response.body"})
        seen.add(listening.result()["type"])

    client = connect(serve(app, loop=loop))
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    client.sock.recv(100)
    client.close()
    assert seen.wait(1) == ["http.disconnect"]


def test_a_half_closed_client_gets_its_answer(serve: Serve, connect: Connect, loop: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        if scope["path"] == "/late":
            await asyncio.sleep(0.1)
        await answer(send, await read_body(receive))

    client = connect(serve(app, loop=loop))
    head = b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n"
    client.send(head % b"/late" + b"ab" + (head % b"/" + b"cd") * 40 + head % b"/" + b"e")
    client.sock.shutdown(socket.SHUT_WR)
    # the body that was there is the application's, and so is what is pipelined; the last is cut
    assert [client.answer().body for _ in range(41)] == [b"ab", *[b"cd"] * 40]
    assert client.closed()


def test_a_receive_that_is_given_up_loses_nothing(
    serve: Serve, connect: Connect, loop: str
) -> None:
    """As with `asyncio.wait_for`, again and again, before the body and after it."""
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        got = b""
        while True:
            try:
                message = await asyncio.wait_for(receive(), 0.02)
            except TimeoutError:
                seen.add("gave up")
                continue
            if message["type"] == "http.disconnect":
                break
            got += message["body"]
            if not message["more_body"]:
                seen.add(got)
        seen.add("left")

    client = connect(serve(app, loop=loop))
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n")
    seen.wait(2)
    client.send(b"bo")
    seen.wait(4)
    client.send(b"dy")
    while b"body" not in seen.values:
        seen.wait(len(seen.values) + 1)
    seen.wait(len(seen.values) + 2)
    client.close()
    while "left" not in seen.values:
        seen.wait(len(seen.values) + 1)
    assert [value for value in seen.values if value != "gave up"] == [b"body", "left"]


def test_a_send_that_is_given_up_is_sent_once(serve: Serve, connect: Connect, loop: str) -> None:
    """A block of which the kernel has taken a part is on its way, whoever still waits for it."""
    seen = Seen()
    go_on = threading.Event()
    blocks = [b"%d" % number * 500_000 for number in range(10)]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200})
        for block in blocks:
            try:
                message = {"type": "http.response.body", "body": block, "more_body": True}
                await asyncio.wait_for(send(message), 0.02)
            except TimeoutError:
                seen.add("gave up")
                await asyncio.to_thread(go_on.wait)
        await send({"type": "http.response.body"})

    client = connect(serve(app, loop=loop))
    # else the kernel may have room for all of it, now and then
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    seen.wait(1)
    go_on.set()
    assert client.answer().body == b"".join(blocks)


def test_an_application_that_is_cancelled_where_it_waits(
    serve: Serve, connect: Connect, loop: str
) -> None:
    """It cancels itself: that costs the request, and nothing of the loop's."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        task = asyncio.current_task()
        assert task is not None
        where = scope["path"]
        await receive()
        if where != "/receive":
            await send({"type": "http.response.start", "status": 200})
        if where == "/stream":
            await send({"type": "http.response.body", "body": b"x", "more_body": True})
        if where == "/whole":
            await send({"type": "http.response.body", "body": b"whole"})
        asyncio.get_running_loop().call_soon(task.cancel)
        await (receive() if where == "/receive" else asyncio.sleep(1000))

    server = serve(app, loop=loop)
    client = connect(server)
    assert client.get("/whole").body == b"whole"
    assert client.get("/receive").status == 500
    assert client.get("/start").status == 500
    client.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    with contextlib.suppress(ConnectionResetError):
        assert not client.answer().complete
    assert connect(server).get("/whole").body == b"whole"
    # an answer may be there before its call has ended
    until(lambda: not server.pools[0].workers[0].calls)  # type: ignore[union-attr]


# ---- Order, and what must not leave ----------------------------------------------------------

START: Message = {"type": "http.response.start", "status": 200}
BODY: Message = {"type": "http.response.body", "body": b"x"}
MORE: Message = {**BODY, "more_body": True}


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([BODY], RuntimeError),
        ([START, START], RuntimeError),
        ([START, BODY, BODY], RuntimeError),
        ([START, MORE, START], RuntimeError),
        ([START, BODY, START], RuntimeError),
        ([{"type": "http.response.trailers"}], RuntimeError),
        ([START, {"type": "http.response.early_hint", "links": []}], RuntimeError),
        ([{"type": "websocket.send"}], RuntimeError),
        ([{"type": "http.response.start", "status": "200"}], InvalidResponseError),
        ([{"type": "http.response.start", "status": 100}], InvalidResponseError),
        ([{"type": "http.response.start"}], KeyError),
        ([START, {"type": "http.response.body", "body": "text"}], TypeError),
        ([{**START, "headers": [(b"a\r\nb", b"c")]}, BODY], InvalidResponseError),
        ([{**START, "headers": [(b"a", b"c\r\nd: e")]}, BODY], InvalidResponseError),
        ([{**START, "headers": [(b"a", b"c\0")]}, MORE], InvalidResponseError),
        ([{**START, "headers": [("a", b"b")]}, BODY], InvalidResponseError),
        ([{**START, "headers": [b"abc"]}, BODY], InvalidResponseError),
        ([{**START, "headers": [(b"content-length", b"x")]}, BODY], InvalidResponseError),
        ([START, {"type": "http.response.pathsend", "path": "/no/such/file"}], OSError),
    ],
)
def test_a_wrong_message_raises_in_the_application(
    serve: Serve, connect: Connect, loop: str, messages: list[Message], error: type[Exception]
) -> None:
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        for message in messages[:-1]:
            await send(message)
        try:
            await send(messages[-1])
        except Exception as raised:
            seen.add(type(raised))
            raise
        seen.add(None)

    server = serve(app, loop=loop)
    client = connect(server)
    with contextlib.suppress(EOFError, ConnectionResetError):
        got = client.get()
        if MORE not in messages[:-1] and BODY not in messages[:-1]:
            assert (got.status, got.body) == (500, b"Internal Server Error\n")
    assert issubclass(seen.wait(1)[0], error)


# ---- Failures --------------------------------------------------------------------------------


def test_a_failure_costs_one_request(
    serve: Serve, connect: Connect, loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    errors: Any = {
        "/exit": SystemExit(3),
        "/interrupt": KeyboardInterrupt(),
        "/value": ValueError("no"),
        "/cancelled": asyncio.CancelledError(),
        "/generator": GeneratorExit(),
    }

    async def fails(error: BaseException) -> None:
        raise error

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        if scope["query_string"]:
            await asyncio.sleep(0.001)
        if scope["path"] in errors:
            raise errors[scope["path"]]
        if scope["path"] == "/task":
            task = asyncio.ensure_future(fails(SystemExit(3)))
            await asyncio.wait([task])
            task.result()
        if scope["path"] == "/callback":
            asyncio.get_running_loop().call_soon(sys.exit, 3)
            await asyncio.sleep(0.001)
            return
        if scope["path"] == "/nothing":
            return
        if scope["path"] == "/start":
            await send({"type": "http.response.start", "status": 200})
            return
        await answer(send, b"fine")

    client = connect(serve(app, loop=loop))
    for path in (*errors, "/nothing", "/start", "/task", "/callback"):
        for query in ("", "?later"):
            got = client.get(path + query)
            assert (got.status, got.body) == (500, b"Internal Server Error\n")
            assert client.get("/").body == b"fine"
    assert len([each for each in caplog.records if each.levelname == "ERROR"]) == 22


def test_a_failure_in_a_stream_is_visible(serve: Serve, connect: Connect, loop: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        if scope["path"] == "/fails":
            raise ValueError

    server = serve(app, loop=loop)
    for path in ("/fails", "/left"):
        with pytest.raises((EOFError, ConnectionResetError)):
            connect(server).get(path)


def test_background_work_does_not_hold_the_connection(
    serve: Serve, connect: Connect, loop: str
) -> None:
    go_on, ended = threading.Event(), Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await answer(send, b"quick")
        if scope["path"] == "/work":
            await asyncio.to_thread(go_on.wait)
            ended.add("worked")

    client = connect(serve(app, loop=loop))
    assert client.get("/work").body == b"quick"
    assert client.get("/").body == b"quick"
    go_on.set()
    assert ended.wait(1) == ["worked"]


# ---- Many at once ----------------------------------------------------------------------------


def test_pipelined_requests_in_order(serve: Serve, connect: Connect, loop: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        number = int(scope["path"].strip("/"))
        if number % 3 == 0:
            await asyncio.sleep(0.001)
        await answer(send, b"%d" % number)

    client = connect(serve(app, loop=loop))
    client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: x\r\n\r\n" % n for n in range(100)))
    assert [client.answer().body for _ in range(100)] == [b"%d" % n for n in range(100)]


def test_close_runs_nothing_behind_it(serve: Serve, connect: Connect, loop: str) -> None:
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        seen.add(scope["path"])
        await answer(send)

    client = connect(serve(app, loop=loop))
    client.send(
        b"GET /1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\nGET /2 HTTP/1.1\r\nHost: x\r\n\r\n"
    )
    assert client.answer().header("connection") == "close"
    assert client.closed()
    assert seen.values == ["/1"]


def test_an_endless_pipeliner_starves_nobody(serve: Serve, connect: Connect, loop: str) -> None:
    server = serve(hello(), loop=loop)
    greedy = connect(server)
    stop = threading.Event()

    def send() -> None:
        with contextlib.suppress(OSError):
            while not stop.is_set():
                greedy.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 200)

    def read() -> None:
        with contextlib.suppress(OSError):
            while not stop.is_set() and greedy.sock.recv(65536):
                pass

    threads = [threading.Thread(target=send), threading.Thread(target=read)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(20):
            assert connect(server).get().body == b"hello"
    finally:
        stop.set()
        greedy.sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def test_concurrent_requests_overlap(serve: Serve, connect: Connect, loop: str) -> None:
    barrier: list[asyncio.Event] = []
    waiting = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal waiting
        assert scope["type"] == "http"
        if not barrier:
            barrier.append(asyncio.Event())
        waiting += 1
        if waiting == 50:
            barrier[0].set()
        await barrier[0].wait()
        await answer(send, b"together")

    server = serve(app, loop=loop, loops=1)
    clients = [connect(server) for _ in range(50)]
    for client in clients:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert {client.answer().body for client in clients} == {b"together"}


def test_idle_connections_give_way(serve: Serve, connect: Connect, loop: str) -> None:
    server = serve(hello(), loop=loop, limit_connections=10)
    clients = []
    for _ in range(30):
        clients.append(connect(server))
        assert clients[-1].get().body == b"hello"
    assert clients[0].closed()


def test_keep_alive_ends(serve: Serve, connect: Connect, loop: str) -> None:
    client = connect(serve(hello(), loop=loop, keep_alive=0.1))
    assert client.get().body == b"hello"
    assert client.closed()


def test_a_client_that_does_not_read_is_cut(serve: Serve, connect: Connect, loop: str) -> None:
    ended = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200})
        try:
            while True:
                await send({"type": "http.response.body", "body": bytes(99999), "more_body": True})
        except OSError:
            ended.add(True)

    client = connect(serve(app, loop=loop, write_timeout=0.2, min_rate=1_000_000_000))
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    ended.wait(1)


# ---- Extensions ------------------------------------------------------------------------------


def test_early_hints(serve: Serve, connect: Connect, loop: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
        await answer(send, b"page")

    client = connect(serve(app, loop=loop))
    hint = client.get()
    assert (hint.status, hint.header("link")) == (103, "</a.css>; rel=preload")
    assert client.answer().body == b"page"


def test_trailers(serve: Serve, connect: Connect, loop: str) -> None:
    ended = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        headers = [(b"content-length", b"4")]
        await send({**START, "headers": headers, "trailers": True})
        if scope["query_string"] == b"streamed":
            await send({"type": "http.response.body", "body": b"bo", "more_body": True})
        await send({"type": "http.response.body", "body": b"body"})
        trailers = {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]}
        await send({**trailers, "more_trailers": True})
        if scope["query_string"] == b"bad":
            with pytest.raises(InvalidResponseError):
                await send({**trailers, "headers": [(b"content-length", b"1")]})
        else:
            await send({**trailers, "headers": [(b"x-more", b"2")]})
            ended.add("well")

    server = serve(app, loop=loop)
    client = connect(server)
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert client.rest().endswith(b"4\r\nbody\r\n0\r\nx-sum: 1\r\nx-more: 2\r\n\r\n")
    client = connect(server)
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    assert client.rest().endswith(b"\r\n\r\nbody")
    client = connect(server)
    client.send(b"HEAD /?streamed HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.answer("HEAD").status == 200
    assert ended.wait(3)
    client = connect(server)
    client.send(b"GET /?bad HTTP/1.1\r\nHost: x\r\n\r\n")
    with pytest.raises((EOFError, ConnectionResetError)):
        client.answer()


def test_path_send(serve: Serve, connect: Connect, loop: str, tmp_path: Path) -> None:
    data = os.urandom(5_000_000)
    path = tmp_path / "file"
    path.write_bytes(data)
    (tmp_path / "empty").touch()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        name = scope["path"].strip("/")
        await send({"type": "http.response.start", "status": 200, "headers": [TEXT]})
        await send({"type": "http.response.pathsend", "path": str(tmp_path / name)})

    before = len(os.listdir("/proc/self/fd"))
    server = serve(app, loop=loop)
    client = connect(server)
    for _ in range(2):
        assert client.get("/file").body == data
        assert client.get("/empty").body == b""
    client.send(b"HEAD /file HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.answer("HEAD").header("content-length") == "5000000"
    client.close()
    server.stop()
    assert len(os.listdir("/proc/self/fd")) <= before


# ---- What is told ----------------------------------------------------------------------------


class Collector:
    def __init__(self) -> None:
        self.seen = Seen()

    def record(self, event: LifecycleEvent) -> None:
        if isinstance(event, (RequestStarted, ResponseCompleted)):
            self.seen.add(event)


def test_lifecycle_events(serve: Serve, connect: Connect, loop: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 201})
        await send({"type": "http.response.body", "body": b"abc", "more_body": bool(scope["path"])})
        await send({"type": "http.response.body", "body": b"de"})

    collector = Collector()
    client = connect(serve(app, loop=loop, lifecycle_collector=collector))
    client.get("/x")
    started, completed = collector.seen.wait(2)
    assert started.request.path == "/x"
    assert (completed.status, completed.body_bytes, completed.complete) == (201, 5, True)
    client.send(b"bad\r\n\r\n")
    client.answer()
    assert collector.seen.wait(3)[2].request is None


def test_access_log(serve: Serve, connect: Connect, loop: str, tmp_path: Path) -> None:
    path = tmp_path / "log"
    server = serve(hello(), loop=loop, access_log=str(path), log_format='"%r" %s %b')
    connect(server).get("/a")
    server.stop()
    assert path.read_text() == '"GET /a HTTP/1.1" 200 5\n'


def test_a_standard_client(serve: Serve, loop: str) -> None:
    client = http.client.HTTPConnection("127.0.0.1", serve(echo, loop=loop).port, timeout=10)
    for size in (0, 10, 1_000_000):
        client.request("POST", "/", bytes(size))
        assert len(client.getresponse().read()) == size
    client.request("POST", "/", iter([b"a", b"b"]), encode_chunked=True)
    assert client.getresponse().read() == b"ab"
    client.close()
