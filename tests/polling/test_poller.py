"""The pollers: the same small battery for each way to wait, and what only one of them has."""

from __future__ import annotations

import contextlib
import queue
import select
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from threadwell import ServerConfig, SyncWorker, ThreadedServer
from threadwell.adapters import as_sync_app
from threadwell.worker.polling.distributor import QueuePoller
from threadwell.worker.polling.kernel import EpollPoller, make_poller

from ..helpers.waiting import no_hurry, until
from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

POLLERS = [
    pytest.param("epoll", marks=pytest.mark.skipif(not hasattr(select, "epoll"), reason="Linux")),
    pytest.param("kqueue", marks=pytest.mark.skipif(not hasattr(select, "kqueue"), reason="BSD")),
    "queue",
]


def app(environ: dict[str, Any], start_response: Any) -> Any:
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/stream":
        return (b"block" for _ in range(3))
    if environ["PATH_INFO"] == "/echo":
        return [environ["wsgi.input"].read()]
    if environ["PATH_INFO"] == "/large":
        return [bytes(8 * 1024 * 1024)]
    if environ["PATH_INFO"] == "/slow":
        time.sleep(0.2)
    return [b"hello"]


@pytest.fixture(params=POLLERS)
def poller(request: pytest.FixtureRequest) -> str:
    return str(request.param)


# ---- The battery ---------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 4])
def test_keep_alive(serve: Serve, connect: Connect, poller: str, threads: int) -> None:
    client = connect(serve(app, poller=poller, threads=threads))
    for _ in range(50):
        assert client.get().body == b"hello"


def test_pipelined_requests_take_turns(serve: Serve, connect: Connect, poller: str) -> None:
    client = connect(serve(app, poller=poller, threads=1))
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
    for _ in range(100):
        assert client.answer().body == b"hello"


def test_a_head_and_a_body_in_pieces(serve: Serve, connect: Connect, poller: str) -> None:
    client = connect(serve(app, poller=poller, threads=1))
    for _ in range(3):
        for octet in b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody":
            client.send(bytes([octet]))
        assert client.answer().body == b"body"


def test_idle_connections_are_closed_in_time(serve: Serve, connect: Connect, poller: str) -> None:
    server = serve(app, poller=poller, keep_alive=0.3, head_timeout=0.3)
    with no_hurry(server):
        used, silent, half = (connect(server, timeout=4) for _ in range(3))
        assert used.get().body == b"hello"
        half.send(b"GET / HT")
    started = time.monotonic()
    assert used.closed()
    assert silent.closed()
    assert half.answer().status == 408
    assert half.closed()
    assert time.monotonic() - started < 4
    half.close()
    worker = server._worker
    assert worker is not None
    until(lambda: not worker.poller.connections)
    assert not worker.poller._parked


def test_many_connections(serve: Serve, connect: Connect, poller: str) -> None:
    server = serve(app, poller=poller)
    clients = [connect(server) for _ in range(300)]
    for _ in range(2):
        for client in clients:
            client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        for client in clients:
            assert client.answer().body == b"hello"
    worker = server._worker
    assert worker is not None
    assert len(worker.poller.connections) == 300
    for client in clients:
        client.close()
    until(lambda: not worker.poller.connections)
    assert not worker.poller._parked


def test_streams(serve: Serve, connect: Connect, poller: str) -> None:
    server = serve(app, poller=poller, threads=2)
    clients = [connect(server) for _ in range(20)]
    for _ in range(3):
        for client in clients:
            client.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        for client in clients:
            assert client.answer().body == b"block" * 3


