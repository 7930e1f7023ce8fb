"""A sync application on threads, with an ASGI application on a loop beside it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as connect_websocket

from threadwell import Request, Response, ServerConfig, SyncWorker, ThreadedServer
from threadwell.worker.asgi.http1 import HTTP1Connection
from threadwell.worker.asgi.pool import HandoffPool
from threadwell.worker.connection import Connection
from threadwell.worker.errors import StartupError
from threadwell.worker.lifecycle import LifecycleEvent, RequestStarted, ResponseCompleted
from threadwell.worker.system.readiness import has_input

from ...helpers.asgi_tools import UPGRADE, Receive, Scope, Seen, Send, answer
from ...helpers.waiting import until
from ...helpers.wire_client import Client
from .both import Both, each_loop, post

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]


@each_loop
@pytest.mark.parametrize("poller", ["auto", "queue"])
def test_a_connection_goes_over_and_comes_back(
    serve: Serve, connect: Connect, both: Both, loop: str, poller: str
) -> None:
    server = serve(both.sync, asgi_app=both.asgi, loop=loop, poller=poller)
    client = connect(server)
    for number in range(5):
        body = b"%d" % number
        client.send(post("/sync", body))
        assert client.answer().body == b"sync " + body
        client.send(post("/async", body))
        assert client.answer().body == b"async " + body
        client.send(post("/async/stream", body))
        assert client.answer().body == b"async " + body
        client.send(post("/async/fails", body))
        assert client.answer().status == 500
    assert both.sync_calls == {
        "/sync": 5,
        "/async": 5,
        "/async/stream": 5,
        "/async/fails": 5,
    }
    assert both.asgi_calls == {"/async": 5, "/async/stream": 5, "/async/fails": 5}


@each_loop
def test_pipelined_across(serve: Serve, connect: Connect, both: Both, loop: str) -> None:
    client = connect(serve(both.sync, asgi_app=both.asgi, loop=loop))
    paths = ["/sync", "/async", "/async/stream", "/sync", "/sync", "/async"] * 10
    data = b"".join(post(path, b"%d" % number) for number, path in enumerate(paths))
    client.send(data)
    for number, path in enumerate(paths):
        kind = b"sync " if path == "/sync" else b"async "
        assert client.answer().body == kind + b"%d" % number


def test_bodies_that_a_thread_has_read(serve: Serve, connect: Connect, both: Both) -> None:
    before = len(os.listdir("/proc/self/fd"))
    server = serve(both.sync, asgi_app=both.asgi, loop="asyncio")
    client = connect(server)
    for size in (0, 10, 100_000, 3_000_000):
        body = os.urandom(size)
        client.send(post("/async", body))
        assert client.answer().body == b"async " + body
    client.send(b"POST /async HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
    client.send(b"2\r\nab\r\n0\r\n\r\n")
    assert client.answer().body == b"async ab"
    client.close()
    server.stop()
    assert len(os.listdir("/proc/self/fd")) <= before


def test_the_connection_closes_where_it_must(serve: Serve, connect: Connect, both: Both) -> None:
    client = connect(serve(both.sync, asgi_app=both.asgi))
    client.send(post("/async", b"x", more="Connection: close\r\n"))
    assert client.answer().header("connection") == "close"
    assert client.closed()


@each_loop
def test_websockets(serve: Serve, connect: Connect, both: Both, loop: str) -> None:
    server = serve(both.sync, asgi_app=both.asgi, loop=loop, loops=1, graceful_timeout=5)
    with connect_websocket(f"ws://127.0.0.1:{server.port}/ws", proxy=None) as ws:
        for message in ("a", b"b", "c" * 100_000):
            ws.send(message)
            assert ws.recv() == message
        # on a connection that has had requests, with the first frame behind the handshake
        client = connect(server)
        client.send(post("/sync", b"1"))
        assert client.answer().body == b"sync 1"
        head = f"GET /ws HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n".encode()
        client.send(head + b"\x81\x82\0\0\0\0hi")
        assert client.answer().status == 101
        assert client._exactly(4) == b"\x81\x02hi"
        client.send(b"\x88\x82\0\0\0\0\x03\xe8")
        assert client.rest() == b"\x88\x02\x03\xe8"
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        with pytest.raises(ConnectionClosed) as closed:
            ws.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
    stopping.join(5)
    assert not stopping.is_alive()
    assert both.sync_calls == {"/sync": 1}
    assert both.seen.values == ["startup", 1000, 1012, "shutdown"]


def test_a_sync_request_never_touches_the_loop(
    serve: Serve, connect: Connect, both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is handed over, woken, or scheduled for it."""
    handed: list[Any] = []
    monkeypatch.setattr(HandoffPool, "adopt", lambda *arguments: handed.append(arguments))
    server = serve(both.sync, asgi_app=both.asgi)
    calls: list[Any] = []
    for worker in server.pools[1].workers:
        monkeypatch.setattr(worker.loop, "call_soon_threadsafe", calls.append, raising=False)
    client = connect(server)
    for number in range(50):
        client.send(post("/sync", b"%d" % number))
        assert client.answer().body == b"sync %d" % number
    assert handed == calls == []
    assert not any(worker.connections for worker in server.pools[1].workers)
    monkeypatch.undo()


