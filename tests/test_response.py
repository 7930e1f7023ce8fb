"""Answers on the wire: how they are framed, what of an application's head may leave, who closes."""

from __future__ import annotations

import itertools
import logging
import os
import re
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any

import pytest

from threadwell import FileBody, Request, Response, ThreadedServer
from threadwell.worker.http.response_body import blocks_of, read_some
from threadwell.worker.http2.send_queue import SendQueue

from .recorder import Recorder
from .wire_client import Answer, Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
MIB = 1024 * 1024


class Counted:
    """A body that counts how often it is closed and how far it was asked."""

    def __init__(self, *blocks: Any) -> None:
        self.blocks = iter(blocks)
        self.asked = 0
        self.closed = 0
        self.done = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self.asked += 1
        block = next(self.blocks)
        if isinstance(block, BaseException):
            raise block
        return block  # type: ignore[no-any-return]

    def close(self) -> None:
        self.closed += 1
        self.done.set()


def respond(*answers: Response) -> Callable[[Request], Response]:
    """An application that gives these answers in turn, again and again."""
    following = itertools.cycle(answers)

    def app(request: Request) -> Response:
        del request
        return next(following)

    return app


def raw(client: Client, request: bytes) -> bytes:
    """All that the server sends until it closes. Half-closes, so that it has to."""
    client.send(request)
    client.sock.shutdown(socket.SHUT_WR)
    return client.rest()


def head_of(data: bytes) -> bytes:
    return data.partition(b"\r\n\r\n")[0]


# ---- Framing -------------------------------------------------------------------------------

_BODIES: dict[str, Callable[[], Any]] = {
    "bytes": lambda: b"hello",
    "empty": lambda: b"",
    "list": lambda: [b"he", b"", b"llo"],
    "empty list": list,
    "stream": lambda: iter([b"he", b"", b"llo"]),
    "empty stream": lambda: iter([]),
    "stream of empty blocks": lambda: iter([b"", b""]),
    "large": lambda: b"x" * 100_000,
    "large list": lambda: [b"x" * 50_000] * 2,
    "large stream": lambda: iter([b"x" * 50_000] * 2),
}

every_body = pytest.mark.parametrize("kind", list(_BODIES))


def whole(kind: str) -> bytes:
    if "large" in kind:
        return b"x" * 100_000
    return b"" if "empty" in kind else b"hello"


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
    client = connect(serve(lambda request: Response(200, length, _BODIES[kind]())))
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
    client = connect(serve(lambda request: Response(200, length, _BODIES[kind]())))
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
@pytest.mark.parametrize("status", [204, 304, "204 Nothing", "304 Not Modified"])
@pytest.mark.parametrize("declared", [True, False])
def test_statuses_without_a_body(
    kind: str, status: int | str, declared: bool, serve: Serve, connect: Connect
) -> None:
    length = [("Content-Length", "5"), ("Transfer-Encoding", "chunked")] if declared else []
    client = connect(serve(lambda request: Response(status, length, _BODIES[kind]())))
    for _ in range(2):
        client.send(GET)
        answer = client.answer()
        assert answer.status == int(str(status)[:3])
        assert answer.header("transfer-encoding") is None
        if answer.status == 204:
            assert answer.header("content-length") is None
        elif declared:
            assert answer.header("content-length") == "5"
    client.sock.shutdown(socket.SHUT_WR)
    assert client.closed()


@pytest.mark.parametrize("kind", ["bytes", "list", "stream"])
def test_a_body_shorter_than_declared(kind: str, serve: Serve, connect: Connect) -> None:
    app = respond(Response(200, [("Content-Length", "7")], _BODIES[kind]()))
    data = raw(connect(serve(app)), GET + GET)
    assert data.count(b"HTTP/1.1 ") == 1
    assert data.endswith(b"\r\n\r\nhello")
    assert b"\r\nContent-Length: 7\r\n" in data


@pytest.mark.parametrize("kind", ["bytes", "list", "stream", "large", "large list", "large stream"])
def test_a_body_longer_than_declared(kind: str, serve: Serve, connect: Connect) -> None:
    length = len(whole(kind)) - 2
    app = lambda request: Response(200, [("Content-Length", str(length))], _BODIES[kind]())  # noqa: E731
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
        serve(lambda request: Response(200, [("Content-Length", "0")], _BODIES[kind]()))
    )
    client.send(GET)
    answer = client.answer()
    assert (answer.header("content-length"), answer.body) == ("0", b"")


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


