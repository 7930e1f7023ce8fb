"""A response of a `SyncApp` with an asynchronous body, which is sent on a loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from ..messages import Request, Response


class Streamed:
    """An `ASGIApp` that sends a response whose body is an asynchronous iterable.

    The body is iterated until it ends or the client leaves, and closed in both cases.
    """

    def __init__(self, request: Request, response: Response) -> None:
        self._request = request
        self._response = response

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:  # noqa: ARG002
        """See the ASGI specification. `scope` is not used."""
        sending = asyncio.ensure_future(self._send(send))
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait({sending, leaving}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in (sending, leaving):
                each.cancel()
            await asyncio.gather(sending, leaving, return_exceptions=True)
            await self._close()
        if not sending.cancelled():
            sending.result()

    async def _send(self, send: Any) -> None:
        headers = [
            (name.encode("latin-1"), value.encode("latin-1"))
            for name, value in self._response.headers
        ]
        status = self._response.code
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if self._request.method == "HEAD" or status in (204, 304):
            # the head is that of a stream, although no block of it is sent
            await send({"type": "http.response.body", "body": b"", "more_body": True})
        else:
            await self._send_body(send)
        await send({"type": "http.response.body"})

    async def _send_body(self, send: Any) -> None:
        blocks = aiter(cast("AsyncIterable[bytes]", self._response.body))
        try:
            async for block in blocks:
                if block:
                    await send({"type": "http.response.body", "body": block, "more_body": True})
                else:
                    # nothing to wait for: others get a turn, and the task that waits for the client
                    await asyncio.sleep(0)
        finally:
            if hasattr(blocks, "aclose"):
                await blocks.aclose()

    async def _close(self) -> None:
        """Call the application's `close` on a thread, for it may block."""
        close = self._response.close or getattr(self._response.body, "close", None)
        loop = asyncio.get_running_loop()
        try:
            if close is not None:
                await loop.run_in_executor(None, close)
        finally:
            if not isinstance(self._request.body, bytes):
                self._request.body.close()


async def _left(receive: Any) -> None:
    """Return when the client has left, or the server stops."""
    while (await receive())["type"] != "http.disconnect":
        pass