def test_a_sync_request_costs_the_same_in_a_hybrid(
    serve: Serve, connect: Connect, both: Both
) -> None:
    """Counted in calls of functions on the thread that serves, in Python and in C."""

    def calls_of(**options: Any) -> int:
        counts: Counter[int] = Counter()
        serving: set[int] = set()

        def count(frame: Any, event: str, argument: Any) -> None:
            if event in ("call", "c_call"):
                counts[threading.get_ident()] += 1

        def sync(request: Request) -> Response:
            serving.add(threading.get_ident())
            return Response(200, [], b"sync")

        threading.setprofile(count)
        try:
            server = serve(sync, threads=1, **options)
        finally:
            threading.setprofile(None)
        client = connect(server)
        for _ in range(20):
            client.get("/warm")
        (thread,) = serving
        before = counts[thread]
        for number in range(200):
            assert client.get(f"/{number}").body == b"sync"
        return counts[thread] - before

    alone, beside = calls_of(), calls_of(asgi_app=both.asgi)
    assert alone > 1000
    assert beside <= alone * 1.02


def test_streams_hold_no_thread(serve: Serve, connect: Connect) -> None:
    go_on = threading.Event()

    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        await asyncio.to_thread(go_on.wait)
        await send({"type": "http.response.body"})

    def sync(request: Request) -> Response | None:
        return None if request.path == "/stream" else Response(200, [], b"sync")

    server = serve(sync, asgi_app=asgi, threads=1)
    streams = [connect(server) for _ in range(5)]
    for stream in streams:
        stream.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    for stream in streams:
        while b"begun" not in stream._buffer:
            stream._receive()
    assert connect(server).get("/").body == b"sync"
    go_on.set()
    assert {stream.answer().body for stream in streams} == {b"begun"}


def test_none_without_a_pool_is_501(serve: Serve, connect: Connect, both: Both) -> None:
    client = connect(serve(both.sync))
    client.send(post("/async", b"x"))
    assert client.answer().status == 501


def test_a_wsgi_app_beside(serve: Serve, connect: Connect, both: Both) -> None:
    def wsgi(environ: Any, start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"wsgi"]

    server = serve(wsgi, asgi_app=both.asgi)
    assert connect(server).get("/").body == b"wsgi"
    client = connect(server)
    assert client.get("/ws", headers=UPGRADE).status == 101


def test_a_startup_that_fails(serve: Serve, both: Both) -> None:
    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    threads = set(threading.enumerate())
    with pytest.raises(StartupError, match="no database"):
        ThreadedServer(both.sync, asgi_app=asgi, bind="127.0.0.1:0").start()
    assert set(threading.enumerate()) - threads == set()  # one of an earlier test may have ended


def test_what_is_handed_over_while_it_stops(serve: Serve, connect: Connect) -> None:
    """A request that a thread has accepted is answered, though the loop had nothing left to do."""
    begun, go_on = threading.Event(), threading.Event()

    def sync(request: Request) -> None:
        begun.set()
        go_on.wait(5)

    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await answer(send, b"late")

    server = serve(sync, asgi_app=asgi, graceful_timeout=5)
    client = connect(server)
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert begun.wait(5)
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    assert server._worker is not None
    (loop,), poller = server.pools[1].workers, server._worker.poller
    until(lambda: loop.draining and poller._deaf)
    go_on.set()
    got = client.answer()
    assert (got.body, got.header("connection")) == (b"late", "close")
    stopping.join(5)
    assert not stopping.is_alive()


