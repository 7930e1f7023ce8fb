"""Clients that are many, slow, silent or rude, and the requests of the others meanwhile."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from sysconfig import get_config_var
from typing import Any

import pytest

from threadwell import ThreadedServer
from threadwell.worker.polling import base
from threadwell.worker.system.readiness import has_input

from ..helpers.waiting import Held, no_hurry, until
from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
MIB = 1024 * 1024


# ---- A server in a process of its own --------------------------------------------------------

_SERVER = """
import gc, sys, time
from threadwell import ThreadedServer
LARGE = bytes(32 * 1024 * 1024)
def endless():
    while True:
        yield b"tick"
        time.sleep(0.5)
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    path = environ["PATH_INFO"]
    if path == "/stream":
        return endless()
    if path == "/large":
        return [LARGE]
    if path == "/collect":
        gc.collect()
    environ["wsgi.input"].read()
    return [b"hello"]
options = dict(pair.split("=") for pair in sys.argv[1:])
server = ThreadedServer(app, bind="127.0.0.1:0", graceful_timeout=0, **options)
server.serve_forever(started=lambda: print(server.port, flush=True))
"""


class Process:
    """The server, and what the system knows of it."""

    def __init__(self, started: subprocess.Popen[str], port: int) -> None:
        self._process = started
        self._folder = Path("/proc") / str(started.pid)
        self.port = port

    def client(self, timeout: float = 10) -> Client:
        return Client(socket.create_connection(("127.0.0.1", self.port), timeout))

    def descriptors(self) -> int:
        return len(list((self._folder / "fd").iterdir()))

    def threads(self) -> int:
        return len(list((self._folder / "task").iterdir()))

    def memory(self) -> int:
        """Resident bytes."""
        pages = int((self._folder / "statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def cpu(self) -> float:
        """Seconds of CPU time."""
        fields = (self._folder / "stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


needs_proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux")


@contextlib.contextmanager
def process(*, prelude: str = "", **options: object) -> Iterator[Process]:
    arguments = [f"{name}={value}" for name, value in options.items()]
    command = [sys.executable, "-c", prelude + _SERVER, *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as started:
        try:
            assert started.stdout is not None
            yield Process(started, int(started.stdout.readline()))
        finally:
            started.kill()


def latencies(server: Process, number: int) -> list[float]:
    """Seconds of `number` requests, by turns on one connection and on new ones."""
    seconds = []
    with contextlib.closing(server.client()) as kept:
        for turn in range(number):
            started = time.monotonic()
            if turn % 2:
                assert kept.get().body == b"hello"
            else:
                with contextlib.closing(server.client()) as fresh:
                    assert fresh.get().body == b"hello"
            seconds.append(time.monotonic() - started)
    return seconds


# ---- The figures ---------------------------------------------------------------------------


@needs_proc
@pytest.mark.parametrize("poller", ["auto", "queue"])
def test_clients_that_are_not_ready_do_not_slow_the_others(
    poller: str, record_property: Callable[[str, object], None]
) -> None:
    with contextlib.ExitStack() as stack, process(threads=4, poller=poller) as server:

        def crowd(number: int, data: bytes) -> None:
            for _ in range(number):
                client = stack.enter_context(contextlib.closing(server.client()))
                client.send(data)

        crowd(2000, b"")
        crowd(100, b"GET / HTTP/1.1\r\nHost: x\r\nX-Half")
        crowd(100, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
        crowd(200, b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: server.descriptors() >= 2400, 20)
        seconds = latencies(server, 200)
        record_property("median", statistics.median(seconds))
        print(f"median {statistics.median(seconds) * 1000:.2f} ms, {max(seconds) * 1000:.0f} worst")
        assert statistics.median(seconds) < 0.05
        assert max(seconds) < 5


@needs_proc
@pytest.mark.parametrize("poller", ["auto", "queue"])
def test_streams_do_not_slow_the_others(
    poller: str, record_property: Callable[[str, object], None]
) -> None:
    with contextlib.ExitStack() as stack, process(threads=4, poller=poller) as server:
        streams = []
        for _ in range(200):
            client = stack.enter_context(contextlib.closing(server.client()))
            client.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
            streams.append(client)
        for client in streams:
            assert client.sock.recv(15).startswith(b"HTTP/1.1 200 OK")
        seconds = latencies(server, 200)
        record_property("median", statistics.median(seconds))
        print(f"median {statistics.median(seconds) * 1000:.2f} ms, {max(seconds) * 1000:.0f} worst")
        assert statistics.median(seconds) < 0.05
        assert server.threads() <= 200 + 4 + 10
        for client in streams:
            client.close()
        # each notices at its next block, and all but a few spare threads end
        until(lambda: server.threads() <= 4 + 10, 10)
        assert statistics.median(latencies(server, 20)) < 0.05


# ---- Nothing is left behind ----------------------------------------------------------------


WITHOUT_GIL = bool(get_config_var("Py_GIL_DISABLED"))
# Without a GIL each thread has arenas of its own, and takes longer until it has them all.
WARM_UP = 300 if WITHOUT_GIL else 60


def memory_left(server: Process) -> int:
    """Resident bytes. Without a GIL garbage is collected so rarely that 80 MiB of it may wait."""
    if WITHOUT_GIL:
        with contextlib.closing(server.client()) as client:
            client.send(b"GET /collect HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert client.answer().body == b"hello"
    return server.memory()


@needs_proc
def test_aborted_connections_leave_nothing_behind() -> None:
    with process(threads=4) as server:

        def abort(times: int) -> None:
            for turn in range(times):
                client = server.client()
                client.send(
                    [
                        b"",
                        b"GET / HT",
                        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n"
                        + bytes(400_000),
                        b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n",
                        b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n",
                        b"GET / HTTP/1.1\r\nBad Field: x\r\n\r\n",
                    ][turn % 6]
                )
                if turn % 4 == 0:
                    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
                client.close()

        latencies(server, 10)
        start = server.descriptors()
        abort(WARM_UP)
        until(lambda: server.descriptors() <= start, 15)
        latencies(server, 10)
        # warm: threads, arenas and caches are what they will be
        threads, memory = server.threads(), memory_left(server)
        abort(300)
        until(lambda: server.descriptors() <= start, 15)
        until(lambda: server.threads() <= max(threads, 4 + 6), 15)
        latencies(server, 10)
        assert memory_left(server) < memory + 16 * MIB


@needs_proc
def test_a_shortage_of_descriptors_is_waited_out_without_spinning() -> None:
    shortage = "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))\n"
    # more connections allowed than there are descriptors, so that accept itself fails
    with (
        contextlib.ExitStack() as stack,
        process(prelude=shortage, threads=2, limit_connections=1000) as server,
    ):
        # not idle, so that nobody is evicted
        clients = []
        for _ in range(80):
            client = stack.enter_context(contextlib.closing(server.client()))
            client.send(b"GET / HT")
            clients.append(client)
        until(lambda: server.descriptors() >= 59)
        time.sleep(0.3)
        before = server.cpu()
        time.sleep(1.5)
        assert server.cpu() - before < 0.5
        for client in clients:
            client.close()
        until(lambda: server.descriptors() < 40, 10)
        assert len(latencies(server, 20)) == 20


@needs_proc
def test_silent_servers_sleep() -> None:
    """With connections that wait in every state, there is nothing to do."""
    with contextlib.ExitStack() as stack, process(threads=4) as server:
        for data in (b"", GET, b"GET / HT", b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n") * 10:
            client = stack.enter_context(contextlib.closing(server.client()))
            client.send(data)
        latencies(server, 20)
        time.sleep(0.3)
        before = server.cpu()
        time.sleep(1.5)
        assert server.cpu() - before < 0.2


# ---- The limit of connections ----------------------------------------------------------------


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    body = environ["wsgi.input"].read()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d" % len(body)]


def test_idle_connections_make_room(serve: Serve, connect: Connect) -> None:
    server = serve(app, limit_connections=10, threads=2)
    clients = [connect(server) for _ in range(10)]
    assert server._worker is not None
    parked = server._worker.poller._parked
    for client in [*clients, clients[0]]:
        assert client.get().status == 200
        # an answer is out before its connection is idle, and the next may be so earlier
        until(lambda: len(parked) == 10)
    # the one that has been idle the longest goes
    assert connect(server).get().status == 200
    assert clients[1].closed()
    assert clients[0].get().status == 200


class Waiting:
    """Waits for the test when it is asked for `/wait`."""

    def __init__(self) -> None:
        self.begun, self.go_on = threading.Event(), threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/wait":
            self.begun.set()
            self.go_on.wait(10)
        start_response("200 OK", [])
        return [b"hello"]


def test_a_request_that_has_come_is_not_evicted(serve: Serve, connect: Connect) -> None:
    """It waits in the kernel for a thread, and so is not idle, whatever the poller believes."""
    app = Waiting()
    server = serve(app, limit_connections=4, threads=1)
    clients = [connect(server) for _ in range(4)]
    for client in clients:
        assert client.get().body == b"hello"
    clients[0].send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
    assert app.begun.wait(5)
    late = connect(server)
    late.send(GET)
    for client in clients[1:]:
        client.send(GET)
    app.go_on.set()
    for client in [*clients, late]:
        assert client.answer().body == b"hello"


def test_a_request_that_comes_while_its_connection_is_evicted_is_waited_for(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the closing. It is answered, and so its connection counts again."""
    app = Waiting()
    server = serve(app, limit_connections=1, threads=1)
    worker = server._worker
    assert worker is not None
    first = connect(server)
    assert first.get().body == b"hello"
    until(lambda: worker.poller._parked)
    (connection,) = worker.poller.connections

    def comes_just_then(fd: int) -> bool:
        ready = has_input(fd)
        if fd == connection.fd:
            first.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        return ready

    monkeypatch.setattr(base, "has_input", comes_just_then)
    second = connect(server)
    assert app.begun.wait(5)
    monkeypatch.undo()
    assert connection in worker.poller.connections
    app.go_on.set()
    assert first.answer().body == b"hello"
    assert second.get().body == b"hello"
    assert first.closed()


