"""A sync application with an asynchronous body."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
from collections.abc import AsyncIterator, Callable

import pytest

from threadwell import Request, Response, ThreadedServer

from ...helpers.asgi_tools import Seen
from ...helpers.wire_client import Client
from .both import Both, each_loop, post

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]


class Ticks:
    """A body, and what became of it."""

    def __init__(self, *, endless: bool = False, fails: bool = False) -> None:
        self.seen = Seen()
        self._endless = endless
        self._fails = fails

    async def blocks(self) -> AsyncIterator[bytes]:
        self.seen.add(language.get("none"))
        try:
            for number in range(3):
                yield b"%d " % number
                await asyncio.sleep(0)
            if self._fails:
                raise ValueError
            if self._endless:
                await asyncio.Event().wait()
        finally:
            self.seen.add("over")

    def close(self) -> None:
        with pytest.raises(RuntimeError, match="no running event loop"):
            asyncio.get_running_loop()
        self.seen.add("closed")


language: contextvars.ContextVar[str] = contextvars.ContextVar("language")


@each_loop
@pytest.mark.parametrize("framing", ["chunks", "length"])
def test_an_asynchronous_body(
    serve: Serve, connect: Connect, both: Both, loop: str, framing: str
) -> None:
    """The application runs once, on a thread; a loop sends what it has returned."""
    ticks = Ticks()
    headers = [("X-Of", "sync")] + ([("Content-Length", "6")] if framing == "length" else [])

    def sync(request: Request) -> Response:
        both.sync_calls[request.path] += 1
        language.set("nl")
        if request.path == "/plain":
            return Response(200, [], b"plain")
        assert request.read() == b"x" * 2_000_000
        return Response("200 Fine", headers, ticks.blocks(), ticks.close)

    server = serve(sync, asgi_app=both.asgi, loop=loop)
    client = connect(server)
    client.send(post("/ticks", b"x" * 2_000_000) + post("/plain", b""))
    got = client.answer()
    assert (got.status, got.body, got.header("x-of")) == (200, b"0 1 2 ", "sync")
    assert client.answer().body == b"plain"
    assert ticks.seen.wait(3) == ["nl", "over", "closed"]
    assert both.sync_calls == {"/ticks": 1, "/plain": 1}
    assert both.asgi_calls == {}


@pytest.mark.parametrize("how", ["left", "stopped", "failed", "head"])
def test_an_asynchronous_body_is_closed_however_it_ends(
    serve: Serve, connect: Connect, both: Both, how: str
) -> None:
    ticks = Ticks(endless=how in ("left", "stopped"), fails=how == "failed")

    def sync(request: Request) -> Response:
        kind = "text/event-stream" if how == "stopped" else "text/plain"
        return Response(200, [("Content-Type", kind)], ticks.blocks(), ticks.close)

    server = serve(sync, asgi_app=both.asgi)
    client = connect(server)
    client.send(f"{'HEAD' if how == 'head' else 'GET'} / HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    if how == "head":
        got = client.answer("HEAD")
        assert (got.status, got.header("content-length")) == (200, None)
        assert ticks.seen.wait(1) == ["closed"]
        return
    if how == "failed":
        with contextlib.suppress(ConnectionResetError):
            assert not client.answer().complete
    else:
        while b"2 " not in client._buffer:
            client._receive()
        if how == "left":
            client.close()
        else:
            server.stop()
            assert client.answer().complete
    assert ticks.seen.wait(3) == ["none", "over", "closed"]


def test_an_asynchronous_body_without_a_loop_is_501(serve: Serve, connect: Connect) -> None:
    ticks = Ticks()

    def sync(request: Request) -> Response:
        return Response(200, [], ticks.blocks(), ticks.close)

    assert connect(serve(sync)).get("/").status == 501
    assert ticks.seen.wait(1) == ["closed"]


@each_loop
@pytest.mark.parametrize("block", [b"", b"more"])
def test_the_code_behind_the_last_block_runs(
    serve: Serve, connect: Connect, both: Both, loop: str, block: bytes
) -> None:
    """Also where the declared length is out before; a body without an end is given up."""
    seen = Seen()

    async def blocks() -> AsyncIterator[bytes]:
        try:
            yield b"hello"
            seen.add("behind")
            while True:
                yield block
        finally:
            seen.add("over")

    def app(request: Request) -> Response:
        return Response(200, [("Content-Length", "5")], blocks())  # type: ignore[arg-type]

    client = connect(serve(app, asgi_app=both.asgi, loop=loop))
    for number in (1, 2):
        assert client.get().body == b"hello"
        assert seen.wait(2 * number)[-2:] == ["behind", "over"]
