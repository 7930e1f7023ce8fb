"""How a response is framed, whatever body an application returns."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from threadwell import Request, Response, ThreadedServer

from ..helpers.asgi_tools import Receive, Scope, Send
from ..helpers.responses import BODIES, GET, Counted, raw, respond, whole
from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

every_body = pytest.mark.parametrize("kind", list(BODIES))


@every_body
@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize(
    ("version", "field"),
    [("1.1", ""), ("1.1", "Connection: close"), ("1.0", ""), ("1.0", "Connection: keep-alive")],
)
def test_exactly_one_framing(
    kind: str, declared: bool, version: str, field: str, serve: Serve, connect: Connect
) -> None:
    length = [("Content-Length", str(len(whole(kind))))] if declared else []
    client = connect(serve(lambda request: Response(200, length, BODIES[kind]())))
    line = f"{field}\r\n" if field else ""
    request = f"GET / HTTP/{version}\r\nHost: x\r\n{line}\r\n".encode()
    client.send(request)
    answer = client.answer()
    assert answer.complete
    assert answer.body == whole(kind)
    has_length = answer.header("content-length") is not None
    chunked = answer.header("transfer-encoding") is not None
    by_the_end = not has_length and not chunked
    assert not (has_length and chunked)
    if declared:
        assert has_length
    if version == "1.0":
        assert not chunked
    else:
        assert not by_the_end
    asked_to_stay = field == "Connection: keep-alive" or (version == "1.1" and not field)
    if asked_to_stay and not by_the_end:
        assert (answer.header("connection") or "keep-alive") == "keep-alive"
        if version == "1.0":
            assert answer.header("connection") == "keep-alive"
        client.send(request)
        assert client.answer().body == whole(kind)
    else:
        assert answer.header("connection") == "close"
        assert client.closed()


@every_body
@pytest.mark.parametrize("declared", [True, False])
def test_head_has_no_body(kind: str, declared: bool, serve: Serve, connect: Connect) -> None:
    length = [("Content-Length", str(len(whole(kind))))] if declared else []
    client = connect(serve(lambda request: Response(200, length, BODIES[kind]())))
    for _ in range(2):
        client.send(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = client.answer("HEAD")
        assert answer.status == 200
        assert answer.header("transfer-encoding") is None or answer.header("content-length") is None
        if declared or "stream" not in kind:
            assert answer.header("content-length") == str(len(whole(kind)))
    client.send(GET)
    assert client.answer().body == whole(kind)


@every_body
@pytest.mark.parametrize(
    "status", [204, 205, 304, "204 Nothing", "205 Reset Content", "304 Not Modified"]
)
@pytest.mark.parametrize("declared", [True, False])
def test_statuses_without_a_body(
    kind: str, status: int | str, declared: bool, serve: Serve, connect: Connect
) -> None:
    length = [("Content-Length", "5"), ("Transfer-Encoding", "chunked")] if declared else []
    client = connect(serve(lambda request: Response(status, length, BODIES[kind]())))
    for _ in range(2):
        client.send(GET)
        answer = client.answer()
        assert answer.status == int(str(status)[:3])
        assert answer.header("transfer-encoding") is None
        if answer.status == 204:
            assert answer.header("content-length") is None
        elif answer.status == 205:
            # the client expects a body after it, so the length must be said (RFC 9112, 6.3)
            assert answer.header("content-length") == "0"
        elif declared:
            assert answer.header("content-length") == "5"
    client.sock.shutdown(socket.SHUT_WR)
    assert client.closed()


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("blocks", [[b"hello"], [b"he", b"llo"], [b"", b"hello"]])
@pytest.mark.parametrize("declared", [True, False])
@pytest.mark.parametrize("status", [204, 205, 304])
def test_statuses_without_a_body_on_a_loop(
    status: int, declared: bool, blocks: list[bytes], method: str, serve: Serve, connect: Connect
) -> None:
    length = [(b"content-length", b"5")] if declared else []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": status, "headers": length})
        for left, block in zip(range(len(blocks))[::-1], blocks, strict=True):
            await send({"type": "http.response.body", "body": block, "more_body": left > 0})

    client = connect(serve(app))
    request = f"{method} / HTTP/1.1\r\nHost: x\r\n\r\n".encode()
    client.send(request * 2)
    for _ in range(2):
        answer = client.answer(method)
        assert answer.status == status
        assert answer.header("transfer-encoding") is None
        if status == 205:
            assert answer.header("content-length") == "0"
    client.sock.shutdown(socket.SHUT_WR)
    assert client.closed()


@pytest.mark.parametrize("kind", ["bytes", "list", "stream"])
def test_a_body_shorter_than_declared(kind: str, serve: Serve, connect: Connect) -> None:
    app = respond(Response(200, [("Content-Length", "7")], BODIES[kind]()))
    data = raw(connect(serve(app)), GET + GET)
    assert data.count(b"HTTP/1.1 ") == 1
    assert data.endswith(b"\r\n\r\nhello")
    assert b"\r\nContent-Length: 7\r\n" in data


@pytest.mark.parametrize("kind", ["bytes", "list", "stream", "large", "large list", "large stream"])
def test_a_body_longer_than_declared(kind: str, serve: Serve, connect: Connect) -> None:
    length = len(whole(kind)) - 2
    app = lambda request: Response(200, [("Content-Length", str(length))], BODIES[kind]())  # noqa: E731
    client = connect(serve(app))
    client.send(GET)
    answer = client.answer()
    assert answer.header("content-length") == str(length)
    assert answer.body == whole(kind)[:-2]
    # whatever becomes of the connection, no octet of the rest is on it
    client.send(GET)
    data = client.sock.recv(9)
    assert data in (b"", b"HTTP/1.1 ")


@every_body
def test_a_declared_length_of_zero(kind: str, serve: Serve, connect: Connect) -> None:
    client = connect(
        serve(lambda request: Response(200, [("Content-Length", "0")], BODIES[kind]()))
    )
    client.send(GET)
    answer = client.answer()
    assert (answer.header("content-length"), answer.body) == ("0", b"")


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("declared", [2, 3, 4, 5, 6, 7])
@pytest.mark.parametrize(
    "kind", ["bytes", "list", "stream", "one", "many", "pushed", "loop", "all"]
)
def test_a_wrong_length_is_warned_of_once_with_the_request(
    kind: str,
    declared: int,
    method: str,
    serve: Serve,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
) -> None:
    length = [("Content-Length", str(declared))]

    def app(request: Request) -> Response:
        if kind == "pushed":
            request.stream(Response(200, length)).write(b"he")
            return Response(200, [], iter([b"llo"]))
        body: Any = {
            "bytes": b"hello",
            "list": [b"he", b"llo"],
            "stream": iter([b"he", b"llo"]),
            "one": iter([b"hello"]),
            "many": iter([b"h", b"e", b"l", b"l", b"", b"o", b""]),
        }[kind]
        return Response(200, length, body)

    async def on_loop(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        headers = [(b"content-length", b"%d" % declared)]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for block in [b"hello"] if kind == "all" else [b"h", b"ell", b"o"]:
            more = block != b"o" and kind != "all"
            await send({"type": "http.response.body", "body": block, "more_body": more})

    server = serve(on_loop if kind in ("loop", "all") else app, threads=1)
    client = connect(server)
    client.send(f"{method} /who?x HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    assert client.answer(method).body == (b"hello"[:declared] if method == "GET" else b"")
    server.stop()
    said = [record.getMessage() for record in caplog.records]
    warnings = [message for message in said if "body" in message]
    if declared == 5 or method == "HEAD":
        assert warnings == []
    elif declared < 5:
        assert warnings == ["The answer to GET /who has a longer body than declared; it was cut"]
    else:
        less = declared - 5
        assert warnings == [f"The answer to GET /who has a body {less} bytes shorter than declared"]


@pytest.mark.parametrize("blocks", [[b"hello"], [b"he", b"llo"], [b"", b"hello", b""]])
@pytest.mark.parametrize("pushed", [False, True])
def test_the_code_behind_the_last_block_runs(
    blocks: list[bytes], pushed: bool, serve: Serve, connect: Connect
) -> None:
    """Also where the declared length is out before, and once."""
    ends: list[str] = []
    ended = threading.Semaphore(0)

    def body() -> Iterator[bytes]:
        try:
            yield from blocks
            ends.append("behind")
        finally:
            ends.append("closed")
            ended.release()

    def app(request: Request) -> Response:
        response = Response(200, [("Content-Length", "5")], body())
        if not pushed:
            return response
        stream = request.stream(Response(200, [("Content-Length", "7")]))
        stream.write(b"->")
        return response

    client = connect(serve(app))
    for _ in range(3):
        answer = client.get()
        assert (answer.body, answer.complete) == (b"->hello" if pushed else b"hello", True)
        assert ended.acquire(timeout=10)
    assert ends == ["behind", "closed"] * 3


@pytest.mark.parametrize("block", [b"", b"x", b"hello"])
def test_a_body_without_an_end_is_given_up_behind_its_length(
    block: bytes, serve: Serve, connect: Connect
) -> None:
    body = Counted(b"hello", *[block] * 10_000)
    client = connect(serve(respond(Response(200, [("Content-Length", "5")], body)), threads=1))
    assert client.get().body == b"hello"
    assert body.done.wait(10)
    assert body.asked < 200
    assert body.closed == 1


@pytest.mark.parametrize("error", [LookupError("secret"), SystemExit(3)])
@pytest.mark.parametrize("blocks", [[b"hello"], [b"he", b"llo"]])
def test_an_error_behind_the_last_block_changes_no_answer(
    blocks: list[bytes],
    error: BaseException,
    serve: Serve,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = connect(
        serve(lambda _: Response(200, [("Content-Length", "5")], Counted(*blocks, error)))
    )
    for _ in range(2):
        answer = client.get()
        assert (answer.status, answer.body, answer.complete) == (200, b"hello", True)
    failures = [record for record in caplog.records if record.levelname == "ERROR"]
    assert failures
    assert all("GET /" in record.getMessage() for record in failures)


def test_blocks_leave_before_the_next_is_asked_for(serve: Serve, connect: Connect) -> None:
    go_on = threading.Event()

    def blocks() -> Iterator[bytes]:
        yield b"one"
        assert go_on.wait(5)
        yield b"two"

    client = connect(serve(lambda request: Response(200, (), blocks())))
    client.send(GET)
    received = b""
    while b"one" not in received:
        received += client.sock.recv(65536)
    go_on.set()
    while not received.endswith(b"0\r\n\r\n"):
        received += client.sock.recv(65536)
    assert received.endswith(b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")


def test_an_error_in_a_stream_is_seen(serve: Serve, connect: Connect, caplog: Any) -> None:
    for version in (b"1.1", b"1.0"):
        body = Counted(b"one", ValueError("secret"))
        client = connect(serve(respond(Response(200, (), body))))
        client.send(b"GET / HTTP/%b\r\nHost: x\r\n\r\n" % version)
        received = b""
        cut = False
        try:
            while data := client.sock.recv(65536):
                received += data
        except ConnectionResetError:
            cut = True
        assert not received.endswith(b"0\r\n\r\n")
        assert cut or version == b"1.1"
        assert b"secret" not in received
        assert body.done.wait(5)
        assert body.closed == 1
    assert "secret" in caplog.text


def head_answers(serve: Serve, connect: Connect, app: Any, **options: Any) -> list[str | None]:
    """The Content-Length of the answers to two HEAD on one connection, then to GET."""
    client = connect(serve(app, **options))
    found = []
    for method in ("HEAD", "HEAD", "GET"):
        client.send(f"{method} / HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = client.answer(method)
        assert answer.status == 200
        assert answer.header("transfer-encoding") is None
        assert answer.header("connection") is None
        found.append(answer.header("content-length"))
    return found


@pytest.mark.parametrize("declared", [None, "5"])
@pytest.mark.parametrize("empty", [[], [b""], (), [b"", b""]])
def test_nothing_after_head_is_no_length_of_wsgi(
    declared: str | None, empty: list[bytes], serve: Serve, connect: Connect
) -> None:
    """RFC 9110, 8.6: a Content-Length after HEAD must be that of GET."""

    def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Any:
        start_response("200 OK", [] if declared is None else [("Content-Length", declared)])
        return empty if environ["REQUEST_METHOD"] == "HEAD" else [b"hello"]

    assert head_answers(serve, connect, app) == [declared, declared, "5"]


@pytest.mark.parametrize("declared", [None, "5"])
def test_nothing_after_head_is_no_length_of_asgi(
    declared: str | None, serve: Serve, connect: Connect
) -> None:
    """The same on a loop."""
    length = [] if declared is None else [(b"content-length", declared.encode())]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await send({"type": "http.response.start", "status": 200, "headers": length})
        body = b"" if scope["method"] == "HEAD" else b"hello"
        await send({"type": "http.response.body", "body": body})

    options = {"lifespan": "off", "interface": "asgi"}
    assert head_answers(serve, connect, app, **options) == [declared, declared, "5"]
