"""One owner a connection: who has given one away must not touch it, nor look at it.

`Watched` takes the place of the poller. What is parked there turns into a `GivenAway`, which notes
every look at it, as another thread's looks and changes would meet it on a server.
"""

from __future__ import annotations

import contextlib
import gc
import os
import queue
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from threadwell import (
    ConfigError,
    Request,
    Response,
    ServerConfig,
    SyncWorker,
    ThreadedServer,
)
from threadwell.worker.connection import WAITING, Connection, State
from threadwell.worker.errors import ClientDisconnected
from threadwell.worker.net.bind import BindAddress, open_socket
from threadwell.worker.polling import kernel
from threadwell.worker.polling.base import Poller
from threadwell.worker.polling.kernel import EpollPoller
from threadwell.worker.polling.listener import Listener
from threadwell.worker.polling.listener import connect as connection_on
from threadwell.worker.polling.task import ThreadTask
from threadwell.worker.threads.leader_follower import Slot

from .certificates import Authority
from .waiting import until
from .wire_client import Client

looks: list[str] = []


class GivenAway(Connection):  # type: ignore[misc]
    """A connection in the poller's hands."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":  # what isinstance may ask of anything
            return object.__getattribute__(self, name)
        looks.append(f"read {name}")
        raise AssertionError(f"{name} was read after the connection was parked")

    def __setattr__(self, name: str, value: Any) -> None:
        looks.append(f"set {name}")
        raise AssertionError(f"{name} was set after the connection was parked")


class Watched:
    """The worker's own poller, but for `park`: the connection goes into `parked` instead."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self.parked: list[tuple[Connection, State]] = []

    def park(self, connection: Connection, now: float) -> None:
        assert connection.state in WAITING
        self.parked.append((connection, connection.state))
        object.__setattr__(connection, "__class__", GivenAway)

    def take(self) -> Connection:
        """The connection that was parked last, for the test to look at."""
        connection, _ = self.parked[-1]
        object.__setattr__(connection, "__class__", Connection)
        return connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poller, name)


def app(request: Request) -> Response | None:
    if request.path == "/none":
        return None
    if request.path == "/fails":
        raise SystemExit(3)
    if request.path == "/large":
        return Response(200, [], b"x" * 20_000_000)
    if request.path == "/stream":
        return Response(200, [], iter([b"one", b"two"]))
    return Response(200, [], request.read())


class Driven:
    """A worker driven by hand, one turn after the other, on one connection."""

    def __init__(self, **options: Any) -> None:
        config = ServerConfig.from_options(threads=1, **options)
        self.worker = SyncWorker(config, app, socket.create_server(("127.0.0.1", 0)))
        self.own = self.worker.poller
        self.poller = Watched(self.own)
        self.worker.poller = self.poller  # type: ignore[assignment]
        ours, theirs = socket.socketpair()
        theirs.settimeout(5)
        self.client = Client(theirs)
        self.connection = connection_on(ours, ("192.0.2.1", 5), ("192.0.2.2", 80), None)
        self.own.connections.add(self.connection)

    def turn(self) -> State:
        """Serve once; the state that the connection was parked in."""
        if self.poller.parked:
            self.poller.take()
        self.poller.parked.clear()
        self.worker._handle_connection(self.connection, ("192.0.2.1", 5), None)
        assert looks == []
        assert len(self.poller.parked) == 1
        return self.poller.parked[0][1]

    def close(self) -> None:
        if self.poller.parked:
            self.poller.take()
        self.worker.poller = self.own
        self.worker.close()
        self.client.close()


@pytest.fixture
def drive(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[..., Driven]]:
    made: list[Driven] = []

    def start(**options: Any) -> Driven:
        made.append(Driven(**options))
        return made[-1]

    looks.clear()
    yield start
    for driven in made:
        driven.close()
    assert looks == []
    assert "internal error" not in caplog.text


GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "state"),
    [
        (b"", State.IDLE),
        (GET, State.IDLE),
        (GET * 2, State.IDLE),
        (GET * 20, State.YIELDED),
        (b"GET /", State.HEAD),
        (POST + b"bo", State.BODY),
        (POST + b"body", State.IDLE),
        (GET.replace(b"/", b"/fails", 1), State.IDLE),
        (GET.replace(b"/", b"/stream", 1), State.IDLE),
        (GET.replace(b"/", b"/large", 1), State.WRITING),
        (GET.replace(b"/", b"/none", 1), State.LINGERING),
        (POST.replace(b"/", b"/none", 1) + b"body", State.LINGERING),
        (b"GET / HTTP/1.1\r\nConnection: close\r\nHost: x\r\n\r\nmore", State.LINGERING),
        (b"GET / HTTP/1.1\r\nBad Field: x\r\n\r\n", State.LINGERING),
        (b"GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", State.LINGERING),
    ],
)
def test_nothing_looks_at_a_connection_that_was_parked(
    drive: Callable[..., Driven], data: bytes, state: State
) -> None:
    driven = drive()
    driven.client.send(data)
    assert driven.turn() is state


def test_nor_at_one_that_was_parked_again(drive: Callable[..., Driven]) -> None:
    driven = drive()
    driven.client.send(GET.replace(b"/", b"/large", 1))
    assert driven.turn() is State.WRITING
    assert driven.turn() is State.WRITING  # nobody reads
    reader = threading.Thread(target=driven.client.answer)
    reader.start()
    while driven.turn() is State.WRITING:
        pass
    reader.join()
    driven.client.send(b"nonsense\r\n\r\n")
    assert driven.turn() is State.LINGERING
    driven.client.send(b"more of it")
    assert driven.turn() is State.LINGERING


@pytest.mark.parametrize("data", [b"GET /", POST + b"bo"])
def test_nor_at_one_whose_request_came_too_late(drive: Callable[..., Driven], data: bytes) -> None:
    driven = drive()
    driven.client.send(data)
    driven.turn()
    connection = driven.poller.take()
    connection.head_deadline = 1.0
    if connection.body is not None:
        connection.body._deadline = 1.0
    assert driven.turn() is State.LINGERING
    assert driven.client.answer().status == 408


def test_nor_at_one_that_has_no_seat_any_more(drive: Callable[..., Driven]) -> None:
    driven = drive()

    def lose(slot: Slot) -> bool:
        slot.lent, slot.lost = False, True
        return False

    driven.worker.leader_follower.release_slot = lose  # type: ignore[method-assign]
    driven.client.send(GET.replace(b"/", b"/stream", 1) + GET)
    assert driven.turn() is State.YIELDED


def test_a_late_request_costs_the_next_connection_nothing(drive: Callable[..., Driven]) -> None:
    """The thread that answers 408 goes on as if nothing had been."""
    driven = drive()
    driven.client.send(b"GET /")
    driven.turn()
    driven.poller.take().head_deadline = 1.0
    assert driven.turn() is State.LINGERING
    ours, theirs = socket.socketpair()
    with theirs:
        second = connection_on(ours, ("192.0.2.1", 6), ("192.0.2.2", 80), None)
        driven.own.connections.add(second)
        theirs.sendall(b"GET / HT")
        driven.poller.take()
        driven.poller.parked.clear()
        driven.worker._handle_connection(second, ("192.0.2.1", 6), None)
        assert driven.poller.parked == [(second, State.HEAD)]
        driven.poller.take()


# ---- The poller: what it has taken, and what it has not -------------------------------------


@pytest.fixture
def epoll() -> Iterator[EpollPoller]:
    if not hasattr(kernel.select, "epoll"):
        pytest.skip("Linux")
    poller = EpollPoller(10)
    yield poller
    for connection in poller.close():
        connection.close()


def idle_connection() -> tuple[Connection, socket.socket]:
    ours, theirs = socket.socketpair()
    connection = connection_on(ours, ("192.0.2.1", 5), ("192.0.2.2", 80), None)
    connection.become(State.IDLE)
    connection.deadline = 1e12
    return connection, theirs


