"""Nothing is left open: by workers, servers and processes that are forked off."""

from __future__ import annotations

import contextlib
import gc
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from threadwell import ConfigError, Request, Response, ServerConfig, SyncWorker, ThreadedServer
from threadwell.worker.connection import Connection, State
from threadwell.worker.errors import ClientDisconnected
from threadwell.worker.net.bind import BindAddress, open_socket

from ...helpers.certificates import Authority
from ...helpers.waiting import until
from ...helpers.wire_client import Client
from .driven import GET, Driven, app, idle_connection

# ---- Nothing is left open -------------------------------------------------------------------


def queue_worker() -> tuple[SyncWorker, queue.Queue[tuple[socket.socket, object]]]:
    conn_queue: queue.Queue[tuple[socket.socket, object]] = queue.Queue()
    return SyncWorker(ServerConfig(), app, None, conn_queue=conn_queue), conn_queue


def test_a_worker_that_was_driven_by_hand_closes_what_is_left(
    drive: Callable[..., Driven],
) -> None:
    driven = drive()
    driven.client.send(b"nonsense\r\n\r\n")
    assert driven.turn() is State.LINGERING
    driven.poller.take()
    driven.worker.poller = driven.own
    driven.own.park(driven.connection, time.monotonic())
    driven.worker.close()
    assert driven.connection.sock.fileno() == -1
    assert driven.own.connections == set()
    driven.worker.close()  # once more does no harm


def test_what_an_interrupted_thread_had_is_closed(drive: Callable[..., Driven]) -> None:
    """As Ctrl-C does it in the main thread, between two steps of a connection."""
    driven = drive()
    driven.client.send(GET)

    def interrupted(conn: Connection) -> Any:
        raise KeyboardInterrupt

    driven.worker._recv_request_fast = interrupted  # type: ignore[method-assign, assignment]
    with pytest.raises(KeyboardInterrupt):
        driven.worker._handle_connection(driven.connection, ("", 0), None)
    driven.worker.poller = driven.own
    driven.worker.close()
    assert driven.connection.state is State.CLOSED


def test_a_stuck_thread_keeps_its_connection_until_it_is_back() -> None:
    begun, go_on = threading.Event(), threading.Event()

    def stuck(request: Request) -> Response:
        begun.set()
        go_on.wait(10)
        return Response(200, [], b"late")

    sock = socket.create_server(("127.0.0.1", 0))
    address = sock.getsockname()
    worker = SyncWorker(ServerConfig.from_options(threads=2), stuck, sock)
    running = threading.Thread(target=worker.run)
    running.start()
    with socket.create_connection(address, 5) as client:
        client.sendall(GET)
        assert begun.wait(5)
        (connection,) = worker.poller.connections
        owner = next(each for each in list(worker.pool.workers) if each.slot.serving is connection)
        worker.shutdown(0)
        # the thread of `run` gives up waiting for the other; if it is the stuck one it cannot
        until(lambda: owner is worker or not running.is_alive())
        assert connection.state is State.SERVING
        go_on.set()
        running.join(5)
        assert not running.is_alive()
        until(lambda: owner.slot.serving is None)
        assert connection.state is State.CLOSED


def test_pairs_that_nobody_took_from_the_queue_are_closed() -> None:
    worker, conn_queue = queue_worker()
    ours, theirs = socket.socketpair()
    with theirs:
        conn_queue.put((ours, ("192.0.2.1", 5)))
        worker.close()
        assert ours.fileno() == -1


def test_a_closed_queue_poller_takes_nothing() -> None:
    worker, _ = queue_worker()
    worker.close()
    connection, client = idle_connection()
    with client:
        with pytest.raises(ClientDisconnected, match="stopped"):
            worker.poller.park(connection, 0.0)
        connection.close()


def test_a_pair_that_is_no_connection_any_more_does_not_delay_the_end() -> None:
    worker, conn_queue = queue_worker()
    closed, theirs = socket.socketpair()
    closed.close()
    with theirs:
        conn_queue.put((closed, ("192.0.2.1", 5)))
        worker.start_draining()
        assert not worker.poller.drained.is_set()
        assert worker.poller.wait(1) is None
        assert worker.poller.drained.is_set()
        worker.close()


def test_letting_go_of_a_socket_needs_no_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    connection, client = idle_connection()

    def none_left(*arguments: Any) -> socket.socket:
        raise OSError("too many open files")

    kept = connection.sock
    monkeypatch.setattr("threadwell.worker.connection.socket.socket", none_left)
    connection.abandon()
    connection.disconnect()
    connection.close()
    monkeypatch.undo()
    with client:
        kept.send(b"still open")
        assert client.recv(100) == b"still open"
        kept.close()


