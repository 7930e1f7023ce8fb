"""The scope of an HTTP request, and the context that its application runs in."""

from __future__ import annotations

import contextvars
import socket
from collections.abc import Callable
from pathlib import Path
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
)
from ...helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

pytestmark = pytest.mark.parametrize("loop", LOOPS)


def scope_of(serve: Serve, connect: Connect, data: bytes, **options: Any) -> Scope:
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        seen.add(scope)
        await answer(send)

    client = connect(serve(app, **options))
    client.send(data)
    assert client.answer().status == 200
    return seen.values[0]  # type: ignore[no-any-return]


def test_the_scope(serve: Serve, connect: Connect, loop: str) -> None:
    scope = scope_of(
        serve,
        connect,
        b"GET /a%20b/%C3%A9%2F?q=%20x HTTP/1.1\r\nHost: example.com\r\nX-One: 1\r\n"
        b"Accept:  text/html \r\nx-one: 2\r\nX_Under: u\r\nCookie: a=b\r\n\r\n",
        loop=loop,
    )
    assert scope["type"] == "http"
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.3"}
    assert scope["http_version"] == "1.1"
    assert scope["method"] == "GET"
    assert scope["scheme"] == "http"
    assert scope["path"] == "/a b/é/"
    assert scope["raw_path"] == b"/a%20b/%C3%A9%2F"
    assert scope["query_string"] == b"q=%20x"
    assert scope["root_path"] == ""
    assert scope["headers"] == [
        (b"host", b"example.com"),
        (b"x-one", b"1"),
        (b"accept", b"text/html"),
        (b"x-one", b"2"),
        (b"x_under", b"u"),
        (b"cookie", b"a=b"),
    ]
    assert scope["client"][0] == "127.0.0.1"
    assert isinstance(scope["client"][1], int)
    assert scope["server"][0] == "127.0.0.1"
    assert scope["state"] == {}
    assert set(scope["extensions"]) == {
        "http.response.early_hint",
        "http.response.trailers",
    }


def test_files_by_path_are_offered_if_asked_for(serve: Serve, connect: Connect, loop: str) -> None:
    for version in ("1.1", "1.0"):
        data = f"GET / HTTP/{version}\r\nHost: x\r\n\r\n".encode()
        scope = scope_of(serve, connect, data, loop=loop, asgi_pathsend=True)
        assert "http.response.pathsend" in scope["extensions"]


def test_http_1_0(serve: Serve, connect: Connect, loop: str) -> None:
    scope = scope_of(serve, connect, b"GET / HTTP/1.0\r\nHost: x\r\n\r\n", loop=loop)
    assert scope["http_version"] == "1.0"
    assert "http.response.trailers" not in scope["extensions"]


@pytest.mark.parametrize("given", ["/api", "api/", "/api/"])
def test_the_root_path(serve: Serve, connect: Connect, loop: str, given: str) -> None:
    request = b"GET /users?x HTTP/1.1\r\nHost: x\r\n\r\n"
    scope = scope_of(serve, connect, request, loop=loop, root_path=given)
    assert scope["root_path"] == "/api"
    assert scope["path"] == "/api/users"
    assert scope["raw_path"] == b"/users"


def test_a_unix_socket(serve: Serve, tmp_path: Path, loop: str) -> None:
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        seen.add(scope)
        await answer(send)

    path = str(tmp_path / "s")
    serve(app, bind=f"unix:{path}", loop=loop)
    with socket.socket(socket.AF_UNIX) as raw:
        raw.settimeout(10)
        raw.connect(path)
        assert Client(raw).get().status == 200
    assert seen.values[0]["client"] is None
    assert seen.values[0]["server"] == (path, None)


def test_a_scope_belongs_to_its_request(serve: Serve, connect: Connect, loop: str) -> None:
    """What one request does to its scope is not there for the next of the connection."""
    seen = Seen()
    extensions: list[list[str]] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        seen.add((sorted(scope), len(scope["headers"]), dict(scope["asgi"]), dict(scope["state"])))
        extensions.append(sorted(scope["extensions"]))
        scope["headers"].append((b"x", b"y"))
        scope["asgi"]["version"] = "9"
        scope["extensions"].clear()
        scope["state"]["x"] = scope["mine"] = 1
        await answer(send)

    client = connect(serve(app, loop=loop))
    for _ in range(3):
        client.get("/", headers="X-A: b\r\n")
    assert len({str(value) for value in seen.values}) == 1
    assert extensions[0]
    assert extensions == [extensions[0]] * 3


def test_context_variables_do_not_leak(serve: Serve, connect: Connect, loop: str) -> None:
    variable: contextvars.ContextVar[int] = contextvars.ContextVar("variable", default=0)
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        seen.add(variable.get())
        variable.set(1)
        await answer(send)

    client = connect(serve(app, loop=loop))
    for _ in range(3):
        client.get()
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 3)
    for _ in range(3):
        client.answer()
    assert seen.values == [0] * 6
