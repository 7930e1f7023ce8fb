"""Connections that an application takes for itself: `werkzeug.socket` and `Request.hijack`."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import flask
import flask_sock
import pytest
import simple_websocket

from threadwell import Request, Response, ThreadedServer

from ..helpers.process import StreamsEnded, descriptors
from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

UPGRADE = "Connection: Upgrade\r\nUpgrade: raw\r\n"


def failures(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


def exactly(sock: Any, size: int) -> bytes:
    """`size` octets of a socket, or fewer at the end of its input."""
    data = b""
    while len(data) < size:
        received = sock.recv(size - len(data))
        if not received:
            break
        data += received
    return data


# ---- flask-sock ----------------------------------------------------------------------------


def echo_app(**options: Any) -> flask.Flask:
    """An unmodified flask-sock application: an echo, and some plain pages."""
    app = flask.Flask(__name__)
    app.config["SOCK_SERVER_OPTIONS"] = options
    sock = flask_sock.Sock(app)

    @sock.route("/echo")
    def echo(ws: Any) -> None:
        while True:
            data = ws.receive()
            if data == "bye":
                return
            if data == "fail":
                raise LookupError("in the handler")
            ws.send(data)

    @sock.route("/leave")
    def leave(ws: Any) -> None:
        ws.receive()
        ws.send("first and last")

    @app.get("/")
    def index() -> str:
        return "plain"

    @app.get("/upgradable")
    def upgradable() -> dict[str, bool]:
        return {"offered": "werkzeug.socket" in flask.request.environ}

    return app


@contextlib.contextmanager
def websocket(server: ThreadedServer, path: str = "/echo") -> Iterator[Any]:
    """A client of a WebSocket; whatever state it ends in, it is closed and its thread ended."""
    ws = simple_websocket.Client(f"ws://127.0.0.1:{server.port}{path}")
    try:
        yield ws
    finally:
        with contextlib.suppress(simple_websocket.ConnectionClosed):
            ws.close()
        with contextlib.suppress(OSError):
            ws.sock.shutdown(socket.SHUT_RDWR)
        ws.thread.join(10)
        ws.sock.close()


def test_flask_sock_echoes(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    with websocket(serve(echo_app())) as ws:
        for message in ("text", b"bytes", "\u20ac" * 1000, b"\x00" * 300_000):
            ws.send(message)
            assert ws.receive(10) == message
    assert failures(caplog) == []


def test_flask_sock_with_pings(serve: Serve) -> None:
    """With an interval it waits in a selector, so it needs the descriptor."""
    # which is also all the time that a client has for its pong
    with websocket(serve(echo_app(ping_interval=30))) as ws:
        for number in range(10):
            ws.send(str(number))
            assert ws.receive(10) == str(number)


def test_flask_sock_pings_a_client_that_is_silent(serve: Serve, connect: Connect) -> None:
    client = connect(serve(echo_app(ping_interval=0.05)))
    client.send(
        b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
    )
    _, _, frames = client.rest().partition(b"\r\n\r\n")
    assert frames == b"\x89\x00" + b"\x88\x13\x03\xf0Ping/Pong timeout"


def test_flask_sock_handler_returns(serve: Serve, connect: Connect) -> None:
    server = serve(echo_app())
    with websocket(server, "/leave") as ws:
        ws.send("go")
        assert ws.receive(10) == "first and last"
        with pytest.raises(simple_websocket.ConnectionClosed):
            ws.receive(10)
        assert ws.close_reason == 1000
    assert connect(server).get().body == b"plain"


def test_flask_sock_sends_nothing_behind_the_close_frame(serve: Serve, connect: Connect) -> None:
    """Flask returns a response at the end. It must not get on the wire."""
    client = connect(serve(echo_app()))
    client.send(
        b"GET /leave HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        b"\x81\x82\x00\x00\x00\x00go"
    )
    received = client.rest()
    head, _, frames = received.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101")
    assert received.count(b"HTTP/1.1") == 1
    assert frames == b"\x81\x0efirst and last" + b"\x88\x02\x03\xe8"


def test_flask_sock_first_frame_behind_the_handshake(serve: Serve, connect: Connect) -> None:
    """A client may send its first frame before it has read the answer."""
    frame = b"\x81\x82\x00\x00\x00\x00hi"
    client = connect(serve(echo_app()))
    client.send(
        b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" + frame
    )
    received = b""
    while not received.endswith(b"\x81\x02hi"):
        more = client.sock.recv(4096)
        assert more, received
        received += more


def test_flask_sock_handler_fails(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(echo_app())
    with websocket(server) as ws:
        ws.send("fail")
        with pytest.raises(simple_websocket.ConnectionClosed):
            ws.receive(10)
    server.stop()
    assert any("in the handler" in str(record.exc_info) for record in failures(caplog))


def test_many_websockets_and_plain_requests(serve: Serve, connect: Connect) -> None:
    server = serve(echo_app(), threads=2)
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(websocket(server)) for _ in range(20)]
        plain = connect(server)
        for turn in range(3):
            for number, ws in enumerate(sockets):
                ws.send(f"{turn}/{number}")
            assert plain.get().body == b"plain"
            assert connect(server).get().body == b"plain"
            for number, ws in enumerate(sockets):
                assert ws.receive(10) == f"{turn}/{number}"


def test_websockets_open_at_once(serve: Serve) -> None:
    server = serve(echo_app(), threads=2)

    def talk(number: int) -> bool:
        with websocket(server) as ws:
            for turn in range(5):
                ws.send(f"{number}/{turn}")
                if ws.receive(10) != f"{number}/{turn}":
                    return False
            return True

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(talk, range(60))) == [True] * 60


def test_more_websockets_than_max_streams(serve: Serve, connect: Connect) -> None:
    server = serve(echo_app(), threads=2, max_streams=2)
    with websocket(server) as first, websocket(server) as second:
        client = connect(server)
        client.send(
            b"GET /echo HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        assert client.answer().status == 503
        for ws in (first, second):
            ws.send("still here")
            assert ws.receive(10) == "still here"
        assert connect(server).get().body == b"plain"


def test_the_socket_is_offered_for_upgrades_only(serve: Serve, connect: Connect) -> None:
    client = connect(serve(echo_app()))
    assert client.get("/upgradable").body == b'{"offered":false}\n'
    answer = client.get("/upgradable", headers=UPGRADE)
    assert (answer.status, answer.body) == (200, b'{"offered":true}\n')
    # it was not used, so the connection goes on
    assert client.get().body == b"plain"


def test_stop_ends_websockets(serve: Serve) -> None:
    server = serve(echo_app(), graceful_timeout=0.2)
    with websocket(server) as ws:
        ws.send("hello")
        assert ws.receive(10) == "hello"
        server.stop()
        with pytest.raises(simple_websocket.ConnectionClosed):
            ws.receive(10)


# ---- Request.hijack ------------------------------------------------------------------------

REQUEST = b"GET /raw HTTP/1.1\r\nHost: x\r\n\r\n"
LATE = Response(200, [("Content-Type", "text/plain")], b"too late")


def test_what_came_behind_the_request_is_read_first(serve: Serve, connect: Connect) -> None:
    got: list[bytes] = []

    def app(request: Request) -> Response:
        sock = request.hijack()
        assert sock.gettimeout() is None
        got.append(sock.recv(4))
        buffer = bytearray(4)
        got.append(bytes(buffer[: sock.recv_into(buffer)]))
        got.append(exactly(sock, 12 - len(b"".join(got))))
        sock.sendall(b"raw answer")
        return LATE

    client = connect(serve(app))
    client.send(REQUEST + b"behind")
    client.send(b" later")
    assert client.rest() == b"raw answer"
    assert b"".join(got) == b"behind later"


def test_hijacked_body(serve: Serve, connect: Connect) -> None:
    """The request's own body is not part of what the socket gives."""

    def app(request: Request) -> Response:
        sock = request.hijack()
        sock.sendall(request.read() + b"|" + exactly(sock, 3))
        return LATE

    client = connect(serve(app))
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbodyraw")
    assert client.rest() == b"body|raw"


