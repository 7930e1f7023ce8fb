"""WebSocket applications and clients that several tests use."""

from __future__ import annotations

from typing import Any

from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as connect_websocket

from threadwell import ThreadedServer

from ...helpers.asgi_tools import Message, Receive, Scope, Seen, Send

ACCEPT: Message = {"type": "websocket.accept"}
CLOSE: Message = {"type": "websocket.close"}


def opened(server: ThreadedServer, path: str = "/", **options: Any) -> ClientConnection:
    """A client's WebSocket, to be used with `with`."""
    return connect_websocket(f"ws://127.0.0.1:{server.port}{path}", proxy=None, **options)


class App:
    """Accepts, and gives every message that comes back; notes what it is told at the end."""

    def __init__(self) -> None:
        self.seen = Seen()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        assert await receive() == {"type": "websocket.connect"}
        await send(ACCEPT)
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})
        self.seen.add(message)


START: Message = {"type": "websocket.http.response.start", "status": 400}