# ---- Fairness ------------------------------------------------------------------------------


@pytest.mark.parametrize("poller", ["auto", "queue"])
def test_an_endless_pipeliner_does_not_starve_the_others(
    serve: Serve, connect: Connect, poller: str
) -> None:
    server = serve(app, threads=1, poller=poller)
    done = threading.Event()

    def pipeline() -> None:
        client = connect(server)
        client.sock.settimeout(0.2)
        reader = threading.Thread(target=swallow, args=(client,))
        reader.start()
        with contextlib.suppress(OSError):
            while not done.is_set():
                with contextlib.suppress(TimeoutError):
                    client.sock.send(GET * 500)
        with contextlib.suppress(OSError):
            client.sock.shutdown(socket.SHUT_RDWR)
        reader.join()

    def swallow(client: Client) -> None:
        while not done.is_set():
            try:
                if not client.sock.recv(65536):
                    return
            except TimeoutError:
                continue
            except OSError:
                return

    thread = threading.Thread(target=pipeline)
    thread.start()
    try:
        seconds = []
        for _ in range(20):
            started = time.monotonic()
            assert connect(server).get().body == b"0"
            seconds.append(time.monotonic() - started)
        assert statistics.median(seconds) < 0.5
    finally:
        done.set()
        thread.join()