@pytest.mark.parametrize(
    "late",
    [
        LATE,
        Response(200, [], [b"too", b"late"]),
        Response(200, [], iter([b"too", b"late"])),
        None,
    ],
    ids=["bytes", "list", "iterator", "none"],
)
def test_nothing_of_ours_follows(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture, late: Response | None
) -> None:
    def app(request: Request) -> Response | None:
        request.hijack().sendall(b"raw")
        return late

    client = connect(serve(app))
    client.send(REQUEST)
    assert client.rest() == b"raw"
    assert failures(caplog) == []


def test_the_late_response_is_closed(serve: Serve, connect: Connect) -> None:
    closes: list[str] = []

    def app(request: Request) -> Response:
        request.hijack()
        return Response(200, [], b"", lambda: closes.append("closed"))

    server = serve(app)
    client = connect(server)
    client.send(REQUEST)
    assert client.closed()
    server.stop()
    assert closes == ["closed"]


def test_pipelined_requests_are_the_applications(serve: Serve, connect: Connect) -> None:
    calls: list[str] = []

    def app(request: Request) -> Response:
        calls.append(request.path)
        sock = request.hijack()
        sock.sendall(exactly(sock, len(REQUEST)))
        return LATE

    client = connect(serve(app))
    client.send(REQUEST + REQUEST)
    assert client.rest() == REQUEST
    assert calls == ["/raw"]


