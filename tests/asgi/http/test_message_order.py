"""Messages in the wrong order, and applications that fail."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest

from threadwell import ThreadedServer
from threadwell.worker.errors import InvalidResponseError

from ...helpers.asgi_tools import (
    LOOPS,
    Message,
    Receive,
    Scope,
    Seen,
    Send,
    answer,
)
from ...helpers.wire_client import Client
from .applications import START

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

pytestmark = pytest.mark.parametrize("loop", LOOPS)


# ---- Order, and what must not leave ----------------------------------------------------------

BODY: Message = {"type": "http.response.body", "body": b"x"}
MORE: Message = {**BODY, "more_body": True}


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([BODY], RuntimeError),
        ([START, START], RuntimeError),
        ([START, BODY, BODY], RuntimeError),
        ([START, MORE, START], RuntimeError),
        ([START, BODY, START], RuntimeError),
        ([{"type": "http.response.trailers"}], RuntimeError),
        ([START, {"type": "http.response.early_hint", "links": []}], RuntimeError),
        ([{"type": "websocket.send"}], RuntimeError),
        ([{"type": "http.response.start", "status": "200"}], InvalidResponseError),
        ([{"type": "http.response.start", "status": 100}], InvalidResponseError),
        ([{"type": "http.response.start"}], KeyError),
        ([START, {"type": "http.response.body", "body": "text"}], TypeError),
        ([{**START, "headers": [(b"a\r\nb", b"c")]}, BODY], InvalidResponseError),
        ([{**START, "headers": [(b"a", b"c\r\nd: e")]}, BODY], InvalidResponseError),
        ([{**START, "headers": [(b"a", b"c\0")]}, MORE], InvalidResponseError),
        ([{**START, "headers": [("a", b"b")]}, BODY], InvalidResponseError),
        ([{**START, "headers": [b"abc"]}, BODY], InvalidResponseError),
        ([{**START, "headers": [(b"content-length", b"x")]}, BODY], InvalidResponseError),
        ([START, {"type": "http.response.pathsend", "path": "/no/such/file"}], OSError),
    ],
)
def test_a_wrong_message_raises_in_the_application(
    serve: Serve, connect: Connect, loop: str, messages: list[Message], error: type[Exception]
) -> None:
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        for message in messages[:-1]:
            await send(message)
        try:
            await send(messages[-1])
        except Exception as raised:
            seen.add(type(raised))
            raise
        seen.add(None)

    server = serve(app, loop=loop)
    client = connect(server)
    with contextlib.suppress(EOFError, ConnectionResetError):
        got = client.get()
        if MORE not in messages[:-1] and BODY not in messages[:-1]:
            assert (got.status, got.body) == (500, b"Internal Server Error\n")
    assert issubclass(seen.wait(1)[0], error)


# ---- Failures --------------------------------------------------------------------------------


def test_a_failure_costs_one_request(
    serve: Serve, connect: Connect, loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    errors: Any = {
        "/exit": SystemExit(3),
        "/interrupt": KeyboardInterrupt(),
        "/value": ValueError("no"),
        "/cancelled": asyncio.CancelledError(),
        "/generator": GeneratorExit(),
    }

    async def fails(error: BaseException) -> None:
        raise error

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        if scope["query_string"]:
            await asyncio.sleep(0.001)
        if scope["path"] in errors:
            raise errors[scope["path"]]
        if scope["path"] == "/task":
            task = asyncio.ensure_future(fails(SystemExit(3)))
            await asyncio.wait([task])
            task.result()
        if scope["path"] == "/callback":
            asyncio.get_running_loop().call_soon(sys.exit, 3)
            await asyncio.sleep(0.001)
            return
        if scope["path"] == "/nothing":
            return
        if scope["path"] == "/start":
            await send({"type": "http.response.start", "status": 200})
            return
        await answer(send, b"fine")

    client = connect(serve(app, loop=loop))
    for path in (*errors, "/nothing", "/start", "/task", "/callback"):
        for query in ("", "?later"):
            got = client.get(path + query)
            assert (got.status, got.body) == (500, b"Internal Server Error\n")
            assert client.get("/").body == b"fine"
    assert len([each for each in caplog.records if each.levelname == "ERROR"]) == 22


def test_a_failure_in_a_stream_is_visible(serve: Serve, connect: Connect, loop: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        if scope["path"] == "/fails":
            raise ValueError

    server = serve(app, loop=loop)
    for path in ("/fails", "/left"):
        with pytest.raises((EOFError, ConnectionResetError)):
            connect(server).get(path)


def test_background_work_does_not_hold_the_connection(
    serve: Serve, connect: Connect, loop: str
) -> None:
    go_on, ended = threading.Event(), Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await answer(send, b"quick")
        if scope["path"] == "/work":
            await asyncio.to_thread(go_on.wait)
            ended.add("worked")

    client = connect(serve(app, loop=loop))
    assert client.get("/work").body == b"quick"
    assert client.get("/").body == b"quick"
    go_on.set()
    assert ended.wait(1) == ["worked"]
