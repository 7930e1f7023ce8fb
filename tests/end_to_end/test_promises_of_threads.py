"""Promises 1 to 5 and 11 of docs/architecture.md: threads, ownership and what is shared."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from threadwell import Request, Response, ThreadedServer
from threadwell.worker.connection import Connection, IllegalTransition, State
from threadwell.worker.polling.base import Poller
from threadwell.worker.polling.distributor import QueuePoller
from threadwell.worker.polling.kernel import make_poller

from ..helpers.waiting import until
from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]
Environ = dict[str, Any]


def hello(environ: Environ, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


# ---- 1. A sync request never meets an event loop ---------------------------------------------

_NO_LOOP = """
import http.client, sys
from threadwell import ThreadedServer
{application}
with ThreadedServer(app, bind="127.0.0.1:0", threads=2) as server:
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    for path in ("/", "/stream", "/"):
        client.request("POST", path, b"x" * 10)
        assert client.getresponse().read() == b"hello"
    client.close()
print("asyncio" in sys.modules)
"""
_PLAIN = """
def app(environ, start_response):
    start_response("200 OK", [])
    return iter([b"he", b"llo"]) if environ["PATH_INFO"] == "/stream" else [b"hello"]
"""
_FLASK = """
import flask
app = flask.Flask("example")
@app.post("/")
def index(): return "hello"
@app.post("/stream")
def stream(): return flask.Response(iter(["he", "llo"]))
"""


@pytest.mark.parametrize("kind", ["wsgi", "flask"])
def test_promise_1_asyncio_is_never_imported(kind: str) -> None:
    if kind == "flask":
        pytest.importorskip("flask")
    program = _NO_LOOP.format(application=_FLASK if kind == "flask" else _PLAIN)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.stdout, done.returncode) == ("False\n", 0), done.stderr


# ---- 2. An application is run exactly once per request ---------------------------------------


class Counted:
    """A `SyncApp` that counts its calls by path, and answers in the way the path names."""

    threadwell_interface = "sync"

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()

    def __call__(self, request: Request) -> Response | None:
        self.calls[request.path] += 1
        answer: Callable[[Request], Response | None] = getattr(self, request.path[1:])
        return answer(request)

    def fixed(self, request: Request) -> Response:
        return Response(200, [], request.read())

    def blocks(self, request: Request) -> Response:
        return Response(200, [], [b"one", b"two"])

    def stream(self, request: Request) -> Response:
        return Response(200, [], iter([b"one", b"two"]))

    def declared(self, request: Request) -> Response:
        return Response(200, [("Content-Length", "6")], iter([b"one", b"two"]))

    def empty(self, request: Request) -> Response:
        return Response(200, [], iter(()))

    def pushed(self, request: Request) -> Response:
        request.stream(Response(200)).write(b"one")
        return Response(200, [], [b"two"])

    def none(self, request: Request) -> None:
        return None

    def broken(self, request: Request) -> Response:
        raise ValueError("broken")

    def broken_stream(self, request: Request) -> Response:
        def blocks() -> Iterator[bytes]:
            raise ValueError("broken")
            yield b""

        return Response(200, [], blocks())

    def bad_header(self, request: Request) -> Response:
        return Response(200, [("X-A", "a\r\nb")])

    def hijacked(self, request: Request) -> Response:
        sock = request.hijack()
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        return Response(200)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/fixed", 200),
        ("/blocks", 200),
        ("/stream", 200),
        ("/declared", 200),
        ("/empty", 200),
        ("/pushed", 200),
        ("/none", 501),
        ("/broken", 500),
        ("/broken_stream", 500),
        ("/bad_header", 500),
        ("/hijacked", 200),
    ],
)
@pytest.mark.parametrize("version", ["1.1", "1.0"])
def test_promise_2_the_application_runs_once_per_post(
    serve: Serve, connect: Connect, path: str, status: int, version: str
) -> None:
    app = Counted()
    client = connect(serve(app, threads=2))
    client.send(f"POST {path} HTTP/{version}\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody".encode())
    answer = client.answer()
    assert answer.status == status
    assert answer.complete
    client.close()
    assert app.calls == {path: 1}


# ---- 3. A thread is taken only when a request is wholly there --------------------------------

_LARGE = bytes(16 * 1024 * 1024)


def large_or_hello(environ: Environ, start_response: Any) -> list[bytes]:
    if environ["PATH_INFO"] == "/large":
        start_response("200 OK", [])
        return [_LARGE]
    return hello(environ, start_response)


@pytest.mark.parametrize("poller", ["auto", "queue"])
def test_promise_3_clients_that_are_not_ready_hold_no_thread(
    serve: Serve, connect: Connect, poller: str
) -> None:
    server = serve(large_or_hello, threads=1, poller=poller, graceful_timeout=0)
    for _ in range(50):
        connect(server)
        connect(server).send(b"GET / HTTP/1.1\r\nHost: x\r\nX-Half")
        connect(server).send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nhalf")
        connect(server).send(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
    worker = server._worker
    assert worker is not None
    # once all are waiting, and only then, the clock runs
    waiting = {State.IDLE: 50, State.HEAD: 50, State.BODY: 50, State.WRITING: 50}
    until(lambda: Counter(conn.state for conn in list(worker.poller.connections)) == waiting, 20)
    client = connect(server)
    for _ in range(20):
        started = time.monotonic()
        assert client.get().body == b"hello"
        assert connect(server).get().body == b"hello"
        assert time.monotonic() - started < 2


# ---- 4. A long response keeps its thread, and the others get another --------------------------


class Endless:
    """Streams until told to stop; notes the threads that call, iterate and close."""

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.threads: dict[str, list[int]] = {}
        self.closed = 0
        self._lock = threading.Lock()

    def __call__(self, environ: Environ, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/":
            return hello(environ, start_response)
        mine = self.threads.setdefault(environ["PATH_INFO"], [])
        mine.append(threading.get_ident())
        start_response("200 OK", [])
        return self._Blocks(self, mine)

    class _Blocks:
        def __init__(self, of: Endless, threads: list[int]) -> None:
            self._of = of
            self._threads = threads

        def __iter__(self) -> Iterator[bytes]:
            return self

        def __next__(self) -> bytes:
            self._threads.append(threading.get_ident())
            if self._of.stop.wait(0.02):
                raise StopIteration
            return b"tick"

        def close(self) -> None:
            self._threads.append(threading.get_ident())
            with self._of._lock:
                self._of.closed += 1


@pytest.mark.parametrize("poller", ["auto", "queue"])
def test_promise_4_streams_do_not_starve_plain_requests(
    serve: Serve, connect: Connect, poller: str
) -> None:
    app = Endless()
    server = serve(app, threads=2, poller=poller)
    streams = [connect(server) for _ in range(30)]
    for number, stream in enumerate(streams):
        stream.send(f"GET /{number + 1} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    for _ in range(20):
        assert connect(server).get().body == b"hello"
    until(lambda: len(app.threads) == 30)
    app.stop.set()
    for stream in streams:
        answer = stream.answer()
        assert answer.complete
        assert set(answer.chunks) <= {b"tick", b""}
    until(lambda: app.closed == 30)
    # each stream was called, iterated and closed on one thread, and no two had the same
    threads = [set(idents) for idents in app.threads.values()]
    assert all(len(idents) == 1 for idents in threads)
    assert len(set.union(*threads)) == 30
    assert connect(server).get().body == b"hello"


def test_promise_4_streams_over_the_cap_are_refused(serve: Serve, connect: Connect) -> None:
    app = Endless()
    server = serve(app, threads=2, max_streams=3)
    streams = [connect(server) for _ in range(3)]
    for stream in streams:
        stream.send(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
    worker = server._worker
    assert worker is not None
    until(lambda: worker.leader_follower.lent == 3)
    refused = connect(server).get("/refused")
    assert refused.status == 503
    assert int(refused.header("retry-after") or "0") > 0
    assert connect(server).get().body == b"hello"
    app.stop.set()
    for stream in streams:
        assert stream.answer().complete
    # the places are free again
    until(lambda: connect(server).get("/again").status == 200)


class _OddEnds:
    """Long responses that end in ways nobody would think of; `/` says whether there is room."""

    threadwell_interface = "sync"

    def __init__(self) -> None:
        self.gone = threading.Event()

    def __call__(self, request: Request) -> Response | None:
        if request.path == "/":
            return Response(200, [], iter([b"room"]))
        if request.path == "/nothing":
            request.stream(Response(200))
            return None
        if request.path == "/late-nothing":
            request.stream(Response(200)).write(b"some")
            return None
        if request.path == "/bad-block":
            return Response(200, [], iter(["text"]))  # type: ignore[list-item]
        request.stream(Response(200))
        self.gone.wait(5)
        raise ValueError("failed, and the client has left")


@pytest.mark.parametrize("path", ["/nothing", "/late-nothing", "/bad-block", "/gone"])
def test_promise_4_a_long_response_gives_its_place_back_however_it_ends(
    serve: Serve, connect: Connect, path: str
) -> None:
    app = _OddEnds()
    server = serve(app, threads=1, max_streams=1)
    client = connect(server)
    client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    if path == "/gone":
        client.sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0"
        )  # leave with a reset
        worker = server._worker
        assert worker is not None
        until(lambda: worker.leader_follower.lent == 1)
        client.close()
        app.gone.set()
    elif path == "/bad-block":
        assert client.answer().status == 500
    else:
        client.rest()
    deadline = time.monotonic() + 3
    while connect(server).get().status != 200:
        assert time.monotonic() < deadline, "its place was never given back"
        time.sleep(0.02)


# ---- 5. One owner per connection at a time ---------------------------------------------------


def test_promise_5_an_illegal_step_raises() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        conn = Connection(ours, ("", 0), ("", 0), state=State.STREAMING)
        with pytest.raises(IllegalTransition):
            conn.become(State.IDLE)
        with pytest.raises(IllegalTransition):
            conn.become(State.WRITING)


@pytest.mark.parametrize("kind", ["auto", "queue"])
def test_promise_5_two_threads_cannot_both_take_a_parked_connection(kind: str) -> None:
    poller: Poller = make_poller(kind, 1000)
    pairs = [socket.socketpair() for _ in range(100)]
    taken: list[Connection] = []
    done = threading.Event()

    def wait() -> None:
        while not done.is_set():
            found = poller.wait(0.05)
            if found is not None:
                taken.append(found)

    threads = [threading.Thread(target=wait) for _ in range(8)]
    for thread in threads:
        thread.start()
    try:
        poller._next_sweep = 0.0
        for ours, theirs in pairs:
            ours.setblocking(False)
            theirs.send(b"x")
            # ready, and overdue too
            conn = Connection(ours, ("", 0), ("", 0), state=State.IDLE)
            poller.connections.add(conn)
            poller.park(conn, time.monotonic())
        until(lambda: len(taken) >= 100)
        done.wait(0.2)
        assert len(taken) == len(set(map(id, taken))) == 100
    finally:
        done.set()
        for thread in threads:
            thread.join()
        poller.close()
        for pair in pairs:
            for sock in pair:
                sock.close()
    assert isinstance(poller, QueuePoller) is (kind == "queue")


# ---- 11. Nothing hot is shared ---------------------------------------------------------------


def test_promise_11_workers_of_a_crew_share_no_cache(serve: Serve, connect: Connect) -> None:
    server = serve(hello, threads=6)
    assert connect(server).get().body == b"hello"
    worker = server._worker
    assert worker is not None
    until(lambda: len(worker.pool.workers) == 6)
    workers = list(worker.pool.workers)
    for name in ("parser", "writer"):
        assert len({id(getattr(one, name)) for one in workers}) == 6
    assert len({id(one.parser._fields) for one in workers}) == 6
    assert len({id(one.parser._fields._layouts) for one in workers}) == 6
    assert len({id(one.writer._lines) for one in workers}) == 6
    assert len({id(one.writer._status_lines) for one in workers}) == 6
    for shared in ("poller", "leader_follower", "config"):
        assert len({id(getattr(one, shared)) for one in workers}) == 1


def echo(environ: Environ, start_response: Any) -> list[bytes]:
    """Everything that says whose request this is, in the headers and in the body."""
    who = environ["HTTP_X_WHO"]
    start_response(f"200 {who}", [("X-Who", who), ("Content-Type", "text/plain")])
    parts = [who, environ["PATH_INFO"], environ["QUERY_STRING"], environ["HTTP_COOKIE"]]
    return ["|".join(parts).encode() + environ["wsgi.input"].read()]


@pytest.mark.parametrize("poller", ["auto", "queue"])
def test_promise_11_every_client_gets_its_own_answer(
    serve: Serve, connect: Connect, poller: str
) -> None:
    server = serve(echo, threads=8, poller=poller)
    wrong: list[object] = []

    def hammer(number: int) -> None:
        client = connect(server, timeout=30)
        try:
            for turn in range(500):
                who = f"{number}-{turn}"
                body = b"body of " + who.encode() if turn % 3 == 0 else b""
                length = f"Content-Length: {len(body)}\r\n" if body else ""
                head = (
                    f"POST /{who} HTTP/1.1\r\nHost: x{number}\r\nX-Who: {who}\r\n"
                    f"Cookie: c={who}\r\nX-{number}: {turn % 7}\r\n{length}\r\n"
                ).replace(f"/{who} ", f"/{who}?q={who} ")
                client.send(head.encode() + body)
                answer = client.answer()
                expected = f"{who}|/{who}|q={who}|c={who}".encode() + body
                if (answer.reason, answer.header("x-who"), answer.body) != (who, who, expected):
                    wrong.append((who, answer))
        except BaseException as error:
            wrong.append(error)
            raise

    threads = [threading.Thread(target=hammer, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
