"""Deadlines of heads, bodies and idle connections."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable

import pytest

from threadwell import Response, ThreadedServer

from ...helpers.waiting import no_hurry
from ...helpers.wire_client import Client
from ...helpers.wire_corpus import FIRST
from .bench import Recorder


def _dribble_until_answered(client: Client, data: bytes) -> None:
    """Send a byte now and then until something comes back."""
    client.sock.settimeout(0.05)
    for at in range(len(data)):
        client.send(data[at : at + 1])
        try:
            client.sock.recv(1, socket.MSG_PEEK)
        except TimeoutError:
            continue
        break
    client.sock.settimeout(5)


def test_a_slow_head(serve: Callable[..., ThreadedServer], connect: Callable[..., Client]) -> None:
    app = Recorder()
    server = serve(app, head_timeout=0.5)
    with no_hurry(server):
        client = connect(server)
        started = time.monotonic()
        client.send(b"G")
    _dribble_until_answered(client, b"ET / HTTP/1.1\r\nX-A: " + b"a" * 500)
    assert 0.5 <= time.monotonic() - started < 4
    assert client.answer().status == 408
    assert client.closed()
    assert not app.seen


def test_a_slow_second_head_has_its_own_time(
    serve: Callable[..., ThreadedServer], connect: Callable[..., Client]
) -> None:
    server = serve(Recorder(), head_timeout=1)
    with no_hurry(server):  # the time of another head would be found over when this one begins
        client = connect(server)
        for _ in range(5):
            client.send(FIRST[:20])
            with contextlib.suppress(TimeoutError):
                client.sock.settimeout(0.3)
                client.sock.recv(1, socket.MSG_PEEK)
            client.sock.settimeout(5)
            client.send(FIRST[20:])
            assert client.answer().status == 200


def test_a_silent_new_connection(
    serve: Callable[..., ThreadedServer], connect: Callable[..., Client]
) -> None:
    assert connect(serve(Recorder(), head_timeout=0.3)).closed()


@pytest.mark.parametrize(
    "framing",
    [b"Content-Length: 900\r\n\r\n", b"Transfer-Encoding: chunked\r\n\r\n384\r\n"],
)
def test_a_slow_body(
    framing: bytes, serve: Callable[..., ThreadedServer], connect: Callable[..., Client]
) -> None:
    app = Recorder()
    client = connect(serve(app, body_timeout=0.5, min_rate=1000))
    started = time.monotonic()
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\n" + framing)
    _dribble_until_answered(client, b"x" * 500)
    assert 0.4 <= time.monotonic() - started < 4
    assert client.answer().status == 408
    assert client.closed()
    assert not app.seen


def test_an_idle_connection_is_closed_silently(
    serve: Callable[..., ThreadedServer], connect: Callable[..., Client]
) -> None:
    client = connect(serve(Recorder(), keep_alive=0.3))
    asked = time.monotonic()  # the server's time runs when it answers, whenever that is read
    assert client.get().status == 200
    started = time.monotonic()
    assert client.closed()
    assert time.monotonic() - asked >= 0.2
    assert time.monotonic() - started < 4


def test_an_idle_connection_is_closed_after_a_large_answer_too(
    serve: Callable[..., ThreadedServer], connect: Callable[..., Client]
) -> None:
    """The time for the answer is not what the next request has."""
    size = 8 * 1024 * 1024
    client = connect(serve(lambda request: Response(200, (), b"x" * size), keep_alive=0.3))
    assert len(client.get().body) == size
    started = time.monotonic()
    assert client.closed()
    assert time.monotonic() - started < 4
