"""How much of the responses may wait for clients of HTTP/2 that do not take them."""

from __future__ import annotations

import asyncio
import logging
import math
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from h2.settings import SettingCodes

from threadwell import Request, Response, ThreadedServer
from threadwell.worker.config import ServerConfig
from threadwell.worker.errors import ClientDisconnected
from threadwell.worker.http2 import send_budget
from threadwell.worker.http2.call_queue import CallQueue
from threadwell.worker.http2.request_body import StreamedBody
from threadwell.worker.http2.send_budget import ProcessBudget, SendBudget
from threadwell.worker.http2.send_queue import SendQueue
from threadwell.worker.messages import RequestReceived

from ..helpers.asgi_tools import Receive, Scope, Seen, Send, answer, no_lifespan, read_body
from ..helpers.http2_client import Http2Client
from ..helpers.waiting import until

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Http2Client]

KIB, MIB = 1024, 1024 * 1024
ENHANCE_YOUR_CALM = 11
FIRST_WINDOW = 65535
THREADS = 2
#: What a block costs beside its octets.
OVERHEAD = 256


@pytest.fixture(autouse=True)
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[ProcessBudget]:
    """The budget of the server that a test starts. With server and clients gone, it is empty."""
    budget = ProcessBudget(0)

    def make(limit: int) -> ProcessBudget:
        budget.limit = limit
        return budget

    monkeypatch.setattr(send_budget, "ProcessBudget", make)
    yield budget
    assert (budget.waiting, budget._clients) == (0, 0)


@pytest.fixture
def stalled(http2: Connect) -> Connect:
    """`stalled(server)`: a client without windows."""

    def open_client(server: ThreadedServer) -> Http2Client:
        client = http2(server, read=False)
        client.conn.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 0})
        client.flush()
        client.settle()
        return client

    return open_client


class Large:
    """Answers with a MiB, and on /small with five octets; counts its calls."""

    def __init__(self) -> None:
        self.calls = Seen()

    async def asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        await no_lifespan(scope)
        self.calls.add(scope["path"])
        read = await read_body(receive)
        await answer(send, read or bytes(MIB if scope["path"] == "/" else 5))

    def sync(self, request: Request) -> Response:
        self.calls.add(request.path)
        return Response(200, [], bytes(MIB if request.path == "/" else 5))

    def serve(self, serve_http2: Serve, kind: str, **options: Any) -> ThreadedServer:
        """A server that runs it on a loop, on threads, or on a loop behind threads."""
        if kind == "hybrid":
            return serve_http2(lambda request: None, asgi_app=self.asgi, threads=2, **options)
        return serve_http2(getattr(self, kind), threads=2, **options)


class Gate:
    """Begins any number of calls, on a loop or on threads, before the first of them answers with a
    MiB."""

    def __init__(self) -> None:
        self.begun, self.answered = Seen(), Seen()
        self.go_on = threading.Event()

    async def asgi(self, scope: Scope, receive: Receive, send: Send) -> None:
        await no_lifespan(scope)
        self.begun.add(scope["path"])
        while not self.go_on.is_set():
            await asyncio.sleep(0.001)
        await answer(send, bytes(MIB))
        self.answered.add(scope["path"])

    def generator(self, request: Request) -> Response:
        return Response(200, [], self._blocks(request.path))

    def _blocks(self, path: str) -> Iterator[bytes]:
        self.begun.add(path)
        assert self.go_on.wait(10)
        yield bytes(MIB)


def ask(client: Http2Client, count: int) -> list[int]:
    """Requests for a MiB; returns when the server has seen them."""
    numbers = [client.get() for _ in range(count)]
    client.settle()
    return numbers


def take_everything(client: Http2Client, numbers: list[int]) -> None:
    client.acknowledges = True
    client.conn.increment_flow_control_window(2**30)
    client.conn.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 2 * MIB})
    client.flush()
    for number in numbers:
        assert len(client.answer(number).body) == MIB


def resets(client: Http2Client) -> list[int]:
    return [each.reset for each in client.answers.values() if each.reset is not None]


# ---- The budget of a connection -----------------------------------------------------------------

