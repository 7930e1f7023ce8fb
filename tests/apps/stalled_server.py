"""Serves responses of 2 MB over HTTP/2, and on `/memory` the resident size of the process in KiB.

`stalled_server.py KIND CERTFILE KEYFILE`: KIND is loop, threads or streams.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from threadwell import Request, Response, ThreadedServer

SIZE = 2_000_000
MIB = 1024 * 1024


def memory() -> bytes:
    """The resident size in KiB."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return b"%d" % (pages * os.sysconf("SC_PAGE_SIZE") // 1024)


async def on_loop(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer once every request that came at the same time is being answered."""
    assert scope["type"] == "http"
    await asyncio.sleep(0)
    body = memory() if scope["path"] == "/memory" else b"x" * SIZE
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": body})


def on_threads(request: Request) -> Response:
    """Answer on a thread."""
    return Response(200, [], memory() if request.path == "/memory" else b"x" * SIZE)


def as_stream(request: Request) -> Response:
    """Answer on a thread that is lent."""
    if request.path == "/memory":
        return on_threads(request)
    return Response(200, [], _block())


def _block() -> Iterator[bytes]:
    yield b"x" * SIZE


APPS = {"loop": on_loop, "threads": on_threads, "streams": as_stream}


def main() -> None:
    """Serve until standard input ends."""
    kind, certfile, keyfile = sys.argv[1:]
    with ThreadedServer(
        APPS[kind],
        bind="127.0.0.1:0",
        threads=4,
        graceful_timeout=1,
        http2=True,
        certfile=certfile,
        keyfile=keyfile,
        http2_send_buffer=4 * MIB,
        http2_send_buffer_total=16 * MIB,
    ) as server:
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
