"""`http.disconnect`: when an application is told, and tasks that are cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable

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
from ...helpers.waiting import until
from ...helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

pytestmark = pytest.mark.parametrize("loop", LOOPS)


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
