"""How a server ends: requests in flight finish, idle connections close, and nothing hangs."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from threadwell import SyncWorker, ThreadedServer
from threadwell.worker import Bind, Server, ServerConfig
from threadwell.worker.connection import State
from threadwell.worker.net.bind import open_socket, parse_bind
from threadwell.worker.net.bound_socket import BoundSocket, BoundUnixSocket, refuse_connections
from threadwell.worker.polling.listener import Listener
from threadwell.worker.supervisor.forking import Loaded, ServerSpec
from threadwell.worker.system.readiness import has_room
from threadwell.worker.threads.pool import ThreadPool

from ..helpers.waiting import Held, until
from ..helpers.wire_client import Client, refuses

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class App:
    """Waits for the test in the middle of an answer."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        path = environ["PATH_INFO"]
        if path == "/slow":
            self.begun.set()
            self.go_on.wait(10)
        start_response("200 OK", [("Content-Type", "text/plain")])
        if path == "/stream":
            return self._stream()
        return [b"hello" + environ["wsgi.input"].read()]

    def _stream(self) -> Iterator[bytes]:
        yield b"first"
        self.begun.set()
        self.go_on.wait(10)
        yield b"last"


@contextlib.contextmanager
def stopping(server: ThreadedServer, timeout: float | None = None) -> Iterator[threading.Thread]:
    """`server.stop()` under way on another thread, its listener closed already."""
    thread = threading.Thread(target=server.stop, args=(timeout,))
    thread.start()
    worker = server._worker
    assert worker is not None
    until(lambda: worker.poller.draining and not worker.poller.listeners)
    yield thread
    thread.join(10)
    assert not thread.is_alive()


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture(params=["auto", "queue"])
def server(request: pytest.FixtureRequest, serve: Serve, app: App) -> ThreadedServer:
    return serve(app, threads=2, graceful_timeout=8, poller=request.param)


def test_a_request_in_flight_is_answered_with_connection_close(
    server: ThreadedServer, app: App, connect: Connect
) -> None:
    client = connect(server)
    client.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    assert app.begun.wait(5)
    with stopping(server):
        app.go_on.set()
        answer = client.answer()
        assert answer.body == b"hello"
        assert client.closed()
    assert answer.header("connection") == "close"


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_body_that_still_arrives_is_waited_for(
    server: ThreadedServer, app: App, connect: Connect, framing: str
) -> None:
    client = connect(server)
    head = b"POST / HTTP/1.1\r\nHost: x\r\n"
    if framing == "length":
        client.send(head + b"Content-Length: 4\r\n\r\nbo")
    else:
        client.send(head + b"Transfer-Encoding: chunked\r\n\r\n4\r\nbo")
    worker = server._worker
    assert worker is not None
    until(lambda: any(conn.head for conn in list(worker.poller.connections)))
    with stopping(server):
        client.send(b"dy" if framing == "length" else b"dy\r\n0\r\n\r\n")
        answer = client.answer()
        assert answer.body == b"hellobody"
        assert answer.header("connection") == "close"
        assert client.closed()


def test_a_head_that_still_arrives_is_waited_for(
    server: ThreadedServer, app: App, connect: Connect
) -> None:
    client = connect(server)
    client.send(GET[:10])
    worker = server._worker
    assert worker is not None
    until(lambda: any(conn.state is State.HEAD for conn in list(worker.poller.connections)))
    with stopping(server):
        client.send(GET[10:])
        answer = client.answer()
        assert answer.body == b"hello"
        assert answer.header("connection") == "close"


def test_a_stream_under_way_finishes(server: ThreadedServer, app: App, connect: Connect) -> None:
    client = connect(server)
    client.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    assert app.begun.wait(5)
    with stopping(server):
        app.go_on.set()
        answer = client.answer()
        assert answer.complete
        assert answer.body == b"firstlast"
        assert client.closed()


