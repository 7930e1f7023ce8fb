"""The `close` method of a response body: it is called once, on every path."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from threadwell import Request, Response, ThreadedServer

from ..helpers.responses import BODIES, GET, Counted, respond
from ..helpers.wire_client import Answer, Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]


def _one(serve: Serve, connect: Connect, response: Response, request: bytes = GET) -> Answer | None:
    client = connect(serve(lambda _: response))
    client.send(request)
    try:
        return client.answer(request.partition(b" ")[0].decode())
    except (EOFError, ConnectionError):
        return None


@pytest.mark.parametrize("kind", list(BODIES))
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, []),
        (204, []),
        (304, []),
        (200, [("Content-Length", "3")]),
        (200, [("Content-Length", "200000")]),
        (200, [("X-A", "\n")]),
        ("evil", []),
    ],
)
def test_close_is_called_once(
    kind: str, method: bytes, status: Any, headers: Any, serve: Serve, connect: Connect
) -> None:
    calls: list[int] = []
    called = threading.Event()

    def close() -> None:
        calls.append(1)
        called.set()

    response = Response(status, headers, BODIES[kind](), close)
    server_request = GET.replace(b"GET", method)
    _one(serve, connect, response, server_request)
    assert called.wait(5)
    assert calls == [1]


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize(
    ("status", "headers", "blocks"),
    [
        (200, [], [b"hello"]),
        (200, [], []),
        (204, [], [b"hello"]),
        (304, [], [b"hello"]),
        (200, [("Content-Length", "3")], [b"hello", b"you"]),
        (200, [("Content-Length", "9")], [b"hello"]),
        (200, [("Content-Length", "0")], [b"hello"]),
        (200, [("X-A", "\n")], [b"hello"]),
        ("evil", [], [b"hello"]),
        (200, [], [ValueError()]),
        (200, [], [b"hello", ValueError()]),
        (200, [], [SystemExit(3)]),
        (200, [], ["hello"]),
    ],
)
def test_a_stream_is_closed_once(
    method: bytes, status: Any, headers: Any, blocks: list[Any], serve: Serve, connect: Connect
) -> None:
    body = Counted(*blocks)
    _one(serve, connect, Response(status, headers, body), GET.replace(b"GET", method))
    assert body.done.wait(5)
    assert body.closed == 1
    if method == b"HEAD" or status in (204, 304):
        assert body.asked <= 1


def test_a_stream_is_closed_once_when_its_client_leaves(serve: Serve, connect: Connect) -> None:
    body = Counted(*[b"x" * 100_000] * 1000)
    client = connect(serve(respond(Response(200, (), body))))
    client.send(GET)
    assert client.sock.recv(10)
    client.close()
    assert body.done.wait(5)
    assert body.closed == 1
    assert body.asked < 1000


def test_a_response_with_a_close_of_its_own(serve: Serve, connect: Connect) -> None:
    body, calls = Counted(b"hello"), threading.Event()
    answer = _one(serve, connect, Response(200, (), body, calls.set))
    assert answer is not None
    assert answer.body == b"hello"
    assert calls.wait(5)


def test_close_is_called_once_when_too_many_streams_are_open(
    serve: Serve, connect: Connect
) -> None:
    body = Counted(b"hello", b"you")
    client = connect(serve(respond(Response(200, (), body)), max_streams=0))
    client.send(GET)
    assert client.answer().status == 503
    assert body.done.wait(5)
    assert body.closed == 1
    assert body.asked == 0


def test_close_is_called_once_after_a_pushed_answer(serve: Serve, connect: Connect) -> None:
    calls: list[int] = []
    called = threading.Event()

    def close() -> None:
        calls.append(1)
        called.set()

    def app(request: Request) -> Response:
        request.stream(Response(200, [("X-A", "b")])).write(b"one")
        return Response(200, (), b"two", close)

    client = connect(serve(app))
    answer = client.get()
    assert answer.chunks == [b"one", b"two"]
    assert called.wait(5)
    assert calls == [1]
    assert client.get().body == b"onetwo"


def test_close_is_called_once_after_a_hijack(serve: Serve, connect: Connect) -> None:
    called = threading.Event()

    def app(request: Request) -> Response:
        request.hijack().sendall(b"mine")
        return Response(200, (), b"ignored", called.set)

    client = connect(serve(app))
    client.send(GET)
    assert client.rest() == b"mine"
    assert called.wait(2)


def test_an_error_in_close_costs_nothing(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(serve(lambda request: Response(200, (), b"hello", lambda: 1 // 0)))
    for _ in range(3):
        assert client.get().body == b"hello"
    assert "The application failed in close() of its answer to GET /" in caplog.text
