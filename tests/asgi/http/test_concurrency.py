"""Many requests at once: pipelines, idle connections and clients that do not read."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable

import pytest

from threadwell import ThreadedServer

from ...helpers.asgi_tools import (
    LOOPS,
    Receive,
    Scope,
    Seen,
    Send,
    answer,
)
from ...helpers.wire_client import Client
from .applications import hello

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

pytestmark = pytest.mark.parametrize("loop", LOOPS)


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
