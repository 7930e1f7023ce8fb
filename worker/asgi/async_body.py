"""A response of a `SyncApp` with an asynchronous body, which is sent on a loop."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterable
from typing import TYPE_CHECKING, Any, cast

from ..errors import InvalidResponseError
from ..http.framing import STATUSES_WITHOUT_BODY
from ..http.mistakes import cause_of
from ..http.response_body import MOST_DISCARDED_BLOCKS
from ..http.response_head import declared_length

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
        try:
            headers = [
                (name.encode("latin-1"), value.encode("latin-1"))
                for name, value in self._response.headers
            ]
        except (AttributeError, TypeError, ValueError) as error:
            raise InvalidResponseError(cause_of(self._response) or str(error)) from None
        status = self._response.code
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if self._request.method == "HEAD" or status in STATUSES_WITHOUT_BODY:
            # the head is that of a stream, although no block of it is sent
            await send({"type": "http.response.body", "body": b"", "more_body": True})
        else:
            await self._send_body(send)
        await send({"type": "http.response.body"})

    async def _send_body(self, send: Any) -> None:
        blocks = aiter(cast("AsyncIterable[bytes]", self._response.body))
        left, discarded = self._declared(), 0
        try:
            async for block in blocks:
                if not left:  # the code behind its last `yield` runs; a body without an end ends
                    discarded += 1
                    if discarded >= MOST_DISCARDED_BLOCKS:
                        break
                elif block:
                    left = max(left - len(block), 0)
                    await send({"type": "http.response.body", "body": block, "more_body": True})
                else:
                    # nothing to wait for: others get a turn, and the task that waits for the client
                    await asyncio.sleep(0)
        finally:
            if hasattr(blocks, "aclose"):
                await blocks.aclose()

    def _declared(self) -> float:
        """The declared length of the body, or infinity. Raises `InvalidResponseError`."""
        declared = -1
        for name, value in self._response.headers:
            if name.lower() == "content-length":
                declared = declared_length(value, declared)
        return declared if declared >= 0 else math.inf

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
