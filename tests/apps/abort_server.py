"""Serves what clients abort, and says what of that is left: `/state`, in JSON.

`abort_server.py KIND [CERTFILE KEYFILE]`: KIND is asgi, sync, flask or hybrid; with a certificate
HTTP/2. Only flask, and what has a loop, has WebSockets.
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import os
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import flask
import flask_sock

from threadwell import Request, Response, ThreadedServer

BIG = b"x" * 200_000
BLOCK = b"x" * 64_000
EVENTS = ("Content-Type", "text/event-stream")
# A stream that ends: this many blocks of this.
SOME, SOME_BLOCK = 10, b"x" * 1000


class State:
    """The loops that were seen, and what belongs to this process."""

    def __init__(self) -> None:
        self.loops: set[asyncio.AbstractEventLoop] = set()

    def measure(self) -> bytes:
        """Counts of what a connection can leave behind, and the resident size in KiB."""
        gc.collect()
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
        counts = {
            "tasks": sum(len(asyncio.all_tasks(loop)) for loop in self.loops),
            "threads": threading.active_count(),
            "descriptors": len(os.listdir("/proc/self/fd")),
            "files": len(os.listdir(tempfile.gettempdir())),
            "memory": pages * os.sysconf("SC_PAGE_SIZE") // 1024,
        }
        return json.dumps(counts).encode()

    def count_objects(self) -> bytes:
        """How many objects are there, for what is too little to see in the memory."""
        gc.collect()
        return b"%d" % len(gc.get_objects())


STATE = State()


async def _events() -> AsyncIterator[bytes]:
    yield b"data: 1\n\n"
    await asyncio.Event().wait()


def sync_app(request: Request) -> Response | None:
    """Answer on a thread; a path of the loop's is None."""
    path = request.path
    if path == "/state":
        return Response(200, [], STATE.measure())
    if path == "/objects":
        return Response(200, [], STATE.count_objects())
    if path == "/big":
        return Response(200, [], BIG)
    if path == "/stream":
        return Response(200, [], _without_end(BLOCK))
    if path == "/some":
        return Response(200, [], iter([SOME_BLOCK] * SOME))
    if path == "/empty":
        return Response(200, [], _without_end(b""))
    if path == "/events":
        return Response(200, [EVENTS], _events()) if KIND == "hybrid" else _sync_events()
    if path == "/hijack":
        sock = request.hijack()
        sock.sendall(b"hijacked")
        sock.recv(1)
        return Response(200, [], b"")
    if path == "/body":
        return Response(200, [], b"%d" % len(request.read()))
    return None if KIND == "hybrid" else Response(200, [], b"")


def _without_end(block: bytes) -> Iterator[bytes]:
    yield BLOCK
    while True:
        yield block


def _sync_events() -> Response:
    return Response(200, [EVENTS], _without_end(b"data: 1\n\n"))


def _is_of_the_client(record: logging.LogRecord) -> bool:
    return record.exc_info is not None and isinstance(record.exc_info[1], OSError)


def flask_app() -> flask.Flask:
    """The same as a WSGI application, with WebSockets of flask-sock."""
    app = flask.Flask(__name__)
    sockets = flask_sock.Sock(app)
    # flask-sock leaves it to Flask that a client has reset its connection: Flask logs it
    app.logger.addFilter(lambda record: not _is_of_the_client(record))

    @app.route("/<path:name>", methods=["GET", "POST"])
    @app.route("/", methods=["GET", "POST"], defaults={"name": ""})
    def _view(name: str) -> flask.Response:
        bodies = {
            "state": STATE.measure,
            "objects": STATE.count_objects,
            "big": lambda: BIG,
            "some": lambda: iter([SOME_BLOCK] * SOME),
            "stream": lambda: _without_end(BLOCK),
            "events": lambda: _without_end(b"data: 1\n\n"),
            "empty": lambda: _without_end(b""),
            "body": lambda: b"%d" % len(flask.request.get_data()),
        }
        kind = EVENTS[1] if name == "events" else None
        return flask.Response(bodies[name]() if name in bodies else b"", content_type=kind)

    @sockets.route("/<path:name>")
    def _websocket_of_a_thread(websocket: Any, name: str) -> None:
        while name == "flood":
            websocket.send(BLOCK)
        while True:
            data = websocket.receive()
            if name == "echo":
                websocket.send(bytes(data))

    return app


async def asgi_app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer on the loop."""
    STATE.loops.add(asyncio.get_running_loop())
    if scope["type"] == "websocket":
        await _websocket(scope["path"], receive, send)
        return
    assert scope["type"] == "http"
    path = scope["path"]
    body = b""
    message: dict[str, Any]
    if path == "/state":
        body = STATE.measure()
    elif path == "/objects":
        body = STATE.count_objects()
    elif path == "/big":
        body = BIG
    elif path == "/body":
        while (message := await receive())["type"] == "http.request" and message["more_body"]:
            body += message["body"]
        body = b"%d" % len(body + message.get("body", b""))
    await send({"type": "http.response.start", "status": 200})
    for _ in range(SOME if path == "/some" else 0):
        await send({"type": "http.response.body", "body": SOME_BLOCK, "more_body": True})
    if path in ("/stream", "/events", "/wait"):
        await _stream(path, receive, send)
        return
    # in two parts, so that the second waits for the client
    await send({"type": "http.response.body", "body": body, "more_body": True})
    await send({"type": "http.response.body"})


async def _stream(path: str, receive: Any, send: Any) -> None:
    while True:
        await send({"type": "http.response.body", "body": BLOCK, "more_body": True})
        while path != "/stream":
            if (await receive())["type"] == "http.disconnect":
                return


async def _websocket(path: str, receive: Any, send: Any) -> None:
    await receive()
    if path == "/early":
        await receive()
        return
    await send({"type": "websocket.accept"})
    while path == "/flood":
        await send({"type": "websocket.send", "bytes": BLOCK})
    while (message := await receive())["type"] == "websocket.receive":
        if path == "/echo":
            await send({"type": "websocket.send", "bytes": message["bytes"]})


def main() -> None:
    """Serve until standard input ends."""
    options: dict[str, Any] = {"threads": 4, "bind": "127.0.0.1:0", "graceful_timeout": 5}
    if len(sys.argv) > 2:
        options.update(certfile=sys.argv[2], keyfile=sys.argv[3], http2=True)
    if KIND == "hybrid":
        options["asgi_app"] = asgi_app
    apps: dict[str, Any] = {"asgi": asgi_app, "flask": flask_app()}
    with (
        tempfile.TemporaryDirectory() as folder,
        ThreadedServer(apps.get(KIND, sync_app), **options) as server,
    ):
        tempfile.tempdir = folder
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        sys.stdin.read()


KIND = sys.argv[1] if len(sys.argv) > 1 else "asgi"

if __name__ == "__main__":
    main()