# ---- What of an application's head may leave -----------------------------------------------

_EVIL: list[tuple[Any, Any]] = [
    (200, [("X-A", "b\r\nX-Evil: c")]),
    (200, [("X-A", "b\nX-Evil: c")]),
    (200, [("X-A", "b\rX-Evil: c")]),
    (200, [("X-A", "Evil\x00")]),
    (200, [("X-A", "Evil\x7f")]),
    (200, [("X-A", "Evil\x0b")]),
    (200, [("X-A", "Evil\r\n")]),
    (200, [("X-Evil\r\n", "b")]),
    (200, [("X-Evil\x00", "b")]),
    (200, [("X-Evil:", "b")]),
    (200, [("X Evil", "b")]),
    (200, [("X-Evil\u00e9", "b")]),
    (200, [("", "Evil")]),
    (200, [("X-Evil", "\u20ac")]),
    (200, [("X-Evil", 5)]),
    (200, [("X-Evil", None)]),
    (200, [("X-Evil", b"b")]),
    (200, [(b"X-Evil", "b")]),
    (200, [("X-Evil",)]),
    (200, ["X-Evil"]),
    (200, [("X-Evil", "b", "c")]),
    (200, [["X-Evil", "b\n"]]),
    (200, 5),
    ("200 Evil\r\nX-A: b", []),
    ("200 Evil\n", []),
    ("200 Evil\x00", []),
    ("200 Evil \u20ac", []),
    ("20 Evil", []),
    ("2000 Evil", []),
    ("Evil", []),
    ("", []),
    (None, []),
    (0, []),
    (99, []),
    (100, []),
    (101, []),
    ("102 Evil", []),
    (1000, []),
    (-200, []),
    ("\u0662\u0660\u0660 Evil", []),
    (200, [("X-Evil", "b"), ("Content-Length", "5"), ("Content-Length", "6")]),
    (200, [("X-Evil", "b"), ("Content-Length", "6"), ("Content-Length", "5")]),
    (200, [("X-Evil", "b"), ("Content-Length", "5"), ("content-length", "4")]),
    (200, [("X-Evil", "b"), ("Content-Length", "+5")]),
    (200, [("X-Evil", "b"), ("Content-Length", "-5")]),
    (200, [("X-Evil", "b"), ("Content-Length", "0x5")]),
    (200, [("X-Evil", "b"), ("Content-Length", "5_0")]),
    (200, [("X-Evil", "b"), ("Content-Length", "")]),
    (200, [("X-Evil", "b"), ("Content-Length", "5, 5")]),
    (200, [("X-Evil", "b"), ("Content-Length", "\u0665")]),
    (200, [("X-Evil", "b"), ("Content-Length", "\u00b2")]),
    (200, [("X-Evil", "b"), ("Content-Length", "9" * 40)]),
]


