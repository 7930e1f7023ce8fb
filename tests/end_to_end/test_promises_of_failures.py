"""Promises 8 to 10 and 12 of docs/architecture.md: deadlines, errors and shutdown."""

from __future__ import annotations

import http.client
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from threadwell import ThreadedServer
from threadwell.worker.lifecycle import ConnectionClosed, ConnectionOpened, LifecycleEvent

from ..helpers.recorder import Recorder
from ..helpers.waiting import no_hurry, until
from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]
Environ = dict[str, Any]


def hello(environ: Environ, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


# ---- 8. Deadlines are absolute ---------------------------------------------------------------


class Closed:
    """A collector that notes why connections were closed."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def record(self, event: LifecycleEvent) -> None:
        if isinstance(event, ConnectionClosed):
            self.reasons.append(event.reason)


def dribble(client: Client, data: bytes, seconds: float) -> float:
    """Send `data` a byte at a time until the server has answered or closed; how long it took."""
    started = time.monotonic()
    client.sock.settimeout(0.1)
    for octet in data:
        try:
            client.send(bytes([octet]))
            if client.sock.recv(1, socket.MSG_PEEK) is not None:
                break
        except TimeoutError:
            pass
        except OSError:
            break
        assert time.monotonic() - started < seconds, "every byte extended the deadline"
    client.sock.settimeout(5)
    return time.monotonic() - started


@pytest.mark.parametrize("poller", ["auto", "queue"])
@pytest.mark.parametrize("before", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"])
def test_promise_8_a_dribbled_head_does_not_extend_its_deadline(
    serve: Serve, connect: Connect, poller: str, before: bytes
) -> None:
    server = serve(hello, head_timeout=0.5, poller=poller)
    with no_hurry(server):
        client = connect(server)
        if before:
            client.send(before)
            assert client.answer().body == b"hello"
        client.send(b"G")
    assert dribble(client, b"ET / HTTP/1.1\r\nHost: x\r\nX-Long: " + b"x" * 1000, 4) < 4
    assert client.answer().status == 408
    assert client.closed()


@pytest.mark.parametrize("framing", [b"Content-Length: 10000", b"Transfer-Encoding: chunked"])
def test_promise_8_a_dribbled_body_does_not_extend_its_deadline(
    serve: Serve, connect: Connect, framing: bytes
) -> None:
    client = connect(serve(hello, body_timeout=0.5, min_rate=100_000))
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n")
    assert dribble(client, b"1\r\nx\r\n" * 200, 4) < 4
    assert client.answer().status == 408
    assert client.closed()


@pytest.mark.parametrize("path", ["/fixed", "/stream", "/file"])
def test_promise_8_a_client_that_reads_a_byte_at_a_time_is_cut(
    serve: Serve, path: str, tmp_path: Any
) -> None:
    block = bytes(16 * 1024 * 1024)
    file = tmp_path / "large"
    file.write_bytes(block)

    def app(environ: Environ, start_response: Any) -> Any:
        start_response("200 OK", [])
        if environ["PATH_INFO"] == "/file":
            return environ["wsgi.file_wrapper"](file.open("rb"))
        return [block] if environ["PATH_INFO"] == "/fixed" else iter([block])

    collector = Closed()
    server = serve(app, write_timeout=0.5, min_rate=100_000_000, lifecycle_collector=collector)
    sock = socket.socket()
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.connect(("127.0.0.1", server.port))
        sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        started = time.monotonic()
        while not collector.reasons:
            sock.recv(1)
            time.sleep(0.02)
            assert time.monotonic() - started < 5, "every byte extended the deadline"
    assert collector.reasons == ["client gone: the client did not read its response in time"]


# ---- 9. After a framing error: one answer, close, and nothing more ----------------------------

_HIDDEN = b"GET /hidden HTTP/1.1\r\nHost: x\r\n\r\n"
_FRAMING_ERRORS = {
    "two lengths": b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n12345",
    "length and chunks": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bad length": b"Content-Length: +5\r\n\r\n12345",
    "an unknown coding": b"Transfer-Encoding: gzip\r\n\r\n",
    "chunked twice": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a bad chunk size": b"Transfer-Encoding: chunked\r\n\r\n0x1\r\nx\r\n0\r\n\r\n",
    "a bad chunk end": b"Transfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n0\r\n\r\n",
    "space before the colon": b"Content-Length : 5\r\n\r\n12345",
    "a folded line": b"Content-Length: 5\r\n 6\r\n\r\n12345",
    "a bare line feed": b"Content-Length: 5\nX: y\r\n\r\n12345",
}


@pytest.mark.parametrize("error", list(_FRAMING_ERRORS))
@pytest.mark.parametrize("good", [0, 2])
def test_promise_9_one_answer_to_a_framing_error_and_nothing_more(
    serve: Serve, connect: Connect, error: str, good: int
) -> None:
    paths: list[str] = []

    def app(environ: Environ, start_response: Any) -> list[bytes]:
        paths.append(environ["PATH_INFO"])
        return hello(environ, start_response)

    client = connect(serve(app))
    bad = b"POST /bad HTTP/1.1\r\nHost: x\r\n" + _FRAMING_ERRORS[error]
    client.send(b"GET /good HTTP/1.1\r\nHost: x\r\n\r\n" * good + bad + _HIDDEN * 2)
    for _ in range(good):
        assert client.answer().status == 200
    answer = client.answer()
    assert answer.status in (400, 501)
    assert answer.header("connection") == "close"
    assert client.closed()
    assert paths == ["/good"] * good


# ---- 10. An application's failure costs one request -------------------------------------------


class Surprise(BaseException):
    """Neither an `Exception` nor one that Python knows."""


@pytest.mark.parametrize("where", ["call", "iteration", "close"])
@pytest.mark.parametrize(
    "error",
    [ValueError, SystemExit, KeyboardInterrupt, GeneratorExit, Surprise, MemoryError],
    ids=lambda error: error.__name__,
)
def test_promise_10_a_failure_costs_one_request_and_no_thread(
    serve: Serve, connect: Connect, error: type[BaseException], where: str
) -> None:
    threads: set[int] = set()

    class Body:
        def __iter__(self) -> Iterator[bytes]:
            return self

        def __next__(self) -> bytes:
            if where == "iteration":
                raise error(3)
            raise StopIteration

        def close(self) -> None:
            if where == "close":
                raise error(3)

    def app(environ: Environ, start_response: Any) -> Any:
        threads.add(threading.get_ident())
        if environ["PATH_INFO"] == "/":
            return hello(environ, start_response)
        if where == "call":
            raise error(3)
        start_response("200 OK", [])
        return Body()

    server = serve(app, threads=1)
    assert connect(server).get().body == b"hello"
    assert len(threads) == 1
    failing = connect(server)
    assert failing.get("/fail").status == (200 if where == "close" else 500)
    for _ in range(3):
        assert connect(server).get().body == b"hello"
    if where == "call":
        assert len(threads) == 1, "the thread died and another took its place"


def test_promise_10_a_failure_in_the_middle_of_a_stream_costs_that_stream(
    serve: Serve, connect: Connect
) -> None:
    def app(environ: Environ, start_response: Any) -> Any:
        if environ["PATH_INFO"] == "/":
            return hello(environ, start_response)
        start_response("200 OK", [])

        def blocks() -> Iterator[bytes]:
            yield b"some"
            raise SystemExit(3)

        return blocks()

    server = serve(app, threads=1, max_streams=1)
    worker = server._worker
    assert worker is not None
    for _ in range(5):
        client = connect(server)
        client.send(b"GET /fail HTTP/1.1\r\nHost: x\r\n\r\n")
        # cut within the chunks, so that the client can tell
        assert b"\r\n4\r\nsome\r\n" in (data := client.rest())
        assert not data.endswith(b"0\r\n\r\n")
        until(lambda: worker.leader_follower.lent == 0)
        assert connect(server).get().body == b"hello"


# ---- 12. A shutdown loses no accepted request ------------------------------------------------


class Shot:
    """A request that was sent: when it was wholly out, and what came back."""

    def __init__(self, sent: float) -> None:
        self.sent = sent
        self.answer = b""
        self.error = ""

    @property
    def whole(self) -> bool:
        return self.answer == b"hello" and not self.error


def shoot(port: int, shots: list[Shot], quit_: threading.Event, *, persistent: bool) -> None:
    """Send request after request, until one cannot be sent or is not answered."""
    client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    while not quit_.is_set():
        try:
            client.request("GET", "/", headers={} if persistent else {"Connection": "close"})
        except OSError:
            break
        shot = Shot(time.monotonic())
        shots.append(shot)
        try:
            response = client.getresponse()
            shot.answer = response.read()
            if response.status != 200:
                shot.error = f"status {response.status}"
            if response.will_close and persistent:
                break
        except (OSError, http.client.HTTPException) as error:
            shot.error = repr(error)
            break
    client.close()


@pytest.mark.parametrize("poller", ["auto", "queue"])
@pytest.mark.parametrize("persistent", [True, False], ids=["keep-alive", "close"])
def test_promise_12_a_shutdown_answers_every_request_that_was_sent(
    persistent: bool, poller: str
) -> None:
    def app(environ: Environ, start_response: Any) -> list[bytes]:
        time.sleep(chance.random() * 0.01)
        return hello(environ, start_response)

    chance = random.Random(1)
    answered = 0
    for _ in range(6):
        server = ThreadedServer(
            app, bind="127.0.0.1:0", threads=4, poller=poller, graceful_timeout=10
        )
        server.start()
        shots: list[Shot] = []
        quit_ = threading.Event()
        threads = [
            threading.Thread(
                target=shoot, args=(server.port, shots, quit_), kwargs={"persistent": persistent}
            )
            for _ in range(16)
        ]
        for thread in threads:
            thread.start()
        time.sleep(0.1 + chance.random() * 0.1)
        stopped = time.monotonic()
        server.stop()
        quit_.set()
        for thread in threads:
            thread.join()
        before = [shot for shot in shots if shot.sent < stopped]
        assert before
        assert [shot.error for shot in before if not shot.whole] == []
        answered += len(before)
    assert answered > 100


@pytest.mark.parametrize("poller", ["auto", "queue"])
def test_promise_12_connections_in_the_backlog_are_answered(connect: Connect, poller: str) -> None:
    running, go_on = threading.Event(), threading.Event()

    def app(environ: Environ, start_response: Any) -> list[bytes]:
        running.set()
        go_on.wait(10)
        return hello(environ, start_response)

    recorder = Recorder()
    server = ThreadedServer(
        app,
        bind="127.0.0.1:0",
        threads=1,
        poller=poller,
        graceful_timeout=10,
        lifecycle_collector=recorder,
    )
    server.start()
    first = connect(server)
    first.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert running.wait(5)
    # the only thread is busy: these are connected, but by the kernel alone
    waiting = [connect(server) for _ in range(30)]
    for client in waiting:
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    worker = server._worker
    assert worker is not None
    until(lambda: worker.poller.draining and not worker.poller.listeners)
    go_on.set()
    for client in [first, *waiting]:
        answer = client.answer()
        assert answer.body == b"hello"
        assert client.closed()
    stopping.join(10)
    assert not stopping.is_alive()
    assert len(recorder.of(ConnectionOpened)) == len(recorder.of(ConnectionClosed)) == 31