def test_a_request_that_came_too_late_costs_the_next_connection_nothing(
    serve: Serve, connect: Connect
) -> None:
    def hello(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"hello"]

    server = serve(hello, threads=1, head_timeout=0.2)
    with no_hurry(server):
        late = connect(server)
        late.send(b"GET /")
    assert late.answer().status == 408
    with no_hurry(server):
        client = connect(server)
        client.send(GET[:5])
    assert client.answer().status == 408
    with no_hurry(server):
        assert connect(server).get().body == b"hello"


@pytest.mark.parametrize("poller", ["auto", "queue"])
def test_what_came_in_time_is_answered_however_late_a_thread_is(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch, poller: str
) -> None:
    """A thread finds nothing to read; then comes a request; the thread goes on after the time."""
    held = Held(monkeypatch, lambda conn: until(lambda: time.monotonic() > conn.deadline))
    client = connect(serve(app, poller=poller, threads=1, head_timeout=0.3, keep_alive=0.3))
    for _ in range(2):
        assert held.looked.wait(10)
        held.looked.clear()
        client.send(GET)
        held.go_on.set()
        assert client.answer().body == b"0"
    held.go_on.set()
    assert client.closed()


def test_a_pool_that_is_fully_blocked_recovers(serve: Serve, connect: Connect) -> None:
    go_on = threading.Event()

    def waits(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        if environ["PATH_INFO"] == "/wait":
            go_on.wait(10)
        start_response("200 OK", [])
        return [b"hello"]

    server = serve(waits, threads=3)
    worker = server._worker
    assert worker is not None
    pool = worker.pool
    for _ in range(2):
        blocked = [connect(server) for _ in range(6)]
        for client in blocked:
            client.send(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: sum(each.slot.serving is not None for each in list(pool.workers)) == 3)
        waiting = connect(server)
        waiting.send(GET)
        go_on.set()
        for client in [*blocked, waiting]:
            assert client.answer().body == b"hello"
        go_on.clear()


# ---- Request bodies --------------------------------------------------------------------------


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize("size", [1_000_000, MIB - 100, MIB, 1_060_000, 1_100_000, 3 * MIB])
def test_an_upload_of_any_size_is_answered(
    serve: Serve, connect: Connect, size: int, framing: str
) -> None:
    client = connect(serve(app, threads=1), timeout=5)
    head = b"POST / HTTP/1.1\r\nHost: x\r\n"
    if framing == "length":
        client.send(head + b"Content-Length: %d\r\n\r\n" % size + bytes(size))
    else:
        chunked = b"%x\r\n" % size + bytes(size) + b"\r\n0\r\n\r\n"
        client.send(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunked)
    assert client.answer().body == b"%d" % size


def test_an_upload_is_answered_however_it_is_cut(serve: Serve, connect: Connect) -> None:
    """Whole after any number of receives, also the one that ends a turn."""
    server = serve(app, threads=1, memory_body=10)
    for pieces in range(1, 40):
        client = connect(server, timeout=5)
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % (pieces * 65536))
        client.send(bytes(pieces * 65536))
        assert client.answer().body == b"%d" % (pieces * 65536)
        client.close()