def test_a_large_answer_that_is_still_read_finishes(serve: Serve, connect: Connect) -> None:
    body = bytes(range(256)) * 65536

    def large(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [body]

    server = serve(large, graceful_timeout=8)
    client = connect(server)
    client.send(GET)
    worker = server._worker
    assert worker is not None
    until(lambda: any(conn.send_buffer for conn in list(worker.poller.connections)))
    with stopping(server):
        assert client.answer().body == body
        assert client.closed()


def test_pipelined_requests_behind_the_one_in_flight(
    server: ThreadedServer, app: App, connect: Connect
) -> None:
    """The answer says close, and what came behind it was not executed."""
    client = connect(server)
    client.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n" + GET)
    assert app.begun.wait(5)
    with stopping(server):
        app.go_on.set()
        assert client.answer().body == b"hello"
        rest = client.rest()
        assert rest == b"" or b"Connection: close" in rest


def test_the_listener_is_closed_at_once_and_idle_connections_too(
    server: ThreadedServer, app: App, connect: Connect
) -> None:
    idle, silent, busy = (connect(server) for _ in range(3))
    assert idle.get().body == b"hello"
    busy.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    assert app.begun.wait(5)
    with stopping(server):
        with pytest.raises(ConnectionRefusedError):
            connect(server)
        assert idle.closed()
        assert silent.closed()
        app.go_on.set()
        assert busy.answer().body == b"hello"


def test_what_came_since_the_last_look_is_answered(
    server: ThreadedServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread finds nothing to read; then come a request and the end, and then it goes on."""
    held = Held(monkeypatch)
    client = connect(server)
    assert held.looked.wait(10)
    client.send(GET)
    with stopping(server):
        held.go_on.set()
        assert client.answer().body == b"hello"
        assert client.closed()


def comes_in(family: int, name: Any) -> bool:
    """Whether the kernel accepts a connection. Who is turned away waits longer than this does."""
    with socket.socket(family) as client:
        client.setblocking(False)
        try:
            client.connect(name)
        except BlockingIOError:
            answered = has_room(client.fileno(), 0.05)
            return answered and not client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        except OSError:
            return False
        return True


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Linux can")
tcp_and_unix = pytest.mark.parametrize(
    "kind",
    [
        *(pytest.param(kind, marks=LINUX) for kind in ("tcp", "shared")),
        "unix",
        pytest.param("abstract", marks=LINUX),
    ],
)


def bind_for(kind: str, folder: Path) -> str:
    return {"unix": f"unix:{folder}/s", "abstract": f"unix:@{folder}"}.get(kind, "127.0.0.1:0")


@tcp_and_unix
def test_nobody_comes_between_the_last_look_at_the_backlog_and_the_end(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    bind = bind_for(kind, tmp_path)
    came = []

    class LateClient(Listener):
        def close(self) -> None:
            came.append(comes_in(sock.family, name))
            super().close()

    monkeypatch.setattr("threadwell.worker.threads.pool.Listener", LateClient)
    with ThreadedServer(app, bind=bind, threads=2, reuse_port=kind == "shared") as server:
        sock, name = server._sockets[0], server.addresses[0]
        assert comes_in(sock.family, name)
    assert came == [False]


@pytest.mark.parametrize("kind", [BoundSocket, BoundUnixSocket])
def test_a_listener_that_another_loop_closes_while_it_turns_away(
    kind: type[BoundSocket], tmp_path: Path
) -> None:
    class ClosedMeanwhile(kind):  # type: ignore[valid-type, misc]
        def getsockname(self) -> Any:
            socket.socket.close(self)
            return super().getsockname()

    unix = kind is BoundUnixSocket
    sock = ClosedMeanwhile(socket.AF_UNIX if unix else socket.AF_INET)
    sock.bind(str(tmp_path / "s") if unix else ("127.0.0.1", 0))
    refuse_connections([sock])


@tcp_and_unix
def test_a_supervisor_turns_away_for_its_workers(app: App, tmp_path: Path, kind: str) -> None:
    bind = bind_for(kind, tmp_path)
    sock = open_socket(parse_bind(bind), 5, Bind(reuse_port=kind == "shared"))
    name = sock.getsockname()
    with sock.dup() as of_a_worker, socket.socket(sock.family) as client:
        client.connect(name)
        ServerSpec(lambda: Loaded(app), Server, ServerConfig(), [sock]).close_sockets()
        assert not comes_in(sock.family, name)
        accepted, _ = of_a_worker.accept()
        with accepted:
            client.sendall(GET)
            assert accepted.recv(999) == GET


def test_what_takes_too_long_is_cut(server: ThreadedServer, app: App, connect: Connect) -> None:
    client = connect(server)
    client.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    assert app.begun.wait(5)
    started = time.monotonic()
    with stopping(server, 0.3):
        assert not client.answer().complete
    assert time.monotonic() - started < 4
    app.go_on.set()


def test_stopping_twice_and_from_several_threads(server: ThreadedServer, connect: Connect) -> None:
    assert connect(server).get().body == b"hello"
    threads = [threading.Thread(target=server.stop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(5)
    assert not any(thread.is_alive() for thread in threads)
    server.stop()


def test_nothing_is_left_behind(app: App, connect: Connect) -> None:
    before = threading.active_count()
    server = ThreadedServer(app, bind="127.0.0.1:0", threads=4, graceful_timeout=0.2)
    server.start()
    client, half = connect(server), connect(server)
    assert client.get().body == b"hello"
    half.send(b"GET / HT")
    server.stop()
    worker = server._worker
    assert worker is not None
    until(lambda: threading.active_count() <= before)
    # also what had to be cut
    assert not [conn for conn in worker.poller.connections if conn.sock.fileno() >= 0]


def test_who_stops_waits_for_threads_that_are_about_to_end(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They serve no more, and have told so, but still run."""
    others = set(threading.enumerate())  # those that other tests have left
    over = threading.Event()
    live, close = ThreadPool._run_thread, ThreadPool.close

    def slow(pool: ThreadPool, worker: SyncWorker, **options: Any) -> None:
        live(pool, worker, **options)
        if not options:
            over.set()
            time.sleep(0.2)

    def late(pool: ThreadPool, worker: SyncWorker) -> None:
        assert over.wait(10)
        close(pool, worker)

    monkeypatch.setattr(ThreadPool, "_run_thread", slow)
    monkeypatch.setattr(ThreadPool, "close", late)
    with ThreadedServer(app, bind="127.0.0.1:0", threads=2):
        pass
    assert not [each for each in {*threading.enumerate()} - others if each.name == "threadwell-1"]


def test_who_stops_waits_for_a_thread_that_is_about_to_begin(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one for a long response may be."""
    others = set(threading.enumerate())  # those that other tests have left
    begins, start = threading.Event(), threading.Thread.start

    free: list[bool] = []

    def slow(thread: threading.Thread) -> None:
        if thread.name == "threadwell-1":
            # a signal to somebody who waited for it could leave it locked
            free.append(worker.pool.lock.acquire(timeout=5))
            worker.pool.lock.release()
            begins.set()
            time.sleep(0.2)
        start(thread)

    server = ThreadedServer(app, bind="127.0.0.1:0", threads=1)
    server.start()
    worker = server._worker
    assert worker is not None
    monkeypatch.setattr(threading.Thread, "start", slow)
    worker.leader_follower.joined()
    lender = threading.Thread(target=worker.pool.spawn)
    lender.start()
    assert begins.wait(10)
    server.stop()
    lender.join()
    assert free == [True]
    assert worker.poller._closed
    assert not [each for each in {*threading.enumerate()} - others if each.name == "threadwell-1"]


# ---- Signals -------------------------------------------------------------------------------

_SERVER = """
import sys, time
from threadwell import ThreadedServer
def app(environ, start_response):
    start_response("200 OK", [])
    path = environ["PATH_INFO"]
    if path == "/stream":
        def blocks():
            while True:
                yield b"tick"
                time.sleep(0.05)
        return blocks()
    if path == "/slow":
        print("begun", flush=True)
        time.sleep(1)
    return [b"hello"]
server = ThreadedServer(app, bind="127.0.0.1:0", threads=2, graceful_timeout=float(sys.argv[1]))
server.serve_forever(started=lambda: print(server.port, flush=True))
print("end", flush=True)
"""


@contextlib.contextmanager
def process(graceful: float) -> Iterator[tuple[subprocess.Popen[str], int]]:
    command = [sys.executable, "-W", "error", "-c", _SERVER, str(graceful)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as started:
        try:
            assert started.stdout is not None
            yield started, int(started.stdout.readline())
        finally:
            started.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_process_with_0(number: signal.Signals) -> None:
    with process(10) as (server, port), socket.create_connection(("127.0.0.1", port), 5) as raw:
        client = Client(raw)
        assert client.get().body == b"hello"
        client.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        assert server.stdout is not None
        assert server.stdout.readline() == "begun\n"
        server.send_signal(number)
        started = time.monotonic()
        assert client.answer().body == b"hello"
        output, errors = server.communicate(timeout=8)
        assert (server.returncode, output) == (0, "end\n"), errors
        assert time.monotonic() - started < 5
        assert "Traceback" not in errors


def test_the_second_signal_is_impatient() -> None:
    with process(60) as (server, port), socket.create_connection(("127.0.0.1", port), 5) as raw:
        client = Client(raw)
        client.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.sock.recv(10)
        server.send_signal(signal.SIGINT)
        until(lambda: refuses(port))
        assert server.poll() is None
        started = time.monotonic()
        server.send_signal(signal.SIGINT)
        server.wait(8)
        assert time.monotonic() - started < 5
        assert server.returncode == 0


def test_the_graceful_timeout_is_heeded() -> None:
    with process(0.5) as (server, port), socket.create_connection(("127.0.0.1", port), 5) as raw:
        client = Client(raw)
        client.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.sock.recv(10)
        started = time.monotonic()
        server.send_signal(signal.SIGTERM)
        server.wait(8)
        assert time.monotonic() - started < 4
        assert server.returncode == 0
