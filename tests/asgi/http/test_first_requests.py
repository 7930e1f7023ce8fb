"""The first request of a connection, which has come before the loop has accepted the connection."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from threadwell import ThreadedServer
from threadwell.worker.asgi.connection import LoopConnection

from ...helpers.asgi_tools import LOOPS, Receive, Scope, Send, answer, read_body
from ...helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

LINE = b"GET / HTTP/1.1\r\nHost: x\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"

pytestmark = pytest.mark.parametrize("loop", LOOPS)


class Blocking:
    """An application that blocks its loop for a request to /block. It echoes the others."""

    def __init__(self) -> None:
        #: The connections that the loop was asked to watch since it was blocked.
        self.watched: list[LoopConnection] = []
        self._blocks = threading.Event()
        self._goes_on = threading.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        if scope["path"] == "/block":
            self._note_watched(asyncio.get_running_loop())
            self._blocks.set()
            assert self._goes_on.wait(30)
        await answer(send, await read_body(receive))

    def _note_watched(self, loop: Any) -> None:
        add_reader = loop.add_reader

        def note(fd: int, callback: Any, *arguments: Any) -> None:
            self.watched.append(callback.__self__)
            add_reader(fd, callback, *arguments)

        loop.add_reader = note

    @contextmanager
    def blocked(self, client: Client) -> Iterator[None]:
        """Block the loop by a request of `client`, whose connection is watched already."""
        assert client.get().status == 200
        client.send(b"GET /block HTTP/1.1\r\nHost: x\r\n\r\n")
        assert self._blocks.wait(30)
        yield
        self._goes_on.set()
        assert client.answer().status == 200


def test_one_that_closes_is_never_watched(serve: Serve, connect: Connect, loop: str) -> None:
    app = Blocking()
    server = serve(app, loop=loop, loops=1)
    with app.blocked(connect(server)):
        client = connect(server)
        client.send(LINE + b"Connection: close\r\n\r\n")
    assert client.answer().status == 200
    assert client.closed()
    assert app.watched == []


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (LINE + b"\r\n", b""),
        (LINE, b"\r\n"),
        (POST % 10 + b"01234", b"56789"),
        (POST % 200_000 + bytes(100_000), bytes(100_000)),
    ],
)
def test_one_that_goes_on_is_watched(
    serve: Serve, connect: Connect, loop: str, first: bytes, then: bytes
) -> None:
    app = Blocking()
    server = serve(app, loop=loop, loops=1)
    with app.blocked(connect(server)):
        client = connect(server)
        client.send(first)
    client.send(then)
    assert client.answer().body == (first + then).partition(b"\r\n\r\n")[2]
    for _ in range(2):
        assert client.get().status == 200
    assert len(set(map(id, app.watched))) == 1


def test_several_requests_and_the_end_of_input(serve: Serve, connect: Connect, loop: str) -> None:
    app = Blocking()
    server = serve(app, loop=loop, loops=1)
    with app.blocked(connect(server)):
        client = connect(server)
        client.send((LINE + b"\r\n") * 100)
        client.sock.shutdown(socket.SHUT_WR)
    for _ in range(100):
        assert client.answer().status == 200
    assert client.closed()


def test_a_head_that_is_refused(serve: Serve, connect: Connect, loop: str) -> None:
    app = Blocking()
    server = serve(app, loop=loop, loops=1)
    with app.blocked(connect(server)):
        client = connect(server)
        client.send(b"GET / HTTP/1.1\r\n\r\n")
    assert client.answer().status == 400
    assert client.closed()
