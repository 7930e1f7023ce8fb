"""What the servers serve while a suite asks them. Needs Flask and flask-sock."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any

from flask import Flask
from flask_sock import Sock


def _echo(method: str, path: str, query: str, fields: dict[str, str], body: bytes) -> bytes:
    """What an application has seen, in JSON. All texts are octets as Latin-1."""
    text = body.decode("latin-1")
    seen = {"method": method, "path": path, "query": query, "headers": fields, "body": text}
    return json.dumps(seen).encode()


def wsgi(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """Answer with what was asked."""
    body = environ["wsgi.input"].read()
    fields = {name[5:]: value for name, value in environ.items() if name.startswith("HTTP_")}
    for name in ("CONTENT_TYPE", "CONTENT_LENGTH"):
        if environ.get(name):
            fields[name] = environ[name]
    path, query = environ["PATH_INFO"], environ.get("QUERY_STRING", "")
    answer = _echo(environ["REQUEST_METHOD"], path, query, fields, body)
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer with what was asked; echo each message of a WebSocket."""
    if scope["type"] == "lifespan":
        for phase in ("startup", "shutdown"):
            await receive()
            await send({"type": f"lifespan.{phase}.complete"})
    elif scope["type"] == "websocket":
        await _echo_messages(receive, send)
    else:
        await _answer(scope, receive, send)


async def _answer(scope: dict[str, Any], receive: Any, send: Any) -> None:
    body, more = b"", True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            return
        body += message.get("body", b"")
        more = message.get("more_body", False)
    fields: dict[str, str] = {}
    for octets, value in scope["headers"]:
        name = octets.decode("latin-1")
        if "_" in name:
            continue  # of another name than the one with a hyphen
        name = name.upper().replace("-", "_")
        separator = "; " if name == "COOKIE" else ", "
        before = fields[name] + separator if name in fields else ""
        fields[name] = before + value.decode("latin-1")
    # ASGI decodes the octets of a path as UTF-8
    path = scope["path"].encode("utf-8", "surrogateescape").decode("latin-1")
    query = scope["query_string"].decode("latin-1")
    answer = _echo(scope["method"], path, query, fields, body)
    length = str(len(answer)).encode()
    start = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]}
    await send(start)
    await send({"type": "http.response.body", "body": answer})


async def _echo_messages(receive: Any, send: Any) -> None:
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        if message.get("bytes") is not None:
            await send({"type": "websocket.send", "bytes": message["bytes"]})
        else:
            await send({"type": "websocket.send", "text": message["text"]})


flask_sock = Flask(__name__)


@Sock(flask_sock).route("/")
def _echo_on_a_thread(websocket: Any) -> None:
    while True:
        websocket.send(websocket.receive())
