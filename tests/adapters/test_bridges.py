"""`to_asgi` and `to_wsgi`: applications of one kind mounted in those of the other."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from threadwell import FileBody, Request, Response, ThreadedServer
from threadwell.adapters import WSGIApp
from threadwell.adapters.bridges import to_asgi, to_wsgi

from ..helpers.asgi_tools import Receive, Scope, Send, answer, read_body
from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]


def test_a_wsgi_app_under_a_loop(serve: Serve, connect: Connect) -> None:
    def wsgi(environ: Any, start_response: Any) -> Iterator[bytes]:
        body = environ["wsgi.input"].read()
        start_response("201 Made", [("X-Cookie", environ.get("HTTP_COOKIE", ""))])
        yield environ["PATH_INFO"].encode() + b" " + body
        yield b" " + environ.get("HTTP_X_SPOOFED", "-").encode()

    client = connect(serve(to_asgi(wsgi)))
    client.send(
        b"POST /a%20b HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nCookie: a=1\r\nCookie: b=2\r\n"
        b"X_Spoofed: yes\r\n\r\nbody"
    )
    got = client.answer()
    assert (got.status, got.body) == (201, b"/a b body -")
    assert got.header("x-cookie") == "a=1; b=2"


def test_a_sync_app_mounted_in_starlette(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    from starlette.applications import Starlette
    from starlette.routing import Mount

    closed = threading.Event()
    (tmp_path / "file").write_bytes(b"0123456789")

    class Blocks:
        def __iter__(self) -> Iterator[bytes]:
            return iter([b"str", b"eam"])

        def close(self) -> None:
            closed.set()

    def sync(request: Request) -> Response | None:
        assert request.scheme == "http"
        assert request.client[0] == "127.0.0.1"
        if request.path == "/none":
            return None
        if request.path == "/stream":
            return Response(200, [], Blocks())
        if request.path == "/file":
            fd = os.open(tmp_path / "file", os.O_RDONLY)
            return Response(200, [], FileBody(fd, 2, 5))
        if request.path == "/revise":
            return Response("200 Old", [], iter([b"", b"body"]), None, lambda: (418, [("X", "y")]))
        text = f"{request.method} {request.target} {request.header('x-a')} "
        return Response("299 Own Words", [("X-B", "c")], text.encode() + request.read())

    app = Starlette(routes=[Mount("/sync", app=to_asgi(sync))])
    client = connect(serve(app))
    client.send(
        b"POST /sync/p%C3%A9?q=1 HTTP/1.1\r\nHost: x\r\nX-A: b\r\nContent-Length: 100000\r\n\r\n"
        + b"x" * 100_000
    )
    got = client.answer()
    assert got.body == b"POST /p%C3%A9?q=1 b " + b"x" * 100_000
    assert (got.status, got.header("x-b")) == (299, "c")
    assert client.get("/sync/stream").body == b"stream"
    assert closed.wait(5)
    assert client.get("/sync/file").body == b"23456"
    assert client.get("/sync/none").status == 501
    got = client.get("/sync/revise")
    assert (got.status, got.body, got.header("x")) == (418, b"body", "y")


def test_a_wsgi_adapter_under_tls_that_answers_an_error() -> None:
    """The channel of the bridge has all that an adapter looks at."""

    def wsgi(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        try:
            raise ValueError
        except ValueError:
            start_response("500 Oops", [], sys.exc_info())
        return [environ["HTTPS"].encode()]

    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "https",
        "path": "/",
        "query_string": b"",
        "headers": [],
        "server": ("localhost", 443),
    }
    asyncio.run(to_asgi(WSGIApp(wsgi))(scope, receive, send))
    assert sent[0]["status"] == 500
    assert b"".join(message.get("body", b"") for message in sent) == b"on"


def test_an_asgi_app_under_threads(serve: Serve, connect: Connect) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        body = await read_body(receive)
        await asyncio.sleep(0)
        await answer(send, scope["path"].encode() + b" " + body, 202)

    client = connect(serve(to_wsgi(app)))
    client.send(b"POST /x HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody")
    got = client.answer()
    assert (got.status, got.body) == (202, b"/x body")


def test_the_wrong_kind() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None: ...

    def sync(request: Request) -> None: ...

    with pytest.raises(TypeError, match="is an ASGI application already"):
        to_asgi(app)
    with pytest.raises(TypeError, match="is not an ASGI application"):
        to_wsgi(sync)
