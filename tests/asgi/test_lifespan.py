"""The life of an ASGI server: lifespan, several loops, and an orderly end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from websockets.sync.client import connect as connect_websocket

from threadwell import ConfigError, ServerConfig, SyncWorker, ThreadedServer
from threadwell.worker.asgi import loop_worker as worker_module
from threadwell.worker.asgi.pool import EventLoopPool
from threadwell.worker.errors import StartupError

from ..helpers.asgi_tools import LOOPS, UPGRADE, Receive, Scope, Seen, Send, answer
from ..helpers.waiting import until
from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

each_loop = pytest.mark.parametrize("loop", LOOPS)


class App:
    """An application with a lifespan, which notes what happens."""

    def __init__(self) -> None:
        self.seen = Seen()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.lifespan(scope, receive, send)
        elif scope["type"] == "websocket":
            await self.websocket(scope, receive, send)
        else:
            await self.http(scope, receive, send)

    async def lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert (await receive())["type"] == "lifespan.startup"
        scope["state"]["pool"] = []
        scope["state"]["loop"] = asyncio.get_running_loop()
        self.seen.add("startup")
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        self.seen.add("shutdown")
        await send({"type": "lifespan.shutdown.complete"})

    async def http(self, scope: Scope, receive: Receive, send: Send) -> None:
        state = scope["state"]
        assert state["loop"] is asyncio.get_running_loop()
        state["pool"].append(scope["path"])
        state["mine"] = True
        self.seen.add(scope["path"])
        await answer(send, b"%d" % len(state["pool"]))

    async def websocket(self, scope: Scope, receive: Receive, send: Send) -> None:
        scope["state"]["pool"].append("websocket")
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.send", "text": str(len(scope["state"]["pool"]))})
        self.seen.add((await receive())["type"])


@each_loop
def test_once_before_and_once_after(serve: Serve, connect: Connect, loop: str) -> None:
    app = App()
    server = serve(app, loop=loop, loops=1, lifespan="on")
    assert app.seen.values == ["startup"]
    client = connect(server)
    assert client.get("/a").body == b"1"
    assert client.get("/b").body == b"2"
    with connect_websocket(f"ws://127.0.0.1:{server.port}/") as ws:
        assert ws.recv() == "3"
    app.seen.wait(4)
    server.stop()
    assert app.seen.values == ["startup", "/a", "/b", "websocket.disconnect", "shutdown"]


async def without(scope: Scope, receive: Receive, send: Send) -> None:
    assert scope["type"] == "http", "no lifespan here"
    await answer(send, b"fine")


async def returns(scope: Scope, receive: Receive, send: Send) -> None:
    if scope["type"] == "http":
        await answer(send, b"fine")


@pytest.mark.parametrize("app", [without, returns])
def test_not_supported(serve: Serve, connect: Connect, app: Any) -> None:
    assert connect(serve(app)).get().body == b"fine"
    assert connect(serve(app, lifespan="off")).get().body == b"fine"
    with pytest.raises(StartupError, match="does not support lifespan"):
        serve(app, lifespan="on")


def test_off_does_not_ask(serve: Serve, connect: Connect) -> None:
    asked = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        asked.add(scope["type"])
        await answer(send)

    assert connect(serve(app, lifespan="off")).get().status == 200
    assert asked.values == ["http"]


@each_loop
def test_a_startup_that_fails(serve: Serve, loop: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})
        raise ValueError

    server = ThreadedServer(app, bind="127.0.0.1:0", loop=loop)
    server.bind()
    port = server.port
    with pytest.raises(StartupError, match="no database"):
        server.start()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))


def test_no_request_before_the_startup_is_complete(connect: Connect) -> None:
    app, go_on = App(), threading.Event()

    class Slow(App):
        async def lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
            await asyncio.to_thread(go_on.wait)
            await super().lifespan(scope, receive, send)

    app = Slow()
    server = ThreadedServer(app, bind="127.0.0.1:0", loops=1, graceful_timeout=2)
    server.bind()
    thread = threading.Thread(target=server.start)
    thread.start()
    client = connect(server)
    client.send(b"GET /early HTTP/1.1\r\nHost: x\r\n\r\n")
    assert app.seen.values == []
    go_on.set()
    assert client.answer().status == 200
    thread.join()
    server.stop()
    assert app.seen.values == ["startup", "/early", "shutdown"]


def test_a_stop_while_it_starts() -> None:
    begun = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        begun.set()
        await asyncio.sleep(1000)

    server = ThreadedServer(app, bind="127.0.0.1:0", graceful_timeout=1)
    thread = threading.Thread(target=server.start)
    thread.start()
    assert begun.wait(5)
    server.stop()
    thread.join(5)
    assert not thread.is_alive()


def test_a_shutdown_that_never_ends(serve: Serve) -> None:
    class Stuck(App):
        async def lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await asyncio.sleep(1000)

    server = serve(Stuck(), graceful_timeout=0.5)
    begun = time.monotonic()
    server.stop()
    assert time.monotonic() - begun < 6


@pytest.mark.parametrize(("receives", "level"), [(False, "DEBUG"), (True, "INFO")])
def test_an_application_without_a_lifespan_is_no_news(
    serve: Serve, caplog: pytest.LogCaptureFixture, receives: bool, level: str
) -> None:
    class Without(App):
        async def lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
            if receives:  # so it has one, which failed
                await receive()
            raise ValueError("No application configured for scope type 'lifespan'")

    with caplog.at_level("DEBUG", "threadwell"):
        serve(Without(), loops=1)
    found = [record for record in caplog.records if "without a lifespan" in record.message]
    assert [record.levelname for record in found] == [level]


def test_a_shutdown_that_fails_is_logged(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    class Failing(App):
        async def lifespan(self, scope: Scope, receive: Receive, send: Send) -> None:
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.failed", "message": "cannot flush"})

    serve(Failing()).stop()
    assert "cannot flush" in caplog.text


@each_loop
def test_several_loops(serve: Serve, connect: Connect, loop: str) -> None:
    """Each has a lifespan and a state of its own, and they share the connections fairly."""
    app = App()
    server = serve(app, loop=loop, loops=3)
    assert app.seen.values == ["startup"] * 3
    clients = [connect(server) for _ in range(12)]
    counts = sorted(int(client.get("/x").body) for client in clients)
    assert max(counts) <= 6
    assert counts.count(1) == 3
    assert len(clients) == 12
    server.stop()
    assert app.seen.values.count("shutdown") == 3


def test_one_of_several_loops_fails() -> None:
    started: list[int] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        started.append(1)
        if len(started) == 2:
            await send({"type": "lifespan.startup.failed", "message": "the second"})
        else:
            await send({"type": "lifespan.startup.complete"})
            await receive()

    with pytest.raises(StartupError, match="the second"):
        ThreadedServer(app, bind="127.0.0.1:0", loops=3).start()


def test_uvloop_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    with pytest.raises(ConfigError, match="uvloop is not installed"):
        ThreadedServer(without, bind="127.0.0.1:0", loop="uvloop").start()
    with ThreadedServer(without, bind="127.0.0.1:0", loop="auto"):
        pass


# ---- SyncWorker ------------------------------------------------------------------------------


def test_sync_worker_runs_an_asgi_app(connect: Connect) -> None:
    app, event = App(), threading.Event()
    sock = socket.create_server(("127.0.0.1", 0))
    address = sock.getsockname()
    config = ServerConfig.from_options(loops=1, graceful_timeout=2)
    worker = SyncWorker(config, app, sock, shutdown_event=event)
    worker.set_lifespan_state({"given": 1})
    assert worker.lifespan_state == {"given": 1}
    thread = threading.Thread(target=worker.run)
    thread.start()
    worker.wait_until_ready()
    with contextlib.closing(Client(socket.create_connection(address, 5))) as client:
        assert client.get("/a").status == 200
        deadline = time.monotonic() + 5
        while not worker.is_idle():
            assert time.monotonic() < deadline
    event.set()
    thread.join(5)
    assert not thread.is_alive()
    assert app.seen.values == ["startup", "/a", "shutdown"]


def test_sync_worker_with_a_runner_and_a_queue() -> None:
    """The page's `runner` is the loop that the connections are served on."""
    app = App()
    conn_queue: queue.Queue[tuple[socket.socket, object]] = queue.Queue()
    config = ServerConfig.from_options(loops=1, graceful_timeout=2)
    worker = SyncWorker(config, app, None, conn_queue=conn_queue)
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)

    def run() -> None:
        with asyncio.Runner() as runner:
            worker._run_from_queue(0.1, runner)

    thread = threading.Thread(target=run)
    thread.start()
    conn_queue.put((ours, ("192.0.2.1", 5)))
    with contextlib.closing(Client(theirs)) as client:
        assert client.get("/queued").body == b"1"
    worker.shutdown(2)
    thread.join(5)
    assert not thread.is_alive()
    assert app.seen.values == ["startup", "/queued", "shutdown"]


