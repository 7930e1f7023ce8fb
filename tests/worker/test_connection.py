"""The states of a connection, and who may take a parked one."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from threadwell.worker.connection import (
    FOR_OUTPUT,
    TRANSITIONS,
    WAITING,
    Connection,
    IllegalTransition,
    State,
)
from threadwell.worker.polling.base import Poller
from threadwell.worker.polling.kernel import EpollPoller

ADDRESS = ("127.0.0.1", 1)


@contextlib.contextmanager
def connection(state: State = State.SERVING) -> Iterator[tuple[Connection, socket.socket]]:
    """A connection in `state`, and the client's end of it."""
    ours, theirs = socket.socketpair()
    ours.setblocking(False)
    with ours, theirs:
        yield Connection(ours, ADDRESS, ADDRESS, state=state), theirs


@pytest.mark.parametrize("after", list(State), ids=lambda state: state.value)
@pytest.mark.parametrize("before", list(State), ids=lambda state: state.value)
def test_a_step_is_taken_if_the_table_has_it_and_raises_otherwise(
    before: State, after: State
) -> None:
    with connection(before) as (conn, _):
        if after in TRANSITIONS[before]:
            conn.become(after)
            assert conn.state is after
        else:
            with pytest.raises(IllegalTransition, match=f"{before.value} -> {after.value}"):
                conn.become(after)
            assert conn.state is before


def test_every_state_has_its_steps_and_can_be_reached() -> None:
    assert set(TRANSITIONS) == set(State)
    reached = {State.SERVING}
    while True:
        further = reached.union(*(TRANSITIONS[state] for state in reached))
        if further == reached:
            break
        reached = further
    assert reached == set(State)


def test_every_state_but_the_last_can_close() -> None:
    for state in State:
        assert (State.CLOSED in TRANSITIONS[state]) is (state is not State.CLOSED)


def test_nothing_follows_the_end() -> None:
    assert TRANSITIONS[State.CLOSED] == frozenset()
    assert TRANSITIONS[State.HIJACKED] == {State.CLOSED}


def test_who_waits_goes_nowhere_but_to_a_thread_or_the_end() -> None:
    for state in WAITING:
        assert TRANSITIONS[state] == {State.SERVING, State.CLOSED}


def test_only_a_serving_thread_runs_and_gives_away() -> None:
    for target in (State.STREAMING, State.HIJACKED, State.ADOPTED):
        assert [state for state in State if target in TRANSITIONS[state]] == [State.SERVING]


def test_every_state_has_one_kind_of_owner() -> None:
    owned = {State.SERVING, State.STREAMING, State.HIJACKED, State.ADOPTED, State.CLOSED}
    assert WAITING | owned == set(State)
    assert not WAITING & owned
    assert FOR_OUTPUT < WAITING


def test_closing_twice_is_a_bug_that_shows() -> None:
    with connection() as (conn, _):
        conn.close()
        with pytest.raises(IllegalTransition):
            conn.close()


def test_closing_lets_go_of_the_socket_and_the_buffer() -> None:
    with connection() as (conn, theirs):
        conn.buffer = b"left"
        conn.close()
        assert conn.buffer == b""
        assert theirs.recv(1) == b""


def test_an_abandoned_socket_stays_open() -> None:
    with connection() as (conn, theirs):
        sock = conn.sock
        conn.abandon()
        conn.close()
        sock.send(b"still here")
        assert theirs.recv(100) == b"still here"


def test_disconnect_from_another_thread_is_an_end_of_input() -> None:
    with connection() as (conn, theirs):
        thread = threading.Thread(target=conn.disconnect)
        thread.start()
        thread.join()
        assert conn.recv(1) == b""
        assert theirs.recv(1) == b""
        conn.disconnect()  # once more does no harm


@pytest.fixture
def poller() -> Iterator[Poller]:
    made = EpollPoller(limit=1000)
    yield made
    made.close()


def test_a_parked_connection_goes_to_one_of_the_threads_that_wait(poller: Poller) -> None:
    """Events and the sweep together: each parking is taken by exactly one thread."""
    rounds = 200
    taken: list[Connection] = []
    done = threading.Event()

    def wait() -> None:
        while not done.is_set():
            found = poller.wait(0.05)
            if found is not None:
                taken.append(found)

    threads = [threading.Thread(target=wait) for _ in range(8)]
    with connection() as (conn, theirs):
        for thread in threads:
            thread.start()
        try:
            for number in range(1, rounds + 1):
                theirs.send(b"x")
                conn.state = State.IDLE
                # overdue and ready at once, so that both ways lead to it
                conn.deadline = 0.0
                poller._next_sweep = 0.0
                poller.park(conn, time.monotonic())
                deadline = time.monotonic() + 5
                while len(taken) < number and time.monotonic() < deadline:
                    done.wait(0.0005)
                assert len(taken) == number
            done.wait(0.1)
            assert len(taken) == rounds
        finally:
            done.set()
            for thread in threads:
                thread.join()


def test_an_event_without_a_parked_connection_gives_nothing(poller: Poller) -> None:
    with connection() as (conn, theirs):
        theirs.send(b"x")
        conn.become(State.IDLE)
        conn.deadline = time.monotonic() + 60
        poller.park(conn, time.monotonic())
        assert poller._parked.pop(conn.fd) is conn  # the sweep was quicker
        assert poller.wait(0.2) is None
