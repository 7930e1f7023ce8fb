"""What has no end of its own when the server stops: WebSockets get 1001, event streams end."""

from __future__ import annotations

import contextlib
import logging
import queue
import signal
import socket
import statistics
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flask
import flask_sock
import pytest
import simple_websocket
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as connect_websocket

from threadwell import Request, Response, ThreadedServer
from threadwell.worker.hijack import HijackedWebSocket

from ..helpers.command import command
from ..helpers.waiting import until
from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

HANDSHAKE = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
AWAY = b"\x88\x02\x03\xe9"
UPGRADE = (
    b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def frame(payload: bytes, first: int = 0x82) -> bytes:
    """A frame of a server."""
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65536:
        return bytes((first, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first, 127)) + size.to_bytes(8, "big") + payload


# ---- Between two frames --------------------------------------------------------------------


class Pair:
    """A hijacked socket and its client, which reads all the time."""

    def __init__(self) -> None:
        ours, self.client = socket.socketpair()
        self.socket = HijackedWebSocket(ours, b"")
        self.got = bytearray()
        self.reading = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        self.reading.wait(20)
        while block := self.client.recv(65536):
            self.got.extend(block)

    def received(self) -> bytes:
        """All that the client gets until the server has closed."""
        self.reading.set()
        self.socket.release()
        self._reader.join(20)
        self.client.close()
        return bytes(self.got)


@pytest.fixture
def pair() -> Iterator[Pair]:
    pair = Pair()
    yield pair
    pair.received()


FRAMES = [frame(b""), frame(b"x" * 5), frame(b"y" * 300), frame(b"z" * 70_000), frame(b"", 0x89)]


def test_one_that_its_thread_has_closed_meanwhile_is_left_alone() -> None:
    class Encrypted(socket.socket):  # for which nothing is sent before there is room
        def unwrap(self) -> None: ...

    with Encrypted() as sock:
        hijacked = HijackedWebSocket(sock, b"")
        hijacked._frames.follow(memoryview(HANDSHAKE))
    assert hijacked.close_with_1001()


@pytest.mark.parametrize("step", [1, 3, 7, 100, 1000, 10**6])
def test_the_close_frame_stands_between_frames(step: int) -> None:
    """However the application cuts up what it sends, and wherever it is when the server stops."""
    small = FRAMES[:3]
    data = HANDSHAKE + b"".join(small)
    ends = [len(HANDSHAKE)]
    for each in small:
        ends.append(ends[-1] + len(each))
    for stop in range(0, len(data), 37):
        pair = Pair()
        pair.reading.set()
        for at in range(0, len(data), step):
            if at <= stop < at + step:
                pair.socket.close_with_1001()
            pair.socket.sendall(data[at : at + step])
        while not pair.socket.close_with_1001():
            time.sleep(0.01)
        got = pair.received()
        cut = got.removesuffix(AWAY)
        assert got.endswith(AWAY)
        assert len(cut) in ends
        assert data.startswith(cut)


@pytest.mark.parametrize("send", ["send", "sendall"])
def test_large_frames_are_followed(pair: Pair, send: str) -> None:
    pair.reading.set()
    pair.socket.sendall(HANDSHAKE)
    for each in FRAMES:
        getattr(pair.socket, send)(each)
    pair.socket.close_with_1001()
    assert pair.socket.send(b"nothing follows") == len(b"nothing follows")
    pair.socket.sendall(b"nor this")
    assert pair.received() == HANDSHAKE + b"".join(FRAMES) + AWAY


def test_a_thread_that_is_in_the_middle_of_a_frame_says_it(pair: Pair) -> None:
    pair.socket.sendall(HANDSHAKE)
    large = frame(b"x" * 5_000_000)
    sender = threading.Thread(target=pair.socket.sendall, args=(large,))
    sender.start()
    while not pair.socket._lock.locked():
        time.sleep(0.01)
    # the client has read nothing, and the frame does not fit into the kernel
    pair.socket.close_with_1001()
    pair.reading.set()
    sender.join(20)
    # the thread has, unless the kernel had no room left at its end
    until(pair.socket.close_with_1001)
    assert pair.received() == HANDSHAKE + large + AWAY


def test_no_second_close_frame(pair: Pair) -> None:
    own = frame(b"\x03\xe8", 0x88)
    pair.socket.sendall(HANDSHAKE + own)
    pair.socket.close_with_1001()
    assert pair.received() == HANDSHAKE + own


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 1", b"HTTP/1.1 400 Bad Request\r\n\r\nno"])
def test_no_close_frame_without_a_handshake(pair: Pair, answer: bytes) -> None:
    pair.socket.sendall(answer)
    pair.socket.close_with_1001()
    assert pair.received() == answer


@pytest.mark.parametrize("name", ["makefile", "detach", "dup"])
def test_no_close_frame_where_nothing_is_known(pair: Pair, name: str) -> None:
    pair.socket.sendall(HANDSHAKE)
    other = getattr(pair.socket, name)
    pair.socket.close_with_1001()
    if name == "detach":
        other()[0].close()
    assert pair.received() in (HANDSHAKE, HANDSHAKE + AWAY if name == "detach" else HANDSHAKE)


def test_a_client_that_does_not_read(pair: Pair) -> None:
    pair.socket.sendall(HANDSHAKE)
    pair.socket._sock.setblocking(False)
    filler = frame(b"x" * 60_000)
    with contextlib.suppress(BlockingIOError):
        while True:
            assert pair.socket.send(filler)
    pair.socket._sock.setblocking(True)
    started = time.monotonic()
    pair.socket.close_with_1001()
    assert time.monotonic() - started < 5


# ---- Servers -------------------------------------------------------------------------------


def echo_app(received: queue.Queue[Any]) -> flask.Flask:
    app = flask.Flask(__name__)
    sock = flask_sock.Sock(app)

    @sock.route("/echo")
    def echo(ws: Any) -> None:
        try:
            while True:
                ws.send(ws.receive())
        except simple_websocket.ConnectionClosed as closed:
            received.put(int(closed.reason))
            raise

    @sock.route("/clock")
    def clock(ws: Any) -> None:
        while True:
            ws.send("tick")
            time.sleep(0.01)

    return app


def websocket(server: ThreadedServer, path: str) -> ClientConnection:
    return connect_websocket(f"ws://127.0.0.1:{server.port}{path}", proxy=None)


@pytest.mark.parametrize("path", ["/echo", "/clock"])
def test_a_websocket_is_closed_with_1001(
    serve: Serve, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    received: queue.Queue[Any] = queue.Queue()
    server = serve(echo_app(received), graceful_timeout=20)
    with websocket(server, path) as ws:
        if path == "/echo":
            ws.send("hello")
            assert ws.recv(20) == "hello"
        started = time.monotonic()
        server.stop()
        assert time.monotonic() - started < 10
        with pytest.raises(ConnectionClosed):
            while True:
                assert ws.recv(20) == "tick"
        assert ws.close_code == 1001
    if path == "/echo":
        assert received.get(timeout=20)
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_the_answer_of_the_client_reaches_the_application(serve: Serve, connect: Connect) -> None:
    received: queue.Queue[Any] = queue.Queue()
    server = serve(echo_app(received), graceful_timeout=20)
    client = connect(server)
    client.send(UPGRADE)
    assert client.answer().status == 101
    stopper = threading.Thread(target=server.stop)
    stopper.start()
    assert client._exactly(len(AWAY)) == AWAY
    client.send(b"\x88\x82\x00\x00\x00\x00\x03\xe9")  # masked, with a mask of zeros
    assert received.get(timeout=20) == 1001
    assert client.rest() == b""
    stopper.join(20)


def test_a_client_that_does_not_answer_is_cut(serve: Serve, connect: Connect) -> None:
    received: queue.Queue[Any] = queue.Queue()
    server = serve(echo_app(received), graceful_timeout=20)
    client = connect(server)
    client.send(UPGRADE)
    assert client.answer().status == 101
    started = time.monotonic()
    server.stop()
    assert time.monotonic() - started < 10
    assert client.rest() == AWAY
    assert received.get(timeout=20)


def test_a_websocket_that_opens_while_the_server_stops(serve: Serve, connect: Connect) -> None:
    asked, go_on = threading.Event(), threading.Event()

    def app(request: Request) -> Response | None:
        asked.set()
        go_on.wait(20)
        sock = request.hijack()
        sock.sendall(HANDSHAKE)
        while sock.recv(100):
            pass
        return None

    server = serve(app, graceful_timeout=20)
    client = connect(server)
    client.send(UPGRADE)
    assert asked.wait(20)
    stopper = threading.Thread(target=server.stop)
    stopper.start()
    while server._worker is None or not server._worker.poller.draining:
        time.sleep(0.01)
    go_on.set()
    assert client.rest() == HANDSHAKE + AWAY
    stopper.join(20)


def test_flask_socketio(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    """Unmodified, in its threading mode: by polling, by WebSocket, and at the end."""
    flask_socketio = pytest.importorskip("flask_socketio")
    app = flask.Flask(__name__)
    socketio = flask_socketio.SocketIO(app, async_mode="threading")
    socketio.on_event("echo", lambda data: flask_socketio.emit("echo", data))
    server = serve(app, graceful_timeout=20)
    base = f"127.0.0.1:{server.port}/socket.io/?EIO=4&transport="
    with urllib.request.urlopen(f"http://{base}polling", timeout=20) as answer:
        assert b'"upgrades":["websocket"]' in answer.read()
    with websocket(server, "/socket.io/?EIO=4&transport=websocket") as ws:
        assert str(ws.recv(20)).startswith("0{")
        ws.send("40")
        assert str(ws.recv(20)).startswith("40{")
        ws.send('42["echo","hello"]')
        assert ws.recv(20) == '42["echo","hello"]'
        server.stop()
        with pytest.raises(ConnectionClosed):
            ws.recv(20)
        assert ws.close_code == 1001
    errors = [record for record in caplog.records if record.levelno >= logging.ERROR]
    assert [record for record in errors if record.name == "threadwell"] == []


@pytest.mark.parametrize("pushed", [False, True])
def test_event_streams_end(serve: Serve, connect: Connect, pushed: bool) -> None:
    """They come to their end after the event they are at, and need not wait for the grace."""
    closed = threading.Event()

    def app(environ: Any, start_response: Any) -> Any:
        write = start_response("200 OK", [("Content-Type", "text/event-stream; charset=utf-8")])
        if pushed:
            write(b"data: first\n\n")
        return events()

    def events() -> Iterator[bytes]:
        try:
            while True:
                yield b"data: tick\n\n"
                time.sleep(0.05)
        finally:
            closed.set()

    server = serve(app, graceful_timeout=20)
    client = connect(server)
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    first = b""
    while b"tick" not in first:
        first += client.sock.recv(100)
    started = time.monotonic()
    server.stop()
    assert time.monotonic() - started < 10
    assert closed.wait(20)
    assert (first + client.rest()).endswith(b"data: tick\n\n\r\n0\r\n\r\n")


def test_an_event_stream_that_is_silent_is_cut(serve: Serve, connect: Connect) -> None:
    go_on = threading.Event()

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/event-stream")])
        return events()

    def events() -> Iterator[bytes]:
        yield b"data: first\n\n"
        go_on.wait(20)
        yield b"data: last\n\n"

    server = serve(app, graceful_timeout=20)
    client = connect(server)
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.sock.recv(10)
    started = time.monotonic()
    server.stop()
    assert time.monotonic() - started < 10
    assert b"last" not in client.rest()
    go_on.set()


def test_other_streams_have_the_whole_grace(serve: Serve, connect: Connect) -> None:
    begun = threading.Event()

    def app(environ: Any, start_response: Any) -> Any:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return blocks()

    def blocks() -> Iterator[bytes]:
        for number in range(15):
            yield b"%d " % number
            begun.set()
            time.sleep(0.1)

    server = serve(app, graceful_timeout=20)
    client = connect(server)
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert begun.wait(20)
    server.stop()
    assert client.answer().body.endswith(b"14 ")


# ---- As the command ------------------------------------------------------------------------


CROWD = """
import time
import flask, flask_sock

app = flask.Flask(__name__)
sock = flask_sock.Sock(app)
rooms = set()

@sock.route("/chat")
def chat(ws):
    rooms.add(ws)
    try:
        while True:
            message = ws.receive()
            for other in list(rooms):
                other.send(message)
    finally:
        rooms.discard(ws)

@app.get("/clock")
def clock():
    def ticks():
        while True:
            yield f"data: {time.time()}\\n\\n"
            time.sleep(1)
    return flask.Response(ticks(), mimetype="text/event-stream")

@app.get("/")
def index():
    return "plain"
"""


def test_a_crowd(tmp_path: Path) -> None:
    """100 chats and 100 clocks on 4 threads: pages are quick, and Ctrl-C ends it with 1001."""
    (tmp_path / "app.py").write_text(CROWD)
    words = ["-m", "flask", "serve", "-p", "0", "--threads", "4"]
    with command(words, tmp_path) as running, contextlib.ExitStack() as stack:
        url = running.url()
        port = int(url.rpartition(":")[2])
        chats, clocks = [], []
        for number in range(200):
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), 30))
            client = Client(sock)
            if number % 2:
                client.send(UPGRADE.replace(b"/echo", b"/chat"))
                assert client.answer().status == 101
                chats.append(client)
            else:
                client.send(b"GET /clock HTTP/1.1\r\nHost: x\r\n\r\n")
                clocks.append(client)
        for client in clocks:
            assert b"200 OK" in client.sock.recv(4096)
        times = []
        for _ in range(50):
            started = time.monotonic()
            with urllib.request.urlopen(url, timeout=30) as answer:
                assert answer.read() == b"plain"
            times.append(time.monotonic() - started)
        assert statistics.median(times) < 0.05
        started = time.monotonic()
        running.process.send_signal(signal.SIGINT)
        for client in chats:
            assert client.rest() == AWAY
        assert "Traceback" not in running.ended()
        assert time.monotonic() - started < 5  # two seconds, where nothing else runs
