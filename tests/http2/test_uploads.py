"""Request bodies over HTTP/2 to sync applications: in memory, in files, and in the middle of it."""

from __future__ import annotations

import hashlib
import logging
import tempfile
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from threadwell import Request, Response, ThreadedServer

from ..helpers.http2_client import Http2Client
from ..helpers.waiting import until

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Http2Client]
MIB = 1024 * 1024
INTERNAL_ERROR = 2


def echo(request: Request) -> Response:
    """What came, as a digest, and where it was kept."""
    kind = "memory" if isinstance(request.body, bytes) else "file"
    digest = hashlib.sha256(request.read()).hexdigest()
    return Response(200, [("X-Kept", kind)], f"{request.method} {digest}".encode())


@pytest.mark.parametrize(("size", "kept"), [(0, "memory"), (1000, "memory"), (3 * MIB, "file")])
@pytest.mark.parametrize("declared", [True, False])
def test_a_request_body(
    serve_http2: Serve, http2: Connect, size: int, kept: str, declared: bool
) -> None:
    client = http2(serve_http2(echo))
    body = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    more = [("content-length", str(size))] if declared else []
    answer = client.fetch("/", *more, method="POST", body=body)
    assert answer.headers["x-kept"] == kept
    assert answer.body.decode() == f"POST {hashlib.sha256(body).hexdigest()}"


def test_a_body_octet_by_octet_is_kept_whole(serve_http2: Serve, http2: Connect) -> None:
    client = http2(serve_http2(echo))
    number = client.request("/", method="POST", ended=False)
    body = bytes(n % 256 for n in range(5000))
    for octet in body:
        client.conn.send_data(number, bytes([octet]))
    client.conn.end_stream(number)
    client.flush()
    assert client.answer(number).body.decode() == f"POST {hashlib.sha256(body).hexdigest()}"


def test_uploads_at_once(serve_http2: Serve, http2: Connect) -> None:
    server = serve_http2(echo)
    body = b"0123456789abcdef" * (MIB // 16)
    results: list[bytes] = []

    def upload() -> None:
        client = http2(server)
        numbers = [client.request("/", method="PUT", body=body) for _ in range(5)]
        results.extend(client.answer(number).body for number in numbers)

    threads = [threading.Thread(target=upload) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert results == [f"PUT {hashlib.sha256(body).hexdigest()}".encode()] * 15


def test_100_continue(serve_http2: Serve, http2: Connect) -> None:
    client = http2(serve_http2(echo))
    number = client.request("/", [("expect", "100-continue")], method="POST", ended=False)
    client.until(lambda: client.answers[number].interim)
    assert client.answers[number].interim[0][":status"] == "100"
    client.body(number, b"now")
    assert client.answer(number).status == 200


def test_trailers_of_a_request_are_dropped(serve_http2: Serve, http2: Connect) -> None:
    client = http2(serve_http2(lambda request: Response(200, [], repr(request.headers).encode())))
    number = client.request("/", method="POST", body=b"body", ended=False)
    client.conn.send_headers(number, [("x-smuggled", "1")], end_stream=True)
    client.flush()
    answer = client.answer(number)
    assert answer.status == 200
    assert b"smuggled" not in answer.body


# ---- Disks ----------------------------------------------------------------------------------


class Disk:
    """One that waits until it is told to go on; `files` are those that it has."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.going = threading.Event()
        self.failure: OSError | None = None
        self.files: list[Any] = []
        self._temporary_file = tempfile.TemporaryFile

    def open(self, **options: Any) -> Any:
        self.asked.set()
        assert self.going.wait(10)
        if self.failure is not None:
            raise self.failure
        self.files.append(self._temporary_file(**options))
        return self.files[-1]


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[Disk]:
    disk = Disk()
    monkeypatch.setattr("tempfile.TemporaryFile", disk.open)
    yield disk
    disk.going.set()


def test_nobody_else_waits_for_a_disk(serve_http2: Serve, http2: Connect, disk: Disk) -> None:
    server = serve_http2(echo, memory_body=1000)
    client, other = http2(server), http2(server)
    body = b"0123456789abcdef" * (2 * MIB // 16)
    # what was sent before the disk was slow must be bounded
    number = client.request("/", method="POST", ended=False)
    sent = 0
    while (room := min(client.conn.local_flow_control_window(number), 16384)) > 0:
        client.conn.send_data(number, body[sent : sent + room])
        sent += room
        client.settle()
    assert disk.asked.wait(10)
    assert sent <= 256 * 1024
    assert client.fetch().status == other.fetch().status == 200
    disk.going.set()
    client.body(number, body[sent:])
    answer = client.answer(number)
    assert answer.headers["x-kept"] == "file"
    assert answer.body.decode() == f"POST {hashlib.sha256(body).hexdigest()}"
    until(lambda: disk.files[0].closed)


def test_a_client_that_does_not_wait_for_a_disk(
    serve_http2: Serve, http2: Connect, disk: Disk
) -> None:
    client = http2(serve_http2(echo, memory_body=1000))
    number = client.request("/", method="POST", body=bytes(5000), ended=False)
    assert disk.asked.wait(10)
    client.conn.reset_stream(number)
    client.settle()
    disk.going.set()
    until(lambda: disk.files and disk.files[0].closed)
    assert client.fetch().status == 200


def test_a_disk_that_is_full(
    serve_http2: Serve, http2: Connect, disk: Disk, caplog: pytest.LogCaptureFixture
) -> None:
    disk.failure = OSError("no space left")
    disk.going.set()
    client = http2(serve_http2(echo, memory_body=1000))
    number = client.request("/", method="POST", body=bytes(5000), ended=False)
    assert client.answer(number).reset == INTERNAL_ERROR
    assert [each.levelno for each in caplog.records] == [logging.ERROR]
    assert "no space left" in caplog.text
    assert client.fetch().status == 200
