"""Who serves: the rota by itself, with seats that pretend, and the promise it keeps."""

from __future__ import annotations

import contextlib
import http.client
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest

from threadwell import ThreadedServer
from threadwell.worker.threads.leader_follower import LeaderFollower

from ..helpers.waiting import until

Serve = Callable[..., ThreadedServer]


def running_has(running: list[threading.Event], gate: threading.Event) -> bool:
    return gate in running


class Slot:
    """A thread that takes turns, and does in them what the test says."""

    def __init__(self, leader_follower: LeaderFollower, work: Callable[[Slot], object]) -> None:
        self.events_taken = 0
        self.serving: object = None
        self.seated = False
        self.permanent = False
        self.turns_taken = 0
        self.ended = False
        self._rota = leader_follower
        self._work = work
        self.thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while self._rota.acquire_slot(self):
            self.turns_taken += 1
            try:
                self._work(self)
            finally:
                self._rota.leave(self)
        self.ended = True


class ThreadPool:
    """A rota, its seats, and a gate at which their work waits."""

    def __init__(self, threads: int, *, gil: bool, max_streams: int = 10) -> None:
        self.gate = threading.Event()
        self.seats: list[Slot] = []
        self.spawned = 0
        self.leader_follower = LeaderFollower(threads, max_streams, self._spawn, gil=gil)
        self.work: Callable[[Slot], object] = self.stick

    def _spawn(self) -> None:
        self.spawned += 1
        self._add()

    def _add(self) -> Slot:
        slot = Slot(self.leader_follower, self._do)
        self.seats.append(slot)
        slot.thread.start()
        return slot

    def _do(self, slot: Slot) -> None:
        self.work(slot)

    def spawn(self, number: int) -> None:
        for _ in range(number):
            self.leader_follower.joined()
            self._add()

    # ---- What a seat may do in its turn ----

    def stick(self, slot: Slot) -> None:
        """One call that lasts until the gate opens."""
        slot.events_taken += 1
        slot.serving = "a call"
        if self.leader_follower.deputy_asleep:
            self.leader_follower.wake()
        self.gate.wait(20)
        slot.serving = None

    def poll(self, slot: Slot) -> None:
        """Wait for events that do not come, as a leader does."""
        while (
            self.leader_follower.leader is slot or self.leader_follower.eager
        ) and not self.leader_follower.stopping:
            if self.gate.wait(0.002):
                return

    def cpu(self) -> float:
        """Seconds of CPU time of the seats' threads; other tests may have left some behind."""
        if not hasattr(time, "pthread_getcpuclockid"):
            return time.process_time()
        idents = [slot.thread.ident for slot in self.seats if slot.thread.ident is not None]
        return sum(time.clock_gettime(time.pthread_getcpuclockid(ident)) for ident in idents)

    def busy(self) -> int:
        return sum(slot.serving is not None for slot in self.seats)

    def seated(self) -> int:
        return sum(slot.seated for slot in self.seats)

    def stop(self) -> None:
        self.gate.set()
        self.leader_follower.stop()
        for slot in list(self.seats):
            slot.thread.join(5)
        assert not any(slot.thread.is_alive() for slot in self.seats)


@pytest.fixture
def pool() -> Iterator[Callable[..., ThreadPool]]:
    with contextlib.ExitStack() as stack:

        def make(threads: int, *, gil: bool = True, **options: Any) -> ThreadPool:
            made = ThreadPool(threads, gil=gil, **options)
            stack.callback(made.stop)
            return made

        yield make