# ---- The end ---------------------------------------------------------------------------------


@each_loop
def test_what_is_in_flight_is_finished(serve: Serve, connect: Connect, loop: str) -> None:
    begun = Seen()
    go_on = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        path = scope["path"]
        begun.add(path)
        if path == "/upload":
            body = b""
            while (message := await receive())["more_body"]:
                body += message["body"]
            await answer(send, body + message["body"])
            return
        await send({"type": "http.response.start", "status": 200})
        if path == "/stream":
            await send({"type": "http.response.body", "body": b"begun ", "more_body": True})
        await asyncio.to_thread(go_on.wait)
        await send({"type": "http.response.body", "body": b"ended"})

    server = serve(app, loop=loop, graceful_timeout=5)
    plain, stream, upload, idle = [connect(server) for _ in range(4)]
    plain.send(b"GET /plain HTTP/1.1\r\nHost: x\r\n\r\n")
    stream.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    upload.send(b"POST /upload HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nab")
    begun.wait(3)
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    assert idle.closed()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", server.port))
    pool: Any = server.pools[0]
    until(lambda: all(worker.draining for worker in pool.workers))
    upload.send(b"cd")
    go_on.set()
    got = plain.answer()
    assert (got.body, got.header("connection")) == (b"ended", "close")
    assert stream.answer().body == b"begun ended"
    assert upload.answer().body == b"abcd"
    assert plain.closed()
    assert stream.closed()
    assert upload.closed()
    stopping.join(5)
    assert not stopping.is_alive()


