"""WebSocket messages: their order, compression and backpressure."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from threadwell import ThreadedServer
from threadwell.worker.errors import InvalidResponseError

from ...helpers.asgi_tools import LOOPS, UPGRADE, Message, Receive, Scope, Seen, Send
from ...helpers.wire_client import Client
from .applications import ACCEPT, CLOSE, START, App, opened

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

pytestmark = pytest.mark.parametrize("loop", LOOPS)


# ---- Messages --------------------------------------------------------------------------------


def test_messages(serve: Serve, loop: str) -> None:
    messages: list[Any] = ["", "a", "é€😀" * 1000, b"", os.urandom(10), os.urandom(70_000)]
    with opened(serve(App(), loop=loop), max_size=None) as ws:
        for message in messages:
            ws.send(message)
            assert ws.recv() == message
        ws.send(iter(["fra", "gm", "ents"]))
        assert ws.recv() == "fragments"
        ws.send(iter([b"fra", b"gm", b"ents"]))
        assert ws.recv() == b"fragments"
        big = os.urandom(4_000_000)
        ws.send(big)
        assert ws.recv() == big


def test_only_one_key_counts(serve: Serve, loop: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send(ACCEPT)
        await send({"type": "websocket.send", "bytes": None, "text": "t"})
        await send({"type": "websocket.send", "bytes": b"b", "text": None})
        with pytest.raises(TypeError):
            await send({"type": "websocket.send"})
        await send({"type": "websocket.send", "bytes": bytearray(b"c")})

    with opened(serve(app, loop=loop)) as ws:
        assert [ws.recv(), ws.recv(), ws.recv()] == ["t", b"b", b"c"]


@pytest.mark.parametrize("compression", ["deflate", None])
@pytest.mark.parametrize("offered", ["deflate", "off"])
def test_compression(serve: Serve, loop: str, compression: Any, offered: str) -> None:
    server = serve(App(), loop=loop, ws_compression=offered)
    with opened(server, compression=compression) as ws:
        used = "permessage-deflate" in ws.response.headers.get("Sec-WebSocket-Extensions", "")  # type: ignore[union-attr]
        assert used is (compression is not None and offered == "deflate")
        for _ in range(3):
            ws.send("a" * 100_000)
            assert ws.recv() == "a" * 100_000


def test_many_senders(serve: Serve, loop: str) -> None:
    """Messages of several tasks do not mix, though the client reads late."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send(ACCEPT)

        async def one(number: int) -> None:
            for _ in range(5):
                await send({"type": "websocket.send", "bytes": bytes([number]) * 300_000})

        await asyncio.gather(*map(one, range(10)))

    with opened(serve(app, loop=loop)) as ws:
        time.sleep(0.2)
        messages = [ws.recv() for _ in range(50)]
    assert all(len(set(message)) == 1 and len(message) == 300_000 for message in messages)


def test_backpressure_of_a_client_that_does_not_read(
    serve: Serve, connect: Connect, loop: str
) -> None:
    sent = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        assert scope["type"] == "websocket"
        await receive()
        await send(ACCEPT)
        with contextlib.suppress(OSError):
            while True:
                await send({"type": "websocket.send", "bytes": bytes(100_000)})
                sent += 1

    client = connect(serve(app, loop=loop))
    assert client.get(headers=UPGRADE).status == 101
    before = -1
    while before != sent:
        before = sent
        time.sleep(0.2)
    assert sent * 100_000 < 50_000_000


def test_an_application_that_does_not_listen_stops_its_client(
    serve: Serve, connect: Connect, loop: str
) -> None:
    go_on, count = threading.Event(), Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send(ACCEPT)
        await asyncio.to_thread(go_on.wait)
        received = 0
        while (message := await receive())["type"] == "websocket.receive":
            received += len(message["bytes"])
        count.add(received)

    client = connect(serve(app, loop=loop))
    assert client.get(headers=UPGRADE).status == 101
    frame = b"\x82\xfe\xff\xff\0\0\0\0" + bytes(0xFFFF)
    client.sock.settimeout(0.5)
    sent, pending = 0, b""
    with contextlib.suppress(TimeoutError):
        while sent < 50_000_000:
            pending = pending or frame
            done = client.sock.send(pending)
            pending = pending[done:]
            sent += done
    assert sent < 40_000_000
    go_on.set()
    client.sock.settimeout(10)
    client.sock.sendall(pending + b"\x88\x80\0\0\0\0")
    assert count.wait(1)[0] == (sent + len(pending)) // len(frame) * 0xFFFF


