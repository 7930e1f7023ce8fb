"""Applications that give empty blocks on end: none sends anything that could fail, and still the
application learns that its client has left."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from threadwell import Request, Response, ThreadedServer

from ..helpers.asgi_tools import LOOPS, Receive, Scope, Send, answer, no_lifespan
from ..helpers.http2_client import Http2Client
from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

EVENTS = [("Content-Type", "text/event-stream")]

resets = pytest.mark.parametrize("reset", [False, True], ids=["closed", "reset"])


def leave(sock: socket.socket, *, reset: bool) -> None:
    if reset:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


class Blocks:
    """An application on threads: perhaps one block, and empty ones until it is closed."""

    def __init__(self, *first: bytes, headers: Any = ()) -> None:
        self._first = first
        self._headers = list(headers)
        self.begun, self.ended = threading.Event(), threading.Event()

    def _blocks(self) -> Iterator[bytes]:
        try:
            yield from self._first
            self.begun.set()
            while True:
                yield b""
        finally:
            self.ended.set()

    def __call__(self, request: Request) -> Response:
        return Response(200, self._headers, self._blocks())


@resets
@pytest.mark.parametrize("first", [(), (b"first",)], ids=["nothing", "a block"])
def test_threads(serve: Serve, connect: Connect, first: tuple[bytes, ...], reset: bool) -> None:
    app = Blocks(*first)
    client = connect(serve(app))
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert app.begun.wait(10)
    leave(client.sock, reset=reset)
    assert app.ended.wait(10)


@resets
def test_what_is_pushed(serve: Serve, connect: Connect, reset: bool) -> None:
    begun, failed = threading.Event(), threading.Event()

    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        write = start_response("200 OK", [])
        write(b"first")
        begun.set()
        try:
            while True:
                write(b"")
        except OSError:
            failed.set()
            raise

    client = connect(serve(app))
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert begun.wait(10)
    leave(client.sock, reset=reset)
    assert failed.wait(10)


def test_a_client_that_only_ends_its_request(serve: Serve, connect: Connect) -> None:
    def blocks() -> Iterator[bytes]:
        for _ in range(5):
            yield b""
        yield b"all"
        yield b""

    client = connect(serve(lambda request: Response(200, [], blocks()), interface="sync"))
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    client.sock.shutdown(socket.SHUT_WR)
    assert client.rest().endswith(b"3\r\nall\r\n0\r\n\r\n")


def test_an_event_stream_of_a_server_that_stops(serve: Serve, connect: Connect) -> None:
    app = Blocks(b"data: 1\n\n", headers=EVENTS)
    server = serve(app, graceful_timeout=100)
    client = connect(server)
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert app.begun.wait(10)
    server.stop()
    assert app.ended.is_set()
    assert client.rest().endswith(b"0\r\n\r\n")


def test_http2(serve_http2: Serve, http2: Callable[..., Http2Client]) -> None:
    app = Blocks(b"first")
    client = http2(serve_http2(app))
    client.get()
    assert app.begun.wait(10)
    client.close()
    assert app.ended.wait(10)


@resets
@pytest.mark.parametrize("loop", LOOPS)
def test_asgi(serve: Serve, connect: Connect, loop: str, reset: bool) -> None:
    begun, failed = threading.Event(), threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await no_lifespan(scope)
        await send({"type": "http.response.start", "status": 200})
        begun.set()
        try:
            while True:
                await send({"type": "http.response.body", "body": b"", "more_body": True})
        except OSError:
            failed.set()
            raise

    client = connect(serve(app, loop=loop))
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert begun.wait(10)
    leave(client.sock, reset=reset)
    assert failed.wait(10)


@pytest.mark.parametrize("encrypted", [False, True], ids=["http1", "http2"])
def test_an_asynchronous_body(
    serve: Serve,
    serve_http2: Serve,
    connect: Connect,
    http2: Callable[..., Http2Client],
    encrypted: bool,
) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def blocks() -> AsyncIterator[bytes]:
        try:
            yield b"first"
            begun.set()
            while True:
                yield b""
        finally:
            ended.set()

    async def other(scope: Scope, receive: Receive, send: Send) -> None:
        await no_lifespan(scope)
        await answer(send)

    def app(request: Request) -> Response:
        return Response(200, [], blocks())  # type: ignore[arg-type]

    if encrypted:
        client: Any = http2(serve_http2(app, asgi_app=other))
        client.get()
    else:
        client = connect(serve(app, asgi_app=other))
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert begun.wait(10)
    client.close()
    assert ended.wait(10)
