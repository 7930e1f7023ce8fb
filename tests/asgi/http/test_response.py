"""Responses of ASGI applications: framing, segments, streams and backpressure."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from threadwell import ThreadedServer
from threadwell.worker.errors import ClientDisconnected

from ...helpers.asgi_tools import (
    LOOPS,
    Receive,
    Scope,
    Seen,
    Send,
    answer,
    read_body,
)
from ...helpers.wire_client import Client
from .applications import hello

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

pytestmark = pytest.mark.parametrize("loop", LOOPS)


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


@pytest.mark.parametrize(
    ("lengths", "status"),
    [([b"2"], 200), ([b"2", b"2"], 200), ([b"2", b"02"], 200), ([b"2", b"3"], 500)],
)
def test_lengths_that_are_declared(
    serve: Serve, connect: Connect, loop: str, lengths: list[bytes], status: int
) -> None:
    """Equal ones are sent as one, and a client must not choose between others."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        names = (b"content-length", b"Content-Length")
        await answer(send, b"ab", 200, *zip(names, lengths, strict=False))

    client = connect(serve(app, loop=loop))
    for _ in range(3):  # the field lines are cached
        got = client.get()
        assert got.status == status
        assert got.body == (b"ab" if status == 200 else b"Internal Server Error\n")


@pytest.mark.parametrize(("length", "is_short"), [(1, False), (3, True)])
def test_a_length_that_is_wrong(
    serve: Serve, connect: Connect, loop: str, length: int, is_short: bool
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await answer(send, b"ab", 200, (b"content-length", b"%d" % length))

    server = serve(app, loop=loop)
    for _ in range(2):
        got = connect(server).get()
        assert got.body == (b"ab" if is_short else b"a")
        assert got.complete is not is_short


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
