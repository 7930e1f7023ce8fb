"""Files of Starlette, Litestar and Quart, behind the middleware that compresses them."""

from pathlib import Path
from typing import Any

FILES = Path("files")


def of_starlette() -> Any:
    from starlette.applications import Starlette
    from starlette.responses import FileResponse
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    def file(request: object) -> FileResponse:
        return FileResponse(FILES / "text.txt")

    routes = [Route("/file", file), Mount("/static", StaticFiles(directory=FILES))]
    return Starlette(routes=routes)


def of_litestar() -> Any:
    from litestar import Litestar, get
    from litestar.response import File
    from litestar.static_files import create_static_files_router

    @get("/file", sync_to_thread=False)
    def file() -> File:
        return File(FILES / "text.txt", content_disposition_type="inline")

    static = create_static_files_router(path="/static", directories=[FILES])
    return Litestar([file, static])


def of_quart() -> Any:
    from quart import Quart, Response, send_file

    app = Quart(__name__, static_folder=str(FILES.resolve()), static_url_path="/static")

    @app.get("/file")
    async def file() -> Response:
        return await send_file(FILES / "text.txt", conditional=True)

    return app


def behind(app: Any, middleware: str) -> Any:
    if middleware == "gzip":
        from starlette.middleware.gzip import GZipMiddleware

        return GZipMiddleware(app)
    if middleware == "brotli":
        from brotli_asgi import BrotliMiddleware

        return BrotliMiddleware(app)
    if middleware == "zstd":
        from zstd_asgi import ZstdMiddleware

        return ZstdMiddleware(app)
    return app


APPS = {
    f"/{framework}/{middleware}": behind(make(), middleware)
    for framework, make in (
        ("starlette", of_starlette),
        ("litestar", of_litestar),
        ("quart", of_quart),
    )
    for middleware in ("none", "gzip", "brotli", "zstd")
}


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Each of them below a path of its own; lifespan is for none of them."""
    if scope["type"] == "lifespan":
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    prefix = "/".join(scope["path"].split("/")[:3])
    path = scope["path"].removeprefix(prefix)
    await APPS[prefix]({**scope, "path": path, "raw_path": path.encode()}, receive, send)
