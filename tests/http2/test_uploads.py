"""Request bodies over HTTP/2 to sync applications: in memory, in files, and in the middle of it."""

from __future__ import annotations

import hashlib
import logging
import tempfile
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, cast

import pytest

from threadwell import Request, Response, ServerConfig, ThreadedServer
from threadwell.worker.config.groups import Limits
from threadwell.worker.http1.body_store import BodyStore
from threadwell.worker.http1.request_body import SpooledBody
from threadwell.worker.http2.request_body import SpoolingReceiver
from threadwell.worker.messages import RequestReceived

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


# ---- Memory ---------------------------------------------------------------------------------


class Held:
    """Answers with the kind of the body, and where it is kept; `/held` only when it may go on."""

    threadwell_interface = "sync"

    def __init__(self) -> None:
        self.inside = threading.Semaphore(0)
        self.gate = threading.Event()

    def __call__(self, request: Request) -> Response:
        body = request.body
        kind = "bytes" if isinstance(body, bytes) else type(body.raw).__name__  # type: ignore[attr-defined]
        digest = hashlib.sha256(request.read()).hexdigest()
        if request.path == "/held":
            self.inside.release()
            assert self.gate.wait(20)
        return Response(200, [("X-Kept", kind)], digest.encode())


def store_of(server: ThreadedServer) -> BodyStore:
    """The memory for bodies of both protocols."""
    pool: Any = server._worker.pool
    assert pool.http2.body_store is pool.body_store
    return cast("BodyStore", pool.body_store)


def has_all_room(store: BodyStore, room: int) -> bool:
    """Whether no body has any of the `room` of `store`."""
    if not store.take(room):
        return False
    store.give_back(room, [])
    return True


@pytest.mark.parametrize("declared", [True, False])
def test_large_bodies_are_in_memory_while_there_is_room(
    serve_http2: Serve, http2: Connect, declared: bool
) -> None:
    app, room = Held(), 3 * MIB
    server = serve_http2(app, memory_body=2 * MIB, memory_bodies=room)
    store, client = store_of(server), http2(server)

    def upload(size: int, path: str = "/") -> tuple[int, str]:
        body = bytes(range(256)) * (size // 256)
        more = [("content-length", str(size))] if declared else []
        number = client.request(path, more, method="POST", body=body)
        return number, hashlib.sha256(body).hexdigest()

    def kept(upload: tuple[int, str]) -> str:
        answer = client.answer(upload[0])
        assert answer.body.decode() == upload[1]
        return answer.headers["x-kept"]

    assert kept(upload(256 * 1024)) == "bytes"
    assert kept(upload(2 * MIB)) == "MemoryFile"
    assert kept(upload(2 * MIB + 256)) == "FileIO"
    until(lambda: has_all_room(store, room))
    first = upload(2 * MIB, "/held")
    assert app.inside.acquire(timeout=20)
    assert not has_all_room(store, room)
    assert kept(upload(2 * MIB)) == "FileIO"  # there is room for a half of it
    assert kept(upload(MIB)) == "MemoryFile"
    app.gate.set()
    assert kept(first) == "MemoryFile"
    until(lambda: has_all_room(store, room))


def test_a_reset_upload_gives_its_memory_back(serve_http2: Serve, http2: Connect) -> None:
    room = 3 * MIB
    server = serve_http2(echo, memory_body=2 * MIB, memory_bodies=room)
    store, client = store_of(server), http2(server)
    for leaves in (False, True):
        number = client.request("/", method="POST", body=bytes(MIB), ended=False)
        client.settle()  # all of it has been read
        assert not has_all_room(store, room)
        if leaves:
            client.close()
        else:
            client.conn.reset_stream(number)
            client.settle()
        until(lambda: has_all_room(store, room))


@pytest.mark.parametrize("closed", [False, True])
def test_what_goes_to_a_file_is_counted_until_it_is_there(*, closed: bool) -> None:
    """And all that follows goes there, whether there is room again or not."""
    loop = Loop()
    store = BodyStore(Limits(memory_bodies=MIB))
    assert store.take(MIB // 2)  # by another body
    head = RequestReceived("POST", "/", "/", "", "2", b"", {})
    receiver = SpoolingReceiver(head, ServerConfig(), 0.0, store)
    blocks = [bytes([number]) * 100_000 for number in range(8)]
    for block in blocks[:6]:
        receiver.feed(block)
    assert receiver.is_spooling
    assert not has_all_room(store, MIB // 2)
    done: list[BaseException | None] = []
    receiver.spool(loop, done.append)  # type: ignore[arg-type]
    store.give_back(MIB // 2, [])
    assert not has_all_room(store, MIB)
    if closed:
        receiver.close()
        loop.run()
        assert has_all_room(store, MIB)
        assert done == []
        return
    loop.run()
    assert has_all_room(store, MIB)
    for block in blocks[6:]:
        receiver.feed(block)
        receiver.spool(loop, done.append)  # type: ignore[arg-type]
        loop.run()
    assert done == [None] * 3
    with cast("SpooledBody", receiver.finish()) as body:
        assert type(body.raw).__name__ == "FileIO"
        assert body.read() == b"".join(blocks)
    assert has_all_room(store, MIB)


class Loop:
    """An event loop whose executor runs when the test says so."""

    def __init__(self) -> None:
        self._calls: list[tuple[Future[None], Any, tuple[Any, ...]]] = []

    def run_in_executor(self, _: None, function: Any, *arguments: Any) -> Future[None]:
        future: Future[None] = Future()
        self._calls.append((future, function, arguments))
        return future

    def run(self) -> None:
        calls, self._calls = self._calls, []
        for future, function, arguments in calls:
            function(*arguments)
            future.set_result(None)


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
