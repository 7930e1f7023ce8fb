"""The fields of a response."""

from __future__ import annotations

import random
from typing import Any

import pytest

from threadwell import Response, ServerConfig
from threadwell.worker.config.groups import Limits
from threadwell.worker.errors import InvalidResponseError
from threadwell.worker.http1.parser import RequestParser
from threadwell.worker.http2.writer import HTTP2Writer

GET = RequestParser(Limits()).parse(b"GET / HTTP/1.1\r\nHost: x")
HEADERS = [
    ("Content-Type", "text/plain"),
    ("X-Own", "  1 "),
    ("Set-Cookie", "a=b"),
    ("ETag", '"1"'),
    ("Content-Length", "5"),
    ("Content-Length", "6"),
    ("Content-Length", "x"),
    ("Connection", "close"),
    ("Transfer-Encoding", "chunked"),
    ("Date", "today"),
    ("Server", "mine"),
    ("Bad Name", "x"),
    ("X-Bad", "a\r\nb"),
    ("X-Long", "x" * 500),
]


def rendered(writer: HTTP2Writer, response: Response) -> Any:
    try:
        return writer.render(GET, response, 5)
    except InvalidResponseError as error:
        return str(error)


def test_the_common_way_renders_what_the_other_does(monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = random.Random(17)
    config = ServerConfig.from_options(header=["X-All: 1"])
    common, other = HTTP2Writer(config), HTTP2Writer(config)
    monkeypatch.setattr(other, "_common_fields", lambda *given: None)
    monkeypatch.setattr("time.time", lambda: 1000000000.0)
    for _ in range(600):
        headers = chosen.sample(HEADERS[: chosen.choice((5, 14))], chosen.randrange(5))
        status = chosen.choice((200, "201 Created", 204, 304, 404, "299 Own", "bad"))
        response = Response(status, headers, b"12345")
        assert rendered(common, response) == rendered(other, response)


@pytest.mark.parametrize("headers", [[("A", [])], [["A", "b"]], [("A", 1)], iter([("A", "b")])])
def test_headers_that_are_no_list_of_pairs_of_text(headers: Any) -> None:
    writer = HTTP2Writer(ServerConfig.from_options())
    if headers == [["A", "b"]]:
        assert (b"a", b"b") in writer.render(GET, Response(200, headers, b""), 0).fields
        return
    with pytest.raises(InvalidResponseError):
        writer.render(GET, Response(200, headers, b""), 0)


@pytest.mark.parametrize("status", [100, 101, 103, "103 Early Hints"])
def test_an_interim_status_is_no_answer(status: int | str) -> None:
    writer = HTTP2Writer(ServerConfig())
    with pytest.raises(InvalidResponseError):
        writer.render(GET, Response(status, [("Link", "x")], b"hello"), 5)
