"""What Starlette, FastAPI and Django document: threadwell and uvicorn give the same results.

Each application is talked to through both servers, and all that a client can see is compared.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, Self

import httpx
import pytest
import uvicorn
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect as connect_websocket

from threadwell import ThreadedServer

from ..helpers.process import script

# What differs from server to server: how a body is framed too, which is whole either way.
_OWN = {"date", "server", "connection", "content-length", "transfer-encoding"}

# What asks for a file: one that the server sends by its path passes Starlette's compression by.
# uvicorn cannot do that, so it is compared as it is, and without the word that it might be other.
_PLAIN = {"Accept-Encoding": "identity"}

Told = list[Any]


@contextlib.contextmanager
def on_uvicorn(app: Any) -> Iterator[int]:
    sock = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, ws="websockets-sansio", log_level="critical", lifespan="on")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
    thread.start()
    try:
        deadline = time.monotonic() + 10
        while not server.started:
            assert time.monotonic() < deadline
            assert thread.is_alive()
            time.sleep(0.005)
        yield sock.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        sock.close()


@contextlib.contextmanager
def on_threadwell(app: Any) -> Iterator[int]:
    with ThreadedServer(app, bind="127.0.0.1:0", loops=1, lifespan="on") as server:
        yield server.port


class Visitor:
    """A client that writes down what it sees, without what is each server's own."""

    def __init__(self, port: int) -> None:
        self._host = f"127.0.0.1:{port}"
        self._http = httpx.Client(base_url=f"http://{self._host}", timeout=10)
        self.told: Told = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def tell(self, what: Any) -> None:
        """Write `what` down."""
        text = json.dumps(what, sort_keys=True, default=repr)
        self.told.append(text.replace(self._host, "HOST"))

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """One request, with its answer written down."""
        answer = self._http.request(method, path, **more)
        own = {*_OWN, "vary"} if more.get("headers") == _PLAIN else _OWN
        headers = sorted(pair for pair in answer.headers.multi_items() if pair[0] not in own)
        body = answer.text if len(answer.content) < 5000 else sha256(answer.content).hexdigest()
        self.tell([method, path, answer.status_code, answer.reason_phrase, headers, body])
        return answer

    def get(self, path: str, **more: Any) -> httpx.Response:
        return self.ask("GET", path, **more)

    def lines(self, path: str, count: int) -> None:
        """The first lines of a stream that is then left."""
        with self._http.stream("GET", path) as answer:
            lines = answer.iter_lines()
            self.tell([path, answer.status_code, [next(lines) for _ in range(count)]])

    @contextlib.contextmanager
    def websocket(self, path: str, **more: Any) -> Iterator[Any]:
        """A WebSocket; how it was opened and closed is written down."""
        with connect_websocket(f"ws://{self._host}{path}", proxy=None, **more) as ws:
            self.tell([path, ws.subprotocol])
            try:
                yield ws
            except ConnectionClosed as closed:
                self.tell([path, closed.rcvd and (closed.rcvd.code, closed.rcvd.reason)])

    def denied(self, path: str) -> None:
        """A WebSocket that is not to be had."""
        with pytest.raises(InvalidStatus) as error:
            connect_websocket(f"ws://{self._host}{path}", proxy=None)
        answer = error.value.response
        kind = answer.headers.get("content-type")  # of a body of its own each server says another
        self.tell([path, answer.status_code, kind == "application/json"])


def compare(make: Callable[[Told], Any], visit: Callable[[Visitor], None]) -> Told:
    """Visit the application that `make` makes, on both; what was told by it and by the visitor."""
    results: list[tuple[Told, Told]] = []
    for served in (on_uvicorn, on_threadwell):
        said: Told = []
        with served(make(said)) as port, Visitor(port) as visitor:
            visit(visitor)
            time.sleep(0.05)  # for what the application does when a client has left
        results.append((visitor.told, said))
    (expected, expected_said), (got, got_said) = results
    assert got == expected
    # in any order: what follows an answer runs beside the next request
    assert sorted(map(str, got_said)) == sorted(map(str, expected_said))
    return got


# ---- Starlette -------------------------------------------------------------------------------