def test_a_flood_of_small_messages(serve: Serve, connect: Connect, loop: str) -> None:
    client = connect(serve(App(), loop=loop, limit_ws_queue=2))
    assert client.get(headers=UPGRADE).status == 101
    client.send(b"\x81\x81\0\0\0\0a" * 5000)
    assert client._exactly(15000) == b"\x81\x01a" * 5000


@pytest.mark.parametrize(
    ("data", "most"),
    [
        (b"\x81\x81\0\0\0\0a" * 5000, 70),
        ((b"\x8a\x80\0\0\0\0" * 50 + b"\x81\x81\0\0\0\0a") * 100, 2),
        (b"", 70),
    ],
    ids=["messages", "control frames", "answers"],
)
@pytest.mark.parametrize("echoes", [False, True])
def test_a_busy_websocket_lets_others_go_on(
    serve: Serve, connect: Connect, loop: str, data: bytes, most: int, echoes: bool
) -> None:
    """However many frames come at once, or go to a client that takes them."""
    turns = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        done = at_once = 0
        expected = data.count(b"a") or 1000

        async def beside() -> None:
            nonlocal at_once
            before = 0
            while before < expected:
                await asyncio.sleep(0)
                at_once, before = max(at_once, done - before), done
            turns.add(at_once)

        await receive()
        await send(ACCEPT)
        turn = asyncio.ensure_future(beside())
        while done < expected:
            if data:
                await receive()
            if echoes or not data:
                await send({"type": "websocket.send", "text": "a"})
            done += 1
        await turn

    client = connect(serve(app, loop=loop))
    assert client.get(headers=UPGRADE).status == 101
    reading = threading.Thread(target=client.rest)
    reading.start()
    client.send(data)
    assert 0 < turns.wait()[0] <= most
    client.sock.shutdown(socket.SHUT_RDWR)
    reading.join()


# ---- Pings -----------------------------------------------------------------------------------


def test_pings_keep_alive(serve: Serve, loop: str) -> None:
    server = serve(App(), loop=loop, ws_ping_interval=0.1, ws_ping_timeout=3)
    with opened(server, ping_interval=None) as ws:
        with pytest.raises(TimeoutError):
            ws.recv(2.5)
        ws.send("x")
        assert ws.recv() == "x"


def test_a_client_that_does_not_answer_pings(serve: Serve, connect: Connect, loop: str) -> None:
    app = App()
    server = serve(app, loop=loop, ws_ping_interval=0.1, ws_ping_timeout=0.1, linger_timeout=0.1)
    client = connect(server)
    client.get(headers=UPGRADE)
    assert client.rest() == b"\x89\x00\x88\x02\x03\xf3"
    assert app.seen.wait(1)[0]["code"] == 1011


# ---- Order -----------------------------------------------------------------------------------

SEND: Message = {"type": "websocket.send", "text": "x"}

BODY: Message = {"type": "websocket.http.response.body", "body": b"x"}


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([SEND], RuntimeError),
        ([BODY], RuntimeError),
        ([ACCEPT, ACCEPT], RuntimeError),
        ([ACCEPT, START], RuntimeError),
        ([ACCEPT, CLOSE, SEND], RuntimeError),
        ([ACCEPT, CLOSE, CLOSE], RuntimeError),
        ([CLOSE, ACCEPT], RuntimeError),
        ([START, ACCEPT], RuntimeError),
        ([START, START], RuntimeError),
        ([START, BODY, BODY], RuntimeError),
        ([{"type": "http.response.start", "status": 200}], RuntimeError),
        ([ACCEPT, {**CLOSE, "code": 999}], InvalidResponseError),
        ([ACCEPT, {**CLOSE, "code": 70000}], InvalidResponseError),
        ([ACCEPT, {**CLOSE, "reason": "\ud800"}], InvalidResponseError),
        ([{**ACCEPT, "subprotocol": "mine"}], InvalidResponseError),
        ([{**ACCEPT, "headers": [(b"a", b"b\r\nc: d")]}], InvalidResponseError),
        ([{**ACCEPT, "headers": [(b"sec-websocket-protocol", b"x")]}], InvalidResponseError),
    ],
)
def test_a_wrong_message_raises_in_the_application(
    serve: Serve,
    connect: Connect,
    loop: str,
    messages: list[Message],
    error: type[Exception],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL, "threadwell")
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        for message in messages[:-1]:
            await send(message)
        try:
            await send(messages[-1])
        except Exception as raised:
            seen.add(type(raised))
            raise
        seen.add(None)

    client = connect(serve(app, loop=loop, linger_timeout=0.1))
    client.send(f"GET / HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n".encode())
    assert issubclass(seen.wait(1)[0], error)
