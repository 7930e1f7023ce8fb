"""What frameworks make of the extensions that are offered, behind middleware that knows none."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from threadwell import ThreadedServer

from ..helpers.asgi_tools import Message, Receive, Scope, Send
from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

TEXT = b"some text " * 1000
GZIP = "Accept-Encoding: gzip\r\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_bytes(TEXT)
    return tmp_path


def site(folder: Path) -> Any:
    """Every kind of response that Starlette has."""
    from starlette.applications import Starlette
    from starlette.background import BackgroundTask
    from starlette.requests import Request
    from starlette.responses import (
        FileResponse,
        PlainTextResponse,
        RedirectResponse,
        Response,
        StreamingResponse,
    )
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    def file(request: Request) -> Response:
        return FileResponse(folder / "a.txt", background=BackgroundTask(bool))

    def text(request: Request) -> Response:
        return PlainTextResponse(TEXT)

    def stream(request: Request) -> Response:
        return StreamingResponse(iter([TEXT[:10], TEXT[10:]]), media_type="text/plain")

    def redirect(request: Request) -> Response:
        return RedirectResponse("/text")

    def fails(request: Request) -> Response:
        raise LookupError("on purpose")

    views = (file, text, stream, redirect, fails)
    return Starlette(
        routes=[
            *(Route(f"/{view.__name__}", view) for view in views),
            Mount("/static", StaticFiles(directory=folder)),
        ]
    )


class OnlyTheCore:
    """Holds back the start of a response until its body comes, and knows no other message, as
    brotli-asgi, zstd-asgi and Gradio's middleware do."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        start: Message = {}

        async def look(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
                return
            assert message["type"] == "http.response.body"
            if start:
                await send(start.copy())
                start.clear()
            await send(message)

        await self._app(scope, receive, look)


PATHS = ["/file", "/text", "/stream", "/static/a.txt"]


@pytest.mark.parametrize("path", PATHS)
def test_the_core_of_asgi_is_enough(
    serve: Serve, connect: Connect, folder: Path, path: str
) -> None:
    client = connect(serve(OnlyTheCore(site(folder))))
    answer = client.get(path)
    assert (answer.status, answer.body) == (200, TEXT)
    ranged = client.get(path, headers="Range: bytes=5-8\r\n")
    assert ranged.body in (TEXT, TEXT[5:9])


@pytest.mark.parametrize(
    ("path", "status"),
    [("/redirect", 307), ("/nothing", 404), ("/static/no", 404), ("/fails", 500)],
)
def test_other_responses(
    serve: Serve, connect: Connect, folder: Path, path: str, status: int
) -> None:
    assert connect(serve(OnlyTheCore(site(folder)))).get(path).status == status


@pytest.mark.parametrize("path", PATHS)
def test_everything_is_compressed(serve: Serve, connect: Connect, folder: Path, path: str) -> None:
    from starlette.middleware.gzip import GZipMiddleware

    app = GZipMiddleware(site(folder))
    answer = connect(serve(app)).get(path, headers=GZIP)
    assert answer.header("content-encoding") == "gzip"
    assert gzip.decompress(answer.body) == TEXT


def test_files_by_path_pass_by_middleware(serve: Serve, connect: Connect, folder: Path) -> None:
    """What the documentation says of `asgi_pathsend`."""
    from starlette.middleware.gzip import GZipMiddleware

    app = GZipMiddleware(site(folder))
    answer = connect(serve(app, asgi_pathsend=True)).get("/file", headers=GZIP)
    assert answer.header("content-encoding") is None
    assert answer.body == TEXT
    app = OnlyTheCore(site(folder))
    assert connect(serve(app, asgi_pathsend=True)).get("/file").status == 500