@pytest.mark.parametrize(("status", "headers"), _EVIL, ids=[repr(evil) for evil in _EVIL])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_head_that_must_not_leave(
    status: Any,
    headers: Any,
    method: str,
    serve: Serve,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
) -> None:
    closed: list[str] = []
    made: list[Any] = []

    def app(request: Request) -> Response:
        kind = request.path[1:]
        if kind == "good":
            return Response(200, [("X-A", "b")], b"hello")
        made.append(_BODIES[kind]())
        return Response(status, headers, made[-1], lambda: closed.append(kind))

    server = serve(app)
    kinds = ["bytes", "list", "stream", "large"]
    for kind in kinds:
        client = connect(server)
        client.send(f"{method} /{kind} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = client.answer(method)
        assert answer.status == 500
        assert "evil" not in repr(answer).lower()
        if answer.header("connection") != "close":
            assert client.get("/good").body == b"hello"
    assert caplog.text.count("The application failed on") == len(kinds)
    assert {record.levelno for record in caplog.records} == {logging.ERROR}
    assert closed == kinds


def test_evil_after_good_is_not_taken_from_a_cache(serve: Serve, connect: Connect) -> None:
    good = Response(200, [("X-A", "b"), ("Content-Length", "5")], b"hello")
    evil = Response(200, [("X-A", "b"), ("X-A", "b\r\nc"), ("Content-Length", "5")], b"hello")
    client = connect(serve(respond(good, evil), threads=1))
    assert [client.get().status for _ in range(6)] == [200, 500] * 3


@pytest.mark.parametrize(
    "app",
    [
        lambda request: "hello",
        lambda request: (200, [], b"hello"),
        lambda request: Response(200, (), "hello"),
        lambda request: Response(200, (), 5),
        lambda request: Response(200, (), [b"hello", "you"]),
        lambda request: Response(200, (), iter(["hello"])),
        lambda request: Response(200, [("Content-Length", "5")], iter(["hello"])),
        lambda request: Response(200, (), None),
        lambda request: Response(200, None, b"hello"),
        lambda request: 1 / 0,
    ],
)
def test_what_is_no_response(
    app: Any, serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    answer = connect(serve(app)).get()
    assert answer.status == 500
    assert answer.body == b"Internal Server Error\n"
    assert "The application failed on GET /" in caplog.text


def test_exactly_one_date(serve: Serve, connect: Connect) -> None:
    theirs = "Tue, 15 Nov 1994 08:12:31 GMT"
    answers = {
        "/": Response(200, (), b"x"),
        "/own": Response(200, [("Date", theirs), ("Server", "theirs")], b"x"),
        "/lower": Response(200, [("date", theirs)], b"x"),
        "/server": Response(200, [("SERVER", "theirs")], b"x"),
        "/stream": Response(200, [("date", theirs)], [b"x"] * 3),
        "/204": Response(204, [("date", theirs)]),
    }
    client = connect(serve(lambda request: answers[request.path]))
    form = r"(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT"
    for target, response in answers.items():
        answer = client.get(target)
        date, server = answer.header("date"), answer.header("server")  # each at most once
        assert date is not None
        assert re.fullmatch(form, date)
        names = [name.lower() for name, _ in response.headers]
        assert server == ("theirs" if "server" in names else "threadwell")
        if "date" in names:
            assert date == theirs
        else:
            assert abs(parsedate_to_datetime(date).timestamp() - time.time()) <= 2
    client.send(b"\0")
    assert client.answer().header("date") is not None


def test_headers_keep_their_order_and_repetitions(serve: Serve, connect: Connect) -> None:
    headers = [
        ("Set-Cookie", "a=b"),
        ("X-A", "1"),
        ("set-cookie", "c=d; Expires=Tue, 15 Nov 1994 08:12:31 GMT"),
        ("X-B", "caf\xe9"),
        ("X-A", "2"),
        ("X-C", "a\tb"),
        ("X-D", ""),
        ("Set-Cookie", "a=b"),
    ]
    client = connect(
        serve(respond(Response(200, headers, b""), Response(200, headers, [b"", b"x"])))
    )
    for _ in range(4):
        answer = client.get()
        own = [pair for pair in answer.headers if pair[0].startswith(("x-", "set-"))]
        assert own == [(name.lower(), value) for name, value in headers]


@pytest.mark.parametrize(
    ("status", "line"),
    [
        (200, b"HTTP/1.1 200 OK"),
        ("200", b"HTTP/1.1 200 OK"),
        ("200 ", b"HTTP/1.1 200 OK"),
        ("200 Fine", b"HTTP/1.1 200 Fine"),
        ("418 I'm a teapot", b"HTTP/1.1 418 I'm a teapot"),
        (404, b"HTTP/1.1 404 Not Found"),
        ("200 Sch\xf6n", b"HTTP/1.1 200 Sch\xf6n"),
        (599, b"HTTP/1.1 599 "),
    ],
)
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_status_lines(
    status: Any, line: bytes, version: bytes, serve: Serve, connect: Connect
) -> None:
    data = raw(connect(serve(respond(Response(status)))), GET.replace(b"1.1", version))
    assert data.partition(b"\r\n")[0].startswith(line)


@pytest.mark.parametrize("kind", ["bytes", "list", "stream", "large"])
@pytest.mark.parametrize("name", ["Content-Length", "content-length"])
def test_equal_lengths_are_one(kind: str, name: str, serve: Serve, connect: Connect) -> None:
    size = str(len(whole(kind)))
    headers = [("Content-Length", size), ("X-A", "b"), (name, size)]
    client = connect(serve(lambda request: Response(200, headers, _BODIES[kind]())))
    for _ in range(2):
        answer = client.get()  # which looks for a second one
        assert answer.header("content-length") == size
        assert answer.body == whole(kind)


def test_a_header_that_names_a_length_is_no_length(serve: Serve, connect: Connect) -> None:
    headers = [("X-Content-Length", "7"), ("X-A", "Content-Length: 9")]
    answer = connect(serve(respond(Response(200, headers, b"hello")))).get()
    assert answer.header("content-length") == "5"
    assert answer.body == b"hello"


@pytest.mark.parametrize("kind", ["bytes", "list", "stream"])
@pytest.mark.parametrize(
    "header",
    [
        ("Transfer-Encoding", "chunked"),
        ("transfer-encoding", "gzip, chunked"),
        ("Connection", "Transfer-Encoding, Upgrade"),
        ("Keep-Alive", "timeout=5"),
        ("Trailer", "X-A"),
        ("Upgrade", "h2c"),
        ("Proxy-Connection", "close"),
    ],
)
def test_framing_is_the_servers(
    kind: str, header: tuple[str, str], serve: Serve, connect: Connect
) -> None:
    client = connect(serve(lambda request: Response(200, [header], _BODIES[kind]())))
    for _ in range(2):
        answer = client.get()
        assert answer.body == b"hello"
        if header[0].lower() == "transfer-encoding":
            assert answer.header("transfer-encoding") in (None, "chunked")
        else:
            assert answer.header(header[0].lower()) is None


@pytest.mark.parametrize("kind", ["bytes", "list", "stream", "empty", "large"])
@pytest.mark.parametrize("value", ["close", "Close", "x, close"])
def test_an_application_closes(kind: str, value: str, serve: Serve, connect: Connect) -> None:
    client = connect(serve(lambda request: Response(200, [("Connection", value)], _BODIES[kind]())))
    client.send(GET + GET)
    answer = client.answer()
    assert answer.header("connection") == "close"
    assert answer.body == whole(kind)
    assert client.closed()


# ---- Large bodies and slow readers ---------------------------------------------------------

_PATTERN = bytes(range(251))
_LARGE = (_PATTERN * (5 * MIB // 251 + 1))[: 5 * MIB]


def _slowly(client: Client, head: bytes = b"") -> tuple[bytes, bytes]:
    """Head and body of an answer with a length, read in small steps at first."""
    client.send(head or GET)
    received = b""
    while b"\r\n\r\n" not in received:
        received += client.sock.recv(100)
    header, _, body = received.partition(b"\r\n\r\n")
    found = re.search(rb"Content-Length: (\d+)", header)
    assert found is not None
    length = int(found[1])
    step = 1000
    while len(body) < length:
        data = client.sock.recv(min(step, length - len(body)))
        assert data
        body += data
        step = min(step * 2, 65536)
    return header, body


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "large"
    path.write_bytes(_LARGE)
    return path


def _opened(path: Path, offset: int, count: int) -> FileBody:
    return FileBody(os.open(path, os.O_RDONLY), offset, count)


@pytest.mark.parametrize("kind", ["bytes", "list", "many", "file", "stream"])
def test_large_bodies_hold_no_thread(kind: str, file: Path, serve: Serve, connect: Connect) -> None:
    """As many clients that do not read as there are threads, and one that is served."""

    def large() -> Any:
        if kind == "list":
            return [_LARGE[:MIB], _LARGE[MIB : 3 * MIB], _LARGE[3 * MIB :]]
        if kind == "many":
            return [_LARGE[at : at + 1000] for at in range(0, len(_LARGE), 1000)]
        if kind == "file":
            return _opened(file, 0, len(_LARGE))
        return iter([_LARGE]) if kind == "stream" else _LARGE

    def app(request: Request) -> Response:
        if request.path == "/small":
            return Response(200, (), b"small")
        return Response(200, [("Content-Length", str(len(_LARGE)))], large())

    server = serve(app, threads=2)
    slow = []
    for _ in range(4):
        client = connect(server)
        client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.send(GET)
        slow.append(client)
    for client in slow:
        assert client.sock.recv(1, socket.MSG_PEEK)
    assert connect(server, timeout=3).get("/small").body == b"small"
    for client in slow:
        answer = client.answer()
        assert answer.body == _LARGE
        assert client.get("/small").body == b"small"
        client.close()
    head, body = _slowly(connect(server))
    assert body == _LARGE
    assert head.count(b"Content-Length") == 1


def test_pipelined_behind_a_large_answer(serve: Serve, connect: Connect) -> None:
    client = connect(serve(lambda request: Response(200, (), _LARGE + request.target.encode())))
    client.send(b"".join(GET.replace(b"/ ", b"/%d " % number) for number in range(3)))
    for number in range(3):
        assert client.answer().body == _LARGE + b"/%d" % number


@pytest.mark.skipif(not hasattr(os, "pread"), reason="the system reads from positions only")
def test_the_position_of_a_file_stays_the_applications(file: Path) -> None:
    """Which may read it at the same time, and has it open in other answers too."""
    with file.open("rb") as opened:
        send_queue = SendQueue()
        send_queue.put_file(FileBody(os.dup(opened.fileno()), 10, 5))
        assert send_queue.take(99) == _LARGE[10:15]
        pushed = Response(200, (), FileBody(os.dup(opened.fileno()), 20, MIB))
        assert b"".join(blocks_of(pushed)) == _LARGE[20 : 20 + MIB]
        assert read_some(FileBody(opened.fileno(), 30, 5), 5) == _LARGE[30:35]
        assert os.lseek(opened.fileno(), 0, os.SEEK_CUR) == 0


@pytest.mark.parametrize(
    ("offset", "count"),
    [(0, 5 * MIB), (1, 10), (MIB, 2 * MIB), (5 * MIB - 1, 1), (0, 0), (5 * MIB, 0)],
)
def test_a_part_of_a_file(
    offset: int, count: int, file: Path, serve: Serve, connect: Connect
) -> None:
    opened: list[int] = []

    def app(request: Request) -> Response:
        del request
        body = _opened(file, offset, count)
        opened.append(body.fd)
        return Response(200, (), body)

    client = connect(serve(app, threads=1))
    for _ in range(2):
        _, body = _slowly(client)
        assert body == _LARGE[offset : offset + count]
    client.send(b"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.answer("HEAD").header("content-length") == str(count)
    assert all_closed(opened)


def all_closed(descriptors: Iterable[int]) -> bool:
    """Whether all `descriptors` are closed, or soon are."""
    until = time.monotonic() + 5
    open_ones = set(descriptors)
    while open_ones and time.monotonic() < until:
        open_ones = {fd for fd in open_ones if _is_file(fd)}
        threading.Event().wait(0.01 if open_ones else 0)
    return not open_ones


def _is_file(descriptor: int) -> bool:
    try:
        return stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        return False


@pytest.mark.parametrize(
    ("status", "headers", "method"),
    [
        (200, [("X-A", "b\n")], "GET"),
        (200, [("Content-Length", "x")], "GET"),
        ("evil", [], "GET"),
        (204, [], "GET"),
        (304, [], "GET"),
        (200, [], "HEAD"),
        (200, [("Content-Length", "0")], "GET"),
    ],
)
@pytest.mark.parametrize("collector", [None, Recorder()], ids=["", "recorded"])
def test_a_file_that_is_not_sent_is_closed(
    status: Any,
    headers: Any,
    method: str,
    collector: Any,
    file: Path,
    serve: Serve,
    connect: Connect,
) -> None:
    opened: list[int] = []

    def app(request: Request) -> Response:
        if request.path == "/pushed":
            request.stream(Response(200, [("Content-Length", "0")]))
        body = _opened(file, 0, 5)
        opened.append(body.fd)
        return Response(status, headers, body)

    client = connect(serve(app, lifecycle_collector=collector))
    for path in ("/", "/pushed"):
        client.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        client.answer(method)
    assert all_closed(opened)


def test_a_file_is_closed_when_its_client_leaves(
    file: Path, serve: Serve, connect: Connect
) -> None:
    opened: list[int] = []

    def app(request: Request) -> Response:
        del request
        body = _opened(file, 0, len(_LARGE))
        opened.append(body.fd)
        return Response(200, (), body)

    client = connect(serve(app))
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    client.send(GET)
    assert client.sock.recv(10)
    client.close()
    assert all_closed(opened)


def test_a_file_shorter_than_promised_is_cut(file: Path, serve: Serve, connect: Connect) -> None:
    app = lambda request: Response(200, (), _opened(file, 5 * MIB - 3, 10))  # noqa: E731
    data = raw(connect(serve(app)), GET + GET)
    assert data.count(b"HTTP/1.1 ") == 1
    assert data.endswith(b"\r\n\r\n" + _LARGE[-3:])


# ---- close ---------------------------------------------------------------------------------


def _one(serve: Serve, connect: Connect, response: Response, request: bytes = GET) -> Answer | None:
    client = connect(serve(lambda _: response))
    client.send(request)
    try:
        return client.answer(request.partition(b" ")[0].decode())
    except (EOFError, ConnectionError):
        return None


@pytest.mark.parametrize("kind", list(_BODIES))
@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (200, []),
        (204, []),
        (304, []),
        (200, [("Content-Length", "3")]),
        (200, [("Content-Length", "200000")]),
        (200, [("X-A", "\n")]),
        ("evil", []),
    ],
)
def test_close_is_called_once(
    kind: str, method: bytes, status: Any, headers: Any, serve: Serve, connect: Connect
) -> None:
    calls: list[int] = []
    called = threading.Event()

    def close() -> None:
        calls.append(1)
        called.set()

    response = Response(status, headers, _BODIES[kind](), close)
    server_request = GET.replace(b"GET", method)
    _one(serve, connect, response, server_request)
    assert called.wait(5)
    assert calls == [1]


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
@pytest.mark.parametrize(
    ("status", "headers", "blocks"),
    [
        (200, [], [b"hello"]),
        (200, [], []),
        (204, [], [b"hello"]),
        (304, [], [b"hello"]),
        (200, [("Content-Length", "3")], [b"hello", b"you"]),
        (200, [("Content-Length", "9")], [b"hello"]),
        (200, [("Content-Length", "0")], [b"hello"]),
        (200, [("X-A", "\n")], [b"hello"]),
        ("evil", [], [b"hello"]),
        (200, [], [ValueError()]),
        (200, [], [b"hello", ValueError()]),
        (200, [], [SystemExit(3)]),
        (200, [], ["hello"]),
    ],
)
def test_a_stream_is_closed_once(
    method: bytes, status: Any, headers: Any, blocks: list[Any], serve: Serve, connect: Connect
) -> None:
    body = Counted(*blocks)
    _one(serve, connect, Response(status, headers, body), GET.replace(b"GET", method))
    assert body.done.wait(5)
    assert body.closed == 1
    if method == b"HEAD" or status in (204, 304):
        assert body.asked <= 1


def test_a_stream_is_closed_once_when_its_client_leaves(serve: Serve, connect: Connect) -> None:
    body = Counted(*[b"x" * 100_000] * 1000)
    client = connect(serve(respond(Response(200, (), body))))
    client.send(GET)
    assert client.sock.recv(10)
    client.close()
    assert body.done.wait(5)
    assert body.closed == 1
    assert body.asked < 1000


def test_a_response_with_a_close_of_its_own(serve: Serve, connect: Connect) -> None:
    body, calls = Counted(b"hello"), threading.Event()
    answer = _one(serve, connect, Response(200, (), body, calls.set))
    assert answer is not None
    assert answer.body == b"hello"
    assert calls.wait(5)


def test_close_is_called_once_when_too_many_streams_are_open(
    serve: Serve, connect: Connect
) -> None:
    body = Counted(b"hello", b"you")
    client = connect(serve(respond(Response(200, (), body)), max_streams=0))
    client.send(GET)
    assert client.answer().status == 503
    assert body.done.wait(5)
    assert body.closed == 1
    assert body.asked == 0


def test_close_is_called_once_after_a_pushed_answer(serve: Serve, connect: Connect) -> None:
    calls: list[int] = []
    called = threading.Event()

    def close() -> None:
        calls.append(1)
        called.set()

    def app(request: Request) -> Response:
        request.stream(Response(200, [("X-A", "b")])).write(b"one")
        return Response(200, (), b"two", close)

    client = connect(serve(app))
    answer = client.get()
    assert answer.chunks == [b"one", b"two"]
    assert called.wait(5)
    assert calls == [1]
    assert client.get().body == b"onetwo"


def test_close_is_called_once_after_a_hijack(serve: Serve, connect: Connect) -> None:
    called = threading.Event()

    def app(request: Request) -> Response:
        request.hijack().sendall(b"mine")
        return Response(200, (), b"ignored", called.set)

    client = connect(serve(app))
    client.send(GET)
    assert client.rest() == b"mine"
    assert called.wait(2)


def test_an_error_in_close_costs_nothing(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(serve(lambda request: Response(200, (), b"hello", lambda: 1 // 0)))
    for _ in range(3):
        assert client.get().body == b"hello"
    assert "The application failed in close()" in caplog.text