def test_a_next_request_that_the_threads_do_not_take_resets_nothing(
    serve: Serve, connect: Connect, both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(both.sync, asgi_app=both.asgi)
    client = connect(server)

    def adopt_back(worker: SyncWorker, conn: Connection, let_go: Any) -> bool:
        client.send(post("/sync", b"2"))
        assert has_input(conn.fd, 10)  # a busy kernel may bring it later than it takes it
        return False

    monkeypatch.setattr(SyncWorker, "adopt_back", adopt_back)
    client.send(post("/async", b"1"))
    assert client.answer().body == b"async 1"
    assert client.sock.recv(1) == b""


def test_a_server_is_not_drained_while_a_connection_is_on_its_way_to_a_loop(
    serve: Serve, connect: Connect, both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between a thread and the loop it is in nobody's list, and the loop has nothing to do."""
    server = serve(both.sync, asgi_app=both.asgi, graceful_timeout=5)
    assert server._worker is not None
    poller, adopt = server._worker.poller, server.pools[1].adopt
    on_its_way, go_on = threading.Event(), threading.Event()

    def slow(*arguments: Any) -> None:
        on_its_way.set()
        assert go_on.wait(10)
        adopt(*arguments)

    monkeypatch.setattr(server.pools[1], "adopt", slow)
    client = connect(server)
    client.send(post("/async", b"1"))
    assert on_its_way.wait(10)
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    until(lambda: poller._deaf)
    poller._look_whether_drained()
    assert not poller.drained.is_set()
    go_on.set()
    assert client.answer().body == b"async 1"
    stopping.join(10)
    assert not stopping.is_alive()


def test_a_server_is_not_drained_while_a_connection_is_on_its_way_back(
    serve: Serve, connect: Connect, both: Both, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The threads still took it when they were asked, and its next request is in the kernel."""
    server = serve(both.sync, asgi_app=both.asgi, graceful_timeout=5)
    assert server._worker is not None
    poller = server._worker.poller
    on_its_way, go_on = threading.Event(), threading.Event()
    begin_return = HTTP1Connection.begin_return

    def slow(self: HTTP1Connection) -> None:
        on_its_way.set()
        assert go_on.wait(10)
        begin_return(self)

    monkeypatch.setattr(HTTP1Connection, "begin_return", slow)
    client = connect(server)
    client.send(post("/async", b"1"))
    assert client.answer().body == b"async 1"
    assert on_its_way.wait(10)
    client.send(post("/sync", b"2"))
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    until(lambda: poller._deaf)
    poller._look_whether_drained()
    time.sleep(0.7)  # what has no end of its own is cut by then
    assert not poller.drained.is_set()
    go_on.set()
    got = client.answer()
    assert (got.body, got.header("connection")) == (b"sync 2", "close")
    stopping.join(10)
    assert not stopping.is_alive()


def test_adopted_connections_count(serve: Serve, connect: Connect, both: Both) -> None:
    """`limit_connections` is for all there are, and a place is free again soon after a close."""
    server = serve(both.sync, asgi_app=both.asgi, limit_connections=3, threads=2)
    sockets = [connect(server) for _ in range(3)]
    for client in sockets:
        assert client.get("/ws", headers=UPGRADE).status == 101
    late = connect(server)
    late.send(post("/sync", b"late"))
    late.sock.settimeout(0.3)
    with pytest.raises(TimeoutError):
        late.sock.recv(1)
    late.sock.settimeout(10)
    sockets[0].close()
    assert late.answer().body == b"sync late"
    # what is idle gives way, to a connection that goes to the pool, too
    other = connect(server)
    assert other.get("/ws", headers=UPGRADE).status == 101
    assert late.closed()


@pytest.mark.parametrize("hybrid", [True, False])
def test_connections_that_had_a_stream_linger(serve: Serve, connect: Connect, hybrid: bool) -> None:
    """A stream whose client was told that it may go on, and the server was told to stop."""
    go_on = threading.Event()

    async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        if scope["path"] == "/":
            await answer(send, b"sync")
            return
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"begun", "more_body": True})
        await asyncio.to_thread(go_on.wait)
        await send({"type": "http.response.body"})

    def sync(request: Request) -> Response | None:
        return None if request.path == "/stream" else Response(200, [], b"sync")

    served: Any = {"asgi_app": asgi} if hybrid else {"loops": 1}
    server = serve(sync if hybrid else asgi, graceful_timeout=10, **served)
    idle, client = connect(server), connect(server)
    assert idle.get("/").body == b"sync"
    client.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    while b"begun" not in client._buffer:
        client._receive()
    stopping = threading.Thread(target=server.stop, kwargs={"linger": 5.0})
    stopping.start()
    (loop,), poller = server.pools[-1].workers, server.pools[0].poller
    until(lambda: loop.draining and (poller.draining or not hybrid))
    go_on.set()
    assert client.answer().body == b"begun"
    for each in (client, idle):
        got = each.get("/")
        assert (got.body, got.header("connection")) == (b"sync", "close")
    stopping.join(5)
    assert not stopping.is_alive()


# ---- A sync application with an asynchronous body --------------------------------------------


def test_lifecycle_events(serve: Serve, connect: Connect, both: Both) -> None:
    class Collector:
        def __init__(self) -> None:
            self.seen = Seen()

        def record(self, event: LifecycleEvent) -> None:
            if isinstance(event, (RequestStarted, ResponseCompleted)):
                self.seen.add(event)

    collector = Collector()
    client = connect(serve(both.sync, asgi_app=both.asgi, lifecycle_collector=collector))
    client.send(post("/async", b"x"))
    client.answer()
    started, completed = collector.seen.wait(2)
    assert isinstance(started, RequestStarted)
    assert (completed.request.path, completed.status, completed.body_bytes) == ("/async", 200, 7)


def test_the_worker_with_a_pool_of_ones_own(both: Both) -> None:
    config = ServerConfig.from_options(threads=2, graceful_timeout=2)
    pool = HandoffPool(both.asgi, config)
    pool.start()
    sock = socket.create_server(("127.0.0.1", 0))
    address = sock.getsockname()
    worker = SyncWorker(config, both.asgi, sock, sync_app=both.sync, async_pool=pool)
    worker.set_lifespan_state({"given": 1})
    thread = threading.Thread(target=worker.run)
    thread.start()
    with contextlib.closing(Client(socket.create_connection(address, 5))) as client:
        client.send(post("/async", b"x") + post("/sync", b"y"))
        assert client.answer().body == b"async x"
        assert client.answer().body == b"sync y"
    worker.shutdown(2)
    pool.shutdown(2)
    thread.join(5)
    assert not thread.is_alive()
