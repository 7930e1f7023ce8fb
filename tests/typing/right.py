"""Calls that type checkers must accept. Nothing here is run."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import flask
import starlette.applications
from django.core.asgi import get_asgi_application
from django.core.wsgi import get_wsgi_application

from threadwell import Request, Response, ServerConfig, ThreadedServer, make_server, serve
from threadwell.worker import Hybrid


def wsgi(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    start_response("200 OK", [])
    return [b""]


def sync(request: Request) -> Response:
    return Response(200, [("Content-Type", "text/plain")], request.read())


def partly_sync(request: Request) -> Response | None:
    return sync(request) if request.path == "/" else None


async def asgi(scope: dict[str, Any], receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200})


serve(wsgi)
serve(sync, threads=8, bind="0.0.0.0:8000", workers="auto", limit_body="10M", quiet=True)
serve(asgi, loops=2, loop="uvloop", ws_ping_interval=5, http2=True)
serve(flask.Flask("shop"), bind=["127.0.0.1:8000", "unix:/run/shop.sock"])
serve(starlette.applications.Starlette())
serve(get_wsgi_application())
serve(get_asgi_application(), lifespan="off")
serve("shop.wsgi:application", workers=4, max_age=3600, log_level="warning")
serve(partly_sync, asgi_app=asgi)
serve(Hybrid(partly_sync, asgi))
ThreadedServer(sync, bind=8000, interface="sync").serve_forever()
with make_server("127.0.0.1", 0, wsgi, threads=2) as server:
    port: int = server.server_port
config: ServerConfig = ServerConfig.from_options(limit_body=1024, cert="adhoc")
options: dict[str, Any] = {"threads": 4}
serve(wsgi, **options)
