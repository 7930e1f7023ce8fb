"""A WebSocket of a synchronous application ends with a close frame (RFC 6455, 5.5.1)."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from typing import Any

import flask
import flask_sock
import pytest

from threadwell import Request, Response, ThreadedServer
from threadwell.worker.hijack import HijackedSocket

from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

UPGRADE = (
    b"GET /%s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
HANDSHAKE = b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n"
CLOSE = b"\x88\x82\x00\x00\x00\x00\x0f\xa1"  # 4001, with a mask of zeros
ANSWER = b"\x88\x02\x0f\xa1"
NORMAL = b"\x88\x02\x03\xe8"
FAILED = b"\x88\x02\x03\xf3"
TEXT = b"\x81\x02hi"


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """As much as a thread may need that has to wait for its processor."""
    monkeypatch.setattr("threadwell.worker.hijack._PATIENCE", 10)


def opened(client: Client, path: bytes = b"") -> Client:
    client.send(UPGRADE % path)
    assert client.answer().status == 101
    return client


def frames_of(server: ThreadedServer, connect: Connect, path: bytes = b"") -> bytes:
    return opened(connect(server), path).rest()


# ---- Applications that leave it to the server ----------------------------------------------


@pytest.mark.parametrize(
    ("sent", "got"),
    [
        (b"", NORMAL),
        (TEXT, TEXT + NORMAL),
        (TEXT + NORMAL, TEXT + NORMAL),
        (TEXT + ANSWER, TEXT + ANSWER),
        (TEXT[:1], TEXT[:1]),
        (TEXT[:3], TEXT[:3]),
    ],
)
def test_an_application_that_returns(
    serve: Serve, connect: Connect, sent: bytes, got: bytes
) -> None:
    """In the middle of a frame of its own nothing can be said."""

    def app(request: Request) -> Response | None:
        request.hijack().sendall(HANDSHAKE + sent)
        return None

    assert frames_of(serve(app), connect) == got


@pytest.mark.parametrize("kind", ["raises", "answers 500"])
def test_an_application_that_fails(serve: Serve, connect: Connect, kind: str) -> None:
    def app(request: Request) -> Response:
        request.hijack().sendall(HANDSHAKE + TEXT)
        if kind == "raises":
            raise LookupError
        return Response(500, [], b"failed")

    assert frames_of(serve(app), connect) == TEXT + FAILED


def test_other_protocols_have_no_close_frame(serve: Serve, connect: Connect) -> None:
    def app(request: Request) -> Response | None:
        request.hijack().sendall(HANDSHAKE.replace(b"websocket", b"raw") + b"data")
        return None

    client = connect(serve(app))
    client.send(UPGRADE.replace(b"websocket", b"raw") % b"")
    assert client.answer().status == 101
    assert client.rest() == b"data"


# ---- Libraries that read on a thread -------------------------------------------------------


@pytest.mark.usefixtures("patience")
def test_a_close_frame_that_a_thread_answers(serve: Serve, connect: Connect) -> None:
    """The view returns as soon as the frame has come; its thread answers then."""
    returned = threading.Event()
    threads: list[threading.Thread] = []

    def read(sock: HijackedSocket, come: threading.Event) -> None:
        assert sock.recv(100) == CLOSE
        come.set()
        returned.wait(10)
        sock.sendall(ANSWER)

    def app(request: Request) -> Response | None:
        sock, come = request.hijack(), threading.Event()
        sock.sendall(HANDSHAKE)
        threads.append(threading.Thread(target=read, args=(sock, come)))
        threads[0].start()
        assert come.wait(10)
        returned.set()
        return None

    client = opened(connect(serve(app)))
    client.send(CLOSE)
    assert client.rest() == ANSWER
    threads[0].join(10)


def test_a_thread_that_never_answers(serve: Serve, connect: Connect) -> None:
    def app(request: Request) -> Response | None:
        sock = request.hijack()
        sock.sendall(HANDSHAKE)
        assert sock.recv(100) == CLOSE
        return None

    client = opened(connect(serve(app)))
    client.send(CLOSE)
    assert client.rest() == NORMAL


def test_a_thread_that_is_held_up_by_its_client(serve: Serve, connect: Connect) -> None:
    """It holds the lock while it sends, and the server must not wait for it."""
    threads: list[threading.Thread] = []
    failed = threading.Event()

    def send(sock: HijackedSocket) -> None:
        try:
            while True:
                sock.sendall(b"\x82\x7e\xff\xff" + b"x" * 65535)
        except OSError:
            failed.set()

    def app(request: Request) -> Response | None:
        if request.path == "/plain":
            return Response(200, [], b"plain")
        sock: Any = request.hijack()
        sock.sendall(HANDSHAKE)
        threads.append(threading.Thread(target=send, args=(sock,)))
        threads[0].start()
        return None

    server = serve(app, threads=1)
    opened(connect(server))
    assert failed.wait(10)
    threads[0].join(10)
    assert connect(server).get("/plain").body == b"plain"


@pytest.mark.usefixtures("patience")
def test_every_close_frame_is_answered_by_flask_sock(serve: Serve, connect: Connect) -> None:
    app = flask.Flask(__name__)

    @flask_sock.Sock(app).route("/echo")
    def echo(ws: Any) -> None:
        while True:
            ws.send(ws.receive())

    server = serve(app)
    for _ in range(50):
        client = opened(connect(server), b"echo")
        client.send(CLOSE)
        assert client.rest() == ANSWER


def test_a_client_that_has_left_is_not_waited_for(serve: Serve, connect: Connect) -> None:
    left = threading.Event()

    def app(request: Request) -> Response | None:
        sock = request.hijack()
        sock.sendall(HANDSHAKE)
        assert sock.recv(100) == b""
        left.set()
        return None

    client = opened(connect(serve(app)))
    client.sock.shutdown(socket.SHUT_WR)
    assert left.wait(10)
    assert client.rest() == b""
