"""Applications beside static files."""

from __future__ import annotations

from typing import Any

from threadwell import Request, Response

from ..helpers.asgi_tools import answer
from ..helpers.wire_client import Answer, Client

CSS = b"body { color: black }\n" * 40


def app(request: Request) -> Response:
    return Response(200, [("Content-Type", "text/plain")], b"the application")


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await answer(send, b"the application")


def head_of(client: Client, target: str, headers: str = "") -> Answer:
    client.send(f"HEAD {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
    return client.answer("HEAD")
