"""Request bodies of ASGI applications: how they arrive, and what stops their client."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from threadwell import ThreadedServer

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
from .applications import echo, hello

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

pytestmark = pytest.mark.parametrize("loop", LOOPS)


def routes(**handlers: Any) -> Any:
    """An application of a function a path; `_` for `/`."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await handlers[scope["path"].strip("/") or "_"](scope, receive, send)

    return app


def test_bodies(serve: Serve, connect: Connect, loop: str) -> None:
    client = connect(serve(echo, loop=loop))
    assert client.get().body == b""
    for body in (b"", b"x", b"\r\n", b"\r\n\r\n", os.urandom(300_000)):
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
