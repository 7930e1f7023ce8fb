"""What the tests of the asyncio side share."""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Awaitable, Callable
from typing import Any

Message = dict[str, Any]
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

#: The loops that are here to be tested.
LOOPS = ["asyncio", "uvloop"] if importlib.util.find_spec("uvloop") else ["asyncio"]

#: The header lines of a WebSocket handshake.
UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)

TEXT = (b"content-type", b"text/plain")


async def answer(send: Send, body: bytes = b"", status: int = 200, *headers: Any) -> None:
    """A whole answer."""
    await send({"type": "http.response.start", "status": status, "headers": [TEXT, *headers]})
    await send({"type": "http.response.body", "body": body})


async def read_body(receive: Receive) -> bytes:
    """The whole body of a request; fails if the client leaves within it."""
    blocks = []
    while True:
        message = await receive()
        assert message["type"] == "http.request"
        blocks.append(message["body"])
        if not message["more_body"]:
            return b"".join(blocks)


async def no_lifespan(scope: Scope) -> None:
    """Say so, as an application does that was written without one."""
    assert scope["type"] != "lifespan"


class Seen:
    """What an application saw, for the test's own thread to wait for."""

    def __init__(self) -> None:
        self.values: list[Any] = []
        self._changed = threading.Condition()

    def add(self, value: Any) -> None:
        with self._changed:
            self.values.append(value)
            self._changed.notify_all()

    def wait(self, count: int = 1, seconds: float = 10) -> list[Any]:
        """The first `count` values, once they are there."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.values) >= count, seconds), self.values
            return self.values[:count]
