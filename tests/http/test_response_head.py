"""What of an application's response head may leave, and what the server adds."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from threadwell import Request, Response, ThreadedServer

from ..helpers.responses import BODIES, GET, raw, respond, whole
from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

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
        made.append(BODIES[kind]())
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
    client = connect(serve(lambda request: Response(200, headers, BODIES[kind]())))
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
    client = connect(serve(lambda request: Response(200, [header], BODIES[kind]())))
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
    client = connect(serve(lambda request: Response(200, [("Connection", value)], BODIES[kind]())))
    client.send(GET + GET)
    answer = client.answer()
    assert answer.header("connection") == "close"
    assert answer.body == whole(kind)
    assert client.closed()