# Before Python 3.12 a call is begun after all requests that came at once were taken in.
KINDS = ["sync"] if sys.version_info < (3, 12) else ["sync", "asgi", "hybrid"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_takes_nothing_gets_no_more_calls(
    serve_http2: Serve, stalled: Connect, process: ProcessBudget, kind: str
) -> None:
    app = Large()
    client = stalled(app.serve(serve_http2, kind, http2_send_buffer=4 * MIB))
    numbers = ask(client, 50)
    until(lambda: process.waiting > 4 * MIB)
    client.settle()
    # those come on top that threads have taken, or are about to take
    assert len(app.calls.values) <= 4 + THREADS + 1
    assert process.waiting <= (4 + THREADS + 1) * (MIB + OVERHEAD)
    take_everything(client, numbers)
    assert len(app.calls.values) == 50
    assert not resets(client)


@pytest.mark.parametrize("kind", ["sync", "asgi", "hybrid"])
@pytest.mark.parametrize("way", ["close", "reset"])
def test_requests_that_wait_are_dropped_with_their_client(
    serve_http2: Serve,
    stalled: Connect,
    http2: Connect,
    process: ProcessBudget,
    kind: str,
    way: str,
) -> None:
    app = Large()
    server = app.serve(serve_http2, kind, http2_send_buffer=2 * MIB)
    client = stalled(server)
    numbers = ask(client, 20)
    until(lambda: process.waiting > 2 * MIB)
    if way == "close":
        client.close()
    else:
        for number in reversed(numbers):
            client.conn.reset_stream(number)
        client.flush()
        client.settle()
    until(lambda: not process.waiting)
    assert http2(server).fetch("/small").body == bytes(5)
    if sys.version_info >= (3, 12):
        assert len(app.calls.values) < 20


@pytest.mark.skipif(sys.version_info < (3, 12), reason="calls begin later")
def test_a_body_that_comes_while_its_request_waits(serve_http2: Serve, stalled: Connect) -> None:
    app = Large()
    client = stalled(serve_http2(app.asgi, http2_send_buffer=MIB // 2))
    first = ask(client, 1)
    number = client.request(method="POST", body=b"x" * 50_000)
    client.settle()
    assert len(app.calls.values) == 1
    take_everything(client, first)
    assert client.answer(number).body == b"x" * 50_000


@pytest.mark.skipif(sys.version_info < (3, 12), reason="calls begin later")
def test_one_large_response_does_not_stop_the_others(serve_http2: Serve, http2: Connect) -> None:
    """A client that takes it, though slowly, has its other responses meanwhile."""
    app = Large()
    client = http2(serve_http2(app.asgi, http2_send_buffer=MIB // 2), read=False)
    large = client.get()
    client.until(lambda: len(client.answers[large].octets) == FIRST_WINDOW)
    for _ in range(10):
        size = len(client.answers[large].octets)
        small = client.get("/small")
        client.conn.increment_flow_control_window(16 * KIB, large)
        client.flush()
        assert client.answer(small).body == bytes(5)
        client.until(lambda size=size: len(client.answers[large].octets) == size + 16 * KIB)
    assert not client.answers[large].over


def test_a_client_that_stalls_keeps_everything_while_there_is_room(
    serve_http2: Serve, stalled: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    swept = Seen()
    monkeypatch.setattr(SendBudget, "is_stalled", lambda self, now: swept.add(now) or True)
    app = Large()
    client = stalled(serve_http2(app.asgi, http2_send_buffer=2 * MIB))
    numbers = ask(client, 20)
    swept.wait(2)
    take_everything(client, numbers)


@pytest.mark.parametrize("kind", ["sync", "asgi", "hybrid"])
def test_a_server_that_stops_drops_what_waits(
    serve_http2: Serve, stalled: Connect, process: ProcessBudget, kind: str
) -> None:
    app = Large()
    options = {"http2_send_buffer": 2 * MIB, "graceful_timeout": 0.2}
    server = app.serve(serve_http2, kind, **options)
    client = stalled(server)
    ask(client, 20)
    until(lambda: process.waiting > 2 * MIB)
    server.stop()
    client.end()
    assert not process.waiting
    if sys.version_info >= (3, 12):
        assert len(app.calls.values) < 20


# ---- The budget of the process ------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["asgi", "generator"])
def test_a_connection_beyond_both_budgets_loses_responses_at_once(
    serve_http2: Serve, stalled: Connect, process: ProcessBudget, kind: str
) -> None:
    """All calls are begun before the first has an answer, so that none can be held back."""
    app = Gate()
    options = {"http2_send_buffer": 3 * MIB, "http2_send_buffer_total": 5 * MIB}
    client = stalled(serve_http2(getattr(app, kind), **options))
    numbers = ask(client, 20)
    app.begun.wait(20)
    app.go_on.set()
    # of five, not all have room beside what Python needs for them
    client.until(lambda: len(resets(client)) == 16)
    client.settle()
    assert resets(client) == [ENHANCE_YOUR_CALM] * 16
    assert process.waiting == 4 * (MIB + OVERHEAD)
    take_everything(client, [each for each in numbers if not client.answers[each].over])


def test_beyond_the_budget_of_the_process_each_client_keeps_its_share(
    serve_http2: Serve, stalled: Connect, process: ProcessBudget, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send_budget, "_PATIENCE", 1000)
    app = Gate()
    options = {"http2_send_buffer": 16 * MIB, "http2_send_buffer_total": 9 * MIB}
    server = serve_http2(app.asgi, **options)
    clients = [stalled(server) for _ in range(4)]
    numbers = [ask(client, 15) for client in clients]
    app.begun.wait(4 * 15)
    app.go_on.set()
    app.answered.wait(4 * 15)
    until(lambda: not process.is_exceeded())
    for client, asked in zip(clients, numbers, strict=True):
        client.settle()
        kept = [number for number in asked if client.answers[number].reset is None]
        assert len(kept) >= 2
        take_everything(client, kept)
    lost = [code for client in clients for code in resets(client)]
    assert set(lost) == {ENHANCE_YOUR_CALM}
    assert len(lost) >= 4 * 15 - 8


def test_one_response_is_kept_however_large(
    serve_http2: Serve, stalled: Connect, process: ProcessBudget
) -> None:
    app = Large()
    options = {"http2_send_buffer": 9 * KIB, "http2_send_buffer_total": 9 * KIB}
    client = stalled(serve_http2(app.asgi, **options))
    numbers = ask(client, 1)
    client.settle()
    assert process.waiting == MIB + OVERHEAD
    take_everything(client, numbers)


def test_clients_that_take_nothing_lose_their_responses_the_largest_first(
    serve_http2: Serve,
    stalled: Connect,
    http2: Connect,
    process: ProcessBudget,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(send_budget, "_PATIENCE", 1000)
    monkeypatch.setattr(SendBudget, "is_excess", lambda self: False)  # what is at once
    app = Large()
    server = serve_http2(app.asgi, http2_send_buffer_total=2 * MIB)
    large, small = stalled(server), stalled(server)
    numbers = ask(large, 2)
    small_number = small.get("/small")
    until(lambda: process.waiting == 2 * (MIB + OVERHEAD) + 5 + OVERHEAD)
    assert http2(server).fetch("/small").body == bytes(5)
    assert not caplog.records
    monkeypatch.setattr(send_budget, "_PATIENCE", 0)
    large.until(lambda: resets(large))
    assert resets(large) == [ENHANCE_YOUR_CALM]
    assert process.waiting == MIB + OVERHEAD + 5 + OVERHEAD
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert record.getMessage() == (
        "A response to 127.0.0.1 was dropped: what waits for clients exceeds"
        " http2_send_buffer_total"
    )
    small.conn.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 5})
    small.flush()
    assert small.answer(small_number).body == bytes(5)
    take_everything(large, [each for each in numbers if not large.answers[each].over])


@pytest.mark.skipif(sys.version_info < (3, 12), reason="calls begin later")
def test_beyond_the_budget_of_the_process_each_client_is_served(
    serve_http2: Serve, stalled: Connect, http2: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(send_budget, "_PATIENCE", 1000)
    monkeypatch.setattr(SendBudget, "is_excess", lambda self: False)
    app = Large()
    server = serve_http2(app.asgi, http2_send_buffer_total=3 * MIB - 1)
    clients = [stalled(server) for _ in range(3)]
    numbers = [ask(client, 20) for client in clients]
    assert len(app.calls.values) == 3 + 1 + 1
    other = http2(server)
    take_everything(other, [other.get() for _ in range(5)])
    for client, asked in zip(clients, numbers, strict=True):
        take_everything(client, asked)
    assert not any(map(resets, clients))


# ---- The parts ----------------------------------------------------------------------------------


def test_a_client_is_stalled_that_takes_less_than_its_part() -> None:
    budget = SendBudget(MIB, ProcessBudget(MIB))
    for now in (0.0, 100.0):  # nothing waits
        assert not budget.is_stalled(now)
    budget.count(64 * 100 * KIB)
    assert not budget.is_stalled(101.0)
    assert not budget.is_stalled(102.9)
    budget.taken += 100 * KIB - 1
    assert budget.is_stalled(103.0)
    budget.taken += 1
    assert not budget.is_stalled(104.0)
    budget.count(-64 * 99 * KIB)
    budget.taken += 16 * KIB - 1
    assert budget.is_stalled(106.0)
    budget.taken += 1
    assert not budget.is_stalled(107.0)
    budget.count(-64 * KIB)


def test_a_client_may_have_its_share_or_its_budget_if_it_makes_progress() -> None:
    process = ProcessBudget(4 * MIB)
    first, second, third = (SendBudget(3 * MIB, process) for _ in range(3))
    first.count(2 * MIB + 1)
    second.count(2 * MIB - 1)
    assert not first.is_excess()  # the process has room
    third.count(3 * MIB // 16)
    assert [each.is_excess() for each in (first, second, third)] == [True, True, False]
    first.is_stalled(0.0)
    first.taken += 33 * KIB
    assert not first.is_stalled(1.0)
    assert [each.is_excess() for each in (first, second, third)] == [False, True, False]
    first.count(MIB)
    assert first.is_excess()
    first.count(-MIB)
    assert not first.is_stalled(2.9)
    assert not first.is_excess()
    assert first.is_stalled(3.0)
    assert first.is_excess()
    for each in (first, second, third):
        each.count(-each.waiting)


def test_requests_beyond_the_budget_are_paid_for() -> None:
    budget = SendBudget(MIB, ProcessBudget(100 * MIB))
    budget.count(256 * 100 * KIB)
    assert [budget.admits() for _ in range(3)] == [True, False, False]
    assert budget.holds
    budget.taken += 100 * KIB - 1
    assert not budget.admits()
    budget.taken += 1
    assert [budget.admits() for _ in range(3)] == [True, False, False]
    budget.count(-budget.waiting)
    assert [budget.admits() for _ in range(3)] == [True, True, True]


def test_beyond_the_budget_of_the_process_others_wait_for_their_clients() -> None:
    process = ProcessBudget(MIB)
    large, small, idle = (SendBudget(MIB, process) for _ in range(3))
    large.count(2 * MIB)
    small.count(1)
    for budget in (small, idle):
        assert budget.admits()
    assert not small.admits()
    assert idle.admits()
    assert (large.is_excess(), small.is_excess()) == (True, False)
    assert (large.is_share_of_excess(), small.is_share_of_excess()) == (True, False)
    large.count(-2 * MIB)
    assert small.admits()
    assert not small.is_share_of_excess()


def test_a_block_counts_until_its_last_octet_is_taken() -> None:
    budget = SendBudget(MIB, ProcessBudget(MIB))
    queue = SendQueue(budget)
    queue.put(bytes(1000))
    queue.put(bytes(10))
    waits = []
    for limit in (400, 599, 1, 10):
        queue.take(limit)
        waits.append((queue.size, budget.waiting))
    both, second = 1010 + 2 * OVERHEAD, 10 + OVERHEAD
    assert waits == [(610, both), (11, both), (10, second), (0, 0)]
    queue.put(bytes(100))
    queue.take(50)
    queue.close()
    assert budget.waiting == queue.memory == 0
    with pytest.raises(ClientDisconnected):
        queue.put(b"x")
    assert budget.waiting == 0


def test_small_blocks_count_with_what_python_needs_for_them() -> None:
    budget = SendBudget(MIB, ProcessBudget(MIB))
    queue = SendQueue(budget)
    while not queue.full:
        queue.put(b"x")
    assert budget.waiting <= 130 * KIB
    queue.close()


def test_the_deadline_of_a_body_does_not_run_while_its_request_waits() -> None:
    class Stream:
        number = 1

    started: list[Any] = []
    budget = SendBudget(MIB, ProcessBudget(MIB))
    calls = CallQueue(budget, lambda stream, body: started.append(body))
    head = RequestReceived("POST", "/", "/", "", "2", b"2", {})
    body = StreamedBody(head, ServerConfig())
    budget.count(2 * MIB)
    calls.begin(Stream(), None)
    calls.begin(Stream(), body)
    assert (started, body.deadline) == ([None], math.inf)
    calls.resume()
    assert started == [None]
    budget.count(-2 * MIB)
    calls.resume()
    assert started == [None, body]
    assert body.deadline < math.inf


def test_a_small_response_waits_for_a_window(serve_http2: Serve, http2: Connect) -> None:
    """It goes past the send queue only where its window is open."""
    client = http2(serve_http2(lambda request: Response(200, [], b"Hello")), read=False)
    client.conn.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: 4})
    client.flush()
    client.settle()
    number = client.get()
    client.until(lambda: client.answers[number].octets)
    client.settle()
    assert (client.answers[number].body, client.answers[number].ended) == (b"Hell", False)
    client.conn.increment_flow_control_window(1, number)
    client.flush()
    assert client.answer(number).body == b"Hello"
