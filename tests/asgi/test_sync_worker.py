"""`SyncWorker` with an ASGI application: the methods of the reference page, and its crews."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from threadwell import Request, Response, ServerConfig, SyncWorker
from threadwell.worker.asgi.pool import HandoffPool

from ..helpers.asgi_tools import LOOPS, UPGRADE, Receive, Scope, Seen, Send, answer, read_body
from ..helpers.wire_client import Client

each_loop = pytest.mark.parametrize("loop", LOOPS)

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = b"GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, Client]]:
    """A bare blocking socket, and a client on its other end."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    with ours, theirs:
        yield ours, Client(theirs)


class App:
    """Says what it was called with, and on which loop and thread."""

    def __init__(self) -> None:
        self.seen = Seen()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] in ("http", "websocket"), "nobody asks for a lifespan"
        where = (scope["path"], threading.current_thread(), asyncio.get_running_loop())
        self.seen.add((*where, scope["state"]))
        if scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.accept"})
            message = await receive()
            await send({"type": "websocket.send", "text": message["text"]})
            await send({"type": "websocket.close"})
            return
        body = await read_body(receive)
        if scope["path"] == "/stream":
            await send({"type": "http.response.start", "status": 200})
            for part in (b"a", b"b", body):
                await asyncio.sleep(0)
                await send({"type": "http.response.body", "body": part, "more_body": True})
            await send({"type": "http.response.body"})
        else:
            await answer(send, b"hello " + body)


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def worker(app: App) -> Iterator[SyncWorker]:
    """One that is not running, and listens nowhere."""
    made = SyncWorker(ServerConfig.from_options(loop="asyncio"), app, None)
    yield made
    made.close()


@each_loop
def test_handle_connection_serves_a_bare_socket_to_its_end(
    app: App, pair: tuple[socket.socket, Client], loop: str
) -> None:
    """On the calling thread, on the loop of the runner, with the state that was given."""
    ours, client = pair
    worker = SyncWorker(ServerConfig.from_options(loop=loop), app, None)
    worker.set_lifespan_state({"database": 1})
    result: list[Any] = []

    def handle() -> None:
        with asyncio.Runner() as runner:
            result.append(runner.get_loop())
            worker._handle_connection(ours, ("192.0.2.1", 5), runner)
            result.append(runner.get_loop().is_closed())

    thread = threading.Thread(target=handle)
    thread.start()
    client.send(GET + b"POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbo")
    assert client.answer().body == b"hello "
    client.send(b"dy")
    assert client.answer().body == b"abbody"
    client.send(LAST)
    assert client.answer().header("connection") == "close"
    thread.join(5)
    assert not thread.is_alive()
    assert client.closed()
    assert result[1] is False, "the runner is its owner's to close"
    assert [each[0] for each in app.seen.values] == ["/", "/stream", "/last"]
    for _, seen_thread, seen_loop, state in app.seen.values:
        assert (seen_thread, seen_loop, state) == (thread, result[0], {"database": 1})
    assert worker.is_idle()
    worker.close()


def test_handle_connection_makes_a_loop_of_its_own(
    app: App, worker: SyncWorker, pair: tuple[socket.socket, Client]
) -> None:
    ours, client = pair
    results: list[bool] = []

    def handle() -> None:
        results.append(worker._handle_connection_impl(ours, ("192.0.2.1", 5), None))

    thread = threading.Thread(target=handle)
    thread.start()
    client.send(f"GET /ws HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n".encode())
    client.send(b"\x81\x82\0\0\0\0hi")
    assert client.answer().status == 101
    assert client._exactly(8) == b"\x81\x02hi\x88\x02\x03\xe8"
    client.send(b"\x88\x82\0\0\0\0\x03\xe8")
    client.close()
    thread.join(5)
    assert results == [True]
    assert app.seen.values[0][2].is_closed()