def test_a_server_whose_thread_cannot_start_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    server = ThreadedServer(app, bind="127.0.0.1:0", interface="sync")
    server.bind()
    port = server.port
    with monkeypatch.context() as patch, pytest.raises(OSError, match="new thread"):
        patch.setattr(threading.Thread, "start", none_left)
        server.start()
    with socket.create_server(("127.0.0.1", port)):
        gc.collect()  # an open socket in there would be a warning, and so an error


def test_a_signal_while_the_thread_starts_leaves_it_to_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The thread may run already, and its worker is not to be closed under it."""
    start = threading.Thread.start

    def interrupted(thread: threading.Thread) -> None:
        start(thread)
        if thread.name == "threadwell-0":
            raise KeyboardInterrupt

    server = ThreadedServer(app, bind="127.0.0.1:0", interface="sync")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(threading.Thread, "start", interrupted)
        server.start()
    with socket.create_connection(("127.0.0.1", server.port), 5) as raw:
        assert Client(raw).get().status == 200
    thread = server._thread
    assert thread is not None
    server.stop()
    assert not thread.is_alive()


def test_a_signal_before_the_thread_starts_leaves_nothing_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def interrupted(thread: threading.Thread) -> None:
        raise KeyboardInterrupt

    server = ThreadedServer(app, bind="127.0.0.1:0", interface="sync")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(threading.Thread, "start", interrupted)
        server.start()
    server.stop()
    with socket.create_server(("127.0.0.1", server.port)):
        pass


def test_a_descriptor_that_is_no_socket_is_not_copied_for_good(tmp_path: Path) -> None:
    with (tmp_path / "file").open("w") as file:
        for _ in range(2):
            with pytest.raises(ConfigError, match="not an open socket"):
                open_socket(BindAddress("fd", str(file.fileno())), 5)
        free = os.dup(file.fileno())
        os.close(free)
        with pytest.raises(ConfigError):
            open_socket(BindAddress("fd", str(file.fileno())), 5)
        again = os.dup(file.fileno())
        os.close(again)
        assert again == free


# ---- Processes that the application forks off -------------------------------------------------


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
@pytest.mark.parametrize("kind", ["epoll", "queue", "tls"])
def test_a_process_that_is_forked_off_keeps_nothing_of_the_server(
    kind: str,
    serve: Callable[..., ThreadedServer],
    authority: Authority,
    certificate_of_http2: dict[str, str],
    tmp_path: Path,
) -> None:
    until_the_end, end = os.pipe()
    here, begun = os.pipe()
    children: list[int] = []

    def app(request: Request) -> Response:
        if request.path != "/":
            pid = os.fork()
            if not pid and request.path == "/exit":
                sys.exit(3)
            if not pid and request.path == "/return":
                return Response(200, [], b"the child's")
            if not pid:
                os.close(end)
                os.write(begun, b"!")
                os.read(until_the_end, 1)
                os._exit(0)
            children.append(pid)
            if request.path == "/stay":
                os.read(here, 1)
        return Response(200, [], b"ok")

    options = certificate_of_http2 if kind == "tls" else {"poller": kind}
    bind = ["127.0.0.1:0", f"unix:{tmp_path}/socket"]
    server = serve(app, bind=bind, **options)

    def client() -> Client:
        sock = socket.create_connection(("127.0.0.1", server.port), 10)
        if kind == "tls":
            sock = authority.trusting().wrap_socket(sock, server_hostname="127.0.0.1")
        return Client(sock)

    with contextlib.closing(client()) as other, contextlib.closing(client()) as forking:
        assert other.get().body == b"ok"
        for path, code in (("/exit", 3), ("/return", 1)):
            assert forking.get(path).body == b"ok"
            assert os.waitstatus_to_exitcode(os.waitpid(children.pop(), 0)[1]) == code
        assert forking.get("/stay").body == b"ok"
        for each in (other, forking):
            assert each.get(headers="Connection: close\r\n").body == b"ok"
            assert each.closed()
    address = server.addresses[0]
    assert (tmp_path / "socket").exists()
    server.stop()
    open_socket(BindAddress("tcp", *address), 1).close()
    os.close(end)
    os.waitpid(children.pop(), 0)
    for descriptor in (until_the_end, here, begun):
        os.close(descriptor)
