"""A sync application with an ASGI application beside it."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import pytest

from threadwell import Request, Response

from ...helpers.asgi_tools import LOOPS, Receive, Scope, Seen, Send, answer, read_body

each_loop = pytest.mark.parametrize("loop", LOOPS)


class Both:
    """The two applications, and where each request was run."""

    def __init__(self) -> None:
        self.sync_calls: Counter[str] = Counter()
        self.asgi_calls: Counter[str] = Counter()
        self.threads: set[str] = set()
        self.seen = Seen()

    def sync(self, request: Request) -> Response | None:
        self.sync_calls[request.path] += 1
        self.threads.add(threading.current_thread().name)
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        if request.path.startswith("/async"):
            return None
        return Response(200, [], b"sync " + request.read())

    async def asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["pool"] = "pool"
            self.seen.add("startup")
            await send({"type": "lifespan.startup.complete"})
            await receive()
            self.seen.add("shutdown")
            await send({"type": "lifespan.shutdown.complete"})
            return
        self.asgi_calls[scope["path"]] += 1
        assert scope["state"]["pool"] == "pool"
        asyncio.get_running_loop()
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            while (message := await receive())["type"] == "websocket.receive":
                await send({**message, "type": "websocket.send"})
            self.seen.add(message["code"])
            return
        body = await read_body(receive)
        if scope["path"] == "/async/stream":
            await send({"type": "http.response.start", "status": 200})
            for part in (b"asy", b"nc ", body):
                await send({"type": "http.response.body", "body": part, "more_body": True})
                await asyncio.sleep(0.001)
            await send({"type": "http.response.body"})
        elif scope["path"] == "/async/fails":
            raise ValueError
        else:
            await answer(send, b"async " + body)


def post(path: str, body: bytes, *, more: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\n{more}Content-Length: {len(body)}\r\n\r\n"
    return head.encode() + body