def test_a_park_that_fails_leaves_the_connection_to_its_owner(
    epoll: EpollPoller, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, client = idle_connection()

    def refuse(fd: int, events: int) -> None:
        raise OSError("no space for it")

    monkeypatch.setattr(epoll, "_modify", refuse)
    connection.registered = True
    with client:
        with pytest.raises(OSError, match="no space"):
            epoll.park(connection, 0.0)
        assert epoll._parked == {}
        connection.close()


def test_a_park_that_fails_after_another_has_the_connection_is_none(
    epoll: EpollPoller, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection, client = idle_connection()

    def take_and_refuse(fd: int, events: int) -> None:
        assert epoll._parked.pop(fd) is connection  # as a sweep on another thread would
        raise OSError("no space for it")

    monkeypatch.setattr(epoll, "_modify", take_and_refuse)
    connection.registered = True
    with client:
        epoll.park(connection, 0.0)
        connection.close()


def test_a_sweep_that_fails_fails_before_the_connection_is_given_away(
    epoll: EpollPoller,
) -> None:
    connection, client = idle_connection()

    def breaks() -> None:
        raise RuntimeError("a broken look")

    epoll.every_second = breaks
    with client:
        with pytest.raises(RuntimeError, match="broken look"):
            epoll.park(connection, 1e12)
        assert epoll._parked == {}
        connection.close()


def test_a_closed_poller_takes_nothing(epoll: EpollPoller) -> None:
    connection, client = idle_connection()
    epoll.close()
    with client:
        with pytest.raises(ClientDisconnected, match="stopped"):
            epoll.park(connection, 0.0)
        connection.close()


def test_a_poller_that_was_closed_can_be_drained(epoll: EpollPoller) -> None:
    """By another thread: both end a server that could not start."""
    sock = open_socket(BindAddress("tcp", "127.0.0.1", 0), 5)
    epoll.listen(Listener(sock, ServerConfig()))
    epoll.close()
    epoll.drain()
    assert sock.fileno() == -1


class Dropped(ThreadTask):
    """An errand that only notes what becomes of it."""

    def __init__(self) -> None:
        self.dropped = 0

    def run(self, worker: SyncWorker) -> None:
        raise AssertionError("nobody serves")

    def drop(self) -> None:
        self.dropped += 1


def test_an_errand_that_meets_the_end_is_dropped(epoll: EpollPoller) -> None:
    """When a poller is closed between the look and the giving, too."""

    class Late(deque[ThreadTask]):
        def append(self, task: ThreadTask) -> None:
            epoll.close()
            super().append(task)

    tasks = [Dropped(), Dropped()]
    epoll._tasks = Late()
    for task in tasks:
        epoll.submit(task)
    assert [task.dropped for task in tasks] == [1, 1]


class Reused(dict[int, Connection]):
    """Parked connections, of which `old` is taken and closed while somebody looks through them,
    and whose descriptor `new` has by the time he pops it."""

    new: Connection

    def copy(self) -> dict[int, Connection]:
        seen = dict(self)
        for fd in self:
            self[fd] = self.new
        return seen


@pytest.mark.parametrize("look", ["sweep", "make room"])
def test_a_connection_that_has_anothers_descriptor_by_now_is_not_lost(
    epoll: EpollPoller, look: str
) -> None:
    old, old_client = idle_connection()
    new, new_client = idle_connection()
    epoll._parked = Reused({old.fd: old})
    epoll._parked.new = new
    old.deadline = 0.0
    with old_client, new_client:
        if look == "sweep":
            epoll._sweep(1.0)
            assert epoll._take_overdue() is new
        else:
            assert epoll._make_room("it is full") is new
        old.close()
        new.close()


def test_an_event_for_a_connection_that_is_accepted_already_evicts_nobody(
    epoll: EpollPoller,
) -> None:
    """Several threads may be told of one connection in the backlog; only one finds it there."""
    connection, client = idle_connection()
    epoll.limit = 1
    epoll.connections.add(connection)
    epoll.park(connection, 0.0)
    listener = Listener(socket.create_server(("127.0.0.1", 0)), ServerConfig())
    with client:
        assert epoll._accept(listener) is None
        assert epoll._parked == {connection.fd: connection}
        with socket.create_connection(listener.address, 5):
            assert epoll._accept(listener) is connection  # now there is one to make room for
        listener.close()
        assert epoll._accept(listener) is None
        connection.close()


def test_a_server_is_not_drained_while_a_thread_accepts(epoll: EpollPoller) -> None:
    """Between the backlog and `connections` a connection is in nobody's list."""
    accepting, go_on = threading.Event(), threading.Event()
    connection, client = idle_connection()

    class Slow:
        first_timeout = 10.0

        def accept(self) -> Connection:
            accepting.set()
            go_on.wait(5)
            return connection

    thread = threading.Thread(target=epoll._accept, args=(Slow(),))
    thread.start()
    assert accepting.wait(5)
    epoll.drain()
    assert not epoll.drained.is_set()
    go_on.set()
    thread.join()
    assert not epoll.drained.is_set()
    with client:
        connection.close()
        epoll.forget(connection)
    assert epoll.drained.is_set()


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
    with monkeypatch.context() as patch, pytest.raises(RuntimeError, match="new thread"):
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
