"""Large response bodies and slow readers: neither holds a thread."""

from __future__ import annotations

import os
import re
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from threadwell import FileBody, Request, Response, ThreadedServer
from threadwell.worker.http.response_body import read_some, source_of
from threadwell.worker.http2.send_budget import ProcessBudget, SendBudget
from threadwell.worker.http2.send_queue import SendQueue

from ..helpers.recorder import Recorder
from ..helpers.responses import GET, raw
from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]
MIB = 1024 * 1024

_PATTERN = bytes(range(251))
_LARGE = (_PATTERN * (5 * MIB // 251 + 1))[: 5 * MIB]


def _slowly(client: Client, head: bytes = b"") -> tuple[bytes, bytes]:
    """Head and body of an answer with a length, read in small steps at first."""
    client.send(head or GET)
    received = b""
    while b"\r\n\r\n" not in received:
        received += client.sock.recv(100)
    header, _, body = received.partition(b"\r\n\r\n")
    found = re.search(rb"Content-Length: (\d+)", header)
    assert found is not None
    length = int(found[1])
    step = 1000
    while len(body) < length:
        data = client.sock.recv(min(step, length - len(body)))
        assert data
        body += data
        step = min(step * 2, 65536)
    return header, body


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    path.write_bytes(_LARGE)
    return path


def _opened(path: Path, offset: int, count: int) -> FileBody:
    return FileBody(os.open(path, os.O_RDONLY), offset, count)


@pytest.mark.parametrize("kind", ["bytes", "list", "many", "file", "stream"])
def test_large_bodies_hold_no_thread(kind: str, file: Path, serve: Serve, connect: Connect) -> None:
    """As many clients that do not read as there are threads, and one that is served."""

    def large() -> Any:
        if kind == "list":
            return [_LARGE[:MIB], _LARGE[MIB : 3 * MIB], _LARGE[3 * MIB :]]
        if kind == "many":
            return [_LARGE[at : at + 1000] for at in range(0, len(_LARGE), 1000)]
        if kind == "file":
            return _opened(file, 0, len(_LARGE))
        return iter([_LARGE]) if kind == "stream" else _LARGE

    def app(request: Request) -> Response:
        if request.path == "/small":
            return Response(200, (), b"small")
        return Response(200, [("Content-Length", str(len(_LARGE)))], large())

    server = serve(app, threads=2)
    slow = []
    for _ in range(4):
        client = connect(server)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.send(GET)
        slow.append(client)
    for client in slow:
        assert client.sock.recv(1, socket.MSG_PEEK)
    assert connect(server, timeout=3).get("/small").body == b"small"
    for client in slow:
        answer = client.answer()
        assert answer.body == _LARGE
        assert client.get("/small").body == b"small"
        client.close()
    head, body = _slowly(connect(server))
    assert body == _LARGE
    assert head.count(b"Content-Length") == 1


def test_pipelined_behind_a_large_answer(serve: Serve, connect: Connect) -> None:
    client = connect(serve(lambda request: Response(200, (), _LARGE + request.target.encode())))
    client.send(b"".join(GET.replace(b"/ ", b"/%d " % number) for number in range(3)))
    for number in range(3):
        assert client.answer().body == _LARGE + b"/%d" % number


@pytest.mark.skipif(not hasattr(os, "pread"), reason="the system reads from positions only")
def test_the_position_of_a_file_stays_the_applications(file: Path) -> None:
    """Which may read it at the same time, and has it open in other answers too."""
    with file.open("rb") as opened:
        send_queue = SendQueue(SendBudget(MIB, ProcessBudget(MIB)))
        send_queue.put_file(FileBody(os.dup(opened.fileno()), 10, 5))
        assert send_queue.take(99) == _LARGE[10:15]
        pushed = Response(200, (), FileBody(os.dup(opened.fileno()), 20, MIB))
        assert b"".join(source_of(pushed)) == _LARGE[20 : 20 + MIB]
        assert read_some(FileBody(opened.fileno(), 30, 5), 5) == _LARGE[30:35]
        assert os.lseek(opened.fileno(), 0, os.SEEK_CUR) == 0


@pytest.mark.parametrize(
    ("offset", "count"),
    [(0, 5 * MIB), (1, 10), (MIB, 2 * MIB), (5 * MIB - 1, 1), (0, 0), (5 * MIB, 0)],
)
def test_a_part_of_a_file(
    offset: int, count: int, file: Path, serve: Serve, connect: Connect
) -> None:
    opened: list[int] = []

    def app(request: Request) -> Response:
        del request
        body = _opened(file, offset, count)
        opened.append(body.fd)
        return Response(200, (), body)

    client = connect(serve(app, threads=1))
    for _ in range(2):
        _, body = _slowly(client)
        assert body == _LARGE[offset : offset + count]
    client.send(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.answer("HEAD").header("content-length") == str(count)
    assert all_closed(opened)


def all_closed(descriptors: Iterable[int]) -> bool:
    """Whether all `descriptors` are closed, or soon are."""
    until = time.monotonic() + 5
    open_ones = set(descriptors)
    while open_ones and time.monotonic() < until:
        open_ones = {fd for fd in open_ones if _is_file(fd)}
        threading.Event().wait(0.01 if open_ones else 0)
    return not open_ones


def _is_file(descriptor: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        return False


@pytest.mark.parametrize(
    ("status", "headers", "method"),
    [
        (200, [("X-A", "b\n")], "GET"),
        (200, [("Content-Length", "x")], "GET"),
        ("evil", [], "GET"),
        (204, [], "GET"),
        (304, [], "GET"),
        (200, [], "HEAD"),
        (200, [("Content-Length", "0")], "GET"),
    ],
)
@pytest.mark.parametrize("collector", [None, Recorder()], ids=["", "recorded"])
def test_a_file_that_is_not_sent_is_closed(
    status: Any,
    headers: Any,
    method: str,
    collector: Any,
    file: Path,
    serve: Serve,
    connect: Connect,
) -> None:
    opened: list[int] = []

    def app(request: Request) -> Response:
        if request.path == "/pushed":
            request.stream(Response(200, [("Content-Length", "0")]))
        body = _opened(file, 0, 5)
        opened.append(body.fd)
        return Response(status, headers, body)

    client = connect(serve(app, lifecycle_collector=collector))
    for path in ("/", "/pushed"):
        client.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        client.answer(method)
    assert all_closed(opened)


def test_a_file_is_closed_when_its_client_leaves(
    file: Path, serve: Serve, connect: Connect
) -> None:
    opened: list[int] = []

    def app(request: Request) -> Response:
        del request
        body = _opened(file, 0, len(_LARGE))
        opened.append(body.fd)
        return Response(200, (), body)

    client = connect(serve(app))
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    client.send(GET)
    assert client.sock.recv(10)
    client.close()
    assert all_closed(opened)


def test_a_file_shorter_than_promised_is_cut(file: Path, serve: Serve, connect: Connect) -> None:
    app = lambda request: Response(200, (), _opened(file, 5 * MIB - 3, 10))  # noqa: E731
    data = raw(connect(serve(app)), GET + GET)
    assert data.count(b"HTTP/1.1 ") == 1
    assert data.endswith(b"\r\n\r\n" + _LARGE[-3:])
