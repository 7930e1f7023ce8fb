"""What a lifecycle collector is told, and when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from threadwell import Request, Response, ThreadedServer
from threadwell.worker import lifecycle
from threadwell.worker.lifecycle import (
    ClientGone,
    Collectors,
    ConnectionClosed,
    ConnectionOpened,
    LifecycleEvent,
    Refused,
    RequestStarted,
    ResponseCompleted,
    StreamClosed,
    StreamOpened,
)
from threadwell.worker.threads import exchange, finalize

from ..helpers.metrics import HERE, Numbers, url_of
from ..helpers.recorder import Recorder
from ..helpers.waiting import until
from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]


class App:
    """A `SyncApp` that answers in the way the path names."""

    threadwell_interface = "sync"

    def __call__(self, request: Request) -> Response:
        if request.path == "/stream":
            return Response(200, [], iter([b"one", b"three"]))
        if request.path == "/hijack":
            request.hijack().sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nmine")
        if request.path == "/fail":
            raise ValueError("fail")
        if request.path == "/endless":
            return Response(200, [], iter(lambda: time.sleep(0.01) or b"x" * 1000, b""))
        if request.path == "/large":
            return Response(200, [], bytes(32 * 1024 * 1024))
        return Response(201, [], b"hello")


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def client(serve: Serve, connect: Connect, recorder: Recorder) -> Client:
    return connect(serve(App(), threads=2, lifecycle_collector=recorder, linger_timeout=0.5))


def test_two_requests_on_a_connection(client: Client, recorder: Recorder) -> None:
    assert client.get("/a?b").status == 201
    assert client.get("/c", headers="Connection: close\r\n").status == 201
    events = recorder.until_closed()
    assert recorder.kinds == [
        ConnectionOpened,
        RequestStarted,
        ResponseCompleted,
        RequestStarted,
        ResponseCompleted,
        ConnectionClosed,
    ]
    peer = client.sock.getsockname()
    opened, started, completed, _, _, closed = events
    assert isinstance(opened, ConnectionOpened)
    assert opened.client == peer
    assert isinstance(started, RequestStarted)
    assert started.request.target == "/a?b"
    assert isinstance(completed, ResponseCompleted)
    assert completed.request is started.request
    assert (completed.client, completed.status, completed.body_bytes) == (peer, 201, 5)
    assert completed.complete
    assert 0 <= completed.seconds < 5
    assert closed == ConnectionClosed(peer, "answered the last request", 2)


def test_a_refused_request(client: Client, recorder: Recorder) -> None:
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\nBad Field: x\r\n\r\n")
    assert client.answer().status == 400
    assert client.closed()
    client.close()
    recorder.until_closed()
    assert recorder.kinds == [ConnectionOpened, Refused, ResponseCompleted, ConnectionClosed]
    assert recorder.of(Refused)[0].cause == "400"
    completed = recorder.of(ResponseCompleted)[0]
    assert (completed.request, completed.status, completed.complete) == (None, 400, True)
    assert recorder.of(ConnectionClosed)[0].requests == 0


def test_a_stream(client: Client, recorder: Recorder) -> None:
    assert client.get("/stream", headers="Connection: close\r\n").body == b"onethree"
    recorder.until_closed()
    kinds = recorder.kinds
    assert kinds[:3] == [ConnectionOpened, RequestStarted, StreamOpened]
    assert sorted(kind.__name__ for kind in kinds[3:5]) == ["ResponseCompleted", "StreamClosed"]
    assert kinds[5:] == [ConnectionClosed]
    completed = recorder.of(ResponseCompleted)[0]
    assert (completed.status, completed.body_bytes, completed.complete) == (200, 8, True)
    request = recorder.of(RequestStarted)[0].request
    assert recorder.of(StreamOpened) == [StreamOpened(request)]
    assert recorder.of(StreamClosed) == [StreamClosed(request)]


def test_a_failure(client: Client, recorder: Recorder) -> None:
    assert client.get("/fail", headers="Connection: close\r\n").status == 500
    recorder.until_closed()
    completed = recorder.of(ResponseCompleted)
    assert [(event.status, event.complete) for event in completed] == [(500, True)]


@pytest.mark.parametrize("path", ["/endless", "/large"])
def test_a_client_that_leaves(client: Client, recorder: Recorder, path: str) -> None:
    client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert client.sock.recv(10)
    client.close()
    recorder.until_closed()
    deadline = time.monotonic() + 3
    while path == "/endless" and StreamClosed not in recorder.kinds:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    request = recorder.of(RequestStarted)[0].request
    assert recorder.of(ClientGone) == [ClientGone(request)]
    completed = recorder.of(ResponseCompleted)
    assert [(event.status, event.complete) for event in completed] == [(200, False)]
    assert len(recorder.of(StreamOpened)) == len(recorder.of(StreamClosed))
    assert recorder.of(ConnectionClosed)[0].reason.startswith("client gone: ")
    order = [kind for kind in recorder.kinds if kind not in (StreamOpened, StreamClosed)]
    assert order == [
        ConnectionOpened,
        RequestStarted,
        ClientGone,
        ResponseCompleted,
        ConnectionClosed,
    ]


def test_a_hijacked_connection(client: Client, recorder: Recorder) -> None:
    assert client.get("/hijack").body == b"mine"
    recorder.until_closed()
    recorder.until(StreamClosed)  # the thread is free a moment later
    assert sorted(kind.__name__ for kind in recorder.kinds) == [
        "ConnectionClosed",
        "ConnectionOpened",
        "RequestStarted",
        "StreamClosed",
        "StreamOpened",
    ]
    assert recorder.of(ConnectionClosed)[0].reason == "hijacked"


# ---- Why connections end -------------------------------------------------------------------


def _leaves_at_once(client: Client) -> None:
    client.close()


def _leaves_idle(client: Client) -> None:
    assert client.get().status == 201
    client.close()


def _leaves_in_head(client: Client) -> None:
    client.send(b"GET / HT")
    client.close()


def _leaves_in_body(client: Client) -> None:
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
    client.close()


def _is_silent(client: Client) -> None:
    assert client.closed()


def _stays_idle(client: Client) -> None:
    assert client.get().status == 201
    assert client.closed()


@pytest.mark.parametrize(
    ("behaviour", "options", "reason"),
    [
        (_leaves_at_once, {}, "closed by the client"),
        (_leaves_idle, {}, "closed by the client"),
        (_leaves_in_head, {}, "closed by the client within a head"),
        (_leaves_in_body, {}, "closed by the client within a body"),
        (_is_silent, {"head_timeout": 0.3}, "no request came"),
        (_stays_idle, {"keep_alive": 0.3}, "keep-alive timeout"),
    ],
)
def test_the_reason_of_an_end(
    serve: Serve,
    connect: Connect,
    recorder: Recorder,
    behaviour: Callable[[Client], None],
    options: dict[str, Any],
    reason: str,
) -> None:
    server = serve(App(), lifecycle_collector=recorder, **options)
    behaviour(connect(server))
    recorder.until_closed()
    assert [event.reason for event in recorder.of(ConnectionClosed)] == [reason]


def test_the_reason_when_the_server_stops(
    serve: Serve, connect: Connect, recorder: Recorder
) -> None:
    server = serve(App(), lifecycle_collector=recorder)
    client = connect(server)
    assert client.get().status == 201
    server.stop()
    assert client.closed()
    assert [event.reason for event in recorder.of(ConnectionClosed)] == ["the server stops"]


def test_an_evicted_connection_is_reported(
    serve: Serve, connect: Connect, recorder: Recorder
) -> None:
    server = serve(App(), limit_connections=1, lifecycle_collector=recorder)
    first = connect(server)
    assert first.get().status == 201
    assert connect(server).get().status == 201
    assert first.closed()
    recorder.until_closed()
    assert recorder.of(ConnectionClosed)[0].client == first.sock.getsockname()


def test_whatever_was_opened_is_closed_also_at_the_end(
    serve: Serve, connect: Connect, recorder: Recorder
) -> None:
    server = serve(App(), threads=2, lifecycle_collector=recorder, graceful_timeout=0.3)
    clients = [connect(server) for _ in range(6)]
    clients[0].get()
    clients[1].send(b"GET / HT")
    clients[2].send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
    clients[3].send(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
    clients[4].send(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    recorder.until(ConnectionOpened, 6)
    recorder.until(RequestStarted, 3)
    recorder.until(StreamOpened)
    server.stop()
    opened = {event.client for event in recorder.of(ConnectionOpened)}
    closed = [event.client for event in recorder.of(ConnectionClosed)]
    assert len(closed) == len(set(closed))
    assert set(closed) == opened
    assert len(recorder.of(StreamOpened)) == len(recorder.of(StreamClosed)) == 1


def test_what_waits_in_the_backlog_is_opened_when_the_server_stops(
    serve: Serve, connect: Connect, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(App(), lifecycle_collector=recorder, graceful_timeout=5)
    pool = server.pools[0]
    monkeypatch.setattr(pool.poller, "_accept", lambda listener: time.sleep(0.01))
    waiting = connect(server)
    waiting.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    server.stop()
    assert waiting.answer().status == 201
    assert recorder.kinds == [ConnectionOpened, RequestStarted, ResponseCompleted, ConnectionClosed]


# ---- What a collector may do ----------------------------------------------------------------


@pytest.mark.parametrize("large", [False, True], ids=["in memory", "in a file"])
def test_a_body_that_the_application_closes_is_counted(
    serve: Serve, connect: Connect, recorder: Recorder, large: bool
) -> None:
    def app(request: Request) -> Response:
        if not isinstance(request.body, bytes):
            request.body.close()
        return Response(201, [], b"hello")

    size = 5 * 1024 * 1024 if large else 300 * 1024
    client = connect(serve(app, interface="sync", lifecycle_collector=recorder))
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % size)
    client.send(bytes(size))
    assert client.answer().status == 201
    recorder.until(ResponseCompleted)
    completed = recorder.of(ResponseCompleted)[0]
    assert (completed.received, completed.status, completed.body_bytes) == (size, 201, 5)
    assert client.get("/next").status == 201


def test_without_a_collector_no_record_is_made(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[object] = []

    class Spy(ResponseCompleted):
        def __init__(self, *arguments: Any) -> None:
            made.append(arguments)
            super().__init__(*arguments)

    monkeypatch.setattr(lifecycle, "ResponseCompleted", Spy)
    monkeypatch.setattr(finalize, "ResponseCompleted", Spy)
    server = serve(App())
    client = connect(server)
    assert client.get().status == 201
    assert client.get("/stream").body == b"onethree"
    client.send(b"bad\r\n\r\n")
    assert client.answer().status == 400
    assert made == []


def test_what_nobody_looks_at_is_not_made(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError(arguments)

    monkeypatch.setattr(exchange, "RequestStarted", never)
    monkeypatch.setattr(exchange, "tell_wait", never)
    recorder, other = Recorder(), Recorder()
    recorder.event_types = other.event_types = (ResponseCompleted,)  # type: ignore[attr-defined]
    client = connect(serve(App(), lifecycle_collector=Collectors(recorder, other)))
    assert client.get().status == 201
    assert len(recorder.until(ResponseCompleted)) == len(other.until(ResponseCompleted))
    assert RequestStarted not in recorder.kinds


@pytest.mark.parametrize("what", ["HEAD", "/204 No Content", "/304"])
def test_a_body_that_is_not_sent_is_not_counted(serve: Serve, connect: Connect, what: str) -> None:
    def app(request: Request) -> Response:
        status = request.path[1:].replace("%20", " ")
        return Response(int(status) if status.isdigit() else status or 200, [], b"hello")

    app.threadwell_interface = "sync"  # type: ignore[attr-defined]
    recorder = Recorder()
    client = connect(serve(app, lifecycle_collector=recorder))
    if what == "HEAD":
        client.send(b"HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    else:
        client.send(b"GET %b HTTP/1.1\r\nHost: x\r\n" % what.replace(" ", "%20").encode())
        client.send(b"Connection: close\r\n\r\n")
    recorder.until_closed()
    (answer,) = recorder.of(ResponseCompleted)
    assert (answer.status, answer.body_bytes) == (int(what[1:4]) if what[0] == "/" else 200, 0)


async def asgi(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    size = 32 * 1024 * 1024 if scope["path"] == "/large" else 5
    await asyncio.sleep(0)
    await send({"type": "http.response.start", "status": 201})
    await send({"type": "http.response.body", "body": bytes(size)})


class Broken:
    """Raises at everything, and knows what that was."""

    def __init__(self) -> None:
        self.told: list[type] = []

    def record(self, event: LifecycleEvent) -> None:
        self.told.append(type(event))
        raise ValueError("a broken collector")


def of_threads(request: Request) -> Response:
    return Response(201, [], bytes(32 * 1024 * 1024 if request.path == "/large" else 5))


@pytest.mark.parametrize("served", [of_threads, asgi], ids=["threads", "loop"])
def test_a_collector_that_raises_costs_nothing(
    serve: Serve, connect: Connect, served: Any, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Broken()
    server = serve(served, threads=1, lifecycle_collector=broken)
    client = connect(server)
    get = b"GET %b HTTP/1.1\r\nHost: x\r\n%b\r\n"
    # alone, behind another, and when the kernel has all of a large answer
    client.send(get % (b"/", b""))
    assert client.answer().status == 201
    client.send(get % (b"/", b"") + get % (b"/large", b"Connection: close\r\n"))
    assert client.answer().status == 201
    size = len(client._buffer)
    while received := client.sock.recv(2**20):
        size += len(received)
    assert size > 32 * 1024 * 1024
    gone = connect(server)
    gone.send(get % (b"/large", b""))
    assert gone.sock.recv(10)
    gone.close()
    idle = connect(server)
    assert idle.get().status == 201
    server.stop()
    assert idle.closed()
    assert {ConnectionOpened, RequestStarted, ResponseCompleted, ClientGone} < {*broken.told}
    assert broken.told.count(ConnectionOpened) == broken.told.count(ConnectionClosed) == 3
    assert "A lifecycle collector failed on ResponseCompleted" in caplog.text
    assert "internal error" not in caplog.text
    assert "application failed" not in caplog.text


def test_nor_over_http2(
    serve_http2: Callable[..., ThreadedServer], http2: Callable[..., Any]
) -> None:
    for served in (of_threads, asgi):
        broken = Broken()
        client = http2(serve_http2(served, threads=1, lifecycle_collector=broken))
        for _ in range(3):
            assert client.answer(client.get()).status == 201
        assert broken.told.count(RequestStarted) == 3


@pytest.mark.parametrize("at", [StreamClosed, ResponseCompleted, ConnectionClosed])
def test_a_collector_that_raises_costs_no_seat(serve: Serve, connect: Connect, at: type) -> None:
    class Broken:
        def record(self, event: LifecycleEvent) -> None:
            if isinstance(event, at):
                raise ValueError("a broken collector")

    def app(request: Request) -> Response:
        if request.path == "/hijack":
            request.hijack()
        return Response(200, [], blocks())

    def blocks() -> Iterator[bytes]:
        yield b"x"
        raise ValueError("fail")

    server = serve(app, threads=1, max_streams=1, lifecycle_collector=Broken())
    worker = server._worker
    assert worker is not None
    for path in ("/", "/hijack", "/", "/", "/hijack"):
        client = connect(server)
        client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        assert client.rest()[:12] == (b"HTTP/1.1 200" if path == "/" else b"")
        # a client may see the end before the thread is back
        until(lambda: worker.leader_follower.lent == 0)


def test_what_has_no_body_counts_none(serve: Serve, connect: Connect, recorder: Recorder) -> None:
    app = lambda request: Response(int(request.query), [], b"hello")  # noqa: E731
    client = connect(serve(app, lifecycle_collector=recorder))
    for method, status in (("GET", 200), ("HEAD", 200), ("GET", 304), ("GET", 200)):
        client.send(f"{method} /?{status} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        client.answer(method)
    recorder.until(ResponseCompleted, 4)
    assert [event.body_bytes for event in recorder.of(ResponseCompleted)] == [5, 0, 0, 5]


def test_several_collectors_are_told_in_order() -> None:
    first, second = Recorder(), Recorder()
    both = Collectors(first, second)
    event = ConnectionOpened(("", 0))
    both.record(event)
    assert first.events == second.events == [event]


@pytest.mark.parametrize("served", [of_threads, asgi], ids=["threads", "loop"])
def test_a_collector_that_raises_keeps_no_other_from_an_event(
    serve: Serve, connect: Connect, served: Any, tmp_path: Path
) -> None:
    log = tmp_path / "access.log"
    recorder = Recorder()
    given = Collectors(Broken(), recorder)
    options = {"access_log": str(log), "metrics_bind": HERE}
    server = serve(served, threads=1, lifecycle_collector=given, **options)
    client = connect(server)
    for _ in range(3):
        assert client.get().status == 201
    recorder.until(ResponseCompleted, 3)
    until(lambda: Numbers(url_of(server)).total("requests_total") == 3)
    server.stop()
    assert len(log.read_text().splitlines()) == 3
    assert recorder.kinds.count(ResponseCompleted) == 3


def test_a_large_body_is_counted_after_its_file_is_closed(
    serve: Serve, connect: Connect, recorder: Recorder
) -> None:
    client = connect(serve(App(), lifecycle_collector=recorder, memory_body=10))
    for size in (5, 1000):
        head = f"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n"
        client.send(head.encode() + bytes(size))
        assert client.answer().status == 201
    recorder.until(ResponseCompleted, 2)
    answers = recorder.of(ResponseCompleted)
    assert [(each.received, each.status, each.body_bytes) for each in answers] == [
        (5, 201, 5),
        (1000, 201, 5),
    ]
    assert [each.request for each in answers] == [
        each.request for each in recorder.of(RequestStarted)
    ]


def test_an_answer_by_way_of_another_request_is_told_of_the_server_s_own(
    serve: Serve, connect: Connect, recorder: Recorder
) -> None:
    def app(request: Request) -> Response | None:
        head = request.head._replace(path="/inner", target="/inner")
        inner = request._replace(head=head, body=b"")
        stream = inner.stream(Response(200, []))
        stream.write(b"inner")
        stream.close()
        return None

    client = connect(serve(app, interface="sync", lifecycle_collector=recorder))
    client.send(b"POST /outer HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
    assert client.answer().body == b"inner"
    recorder.until(ResponseCompleted)
    completed = recorder.of(ResponseCompleted)[0]
    assert completed.request is recorder.of(RequestStarted)[0].request
    assert (completed.request.path, completed.received) == ("/outer", 3)