def test_a_large_answer_waits_for_a_slow_reader(
    serve: Serve, connect: Connect, poller: str
) -> None:
    server = serve(app, poller=poller, threads=1)
    slow = connect(server)
    slow.send(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    assert connect(server).get().body == b"hello"
    assert slow.answer().body == bytes(8 * 1024 * 1024)
    assert slow.get().body == b"hello"


def test_drain(serve: Serve, connect: Connect, poller: str) -> None:
    server = serve(app, poller=poller, threads=2, graceful_timeout=5)
    idle, silent, busy = (connect(server) for _ in range(3))
    assert idle.get().body == b"hello"
    busy.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    worker = server._worker
    assert worker is not None
    until(lambda: not worker.is_idle())
    started = time.monotonic()
    server.stop()
    assert time.monotonic() - started < 3
    assert busy.answer().body == b"hello"
    for client in (idle, silent, busy):
        assert client.closed()
    with pytest.raises(ConnectionRefusedError):
        connect(server)


def test_connections_at_the_limit(serve: Serve, connect: Connect, poller: str) -> None:
    """Idle ones make room for new ones, again and again."""
    server = serve(app, poller=poller, limit_connections=5, threads=2)
    clients = []
    for _ in range(40):
        client = connect(server, timeout=5)
        assert client.get().body == b"hello"
        clients.append(client)
    worker = server._worker
    assert worker is not None
    assert len(worker.poller.connections) <= 6
    assert clients[-1].get().body == b"hello"
    assert clients[0].closed()


def test_new_connections_wait_when_none_is_idle(
    serve: Serve, connect: Connect, poller: str
) -> None:
    server = serve(app, poller=poller, limit_connections=3, threads=3)
    busy = [connect(server) for _ in range(3)]
    for client in busy:
        client.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    worker = server._worker
    assert worker is not None
    until(lambda: len(worker.poller.connections) == 3)
    waiting = [connect(server) for _ in range(3)]
    for client in waiting:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    for client in [*busy, *waiting]:
        assert client.answer().body == b"hello"
        client.close()


# ---- A queue that somebody else fills -------------------------------------------------------


@contextlib.contextmanager
def running(worker: SyncWorker) -> Iterator[threading.Thread]:
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield thread
    finally:
        worker.shutdown(3)
        thread.join(5)
        assert not thread.is_alive()


def queue_worker(threads: int = 2, **options: Any) -> tuple[SyncWorker, Any]:
    conn_queue: queue.Queue[tuple[socket.socket, object]] = queue.Queue()
    config = ServerConfig.from_options(threads=threads)
    worker = SyncWorker(config, as_sync_app(app), None, conn_queue=conn_queue, **options)
    return worker, conn_queue


def tcp_pair() -> tuple[socket.socket, socket.socket, object]:
    """An accepted connection, its client, and the client's address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        client = socket.create_connection(listening.getsockname(), 10)
        accepted, address = listening.accept()
    return accepted, client, address


def test_a_queue_of_accepted_connections(connect: Connect) -> None:
    worker, conn_queue = queue_worker()
    with running(worker), contextlib.ExitStack() as stack:
        for _ in range(10):
            accepted, raw, address = tcp_pair()
            conn_queue.put((accepted, address))
            client = Client(stack.enter_context(raw))
            for _ in range(5):
                assert client.get().body == b"hello"
            assert client.get("/stream").body == b"block" * 3


def test_what_is_in_the_queue_when_the_server_stops_is_answered() -> None:
    worker, conn_queue = queue_worker(threads=1)
    clients = []
    for _ in range(5):
        accepted, raw, address = tcp_pair()
        clients.append(Client(raw))
        clients[-1].send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        conn_queue.put((accepted, address))
    try:
        with running(worker):
            until(lambda: worker.served)
        for client in clients:
            assert client.answer().body == b"hello"
            assert client.closed()
    finally:
        for client in clients:
            client.close()


def test_what_is_in_the_queue_is_answered_though_nothing_else_is_open() -> None:
    """And though WebSockets and the like would not have been waited for any longer."""
    worker, conn_queue = queue_worker(threads=1)
    stops = threading.Event()
    wait = worker.poller.wait

    def late(seconds: float) -> Any:
        assert stops.wait(10)
        time.sleep(0.7)
        return wait(seconds)

    worker.poller.wait = late  # type: ignore[method-assign]
    with contextlib.ExitStack() as stack:
        clients = []
        for _ in range(2):
            accepted, raw, address = tcp_pair()
            clients.append(Client(stack.enter_context(raw)))
            clients[-1].send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            conn_queue.put((accepted, address))
        with running(worker):
            stops.set()
        for client in clients:
            assert client.answer().body == b"hello"
            assert client.closed()


def test_a_unix_connection_in_the_queue() -> None:
    """Its address is a text, and an empty one."""
    worker, conn_queue = queue_worker(threads=1)
    accepted, raw = socket.socketpair()
    raw.settimeout(3)
    with running(worker), raw:
        conn_queue.put((accepted, ""))
        client = Client(raw)
        for _ in range(2):
            assert client.get().body == b"hello"


def test_a_queue_with_tls_is_not_served_in_the_clear(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=x"
    )
    try:
        subprocess.run(
            [*command.split(), "-keyout", str(key), "-out", str(cert)],
            check=True,
            capture_output=True,
        )
    except FileNotFoundError:
        pytest.skip("there is no openssl command to make a certificate with")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    worker, conn_queue = queue_worker(ssl_context=context)
    accepted, raw, address = tcp_pair()
    trusting = ssl.create_default_context(cafile=str(cert))
    trusting.check_hostname = False
    raw.settimeout(3)
    with running(worker), raw:
        conn_queue.put((accepted, address))
        with trusting.wrap_socket(raw, server_hostname="x") as sock:
            assert Client(sock).get().body == b"hello"


# ---- Choosing one --------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(select, "epoll"), reason="Linux")
def test_auto_is_epoll_on_linux() -> None:
    poller = make_poller("auto", 10)
    assert isinstance(poller, EpollPoller)
    poller.close()


def test_a_queue_has_its_poller() -> None:
    poller = make_poller("auto", 10, queue.Queue())
    assert isinstance(poller, QueuePoller)
    poller.close()


def test_what_the_system_does_not_have_is_an_error() -> None:
    missing = "kqueue" if hasattr(select, "epoll") else "epoll"
    with pytest.raises(OSError, match=missing):
        make_poller(missing, 10)


def test_wait_returns_after_its_seconds(poller: str) -> None:
    made = make_poller(poller, 10)
    started = time.monotonic()
    assert made.wait(0.1) is None
    assert 0.05 < time.monotonic() - started < 2
    made.close()


def test_wake_makes_every_wait_return(poller: str) -> None:
    made = make_poller(poller, 10)
    threads = [threading.Thread(target=made.wait, args=(30,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    made.wake()
    for thread in threads:
        thread.join(5)
    assert not any(thread.is_alive() for thread in threads)
    made.close()
