"""How static files leave: by sendfile, on loops, and with nothing left open."""

from __future__ import annotations

import asyncio
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from threadwell import Request, Response, ServerConfig, ThreadedServer
from threadwell.worker.config.groups import Static
from threadwell.worker.messages import FileBody, RequestReceived
from threadwell.worker.static import StaticApp, StaticFiles

from ..helpers.certificates import Authority
from ..helpers.waiting import until
from ..helpers.wire_client import Client
from .applications import CSS, app, asgi_app, head_of

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]


def sendfile_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How much each call of `os.sendfile` was asked to send, from now on."""
    calls: list[int] = []
    sendfile = os.sendfile

    def counted(out: int, source: int, offset: int, count: int) -> int:
        calls.append(count)  # before the client can have read it
        return sendfile(out, source, offset, count)

    monkeypatch.setattr(os, "sendfile", counted)
    return calls


def test_a_file_leaves_by_sendfile(
    serve: Serve, connect: Connect, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(3_000_000)
    (folder / "large.bin").write_bytes(content)
    calls = sendfile_calls(monkeypatch)
    client = connect(serve(app, static=f"/static={folder}"))
    assert client.get("/static/large.bin").body == content
    assert calls
    assert client.get("/static/style.css").body == CSS  # and the connection goes on


@pytest.mark.parametrize("fields", ["", "Range: bytes=10-19\r\n"])
def test_a_small_file_leaves_with_its_head(
    serve: Serve, connect: Connect, folder: Path, monkeypatch: pytest.MonkeyPatch, fields: str
) -> None:
    calls = sendfile_calls(monkeypatch)
    client = connect(serve(app, static=f"/static={folder}"))
    expected = CSS[10:20] if fields else CSS
    assert client.get("/static/style.css", headers=fields).body == expected
    assert not calls
    assert not open_files(folder)


def test_a_small_file_that_becomes_shorter_is_never_sent_as_if_it_was_whole(
    serve: Serve, connect: Connect, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    really_read = os.pread

    def cut(fd: int, count: int, offset: int) -> bytes:
        os.truncate(folder / "style.css", 100)
        return really_read(fd, count, offset)

    monkeypatch.setattr(os, "pread", cut)
    client = connect(serve(app, static=f"/static={folder}"))
    client.send(b"GET /static/style.css HTTP/1.1\r\nHost: x\r\n\r\n")
    head, _, body = client.rest().partition(b"\r\n\r\n")
    assert f"Content-Length: {len(CSS)}".encode() in head
    assert body == CSS[:100]  # and then the connection has ended
    until(lambda: not open_files(folder))


def test_a_large_file_on_a_loop(serve: Serve, connect: Connect, folder: Path) -> None:
    content = os.urandom(3_000_000)
    (folder / "large.bin").write_bytes(content)
    client = connect(serve(asgi_app, static=f"/static={folder}"))
    assert client.get("/static/large.bin").body == content
    part = client.get("/static/large.bin", headers="Range: bytes=100000-1999999\r\n")
    assert part.body == content[100000:2000000]
    assert client.get("/static/style.css").body == CSS


def test_a_slow_disk_does_not_stop_a_loop(
    serve: Serve, connect: Connect, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(asgi_app, static=f"/static={folder}")
    waiting, go_on = threading.Event(), threading.Event()
    really_open = os.open

    def slow(path: Any, *arguments: Any, **keywords: Any) -> int:
        if str(path).endswith("style.css"):
            waiting.set()
            assert go_on.wait(10)
        return really_open(path, *arguments, **keywords)

    monkeypatch.setattr(os, "open", slow)
    first, second = connect(server), connect(server)
    first.send(b"GET /static/style.css HTTP/1.1\r\nHost: x\r\n\r\n")
    assert waiting.wait(10)
    assert second.get("/").body == b"the application"
    go_on.set()
    assert first.answer().body == CSS


def open_files(folder: Path) -> list[str]:
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if target.startswith(str(folder)):
            found.append(target)
    return found


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="Linux tells what is open")
def test_no_file_stays_open(serve: Serve, connect: Connect, folder: Path, each_app: Any) -> None:
    (folder / "large.bin").write_bytes(bytes(30_000_000))
    server = serve(each_app, static=f"/static={folder}")
    client = connect(server)
    tag = client.get("/static/style.css").header("etag")
    head_of(client, "/static/style.css")
    client.get("/static/style.css", headers=f"If-None-Match: {tag}\r\n")
    client.get("/static/style.css", headers="Range: bytes=9999-\r\n")
    client.get("/static/empty.txt")
    leaving = connect(server)
    leaving.send(b"GET /static/large.bin HTTP/1.1\r\nHost: x\r\n\r\n")
    assert leaving.sock.recv(1000)
    leaving.close()
    deadline = time.monotonic() + 10
    while open_files(folder) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not open_files(folder)


def test_a_cancelled_call_closes_its_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from threadwell.worker.asgi.static import ASGIStaticApp
    from threadwell.worker.static import StaticFiles

    (folder / "large.bin").write_bytes(bytes(1_000_000))
    files = StaticFiles(ServerConfig.from_options(static=f"/static={folder}").static)
    reading, go_on = threading.Event(), threading.Event()
    really_read = os.read

    def slow(fd: int, count: int) -> bytes:
        if count == 256 * 1024:
            reading.set()
            assert go_on.wait(10)
        return really_read(fd, count)

    monkeypatch.setattr(os, "read", slow)

    async def main(blocks: int) -> None:
        scope = {
            "type": "http",
            "method": "GET",
            "raw_path": b"/static/large.bin",
            "headers": [],
        }
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)
            reading.clear()
            go_on.clear()

        static_app = ASGIStaticApp(asgi_app, files)
        call = asyncio.ensure_future(static_app(scope, send, send))
        if blocks:
            go_on.set()
        while not reading.is_set() or len(sent) < blocks:
            await asyncio.sleep(0.001)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        go_on.set()

    for blocks in (0, 2):  # while it is opened, and in the middle of it
        asyncio.run(main(blocks))
        assert not open_files(folder)


def test_a_hybrid_serves_files_by_its_threads(
    serve: Serve, connect: Connect, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(70_000)
    (folder / "large.bin").write_bytes(content)
    calls = sendfile_calls(monkeypatch)

    def sync_app(request: Request) -> Response | None:
        return None if request.path == "/async" else app(request)

    client = connect(serve(sync_app, asgi_app=asgi_app, static=f"/static={folder}"))
    assert client.get("/static/large.bin").body == content
    assert client.get("/async").body == b"the application"
    assert client.get("/static/large.bin").body == content
    assert sum(calls) == 2 * len(content)


def test_no_application_is_called_for_a_file(serve: Serve, connect: Connect, folder: Path) -> None:
    called: list[str] = []

    def noting(request: Request) -> Response:
        called.append(request.path)
        return app(request)

    client = connect(serve(noting, static=f"/static={folder}"))
    for path in ("/static/style.css", "/static/missing", "/static", "/static/..%2f", "/other"):
        client.get(path)
    assert called == ["/other"]


def test_over_tls(serve: Serve, folder: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    cert, key = authority.issue("server")
    content = os.urandom(1_000_000)
    (folder / "large.bin").write_bytes(content)
    server = serve(app, static=f"/static={folder}", certfile=str(cert), keyfile=str(key))
    url = f"https://127.0.0.1:{server.port}/static/large.bin"
    with urllib.request.urlopen(url, context=authority.trusting(), timeout=20) as response:
        assert response.read() == content


@pytest.mark.parametrize(
    ("version", "size", "is_read"),
    [
        ("1.1", 65_536, True),
        ("1.1", 65_537, False),
        ("2", 2048, True),
        ("2", 2049, False),
    ],
)
def test_what_may_wait_for_a_window_waits_as_a_file(
    folder: Path, version: str, size: int, is_read: bool
) -> None:
    (folder / "some.bin").write_bytes(bytes(size))
    files = StaticApp(app, StaticFiles(Static(mounts=(f"/static={folder}",))))
    head = RequestReceived(
        "GET", "/static/some.bin", "/static/some.bin", "", version, b"", {}, None
    )
    response = files(Request(head, b"", None))
    assert response is not None
    assert isinstance(response.body, bytes) is is_read
    if isinstance(response.body, FileBody):
        os.close(response.body.fd)