def starlette_app(said: Told, folder: Path) -> Any:  # noqa: C901
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask, BackgroundTasks
    from starlette.endpoints import HTTPEndpoint, WebSocketEndpoint
    from starlette.exceptions import HTTPException
    from starlette.middleware import Middleware
    from starlette.middleware.base import BaseHTTPMiddleware
    from starlette.middleware.cors import CORSMiddleware
    from starlette.middleware.gzip import GZipMiddleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import ClientDisconnect, Request
    from starlette.responses import (
        FileResponse,
        HTMLResponse,
        JSONResponse,
        PlainTextResponse,
        RedirectResponse,
        Response,
        StreamingResponse,
    )
    from starlette.routing import Host, Mount, Route, Router, WebSocketRoute
    from starlette.staticfiles import StaticFiles
    from starlette.websockets import WebSocket, WebSocketDisconnect

    @contextlib.asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, Any]]:
        said.append("startup")
        yield {"pool": ["one"], "count": 1}
        said.append("shutdown")

    async def about(request: Request) -> Response:
        request.state.pool.append("more")  # one list for all; the state itself is a copy
        request.state.count += 1
        return JSONResponse(
            {
                "method": request.method,
                "url": str(request.url),
                "headers": sorted(request.headers.keys()),
                "query": dict(request.query_params),
                "cookies": request.cookies,
                "state": [request.state.pool[0], request.state.count],
                "http": request.scope["http_version"],
                "path": [request.scope["path"], request.scope["raw_path"].decode()],
                "root": request.scope.get("root_path"),
            }
        )

    async def body(request: Request) -> Response:
        parts = [len(part) async for part in request.stream()]
        return PlainTextResponse(str(sum(parts)))

    async def echo(request: Request) -> Response:
        return JSONResponse(await request.json())

    async def slow_numbers(minimum: int, maximum: int) -> AsyncIterator[str]:
        yield "<ul>"
        for number in range(minimum, maximum + 1):
            yield f"<li>{number}</li>"
            await asyncio.sleep(0.001)
        yield "</ul>"

    async def streams(request: Request) -> Response:
        return StreamingResponse(slow_numbers(1, 10), media_type="text/html")

    def in_a_thread(request: Request) -> Response:
        return StreamingResponse(iter([b"one ", b"two"]), status_code=201)

    async def events(request: Request) -> Response:
        async def ticks() -> AsyncIterator[str]:
            try:
                for number in range(1000):
                    yield f"data: {number}\n\n"
                    await asyncio.sleep(0.005)
            finally:
                said.append("left")

        return StreamingResponse(ticks(), media_type="text/event-stream")

    async def cookies(request: Request) -> Response:
        response = HTMLResponse("<p>set</p>")
        response.set_cookie("a", "b", httponly=True)
        response.set_cookie("c", "d", path="/x")
        return response

    async def background(request: Request) -> Response:
        tasks = BackgroundTasks()

        async def note(text: str) -> None:
            await asyncio.sleep(0.001)
            said.append(text)

        def in_thread(text: str) -> None:
            said.append(text)

        tasks.add_task(note, "first")
        tasks.add_task(in_thread, "second")
        return JSONResponse({"queued": 2}, background=tasks)

    async def breaks_behind(request: Request) -> Response:
        def breaks() -> None:
            said.append("breaks")
            raise ValueError("behind the answer")

        return PlainTextResponse("fine", background=BackgroundTask(breaks))

    async def leaves(request: Request) -> Response:
        try:
            await request.body()
        except ClientDisconnect:
            said.append("client left")
        return Response(status_code=204)

    async def fails(request: Request) -> Response:
        raise HTTPException(418, "teapot", headers={"X-Tea": "green"})

    async def breaks(request: Request) -> Response:
        raise ValueError("on purpose")

    async def not_found(request: Request, error: Exception) -> Response:
        return HTMLResponse("<h1>Not here</h1>", status_code=404)

    class Echo(WebSocketEndpoint):
        encoding = "json"

        async def on_connect(self, websocket: WebSocket) -> None:
            await websocket.accept(subprotocol="two", headers=[(b"x-from", b"endpoint")])

        async def on_receive(self, websocket: WebSocket, data: Any) -> None:
            await websocket.send_json({"got": data, "state": websocket.state.pool[0]})

        async def on_disconnect(self, websocket: WebSocket, close_code: int) -> None:
            said.append(["disconnect", close_code])

    class Methods(HTTPEndpoint):
        async def get(self, request: Request) -> Response:
            return PlainTextResponse(f"hello {request.path_params['name']}")

    async def talk(ws: WebSocket) -> None:
        await ws.accept()
        try:
            async for text in ws.iter_text():
                await (ws.close(4001, "enough") if text == "close" else ws.send_text(text.upper()))
        except (WebSocketDisconnect, RuntimeError) as error:
            said.append(type(error).__name__)

    async def binary(ws: WebSocket) -> None:
        await ws.accept()
        await ws.send_bytes((await ws.receive_bytes())[::-1])
        await ws.close()

    async def refuses(ws: WebSocket) -> None:
        await ws.close(1008)

    async def denies(ws: WebSocket) -> None:
        await ws.send_denial_response(JSONResponse({"why": "not you"}, status_code=401))

    class Timed(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Any:
            response = await call_next(request)
            response.headers["X-Timed"] = "yes"
            return response

    class Pure:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            async def noted(message: Any) -> None:
                if message["type"] == "http.response.start":
                    message.setdefault("headers", []).append((b"x-pure", b"yes"))
                await send(message)

            await self.app(scope, receive, noted)

    routes = [
        Route("/about/{rest:path}", about, methods=["GET", "PUT"]),
        Route("/body", body, methods=["POST"]),
        Route("/echo", echo, methods=["POST"]),
        Route("/stream", streams),
        Route("/thread", in_a_thread),
        Route("/events", events),
        Route("/cookies", cookies),
        Route("/background", background),
        Route("/breaks-behind", breaks_behind),
        Route("/leaves", leaves, methods=["POST"]),
        Route("/redirect", lambda _: RedirectResponse("/cookies")),
        Route("/file", lambda _: FileResponse(folder / "data.bin", filename="é.bin")),
        Route("/fails", fails),
        Route("/breaks", breaks),
        Route("/hello/{name}", Methods),
        WebSocketRoute("/echo", Echo),
        WebSocketRoute("/talk", talk),
        WebSocketRoute("/binary", binary),
        WebSocketRoute("/refuses", refuses),
        WebSocketRoute("/denies", denies),
        Mount("/static", StaticFiles(directory=folder, html=True)),
        Mount("/sub", Router([Route("/about/{rest:path}", about)])),
        Host("other.example", Router([Route("/", lambda _: PlainTextResponse("other"))])),
    ]
    middleware = [
        Middleware(TrustedHostMiddleware, allowed_hosts=["127.0.0.1", "*.example"]),
        Middleware(CORSMiddleware, allow_origins=["https://a.example"], allow_methods=["PUT"]),
        Middleware(GZipMiddleware, minimum_size=1000),
        Middleware(Timed),
        Middleware(Pure),
    ]
    return Starlette(
        lifespan=lifespan,
        routes=routes,
        middleware=middleware,
        exception_handlers={404: not_found},
    )


def visit_starlette(visitor: Visitor) -> None:
    visitor.get("/about/a%20b/%C3%A9?q=1&q=2&r=%20x", headers={"Cookie": "one=1; two=2"})
    visitor.ask("PUT", "/about/x", content=b"")
    visitor.ask("DELETE", "/about/x")
    visitor.get("/sub/about/y")
    visitor.ask("HEAD", "/about/x")
    visitor.ask("POST", "/body", content=b"x" * 500_000)
    visitor.ask("POST", "/body", content=iter([b"a" * 70_000, b"b"]))
    visitor.ask("POST", "/echo", json={"a": [1, None, "é"]})
    for path in ("/stream", "/thread", "/cookies", "/redirect", "/nothing"):
        visitor.get(path)
    visitor.ask("HEAD", "/stream")
    visitor.get("/stream", headers={"Accept-Encoding": "identity"})
    visitor.lines("/events", 5)
    visitor.get("/background")
    # uvicorn closes behind what was raised there, perhaps before the next request
    for path in ("/fails", "/breaks", "/breaks-behind"):
        visitor.get(path, headers={"Connection": "close"})
    visitor.get("/hello/you")
    visitor.get("/cookies", headers={"Host": "evil.invalid"})
    visitor.get("/", headers={"Host": "other.example"})
    preflight = {"Origin": "https://a.example", "Access-Control-Request-Method": "PUT"}
    visitor.ask("OPTIONS", "/about/x", headers=preflight)
    visitor.get("/about/x", headers={"Origin": "https://a.example"})
    file = visitor.get("/file", headers=_PLAIN)
    visitor.ask("HEAD", "/file", headers=_PLAIN)
    for wanted in ("bytes=0-9", "bytes=-5", "bytes=999999-"):
        visitor.get("/file", headers={"Range": wanted, "If-Range": file.headers["etag"]})
    for path in ("/static/page.html", "/static/", "/static", "/static/no", "/static/../x"):
        visitor.get(path, headers=_PLAIN)
    etag = visitor.get("/static/data.bin", headers=_PLAIN).headers["etag"]
    visitor.get("/static/data.bin", headers={"If-None-Match": etag})
    with visitor.websocket("/echo", subprotocols=["one", "two"]) as ws:
        visitor.tell(ws.response.headers["x-from"])
        ws.send('{"a": 1}')
        visitor.tell(ws.recv())
        ws.close(4321, "done")
    with visitor.websocket("/echo", subprotocols=["two"]) as ws:
        ws.send("this is no JSON")
        ws.recv()
    with visitor.websocket("/talk") as ws:
        for text in ("one", "é" * 40_000, ""):
            ws.send(text)
            visitor.tell(ws.recv())
        ws.send("close")
        ws.recv()
    with visitor.websocket("/binary") as ws:
        ws.send(bytes(range(256)) * 300)
        visitor.tell(ws.recv().hex())
        ws.recv()
    for path in ("/refuses", "/denies", "/no-such-socket"):
        visitor.denied(path)


def test_starlette(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<p>page</p>")
    (tmp_path / "index.html").write_text("<p>index</p>")
    (tmp_path / "data.bin").write_bytes(bytes(range(256)) * 2000)
    told = compare(lambda said: starlette_app(said, tmp_path), visit_starlette)
    assert len(told) > 50


# ---- FastAPI ---------------------------------------------------------------------------------


def visit_fastapi(visitor: Visitor) -> None:
    for path in ("/double/21", "/double/x", "/double/1?limit=0", "/sync/a", "/sync/missing"):
        visitor.get(path)
    visitor.get("/sync/refused")
    visitor.ask("POST", "/items", json={"name": "a", "price": 1.5, "tags": ["x", "x"]})
    visitor.ask("POST", "/items", json={"name": "a"})
    visitor.ask("POST", "/items", content=b"{")
    visitor.get("/video")
    visitor.get("/sub/where")
    visitor.get("/openapi.json")
    visitor.get("/docs")
    with visitor.websocket("/chat/1") as first, visitor.websocket("/chat/2") as second:
        first.send("hello")
        visitor.tell([first.recv(), second.recv()])
        first.close()
        visitor.tell(second.recv())
    with visitor.websocket("/items/a?token=t") as ws:
        visitor.tell(ws.recv())
        ws.recv()
    with visitor.websocket("/items/a", additional_headers={"Cookie": "session=s"}) as ws:
        visitor.tell(ws.recv())
    visitor.denied("/items/a")


def test_fastapi() -> None:
    pytest.importorskip("fastapi")
    from ..apps.fastapi_app import fastapi_app

    assert len(compare(fastapi_app, visit_fastapi)) > 20


# ---- Django ----------------------------------------------------------------------------------


def visit_django(visitor: Visitor) -> None:
    for path in ("/sync", "/async", "/stream", "/sync-stream", "/plain-stream", "/late", "/file"):
        visitor.get(path)
    visitor.get("/nothing")
    visitor.ask("HEAD", "/file")
    visitor.ask("POST", "/sync", content=b"x" * 100_000)
    with visitor.websocket("/ws/chat/one/") as first, visitor.websocket("/ws/chat/one/") as second:
        first.send('{"message": "hello"}')
        visitor.tell([first.recv(), second.recv()])
        second.close(4000)


@pytest.mark.parametrize("mode", ["asgi", "hybrid"])
def test_django_and_channels(mode: str) -> None:
    """Django's settings are a process's: so each server is in one of its own."""
    told = []
    for server in ("uvicorn", mode):
        with script("channels_site.py", server, "asyncio") as site:
            with Visitor(site.port) as visitor:
                visit_django(visitor)
            site.finish()
        told.append(visitor.told)
    assert told[0] == told[1]
