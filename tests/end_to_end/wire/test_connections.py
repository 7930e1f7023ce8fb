"""Pipelines, half-closed connections, bodies, 100-continue and refusals."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

import pytest

from threadwell import Request, Response, ThreadedServer

from ...helpers.wire_client import Client
from ...helpers.wire_corpus import FIRST, LAST
from .bench import Bench, Recorder, final_answer, send_dribbling

# ---- Pipelines, half-closed and closed connections -------------------------------------------


def test_a_hundred_pipelined_in_order(
    open_client: Callable[[], tuple[Client, Recorder]],
) -> None:
    client, app = open_client()
    targets = [f"/{number}" for number in range(100)]
    client.send(
        b"".join(f"GET {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for target in targets)
    )
    assert [client.answer().body for _ in targets] == [f"GET {t}".encode() for t in targets]
    assert app.targets() == targets


def test_a_head_with_a_body_that_is_sent_again(
    serve: Callable[..., ThreadedServer], connect: Callable[..., Client]
) -> None:
    def app(request: Request) -> Response:
        said = f"{request.method} {request.header('authorization')} ".encode()
        return Response(200, (), said + request.read())

    client = connect(serve(app))
    start = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nAuthorization: "
    head, other = start + b"one\r\n\r\n", start + b"two\r\n\r\n"
    client.send(head + b"first")
    assert client.answer().body == b"POST one first"
    client.send(head + b"again")
    assert client.answer().body == b"POST one again"
    client.send(head[:-4])  # no head without its end, as often as its octets came before
    client.send(b"\r\n\r\n")
    client.send(b"later")
    assert client.answer().body == b"POST one later"
    client.send(head + b"1" * 5 + FIRST + head + b"2" * 5 + other + b"3" * 5)
    answers = [client.answer().body for _ in range(4)]
    assert answers == [b"POST one 11111", b"GET  ", b"POST one 22222", b"POST two 33333"]


def test_a_body_that_begins_with_a_line_break(
    open_client: Callable[[], tuple[Client, Recorder]],
) -> None:
    """What comes with the head, and ends as an empty line does, is the body."""
    client, app = open_client()
    post = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n"
    bodies = [b"\r\n", b"\n\n", b"\r\r"]
    for body in bodies:
        client.send(post + body)
        assert client.answer().body == b"POST /"
        client.send(FIRST)
        assert client.answer().body == b"GET /first"
    assert [body for _, body in app.seen] == [each for body in bodies for each in (body, b"")]
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n\r\n")
    client.send(b"3\r\nabc\r\n0\r\n\r\n")
    assert client.answer().status == 400
    assert client.closed()


def test_half_closed_after_the_request(
    open_client: Callable[[], tuple[Client, Recorder]],
) -> None:
    client, _ = open_client()
    client.send(FIRST + LAST)
    client.sock.shutdown(socket.SHUT_WR)
    assert client.answer().body == b"GET /first"
    assert client.answer().body == b"GET /last"
    assert client.closed()


def test_half_closed_while_the_application_works(
    serve: Callable[..., ThreadedServer], connect: Callable[..., Client]
) -> None:
    called, go_on = threading.Event(), threading.Event()

    def app(request: Request) -> Response:
        called.set()
        assert go_on.wait(5)
        return Response(200, (), request.read())

    client = connect(serve(app))
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
    assert called.wait(5)
    client.sock.shutdown(socket.SHUT_WR)
    go_on.set()
    assert client.answer().body == b"hello"
    assert client.closed()


@pytest.mark.parametrize(
    "data",
    [
        b"Content-Length: 6\r\n\r\nhello",
        b"Content-Length: 300000\r\n\r\n" + b"x" * 290000,
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n",
    ],
)
def test_a_cut_body_reaches_nobody(
    data: bytes, open_client: Callable[[], tuple[Client, Recorder]]
) -> None:
    client, app = open_client()
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\n" + data)
    client.sock.shutdown(socket.SHUT_WR)
    assert client.closed()
    assert not app.seen


# ---- Bodies --------------------------------------------------------------------------------


@pytest.mark.parametrize("pieces", range(14, 20))
def test_a_body_that_ends_with_a_turn_is_not_forgotten(
    pieces: int, serve: Callable[..., ThreadedServer], connect: Callable[..., Client]
) -> None:
    """A thread reads a connection so and so often in a turn; the last it read counts too."""
    busy, go_on = threading.Event(), threading.Event()

    def app(request: Request) -> Response:
        if request.target == "/busy":
            busy.set()
            assert go_on.wait(10)
        return Response(200, (), str(len(request.read())).encode())

    server = serve(app, threads=1, head_timeout=30)
    first, second = connect(server), connect(server)
    size = pieces * 65536
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %07d\r\n\r\n"
    length = size - len(head % 0)
    first.send(b"GET /busy HTTP/1.1\r\nHost: x\r\n\r\n")
    assert busy.wait(5)
    # all of it is there when the one thread comes to it
    sender = threading.Thread(target=second.send, args=(head % length + b"x" * length,))
    sender.start()
    sender.join(0.5)
    go_on.set()
    assert first.answer().body == b"0"
    assert second.answer().body == str(length).encode()
    sender.join()


@pytest.mark.parametrize("pieces", range(1, 40))
def test_a_body_in_many_pieces(pieces: int, bench: Bench) -> None:
    body = bytes(range(64)) * pieces
    head = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
    bench.run(head, *[body[at : at + 64] for at in range(0, len(body), 64)])
    assert [seen for _, seen in bench.app.seen] == [body]


# ---- 100-continue --------------------------------------------------------------------------

_EXPECTING = b"POST /e HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"


@pytest.mark.parametrize(
    ("framing", "body"),
    [
        (b"Content-Length: 5\r\n", b"hello"),
        (b"Transfer-Encoding: chunked\r\n", b"5\r\nhello\r\n0\r\n\r\n"),
    ],
)
def test_continue_before_the_body(
    framing: bytes, body: bytes, open_client: Callable[[], tuple[Client, Recorder]]
) -> None:
    client, app = open_client()
    for _ in range(2):
        client.send(_EXPECTING + framing + b"\r\n")
        interim = client.answer()
        assert interim.status == 100
        assert not interim.headers
        client.send(body)
        assert client.answer().body == b"POST /e"
    assert [seen for _, seen in app.seen] == [b"hello", b"hello"]


def test_continue_once_when_the_body_dribbles(
    open_client: Callable[[], tuple[Client, Recorder]],
) -> None:
    client, _ = open_client()
    client.send(_EXPECTING + b"Content-Length: 5\r\n\r\n")
    assert client.answer().status == 100
    send_dribbling(client, b"hello")
    assert client.answer().status == 200


@pytest.mark.parametrize("body", [b"", b"hello world"])
def test_no_continue_for_a_body_that_is_refused(
    serve: Callable[..., ThreadedServer], connect: Callable[..., Client], body: bytes
) -> None:
    app = Recorder()
    client = connect(serve(app, limit_body=10))
    client.send(_EXPECTING + b"Content-Length: 11\r\n\r\n" + body)
    assert client.answer().status == 413
    assert client.closed()
    assert not app.seen


def test_no_continue_to_http_1_0(open_client: Callable[[], tuple[Client, Recorder]]) -> None:
    client, app = open_client()
    client.send(b"POST /e HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
    client.send(b"hello")
    assert client.answer().status == 200
    assert client.closed()
    assert [seen for _, seen in app.seen] == [b"hello"]


def test_a_client_that_does_not_wait_for_continue(
    open_client: Callable[[], tuple[Client, Recorder]],
) -> None:
    client, app = open_client()
    client.send(_EXPECTING + b"Content-Length: 5\r\n\r\nhello" + LAST)
    assert final_answer(client).body == b"POST /e"
    assert client.answer().body == b"GET /last"
    assert app.targets() == ["/e", "/last"]


def test_no_continue_without_a_body(open_client: Callable[[], tuple[Client, Recorder]]) -> None:
    client, _ = open_client()
    for field in (b"", b"Content-Length: 0\r\n"):
        client.send(_EXPECTING + field + b"\r\n")
        assert client.answer().status == 200


# ---- Refusals arrive -----------------------------------------------------------------------


@pytest.mark.parametrize("declared", [True, False])
def test_a_refusal_reaches_a_client_that_still_sends(
    declared: bool, serve: Callable[..., ThreadedServer], connect: Callable[..., Client]
) -> None:
    client = connect(serve(Recorder(), limit_body=100_000, linger_timeout=30))
    size = 6 * 1024 * 1024
    if declared:
        head, body = b"Content-Length: %d\r\n\r\n" % size, b"x" * size
    else:
        head, body = b"Transfer-Encoding: chunked\r\n\r\n%x\r\n" % size, b"x" * size
    client.send(b"POST / HTTP/1.1\r\nHost: x\r\n" + head + body)
    received = b""
    while data := client.sock.recv(65536):  # a reset would raise
        received += data
    assert received.startswith(b"HTTP/1.1 413 ")
    assert b"\r\n\r\nThe request body is too large\n" in received


def test_a_refusal_ends_with_the_end_of_the_line(
    open_client: Callable[[], tuple[Client, Recorder]],
) -> None:
    """The server says at once that this was all, though it lingers for what still comes."""
    client, _ = open_client()
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    started = time.monotonic()
    assert client.answer().status == 400
    assert client.closed()
    assert time.monotonic() - started < 1
