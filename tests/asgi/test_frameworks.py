"""Starlette, Django and Channels, as their own documentation uses them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect as connect_websocket

from threadwell import ThreadedServer

from ..helpers.asgi_tools import LOOPS, Seen
from ..helpers.process import script
from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

pytestmark = pytest.mark.parametrize("loop", LOOPS)


def url(server: ThreadedServer, path: str) -> str:
    return f"http://127.0.0.1:{server.port}{path}"


def websocket(server: ThreadedServer, path: str) -> Any:
    return connect_websocket(f"ws://127.0.0.1:{server.port}{path}", proxy=None)


# ---- Starlette -------------------------------------------------------------------------------


def starlette_app(seen: Seen, folder: Path) -> Any:  # noqa: C901
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.middleware.gzip import GZipMiddleware
    from starlette.requests import Request
    from starlette.responses import (
        FileResponse,
        JSONResponse,
        PlainTextResponse,
        StreamingResponse,
    )
    from starlette.routing import Mount, Route, WebSocketRoute
    from starlette.staticfiles import StaticFiles
    from starlette.websockets import WebSocket, WebSocketDisconnect

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, Any]]:
        seen.add("startup")
        yield {"greeting": "hello"}
        seen.add("shutdown")

    async def index(request: Request) -> JSONResponse:
        return JSONResponse({"greeting": request.state.greeting, "url": str(request.url)})

    async def upload(request: Request) -> PlainTextResponse:
        size = 0
        async for block in request.stream():
            size += len(block)
        return PlainTextResponse(str(size))

    async def numbers(minimum: int) -> AsyncIterator[str]:
        for number in range(minimum, minimum + 5):
            yield f"{number} "
            await asyncio.sleep(0.001)

    async def stream(request: Request) -> StreamingResponse:
        return StreamingResponse(numbers(10), media_type="text/plain")

    async def forever(request: Request) -> StreamingResponse:
        async def ticks() -> AsyncIterator[str]:
            try:
                yield "data: begun\n\n"
                await asyncio.sleep(1000)
            finally:
                seen.add("stream over")

        return StreamingResponse(ticks(), media_type="text/event-stream")

    async def background(request: Request) -> PlainTextResponse:
        async def work() -> None:
            await asyncio.sleep(0.01)
            seen.add("worked")

        return PlainTextResponse("soon", background=BackgroundTask(work))

    def in_a_thread(request: Request) -> PlainTextResponse:
        return PlainTextResponse(threading.current_thread().name)

    async def fails(request: Request) -> PlainTextResponse:
        raise ValueError("on purpose")

    async def file(request: Request) -> FileResponse:
        return FileResponse(folder / "file.bin")

    async def talk(ws: WebSocket) -> None:
        await ws.accept()
        try:
            while True:
                await ws.send_json({"you said": await ws.receive_text(), **ws.state._state})
        except WebSocketDisconnect as error:
            seen.add(error.code)

    class Passes(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Any:
            response = await call_next(request)
            response.headers["x-passed"] = "yes"
            return response

    return Starlette(
        lifespan=lifespan,
        middleware=[Middleware(Passes), Middleware(GZipMiddleware, minimum_size=10_000)],
        routes=[
            Route("/", index),
            Route("/upload", upload, methods=["POST"]),
            Route("/stream", stream),
            Route("/forever", forever),
            Route("/background", background),
            Route("/thread", in_a_thread),
            Route("/fails", fails),
            Route("/file", file),
            WebSocketRoute("/ws", talk),
            Mount("/static", StaticFiles(directory=folder)),
        ],
    )


def test_starlette(serve: Serve, connect: Connect, loop: str, tmp_path: Path) -> None:
    data = bytes(range(256)) * 4000
    (tmp_path / "file.bin").write_bytes(data)
    seen = Seen()
    server = serve(starlette_app(seen, tmp_path), loop=loop, loops=1)  # one lifespan
    with httpx.Client(base_url=url(server, "")) as client:
        assert client.get("/").json() == {"greeting": "hello", "url": url(server, "/")}
        assert client.get("/").headers["x-passed"] == "yes"
        assert client.post("/upload", content=data).text == str(len(data))
        assert client.post("/upload", content=iter([b"a", b"b"])).text == "2"
        assert client.get("/stream").text == "10 11 12 13 14 "
        assert client.get("/background").text == "soon"
        assert "worker" in client.get("/thread").text.lower()
        assert client.get("/file").content == data
        assert client.get("/static/file.bin", headers={"Range": "bytes=5-9"}).content == data[5:10]
        assert client.get("/fails").status_code == 500
        assert client.get("/nothing").status_code == 404
        assert client.head("/").status_code == 405 or client.head("/").text == ""
    assert seen.wait(2) == ["startup", "worked"]
    with websocket(server, "/ws") as ws:
        ws.send("hi")
        assert json.loads(ws.recv()) == {"you said": "hi", "greeting": "hello"}
    assert seen.wait(3) == ["startup", "worked", 1000]
    leaving = connect(server)
    leaving.send(b"GET /forever HTTP/1.1\r\nHost: x\r\n\r\n")
    while b"begun" not in leaving._buffer:
        leaving._receive()
    leaving.close()
    assert seen.wait(4)[3] == "stream over"
    staying = connect(server)
    staying.send(b"GET /forever HTTP/1.1\r\nHost: x\r\n\r\n")
    while b"begun" not in staying._buffer:
        staying._receive()
    server.stop()
    assert staying.answer().complete
    assert seen.values[4:] == ["stream over", "shutdown"]


# ---- Django and Channels ---------------------------------------------------------------------


def test_django_and_channels(loop: str) -> None:
    """In a process of its own, for Django's settings: see `apps/channels_site.py`."""
    with script("channels_site.py", "asgi", loop) as site:
        talk(site.port)
        with httpx.Client(base_url=site.url) as client:
            assert client.get("/async").text == "async True"
            assert client.get("/sync").text == "sync"
            assert client.get("/stream").text == "0 1 2 3 4 "
        assert site.finish() == ""


def test_django_and_channels_in_hybrid_mode(loop: str) -> None:
    with script("channels_site.py", "hybrid", loop) as site:
        talk(site.port)
        with httpx.Client(base_url=site.url) as client:
            assert client.get("/sync").text == "sync"
            assert client.post("/sync", content=b"x").text == "sync"
        assert site.finish() == ""


def talk(port: int) -> None:
    """Two tabs in the room of Channels' tutorial, and a third in another room."""
    base = f"ws://127.0.0.1:{port}/ws/chat"
    with contextlib.ExitStack() as stack:
        first, second, other = (
            stack.enter_context(connect_websocket(f"{base}/{room}/", proxy=None))
            for room in ("lobby", "lobby", "else")
        )
        first.send(json.dumps({"message": "hello"}))
        assert json.loads(first.recv(10)) == json.loads(second.recv(10)) == {"message": "hello"}
        second.send(json.dumps({"message": "hello yourself"}))
        assert json.loads(first.recv(10)) == {"message": "hello yourself"}
        other.send(json.dumps({"message": "alone"}))
        assert json.loads(other.recv(10)) == {"message": "alone"}
