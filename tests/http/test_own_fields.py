"""The fields that the server adds to every response: on threads, loops, HTTP/2 and WebSockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from threadwell import ConfigError, Request, Response, ServerConfig, ThreadedServer
from threadwell.worker.assembly import check

from ..helpers.asgi_tools import UPGRADE, Message, Receive, Scope, Send, answer, no_lifespan
from ..helpers.http2_client import Http2Client
from ..helpers.wire_client import Client

FIELDS = {"server_header": "none", "header": ["X-Frame-Options: DENY", "X-A:  b, c "]}
ADDED = [("x-frame-options", "DENY"), ("x-a", "b, c")]


def sync(request: Request) -> Response:
    if request.path == "/stream":
        return Response(200, [], iter([b"one", b"two"]))
    if request.path == "/server":
        return Response(200, [("Server", "of the application")], b"one")
    return Response(200, [("X-A", "mine")], b"one")


async def asynchronous(scope: Scope, receive: Receive, send: Send) -> None:
    await no_lifespan(scope)
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
    elif scope["path"] == "/stream":
        await send({"type": "http.response.start", "status": 200})
        for more in (True, False):
            message: Message = {"type": "http.response.body", "body": b"one", "more_body": more}
            await send(message)
    elif scope["path"] == "/server":
        await answer(send, b"one", 200, (b"server", b"of the application"))
    else:
        await answer(send, b"one", 200, (b"x-a", b"mine"))


Serve = Callable[..., ThreadedServer]
both = pytest.mark.parametrize("app", [sync, asynchronous])


def added(headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [pair for pair in headers if pair[0] in ("server", "x-frame-options", "x-a")]


@both
@pytest.mark.parametrize("options", [{}, {"request_id_header": "X-Id", "request_id_echo": True}])
def test_http1(
    serve: Serve, connect: Callable[..., Client], app: Any, options: dict[str, Any]
) -> None:
    client = connect(serve(app, **FIELDS, **options))
    assert added(client.get("/").headers) == [*ADDED, ("x-a", "mine")]
    assert added(client.get("/stream").headers) == ADDED
    assert ("server", "of the application") in client.get("/server").headers
    client.send(b"nonsense\r\n\r\n")  # an answer of the server's own
    assert added(client.answer().headers) == ADDED


@both
def test_http2(serve_http2: Serve, http2: Callable[..., Http2Client], app: Any) -> None:
    client = http2(serve_http2(app, **FIELDS))
    assert added(client.fetch("/").fields) == [*ADDED, ("x-a", "mine")]
    assert added(client.fetch("/stream").fields) == ADDED
    assert added(client.fetch("/server").fields) == [*ADDED, ("server", "of the application")]


def test_websocket(serve: Serve, connect: Callable[..., Client]) -> None:
    client = connect(serve(asynchronous, **FIELDS))
    client.send(f"GET / HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n".encode())
    upgraded = client.answer()
    assert (upgraded.status, added(upgraded.headers)) == (101, ADDED)


@both
def test_a_name_of_ones_own(serve: Serve, connect: Callable[..., Client], app: Any) -> None:
    client = connect(serve(app, server_header="shop 1.0"))
    for path in ("/", "/stream"):
        assert client.get(path).header("server") == "shop 1.0"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"server_header": "a\r\nb"}, "server_header: the header Server has a control character"),
        ({"server_header": " "}, "server_header: it is empty; give a value, or none"),
        (
            {"header": ["nonsense"]},
            "header: 'nonsense' is not a header field; write it as 'NAME: VALUE'",
        ),
        ({"header": ["a b: c"]}, "header: the header name 'a b' is not a token"),
        ({"header": ["a: b\nc"]}, "header: the header a has a control character"),
        ({"header": ["Server: x"]}, "header: Server has an option of its own, server_header"),
        ({"header": ["Content-Length: 5"]}, "header: Content-Length belongs to each response"),
        ({"header": ["Content-Type: a/b"]}, "header: Content-Type belongs to each response"),
        ({"header": ["Transfer-Encoding: x"]}, "header: Transfer-Encoding belongs to each"),
    ],
)
def test_mistakes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(ServerConfig.from_options(**options))
    assert str(caught.value).startswith(message)