class TestReluctant:
    """With the GIL: one leader, and a deputy that steps in."""

    def test_one_thread_leads_and_the_others_wait(self, pool: Callable[..., ThreadPool]) -> None:
        made = pool(4)
        made.work = made.poll
        made.spawn(4)
        until(lambda: made.seated() == 1)
        until(lambda: made.leader_follower.deputy_asleep)
        assert made.seated() == 1
        assert isinstance(made.leader_follower.leader, Slot)
        assert made.leader_follower.leader.seated

    def test_the_deputy_takes_over_from_a_stuck_leader(
        self, pool: Callable[..., ThreadPool]
    ) -> None:
        made = pool(2)
        made.spawn(1)
        until(lambda: made.busy() == 1)
        started = time.monotonic()
        made.spawn(1)
        until(lambda: made.busy() == 2)
        # a tick is a millisecond; the rest is for a machine that has other things to do
        assert time.monotonic() - started < 0.5

    def test_a_sleeping_deputy_wakes_when_work_begins(
        self, pool: Callable[..., ThreadPool]
    ) -> None:
        made = pool(2)
        begin = threading.Event()

        def first_polls_then_sticks(slot: Slot) -> None:
            if begin.wait(10):
                made.stick(slot)

        made.work = first_polls_then_sticks
        made.spawn(2)
        until(lambda: made.leader_follower.deputy_asleep)
        assert made.seated() == 1
        started = time.monotonic()
        begin.set()
        until(lambda: made.busy() == 2)
        assert time.monotonic() - started < 0.5

    def test_never_more_seats_than_threads(self, pool: Callable[..., ThreadPool]) -> None:
        made = pool(3)
        made.spawn(6)
        until(lambda: made.busy() == 3)
        time.sleep(0.05)  # time enough for a fourth to be let in
        assert made.busy() == 3
        assert made.seated() == 3
        made.gate.set()
        until(lambda: made.busy() == 0)

    def test_a_deputy_without_a_seat_to_take_sleeps(self, pool: Callable[..., ThreadPool]) -> None:
        """All stuck: nobody ticks, so it costs nothing."""
        made = pool(2)
        made.spawn(3)
        until(lambda: made.busy() == 2 and made.leader_follower.deputy_asleep)
        before = made.cpu()
        time.sleep(0.2)
        assert made.cpu() - before < 0.05

    def test_a_seat_that_comes_free_is_taken(self, pool: Callable[..., ThreadPool]) -> None:
        made = pool(2)
        gates = [threading.Event() for _ in range(20)]
        calls = iter(gates)
        lock = threading.Lock()
        running: list[threading.Event] = []

        def work(slot: Slot) -> None:
            with lock:
                gate = next(calls, None)
            if gate is None or made.gate.is_set():
                made.gate.wait(10)
                return
            slot.events_taken += 1
            slot.serving = gate
            made.leader_follower.wake()
            running.append(gate)
            while not gate.wait(0.01) and not made.gate.is_set():
                pass
            running.remove(gate)
            slot.serving = None

        made.work = work
        made.spawn(4)
        for number in range(10):
            until(lambda: len(running) == 2)
            running[number % 2].set()
            until(partial(running_has, running, gates[number + 2]))


class TestEager:
    """Without the GIL all seated threads poll."""

    def test_all_sit_at_once(self, pool: Callable[..., ThreadPool]) -> None:
        made = pool(4, gil=False)
        made.work = made.poll
        made.spawn(4)
        until(lambda: made.seated() == 4)
        assert made.leader_follower.always_eager

    def test_never_more_seats_than_threads(self, pool: Callable[..., ThreadPool]) -> None:
        made = pool(3, gil=False)
        made.spawn(6)
        until(lambda: made.busy() == 3)
        time.sleep(0.05)  # time enough for a fourth to be let in
        assert made.seated() == 3

    def test_turns_eager_when_long_calls_are_the_rule_and_back_when_not(
        self, pool: Callable[..., ThreadPool]
    ) -> None:
        made = pool(2)
        leader_follower = made.leader_follower
        quick = threading.Event()

        def work(slot: Slot) -> None:
            while (
                leader_follower.leader is slot or (leader_follower.eager and slot.seated)
            ) and not leader_follower.stopping:
                slot.events_taken += 1
                slot.serving = "a call"
                if leader_follower.deputy_asleep:
                    leader_follower.wake()
                started = time.monotonic()
                if not quick.is_set():
                    time.sleep(0.02)
                slot.serving = None
                if leader_follower.eager:
                    # as the worker measures, but no scheduler can make a quick call long
                    spent = 0.0 if quick.is_set() else time.monotonic() - started
                    leader_follower.observe(slot, spent)
                elif quick.is_set():
                    return

        made.work = work
        made.spawn(3)
        assert not leader_follower.eager
        until(lambda: leader_follower.eager)
        until(lambda: made.seated() == 2)
        quick.set()
        until(lambda: not leader_follower.eager)
        assert not leader_follower.always_eager


class TestLending:
    def test_lending_frees_the_seat_for_another(self, pool: Callable[..., ThreadPool]) -> None:
        made = pool(1)
        lent = threading.Event()
        back: list[bool] = []

        def work(slot: Slot) -> None:
            if not lent.is_set():
                lent.set()
                slot.serving = "a stream"
                assert made.leader_follower.lend(slot)
                made.gate.wait(10)
                back.append(made.leader_follower.release_slot(slot))
                slot.serving = None
            else:
                made.stick(slot)

        made.work = work
        made.spawn(1)
        until(lambda: len(made.seats) == 2 and made.seats[1].serving == "a call")
        assert made.spawned == 1
        assert made.leader_follower.lent == 1
        assert not made.seats[0].seated
        assert made.seats[1].seated
        made.gate.set()
        until(lambda: made.leader_follower.lent == 0)

    def test_the_cap_refuses_and_counts_nothing(self) -> None:
        leader_follower = LeaderFollower(2, 1, lambda: None, gil=False)
        first, second = (Slot(leader_follower, lambda slot: None) for _ in range(2))
        for slot in (first, second):
            leader_follower.joined()
            assert leader_follower.acquire_slot(slot)
        assert leader_follower.lend(first)
        assert not leader_follower.lend(second)
        assert second.seated
        assert leader_follower.lent == 1
        assert leader_follower.release_slot(first)
        assert leader_follower.lend(second)
        assert leader_follower.lent == 1

    def test_a_thread_that_cannot_be_started_costs_no_place(self) -> None:
        def spawn() -> None:
            raise RuntimeError("can't start new thread")

        leader_follower = LeaderFollower(1, 1, spawn, gil=True)
        slot = Slot(leader_follower, lambda slot: None)
        leader_follower.joined()
        assert leader_follower.acquire_slot(slot)
        for _ in range(3):
            with contextlib.suppress(RuntimeError):
                assert not leader_follower.lend(slot), "the second one would go over the cap"
            assert leader_follower.lent == 0
            assert slot.seated

    def test_spare_threads_end(self, pool: Callable[..., ThreadPool]) -> None:
        made = pool(2, max_streams=20)
        streams = threading.Semaphore(20)

        def work(slot: Slot) -> None:
            if streams.acquire(blocking=False):
                slot.events_taken += 1
                slot.serving = "a stream"
                assert made.leader_follower.lend(slot)
                made.gate.wait(10)
                made.leader_follower.release_slot(slot)
                slot.serving = None
            else:
                while made.leader_follower.leader is slot and not made.leader_follower.stopping:
                    time.sleep(0.002)

        made.work = work
        made.spawn(2)
        until(lambda: made.leader_follower.lent == 20)
        # two seats beside the twenty
        until(lambda: len(made.seats) >= 21)
        made.gate.set()
        until(lambda: made.leader_follower.lent == 0)
        until(lambda: sum(not slot.ended for slot in made.seats) <= 2 + 4)
        assert sum(not slot.ended for slot in made.seats) >= 2

    def test_no_lending_while_stopping(self) -> None:
        leader_follower = LeaderFollower(1, 5, lambda: None, gil=True)
        slot = Slot(leader_follower, lambda slot: None)
        leader_follower.joined()
        assert leader_follower.acquire_slot(slot)
        leader_follower.stop()
        assert not leader_follower.lend(slot)