def test_handle_connection_hands_over_to_loops_that_run(
    app: App, pair: tuple[socket.socket, Client]
) -> None:
    """Returns at once, for another thread's loop serves it from then on."""
    ours, client = pair
    config = ServerConfig.from_options(loop="asyncio", lifespan="off", graceful_timeout=5)
    worker = SyncWorker(config, app, None)
    thread = threading.Thread(target=worker.run)
    thread.start()
    worker.wait_until_ready()
    client.send(GET)
    assert worker._handle_connection_impl(ours, ("192.0.2.1", 5), None) is True
    assert client.answer().body == b"hello "
    client.send(GET)
    assert client.answer().body == b"hello "
    assert {each[1] for each in app.seen.values} == {thread}
    worker.start_draining()
    thread.join(5)
    assert not thread.is_alive()
    assert client.closed()


def test_handle_connection_lets_nothing_escape(pair: tuple[socket.socket, Client]) -> None:
    async def fails(scope: Scope, receive: Receive, send: Send) -> None:
        raise SystemExit(3)

    ours, client = pair
    worker = SyncWorker(ServerConfig.from_options(loop="asyncio"), fails, None)
    client.send(LAST)
    worker._handle_connection(ours, ("192.0.2.1", 5), None)
    assert client.answer().status == 500
    assert worker.slot.serving is None
    worker.close()


def test_a_stop_reaches_a_connection_that_is_handled(
    pair: tuple[socket.socket, Client],
) -> None:
    begun = Seen()

    async def waits(scope: Scope, receive: Receive, send: Send) -> None:
        begun.add(scope["type"])
        await asyncio.Event().wait()

    ours, client = pair
    worker = SyncWorker(ServerConfig.from_options(loop="asyncio"), waits, None)
    thread = threading.Thread(target=worker._handle_connection, args=(ours, ("", 0), None))
    thread.start()
    client.send(GET)
    assert begun.wait() == ["http"]
    assert not worker.is_idle()
    worker.shutdown(0.5)
    thread.join(5)
    assert not thread.is_alive()
    client.rest()


def test_recv_request_fast(worker: SyncWorker, pair: tuple[socket.socket, Client]) -> None:
    ours, client = pair
    client.send(b"POST /a?b HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody")
    request, body = worker._recv_request_fast(ours)
    assert request is not None
    assert (request.method, request.path, request.query, body) == ("POST", "/a", "b", b"body")


def test_recv_request_fast_answers_an_error(
    worker: SyncWorker, pair: tuple[socket.socket, Client]
) -> None:
    ours, client = pair
    client.send(b"GET / HTTP/1.1\r\nBad Field: x\r\n\r\n")
    client.sock.shutdown(socket.SHUT_WR)
    assert worker._recv_request_fast(ours) == (None, b"")
    assert client.answer().status == 400


def test_send_error_and_the_date(worker: SyncWorker, pair: tuple[socket.socket, Client]) -> None:
    ours, client = pair
    client.sock.shutdown(socket.SHUT_WR)
    worker._send_error(ours, 413, "Too much")
    got = client.answer()
    assert (got.status, got.body, got.header("connection")) == (413, b"Too much\n", "close")
    date = worker._cached_date_header()
    assert date is not None
    assert date.startswith(b"Date: ")


def test_a_blocking_socket_that_is_handed_over_blocks_no_loop(
    app: App, pair: tuple[socket.socket, Client]
) -> None:
    """And it may come back to the threads, which park it like any other."""

    def sync(request: Request) -> Response | None:
        return Response(200, [], b"sync") if request.path == "/sync" else None

    ours, client = pair
    config = ServerConfig.from_options(loop="asyncio", lifespan="off", threads=2)
    pool = HandoffPool(app, config)
    pool.start()
    worker = SyncWorker(config, app, None, sync_app=sync, async_pool=pool)
    thread = threading.Thread(target=worker.run)
    thread.start()
    client.send(GET)
    assert worker._handle_connection_impl(ours, ("192.0.2.1", 5), None) is True
    assert client.answer().body == b"hello "
    assert ours.getblocking() is False
    for path, body in (("/sync", b"sync"), ("/", b"hello "), ("/sync", b"sync")):
        client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert client.answer().body == body
    worker.shutdown(2)
    pool.shutdown(2)
    thread.join(5)
    assert not thread.is_alive()
