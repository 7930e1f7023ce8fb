"""One owner a connection: who has given one away must not touch it, nor look at it."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Callable

import pytest

from threadwell import ServerConfig, SyncWorker
from threadwell.worker.connection import Connection, State
from threadwell.worker.errors import ClientDisconnected
from threadwell.worker.net.bind import BindAddress, open_socket
from threadwell.worker.polling.kernel import EpollPoller
from threadwell.worker.polling.listener import Listener
from threadwell.worker.polling.listener import connect as connection_on
from threadwell.worker.polling.task import ThreadTask
from threadwell.worker.threads.leader_follower import Slot

from .driven import GET, Driven, idle_connection

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
            assert epoll._take_ahead() is new
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
