"""Calls that type checkers must refuse: each marked line is one. Nothing here is run."""

from __future__ import annotations

from typing import Any

from threadwell import Request, Response, ServerConfig, ThreadedServer, make_server, serve


def sync(_request: Request) -> Response:
    return Response(200)


def text(_request: Request) -> str:
    return "hello"


async def no_asgi(_scope: Any) -> None: ...


serve(42)  # refused
serve(sync, threads="many")  # refused
serve(sync, thrads=3)  # refused
serve(sync, workers="several")  # refused
serve(sync, loop="gevent")  # refused
serve(sync, interface="rack")  # refused
serve(sync, bind=1.5)  # refused
serve(sync, header={"X-A": "b"})  # refused
serve(text)  # refused
serve(no_asgi)  # refused
serve(sync, asgi_app=sync)  # refused
serve()  # refused
ThreadedServer(sync, bnid="127.0.0.1:8000")  # refused
ThreadedServer(sync, keep_alive="long")  # refused
make_server("127.0.0.1", 0)  # refused
make_server("127.0.0.1", "8000", sync)  # refused
ServerConfig.from_options(poller="select")  # refused