def test_twice_is_the_same_socket(serve: Serve, connect: Connect) -> None:
    same: list[bool] = []

    def app(request: Request) -> Response:
        same.append(request.hijack() is request.hijack())
        return LATE

    client = connect(serve(app))
    client.send(REQUEST)
    assert client.closed()
    assert same == [True]


@pytest.mark.parametrize("how", ["returns", "raises"])
def test_detached_stays_open(serve: Serve, connect: Connect, how: str) -> None:
    kept: list[tuple[socket.socket, bytes]] = []
    returned = threading.Event()

    def app(request: Request) -> Response:
        if request.path == "/plain":
            return Response(200, [], b"plain")
        kept.append(request.hijack().detach())
        if how == "raises":
            returned.set()
            raise LookupError("after detach")
        return Response(200, [], b"", returned.set)

    server = serve(app)
    client = connect(server)
    client.send(REQUEST + b"behind")
    assert returned.wait(10)
    # others come and go meanwhile, so that a descriptor closed by mistake would be taken
    for _ in range(5):
        assert connect(server).get("/plain").body == b"plain"
    sock, behind = kept[0]
    with sock:
        assert behind == b"behind"
        assert sock.gettimeout() is None
        sock.sendall(b"from the outside")
        assert exactly(client.sock, 16) == b"from the outside"
        client.send(b"answer")
        assert exactly(sock, 6) == b"answer"
        # the server is gone, the connection is not
        server.stop()
        sock.sendall(b"after the server")
        assert exactly(client.sock, 16) == b"after the server"
    assert client.closed()


@pytest.mark.parametrize("kind", [LookupError, SystemExit])
def test_an_error_is_logged_and_closes(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture, kind: type[BaseException]
) -> None:
    error = kind("hijacked")

    def app(request: Request) -> Response:
        if request.path == "/plain":
            return Response(200, [], b"plain")
        request.hijack().sendall(b"raw")
        raise error

    server = serve(app, threads=1)
    client = connect(server)
    client.send(REQUEST)
    assert client.rest() == b"raw"
    assert connect(server).get("/plain").body == b"plain"
    records = failures(caplog)
    assert len(records) == 1
    assert records[0].exc_info is not None
    assert records[0].exc_info[1] is error


def test_a_client_that_leaves(serve: Serve, connect: Connect) -> None:
    ended = threading.Event()

    def app(request: Request) -> Response:
        if request.path == "/plain":
            return Response(200, [], b"plain")
        if request.hijack().recv(100) == b"":
            ended.set()
        return LATE

    server = serve(app, threads=1)
    client = connect(server)
    client.send(REQUEST)
    assert connect(server).get("/plain").body == b"plain"
    client.close()
    assert ended.wait(10)


def test_after_the_request_is_over(serve: Serve, connect: Connect) -> None:
    requests: list[Request] = []

    def app(request: Request) -> Response:
        requests.append(request)
        return Response(200, [], b"plain")

    server = serve(app)
    client = connect(server)
    assert client.get().body == b"plain"
    server.stop()
    with pytest.raises(RuntimeError, match="over"):
        requests[0].hijack()


def test_not_in_the_middle_of_an_answer(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    def app(request: Request) -> Response:
        request.stream(Response(200)).write(b"begun")
        request.hijack()
        return LATE

    answer = connect(serve(app)).get()
    assert (answer.body, answer.complete) == (b"begun", False)
    assert len(failures(caplog)) == 1


def test_hijacked_over_max_streams(serve: Serve, connect: Connect) -> None:
    def app(request: Request) -> Response:
        sock = request.hijack()
        sock.sendall(b"raw ")
        sock.sendall(exactly(sock, 4))
        return LATE

    ended = StreamsEnded()
    server = serve(app, threads=1, max_streams=1, lifecycle_collector=ended)
    first, second = connect(server), connect(server)
    first.send(REQUEST)
    assert exactly(first.sock, 4) == b"raw "
    refused = second.get("/raw")
    assert refused.status == 503
    first.send(b"done")
    assert first.rest() == b"done"
    assert ended.event.wait(10)
    third = connect(server)
    third.send(REQUEST + b"more")
    assert third.rest() == b"raw more"


def test_a_file_that_is_returned_all_the_same_is_closed(
    serve: Serve, connect: Connect, tmp_path: Any
) -> None:
    """`werkzeug.socket` was used, and a wrapped file returned."""
    path = tmp_path / "file"
    path.write_bytes(b"too late")

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        environ["werkzeug.socket"].sendall(b"raw")
        start_response("200 OK", [])
        return environ["wsgi.file_wrapper"](path.open("rb"))

    before = descriptors()
    server = serve(app)
    for _ in range(3):
        client = connect(server)
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n" + UPGRADE.encode() + b"\r\n")
        assert client.rest() == b"raw"
        client.close()
    server.stop()
    assert descriptors() <= before
