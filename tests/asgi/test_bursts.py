"""Small blocks of a stream that an application sends at one go: when they leave."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from threadwell import ThreadedServer
from threadwell.worker.asgi import writer

from ..helpers.asgi_tools import LOOPS, TEXT, Receive, Scope, Seen, Send
from ..helpers.waiting import until
from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"

pytestmark = pytest.mark.parametrize("loop", LOOPS)


async def start(scope: Scope, send: Send) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": [TEXT]})


async def block(send: Send, body: bytes, more: bool = True) -> None:
    await send({"type": "http.response.body", "body": body, "more_body": more})


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """What streams give to the kernel, a piece a system call."""
    pieces: list[bytes] = []
    send_or_keep = writer.send_or_keep

    def note(connection: Any, data: bytes, timeouts: Any) -> None:
        pieces.append(data)
        send_or_keep(connection, data, timeouts)

    monkeypatch.setattr(writer, "send_or_keep", note)
    return pieces


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the machine has to do, one block comes soon after the other."""
    monkeypatch.setattr(writer, "_BURST", 1000)


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("last", [b"", b"the last"])
def test_they_leave_together(
    serve: Serve, connect: Connect, sent: list[bytes], loop: str, last: bytes
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(scope, send)
        for number in range(10):
            await block(send, b"%d" % number)
        await block(send, last, more=False)

    client = connect(serve(app, loop=loop))
    for _ in range(2):
        client.send(GET)
        answer = client.answer()
        assert answer.chunks == [b"%d" % number for number in range(10)] + [last] * bool(last)
        assert answer.complete
    # the first does not wait for the others
    assert len(sent) == 4
    assert sent[0].endswith(b"\r\n\r\n1\r\n0\r\n")
    assert sent[1].endswith(b"0\r\n\r\n")


@pytest.mark.usefixtures("unhurried")
def test_they_leave_when_the_application_waits(serve: Serve, connect: Connect, loop: str) -> None:
    asked = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(scope, send)
        for number in range(3):
            for letter in b"abc":
                await block(send, b"%d%c" % (number, letter))
            assert scope["path"] == "/"
            assert (await receive())["type"] == ("http.disconnect" if number else "http.request")
            asked.add(number)
            if not number:
                await asyncio.sleep(0)
        await block(send, b"", more=False)

    client = connect(serve(app, loop=loop))
    client.send(GET)
    text = b""
    while not text.endswith(b"2\r\n1c\r\n"):
        text += client.sock.recv(4096)
    assert asked.values == [0]


def test_one_that_comes_by_itself_does_not_wait_for_the_loop(
    serve: Serve, connect: Connect, loop: str
) -> None:
    """An application that works between them, and lets nobody else have the loop."""
    arrived = threading.Semaphore(0)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(scope, send)
        for number in range(5):
            await block(send, b"%d" % number)
            assert arrived.acquire(timeout=10)
            time.sleep(0.005)  # longer than a burst
        await block(send, b"", more=False)

    client = connect(serve(app, loop=loop))
    client.send(GET)
    text = b""
    for number in range(5):
        while not text.endswith(b"\r\n1\r\n%d\r\n" % number):
            text += client.sock.recv(4096)
        arrived.release()
    while not text.endswith(b"0\r\n\r\n"):
        text += client.sock.recv(4096)


@pytest.mark.usefixtures("unhurried")
def test_what_came_before_a_failure(
    serve: Serve, connect: Connect, loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(scope, send)
        for letter in b"abc":
            await block(send, b"%c" % letter)
        raise ValueError("too bad")

    with caplog.at_level(logging.ERROR, "threadwell"):
        client = connect(serve(app, loop=loop))
        client.send(GET)
        text = b""
        with contextlib.suppress(ConnectionResetError):
            while data := client.sock.recv(4096):
                text += data
    assert text.endswith(b"\r\n\r\n1\r\na\r\n1\r\nb\r\n1\r\nc\r\n")
    assert "too bad" in caplog.text


@pytest.mark.usefixtures("unhurried")
def test_many_are_not_kept(serve: Serve, connect: Connect, sent: list[bytes], loop: str) -> None:
    """Neither while the application goes on, nor where the client reads none."""
    given = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal given
        await start(scope, send)
        for number in range(2_000):
            given = number
            await block(send, bytes(10_000))
        await block(send, b"", more=False)

    client = connect(serve(app, loop=loop))
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    client.send(GET)
    before = -1
    while before != given or given < 10:
        before = given
        time.sleep(0.1)
    assert max(map(len, sent)) < 2 * 65536
    assert given < 1_900
    received = 0
    while received < 2_000 * 10_000:
        received += len(client.sock.recv(1_000_000))


@pytest.mark.usefixtures("unhurried")
def test_a_client_that_leaves(serve: Serve, connect: Connect, loop: str) -> None:
    """It is noticed by whoever sends on, and the loop goes on."""
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await start(scope, send)
        if scope["path"] == "/other":
            await block(send, b"other", more=False)
            return
        try:
            while True:
                for letter in b"abc":
                    await block(send, b"%c" % letter)
                await asyncio.sleep(0.001)
        except OSError as error:
            seen.add(error)
            raise

    server = serve(app, loop=loop)
    client, other = connect(server), connect(server)
    client.send(GET)
    assert client.sock.recv(4096)
    client.close()
    until(lambda: seen.values)
    assert other.get("/other").body == b"other"