def test_slow_uploads_go_to_disk(serve: Serve, connect: Connect) -> None:
    kinds: list[str] = []

    def notes(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        kinds.append(type(environ["wsgi.input"]).__name__)
        return app(environ, start_response)

    server = serve(notes, threads=1, memory_body=1000)
    clients = [connect(server) for _ in range(20)]
    for client in clients:
        client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
    for _ in range(10):
        for client in clients:
            client.send(bytes(10_000 - 1))
        assert connect(server).get().body == b"0"
    for client in clients:
        client.send(bytes(10))
        assert client.answer().body == b"100000"
    small = [kind for kind in kinds if kind == "NoInput"]
    assert len(small) == 10
    assert len(kinds) == 30


def test_too_large_a_body_is_refused_at_its_head(serve: Serve, connect: Connect) -> None:
    client = connect(serve(app, limit_body=1000))
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n")
    assert client.answer().status == 413
    assert client.closed()


def test_too_large_a_body_in_chunks_is_refused(serve: Serve, connect: Connect) -> None:
    calls: list[object] = []

    def counts(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        calls.append(environ)
        return app(environ, start_response)

    client = connect(serve(counts, limit_body=1000))
    chunk = b"64\r\n" + bytes(100) + b"\r\n"
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + chunk * 11)
    answer = client.answer()
    assert answer.status == 413
    assert answer.header("connection") == "close"
    assert client.closed()
    assert calls == []


def test_a_body_that_the_disk_has_no_room_for(
    serve: Serve,
    connect: Connect,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def full(**_: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.TemporaryFile", full)
    client = connect(serve(app, memory_body=1000))
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3000\r\n\r\n" + bytes(3000))
    answer = client.answer()
    assert (answer.status, answer.header("connection")) == (503, "close")
    assert "No space left" in caplog.text


def test_the_largest_body_that_is_allowed(serve: Serve, connect: Connect) -> None:
    client = connect(serve(app, limit_body=1000))
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + bytes(1000))
    assert client.answer().body == b"1000"


def test_a_refused_upload_is_read_for_a_while_so_that_the_answer_arrives(
    serve: Serve, connect: Connect
) -> None:
    client = connect(serve(app, limit_body=1000))
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9000000\r\n\r\n")
    with contextlib.suppress(ConnectionError):
        client.send(bytes(3_000_000))
    assert client.answer().status == 413
