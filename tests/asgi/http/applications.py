"""ASGI applications that several tests of HTTP use."""

from __future__ import annotations

from typing import Any

from ...helpers.asgi_tools import (
    Message,
    Receive,
    Scope,
    Send,
    answer,
    read_body,
)


def hello(body: bytes = b"hello") -> Any:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await answer(send, body)

    return app


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http"
    await answer(send, await read_body(receive))


START: Message = {"type": "http.response.start", "status": 200}
