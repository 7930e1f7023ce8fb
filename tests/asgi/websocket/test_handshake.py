"""The WebSocket handshake: its scope, and how it is refused."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from websockets.exceptions import InvalidStatus

from threadwell import ThreadedServer
from threadwell.worker.errors import InvalidResponseError

from ...helpers.asgi_tools import LOOPS, UPGRADE, Receive, Scope, Seen, Send, answer
from ...helpers.wire_client import Client
from .applications import ACCEPT, CLOSE, START, App, opened

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

pytestmark = pytest.mark.parametrize("loop", LOOPS)


# ---- The handshake ---------------------------------------------------------------------------


def test_the_scope(serve: Serve, loop: str) -> None:
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        seen.add(scope)
        await send({**ACCEPT, "subprotocol": scope["subprotocols"][1]})

    server = serve(app, loop=loop, root_path="/api")
    headers = {"X-A": "b"}
    with opened(
        server, "/chat%20room?a=b", subprotocols=["x", "y"], additional_headers=headers
    ) as ws:
        assert ws.subprotocol == "y"
    scope = seen.values[0]
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.4"}
    assert (scope["scheme"], scope["http_version"]) == ("ws", "1.1")
    assert (scope["path"], scope["raw_path"]) == ("/api/chat room", b"/chat%20room")
    assert scope["query_string"] == b"a=b"
    assert scope["subprotocols"] == ["x", "y"]
    assert (b"x-a", b"b") in scope["headers"]
    assert scope["extensions"] == {"websocket.http.response": {}}
    assert "method" not in scope
    assert scope["client"][0] == scope["server"][0] == "127.0.0.1"


def test_headers_on_accept(serve: Serve, connect: Connect, loop: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        headers = [(b"Set-Cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"upgrade", b"h2c")]
        await send({**ACCEPT, "headers": headers})

    got = connect(serve(app, loop=loop)).get(headers=UPGRADE)
    assert (got.status, got.reason) == (101, "Switching Protocols")
    # RFC 6455, 1.3
    assert got.header("sec-websocket-accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert (got.header("upgrade"), got.header("connection")) == ("websocket", "Upgrade")
    assert [value for name, value in got.headers if name == "set-cookie"] == ["a=1", "b=2"]
    assert got.header("content-length") is None


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8"), 426),
        (("Sec-WebSocket-Version: 13", "X: y"), 426),
        (("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "X: y"), 400),
        (("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ=="), 400),
        (("dGhlIHNhbXBsZSBub25jZQ==", "!!!!IHNhbXBsZSBub25jZQ=="), 400),
        (("Sec-WebSocket-Key", "Content-Length: 5\r\nSec-WebSocket-Key"), 400),
        (("Sec-WebSocket-Key", "Transfer-Encoding: chunked\r\nSec-WebSocket-Key"), 400),
    ],
)
def test_what_is_no_handshake(
    serve: Serve, connect: Connect, loop: str, change: tuple[str, str], status: int
) -> None:
    client = connect(serve(App(), loop=loop, lifespan="off"))
    got = client.get(headers=UPGRADE.replace(*change))
    assert got.status == status
    assert got.header("sec-websocket-version") == ("13" if status == 426 else None)
    assert client.closed()


@pytest.mark.parametrize(
    "request_",
    [
        "GET / HTTP/1.0\r\nHost: x\r\n" + UPGRADE,
        "GET / HTTP/1.1\r\nHost: x\r\n" + UPGRADE.replace("Connection: Upgrade", "X: y"),
        "GET / HTTP/1.1\r\nHost: x\r\n" + UPGRADE.replace("Upgrade: websocket", "Upgrade: h2c"),
        "POST / HTTP/1.1\r\nHost: x\r\n" + UPGRADE,
    ],
)
def test_what_stays_http(serve: Serve, connect: Connect, loop: str, request_: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await answer(send, b"http")

    client = connect(serve(app, loop=loop))
    client.send(request_.encode() + b"\r\n")
    assert client.answer().body == b"http"


def test_frames_that_come_with_the_handshake(serve: Serve, connect: Connect, loop: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await asyncio.sleep(0.05)
        await send(ACCEPT)
        await send({**(await receive()), "type": "websocket.send"})

    client = connect(serve(app, loop=loop))
    head = f"GET / HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n".encode()
    client.send(head + b"\x81\x82\0\0\0\0h")
    client.send(b"i")
    assert client.answer().status == 101
    assert client._exactly(4) == b"\x81\x02hi"


# ---- Refused ---------------------------------------------------------------------------------


def refused(server: ThreadedServer) -> Any:
    with pytest.raises(InvalidStatus) as raised, opened(server):
        pass
    return raised.value.response


def test_closed_before_it_is_accepted(serve: Serve, loop: str) -> None:
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send(CLOSE)
        seen.add(await receive())

    assert refused(serve(app, loop=loop)).status_code == 403
    assert seen.wait(1)[0]["type"] == "websocket.disconnect"


@pytest.mark.parametrize("parts", [[b"sorry"], [b"so", b"rry"], [b""]])
def test_a_denial(serve: Serve, loop: str, parts: list[bytes]) -> None:
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        headers = [(b"x-why", b"because")]
        start = {"type": "websocket.http.response.start", "status": 401, "headers": headers}
        await send(start)
        for number, part in enumerate(parts, 1):
            more = number < len(parts)
            body = {"type": "websocket.http.response.body", "body": part, "more_body": more}
            await send(body)
        seen.add(await receive())

    got = refused(serve(app, loop=loop))
    assert (got.status_code, got.headers["x-why"]) == (401, "because")
    assert bytes(got.body) == b"".join(parts)
    assert seen.wait(1)[0]["type"] == "websocket.disconnect"


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_no_answer(
    serve: Serve, loop: str, later: bool, fails: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        if later:
            await asyncio.sleep(0.001)
        if fails:
            raise SystemExit(3)

    server = serve(app, loop=loop)
    assert refused(server).status_code == 500
    assert refused(server).status_code == 500
    assert "WebSocket" in caplog.text


# ---- Pings -----------------------------------------------------------------------------------


def test_a_denial_that_must_not_leave(serve: Serve, loop: str) -> None:
    """It leaves the WebSocket as it was."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        with pytest.raises(InvalidResponseError):
            await send({**START, "status": 5})
        await send(ACCEPT)
        await send({**(await receive()), "type": "websocket.send"})

    with opened(serve(app, loop=loop)) as ws:
        ws.send("x")
        assert ws.recv() == "x"


# ---- Order -----------------------------------------------------------------------------------


def test_without_wsproto(
    serve: Serve, connect: Connect, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "threadwell.worker.asgi.websocket", raising=False)
    monkeypatch.setitem(sys.modules, "wsproto", None)
    client = connect(serve(App(), loop=loop))
    assert client.get(headers=UPGRADE).status == 501