@each_loop
def test_background_work_is_waited_for(serve: Serve, connect: Connect, loop: str) -> None:
    worked = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await answer(send)
        await asyncio.sleep(0.3)
        worked.add(True)

    server = serve(app, loop=loop, graceful_timeout=5)
    connect(server).get()
    server.stop()
    assert worked.values == [True]


@each_loop
def test_what_does_not_end_is_cancelled(serve: Serve, connect: Connect, loop: str) -> None:
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        seen.add("begun")
        try:
            await asyncio.sleep(1000)
        finally:
            seen.add("ended")

    server = serve(app, loop=loop, graceful_timeout=0.4)
    client = connect(server)
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    seen.wait(1)
    begun = time.monotonic()
    server.stop()
    assert time.monotonic() - begun < 3
    assert seen.wait(2) == ["begun", "ended"]
    with pytest.raises((EOFError, ConnectionResetError)):
        while True:
            client.answer()


_STREAMS = """
import asyncio, sys
import threadwell

ends = {"stream": 0, "told": 0, "websocket": 0}
open_ = 0

async def app(scope, receive, send):
    global open_
    if scope["type"] == "lifespan":
        await receive()
        print("ready", flush=True)  # connections wait in the backlog from now on
        await send({"type": "lifespan.startup.complete"})
        await receive()
        print(ends, flush=True)
        await send({"type": "lifespan.shutdown.complete"})
        return
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        message = await receive()
        assert message["type"] == "websocket.disconnect" and message["code"] == 1012, message
        ends["websocket"] += 1
        return
    await receive()
    kind = b"text/event-stream" if scope["path"] == "/events" else b"text/plain"
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    listening = asyncio.ensure_future(receive())
    while not listening.done():
        await send({"type": "http.response.body", "body": b"data: x\\n\\n", "more_body": True})
        await asyncio.wait([listening], timeout=0.05)
    ends["told" if kind == b"text/plain" else "stream"] += 1

options = {"bind": "fd://" + sys.argv[1], "graceful_timeout": 4, "loop": sys.argv[2], "quiet": True}
if sys.argv[3] == "hybrid":
    threadwell.serve(lambda request: None, interface="sync", asgi_app=app, **options)
else:
    threadwell.serve(app, loops=1, **options)
"""