@pytest.mark.parametrize("gil", [True, False])
def test_stop_wakes_everybody(gil: bool) -> None:
    made = ThreadPool(3, gil=gil)
    made.work = made.poll
    made.spawn(6)
    until(lambda: made.seated() >= 1)
    time.sleep(0.02)
    started = time.monotonic()
    made.leader_follower.stop()
    for slot in made.seats:
        slot.thread.join(5)
    assert all(slot.ended for slot in made.seats)
    assert time.monotonic() - started < 2


@pytest.mark.parametrize("gil", [True, False])
def test_nobody_sits_down_when_stop_came_in_between(
    gil: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A turn that begins after `stop` would never end, and its thread would spin."""
    leader_follower = LeaderFollower(2, 4, lambda: None, gil=gil)
    slot = Slot(leader_follower, lambda slot: None)
    sit_down = leader_follower._take_slot

    def stop_first(who: Any) -> bool:
        leader_follower.stop()
        return sit_down(who)

    monkeypatch.setattr(leader_follower, "_take_slot", stop_first)
    leader_follower.joined()
    assert leader_follower.acquire_slot(slot, permanent=True) is False
    assert not slot.seated


# ---- With a server ------------------------------------------------------------------------


class Gauge:
    """An application that counts how many of its calls run at once."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.now = 0
        self.most = 0
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/stream":
            start_response("200 OK", [])
            return (b"block" for _ in range(3) if not time.sleep(0.02))
        with self._lock:
            self.now += 1
            self.most = max(self.most, self.now)
        time.sleep(self.seconds)
        with self._lock:
            self.now -= 1
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"done"]


def fetch(server: ThreadedServer, path: str, times: int, answers: list[bytes]) -> None:
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=20)
    for _ in range(times):
        client.request("GET", path)
        answers.append(client.getresponse().read())
    client.close()


def crowd(server: ThreadedServer, path: str, clients: int, times: int) -> list[bytes]:
    answers: list[bytes] = []
    threads = [
        threading.Thread(target=fetch, args=(server, path, times, answers)) for _ in range(clients)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return answers


@pytest.mark.parametrize("poller", ["auto", "queue"])
def test_three_threads_run_three_calls_and_never_more(serve: Serve, poller: str) -> None:
    gauge = Gauge(0.02)
    server = serve(gauge, threads=3, poller=poller)
    assert crowd(server, "/", 20, 3) == [b"done"] * 60
    assert gauge.most == 3


@pytest.mark.parametrize("poller", ["auto", "queue"])
def test_the_limit_holds_after_streams_came_and_went(serve: Serve, poller: str) -> None:
    gauge = Gauge(0.02)
    server = serve(gauge, threads=3, poller=poller)
    assert crowd(server, "/stream", 20, 2) == [b"block" * 3] * 40
    assert crowd(server, "/", 20, 3) == [b"done"] * 60
    assert gauge.most == 3


def test_the_limit_holds_while_streams_come_and_go(serve: Serve) -> None:
    gauge = Gauge(0.01)
    server = serve(gauge, threads=3)
    streams: list[bytes] = []
    threads = [
        threading.Thread(target=fetch, args=(server, "/stream", 5, streams)) for _ in range(10)
    ]
    for thread in threads:
        thread.start()
    assert crowd(server, "/", 20, 5) == [b"done"] * 100
    for thread in threads:
        thread.join()
    assert streams == [b"block" * 3] * 50
    assert gauge.most == 3
