"""Static files in front of an ASGI application.

Opening a file and reading it may wait for the disk, and so may sendfile. On a loop all connections
would wait. So threads of the loop's executor open the file and read it, a block at a time.
"""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..errors import ClientDisconnected
from ..messages import FileBody, Response, cgi_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..messages import ASGIApp
    from ..static.files import StaticFiles

_BLOCK = 256 * 1024
# The request fields that the response depends on.
_FIELDS = {
    name.encode(): cgi_name(name)
    for name in (
        "accept-encoding",
        "if-match",
        "if-modified-since",
        "if-none-match",
        "if-range",
        "if-unmodified-since",
        "range",
    )
}


class ASGIStaticApp:
    """An ASGI application: the files, and `app` for everything else."""

    def __init__(self, app: ASGIApp, files: StaticFiles) -> None:
        self._app = self.threadwell_wrapped = app
        self._files = files

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            path = scope["raw_path"].decode("latin-1")  # without the root path
            if self._files.may_serve(path) and await self._answered(scope, path, send):
                return
        await self._app(scope, receive, send)

    async def _answered(self, scope: Any, path: str, send: Any) -> bool:
        fields: dict[str, str] = {}
        for name, value in scope["headers"]:
            if variable := _FIELDS.get(name):
                before = fields.get(variable)
                text = value.decode("latin-1")
                fields[variable] = text if before is None else f"{before}, {text}"
        answer = await _in_thread(lambda: self._begin(scope["method"], path, fields))
        if answer is None:
            return False
        response, block = answer
        try:
            await _send(response, block, send)
        finally:
            _close(response)
        return True

    def _begin(
        self, method: str, path: str, fields: dict[str, str]
    ) -> tuple[Response, bytes] | None:
        """The response and the first block of its body; None if there is no file. On a thread."""
        response = self._files.respond(method, path, fields)
        if response is None:
            return None
        try:
            return response, _read(response.body)
        except BaseException:
            _close(response)
            raise


async def _in_thread(function: Callable[[], tuple[Response, bytes] | None]) -> Any:
    """Run `function` on a thread; its result. A file of a cancelled call is closed."""
    future = asyncio.get_running_loop().run_in_executor(None, function)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        future.add_done_callback(_forget)
        raise


def _forget(future: asyncio.Future[tuple[Response, bytes] | None]) -> None:
    if not future.cancelled() and future.exception() is None:
        answer = future.result()
        if answer is not None:
            _close(answer[0])


async def _send(response: Response, block: bytes, send: Any) -> None:
    headers = [
        (name.encode("latin-1"), value.encode("latin-1")) for name, value in response.headers
    ]
    await send({"type": "http.response.start", "status": response.code, "headers": headers})
    body = response.body
    while isinstance(body, FileBody) and len(block) < body.count:
        body.offset += len(block)
        body.count -= len(block)
        await send({"type": "http.response.body", "body": block, "more_body": True})
        block = await _next_block(body)
        if not block:
            # the file has become shorter; only a reset tells the client so
            raise ClientDisconnected("the file ended early")
    await send({"type": "http.response.body", "body": block})


async def _next_block(body: FileBody) -> bytes:
    future = asyncio.get_running_loop().run_in_executor(None, _read, replace(body))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        # the thread still reads: a closed descriptor could be reused by another file meanwhile
        fd, body.fd = body.fd, -1
        future.add_done_callback(lambda _: os.close(fd))
        raise


def _read(body: Any) -> bytes:
    """The next block of `body`."""
    if not isinstance(body, FileBody):
        return bytes(body)
    os.lseek(body.fd, body.offset, os.SEEK_SET)
    return os.read(body.fd, min(body.count, _BLOCK))


def _close(response: Response) -> None:
    if isinstance(response.body, FileBody) and response.body.fd >= 0:
        os.close(response.body.fd)