@each_loop
@pytest.mark.parametrize("kind", ["asgi", "hybrid"])
def test_sigterm_with_streams_and_websockets_open(loop: str, kind: str) -> None:
    # bound here, for a free port may be another's when the process has started
    with socket.create_server(("127.0.0.1", 0), backlog=300) as listener:
        port = listener.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-W", "error", "-c", _STREAMS, str(listener.fileno()), loop, kind],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            pass_fds=[listener.fileno()],
        )
    with process, contextlib.ExitStack() as stack:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        streams: list[tuple[str, Client]] = []
        sockets: list[Client] = []
        for number in range(100):
            raw = stack.enter_context(socket.create_connection(("127.0.0.1", port), 10))
            client = Client(raw)
            path = "/events" if number < 50 else "/plain"
            client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            streams.append((path, client))
            ws = Client(stack.enter_context(socket.create_connection(("127.0.0.1", port), 10)))
            assert ws.get(headers=UPGRADE).status == 101
            sockets.append(ws)
        for _, client in streams:
            while b"data: x" not in client._buffer:
                client._receive()
        process.send_signal(signal.SIGTERM)
        sent = time.monotonic()
        for ws in sockets:
            assert ws._exactly(4)[2:] == (1012).to_bytes(2)
            ws.send(b"\x88\x82\0\0\0\0" + (1012).to_bytes(2))
        assert time.monotonic() - sent < 2
        for path, client in streams:
            if path == "/events":
                assert client.answer().complete
                assert client.closed()
            else:
                # cut, and so visibly that nobody takes it for the whole
                with contextlib.suppress(ConnectionResetError):
                    assert not client.answer().complete
        out, err = process.communicate(timeout=10)
        assert time.monotonic() - sent < 7
    assert out == "{'stream': 50, 'told': 50, 'websocket': 100}\n"
    assert process.returncode == 0
    assert "Traceback" not in err


def opened() -> set[Any]:
    """The descriptors of this process, with what they are of, and its threads."""
    found: set[Any] = set(threading.enumerate())
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):  # the one that the listing itself had
            found.add((name, os.readlink(f"/proc/self/fd/{name}")))
    return found


def test_the_loop_is_nobody_elses_affair(serve: Serve, connect: Connect) -> None:
    """No descriptor and no thread is left of a server that has stopped."""
    for _ in range(2):  # the first makes what Python keeps
        before = opened()
        server = serve(App(), loops=2)
        client = connect(server)
        client.get("/x")
        client.close()
        server.stop()
        left = opened() - before
    assert left == set()


def test_the_command_line(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(
        "async def app(scope, receive, send):\n"
        "    await receive()\n"
        "    await send({'type': 'lifespan.startup.failed', 'message': 'no database'})\n"
    )
    command = [sys.executable, "-m", "threadwell", "failing:app", "--bind", "127.0.0.1:0"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert done.stderr == "threadwell: the application did not start: no database\n"
    assert done.stdout == ""


# ---- A loop that ends before the others -----------------------------------------------------


def test_a_loop_that_ends_takes_nothing_away_from_the_others(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It closes no listener that another loop accepts from, and is offered no connection."""
    monkeypatch.setattr(worker_module, "refuse_connections", lambda sockets: None)
    ending, go_on = threading.Event(), threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await answer(send, b"hello")
            return
        assert (await receive())["type"] == "lifespan.startup"
        await send({"type": "lifespan.startup.complete"})
        assert (await receive())["type"] == "lifespan.shutdown"
        ending.set()
        await asyncio.to_thread(go_on.wait, 10)
        await send({"type": "lifespan.shutdown.complete"})

    server = serve(app, loops=2, graceful_timeout=5)
    assert isinstance(server.pools[0], EventLoopPool)
    _, other = server.pools[0].workers
    other.call(other.drain, time.monotonic() + 10)
    assert ending.wait(10)
    clients = [connect(server) for _ in range(5)]
    assert [client.get().body for client in clients] == [b"hello"] * 5
    go_on.set()


def test_what_a_loop_is_given_while_it_drains_is_told_of_it(serve: Serve, connect: Connect) -> None:
    where: queue.Queue[asyncio.AbstractEventLoop] = queue.Queue()
    go_on = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        where.put(asyncio.get_running_loop())
        go_on.wait(10)  # and no other callback of this loop runs
        await answer(send, b"hello")

    server = serve(app, loops=2, lifespan="off", graceful_timeout=5)
    assert isinstance(server.pools[0], EventLoopPool)
    first = connect(server)
    first.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    loop = where.get(timeout=10)
    (busy,) = (each for each in server.pools[0].workers if each.loop is loop)
    busy.call(busy.drain, time.monotonic() + 60)
    idle = []
    while not busy.offered:  # the other loop gives away what it has too many of
        idle.append(connect(server))
        until(lambda: sum(each.load() for each in server.pools[0].workers) == len(idle) + 1)
    go_on.set()
    assert first.answer().body == b"hello"
    idle[-1].sock.settimeout(5)
    assert idle[-1].closed()
