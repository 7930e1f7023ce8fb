"""ASGI extensions, lifecycle events and the access log of ASGI applications."""

from __future__ import annotations

import http.client
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from threadwell import ThreadedServer
from threadwell.worker.errors import InvalidResponseError
from threadwell.worker.lifecycle import LifecycleEvent, RequestStarted, ResponseCompleted

from ...helpers.asgi_tools import (
    LOOPS,
    TEXT,
    Receive,
    Scope,
    Seen,
    Send,
    answer,
)
from ...helpers.wire_client import Client
from .applications import START, echo, hello

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

pytestmark = pytest.mark.parametrize("loop", LOOPS)


# ---- Extensions ------------------------------------------------------------------------------


def test_early_hints(serve: Serve, connect: Connect, loop: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
        await answer(send, b"page")

    client = connect(serve(app, loop=loop))
    hint = client.get()
    assert (hint.status, hint.header("link")) == (103, "</a.css>; rel=preload")
    assert client.answer().body == b"page"


def test_trailers(serve: Serve, connect: Connect, loop: str) -> None:
    ended = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        headers = [(b"content-length", b"4")]
        await send({**START, "headers": headers, "trailers": True})
        if scope["query_string"] == b"streamed":
            await send({"type": "http.response.body", "body": b"bo", "more_body": True})
        await send({"type": "http.response.body", "body": b"body"})
        trailers = {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]}
        await send({**trailers, "more_trailers": True})
        if scope["query_string"] == b"bad":
            with pytest.raises(InvalidResponseError):
                await send({**trailers, "headers": [(b"content-length", b"1")]})
        else:
            await send({**trailers, "headers": [(b"x-more", b"2")]})
            ended.add("well")

    server = serve(app, loop=loop)
    client = connect(server)
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    assert client.rest().endswith(b"4\r\nbody\r\n0\r\nx-sum: 1\r\nx-more: 2\r\n\r\n")
    client = connect(server)
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    assert client.rest().endswith(b"\r\n\r\nbody")
    client = connect(server)
    client.send(b"HEAD /?streamed HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.answer("HEAD").status == 200
    assert ended.wait(3)
    client = connect(server)
    client.send(b"GET /?bad HTTP/1.1\r\nHost: x\r\n\r\n")
    with pytest.raises((EOFError, ConnectionResetError)):
        client.answer()


def test_path_send(serve: Serve, connect: Connect, loop: str, tmp_path: Path) -> None:
    data = os.urandom(5_000_000)
    path = tmp_path / "file"
    path.write_bytes(data)
    (tmp_path / "empty").touch()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        name = scope["path"].strip("/")
        await send({"type": "http.response.start", "status": 200, "headers": [TEXT]})
        await send({"type": "http.response.pathsend", "path": str(tmp_path / name)})

    before = len(os.listdir("/proc/self/fd"))
    server = serve(app, loop=loop)
    client = connect(server)
    for _ in range(2):
        assert client.get("/file").body == data
        assert client.get("/empty").body == b""
    client.send(b"HEAD /file HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.answer("HEAD").header("content-length") == "5000000"
    client.close()
    server.stop()
    assert len(os.listdir("/proc/self/fd")) <= before


# ---- What is told ----------------------------------------------------------------------------


class Collector:
    def __init__(self) -> None:
        self.seen = Seen()

    def record(self, event: LifecycleEvent) -> None:
        if isinstance(event, (RequestStarted, ResponseCompleted)):
            self.seen.add(event)


def test_lifecycle_events(serve: Serve, connect: Connect, loop: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 201})
        await send({"type": "http.response.body", "body": b"abc", "more_body": bool(scope["path"])})
        await send({"type": "http.response.body", "body": b"de"})

    collector = Collector()
    client = connect(serve(app, loop=loop, lifecycle_collector=collector))
    client.get("/x")
    started, completed = collector.seen.wait(2)
    assert started.request.path == "/x"
    assert (completed.status, completed.body_bytes, completed.complete) == (201, 5, True)
    client.send(b"bad\r\n\r\n")
    client.answer()
    assert collector.seen.wait(3)[2].request is None


def test_access_log(serve: Serve, connect: Connect, loop: str, tmp_path: Path) -> None:
    path = tmp_path / "log"
    server = serve(hello(), loop=loop, access_log=str(path), log_format='"%r" %s %b')
    connect(server).get("/a")
    server.stop()
    assert path.read_text() == '"GET /a HTTP/1.1" 200 5\n'


def test_a_standard_client(serve: Serve, loop: str) -> None:
    client = http.client.HTTPConnection("127.0.0.1", serve(echo, loop=loop).port, timeout=10)
    for size in (0, 10, 1_000_000):
        client.request("POST", "/", bytes(size))
        assert len(client.getresponse().read()) == size
    client.request("POST", "/", iter([b"a", b"b"]), encode_chunked=True)
    assert client.getresponse().read() == b"ab"
    client.close()
