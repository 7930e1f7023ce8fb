"""A refusal by a limit is logged, with the client and the option: its user must find the option."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from threadwell import Request, Response, ThreadedServer

from ..helpers.waiting import until
from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Any]

CHUNKED = b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"

CASES = {
    "limit_request_line": (414, b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n"),
    "limit_field_size": (431, b"GET / HTTP/1.1\r\nHost: x\r\nCookie: " + b"x" * 9000 + b"\r\n\r\n"),
    "limit_fields": (431, b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: b\r\n" * 100 + b"\r\n"),
    "limit_head": (431, b"GET / HTTP/1.1\r\nHost: x\r\n" + b"a: %b\r\n" % (b"x" * 8000) * 9),
    "limit_body": (413, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 101\r\n\r\n" + b"x" * 101),
    "limit_chunk_line": (400, CHUNKED + b"5;" + b"x" * 5000),
    "limit_chunk_extensions": (400, CHUNKED + (b"1;%b\r\nx\r\n" % (b"x" * 4000)) * 5),
    "limit_trailers": (431, CHUNKED + b"0\r\n" + (b"a: %b\r\n" % (b"x" * 3000)) * 3),
}


def on_threads(request: Request) -> Response:
    return Response(200, [], request.read())


async def on_loop(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise RuntimeError
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


async def with_headers_sent(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] != "http":
        raise RuntimeError
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"begun", "more_body": True})
    while (await receive()).get("more_body"):
        pass


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [each.getMessage() for each in caplog.records if each.levelno >= logging.WARNING]


@pytest.mark.parametrize("app", [on_threads, on_loop])
@pytest.mark.parametrize("option", CASES)
def test_a_limit_of_http_1(
    serve: Serve,
    connect: Callable[..., Client],
    caplog: pytest.LogCaptureFixture,
    app: Any,
    option: str,
) -> None:
    """Once, however many clients are refused."""
    status, data = CASES[option]
    server = serve(app, limit_body=100_000 if "chunk" in option else 100)
    for _ in range(3):
        client = connect(server)
        client.send(data)
        assert client.answer().status == status
    want = f"A request of 127.0.0.1 was refused with {status}: it exceeds {option}"
    assert warnings(caplog) == [want]


def test_a_limit_while_a_response_is_sent(
    serve: Serve, connect: Callable[..., Client], caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(serve(with_headers_sent, limit_body=100))
    client.send(CHUNKED)
    assert client.sock.recv(1000).startswith(b"HTTP/1.1 200")
    client.send(b"65\r\n" + b"x" * 101 + b"\r\n")
    want = "A request of 127.0.0.1 was refused with 413: it exceeds limit_body"
    until(lambda: warnings(caplog) == [want])


@pytest.mark.parametrize("app", [on_threads, on_loop])
@pytest.mark.parametrize(
    ("status", "option", "path", "headers", "body"),
    [
        (414, "limit_request_line", "/" + "x" * 9000, [], b""),
        (431, "limit_field_size", "/", [("cookie", "x" * 9000)], b""),
        (431, "limit_fields", "/", [("a", "b")] * 101, b""),
        (413, "limit_body", "/", [], b"x" * 101),
    ],
)
def test_a_limit_of_http_2(
    serve_http2: Serve,
    http2: Connect,
    caplog: pytest.LogCaptureFixture,
    app: Any,
    status: int,
    option: str,
    path: str,
    headers: list[tuple[str, str]],
    body: bytes,
) -> None:
    server = serve_http2(app, limit_body=100)
    client = http2(server)
    number = client.request(path, headers, method="POST" if body else "GET", ended=not body)
    if body:
        client.body(number, body)
    assert client.answer(number).status == status
    want = f"A request of 127.0.0.1 was refused with {status}: it exceeds {option}"
    assert warnings(caplog) == [want]


def test_other_refusals_name_no_option(
    serve: Serve, connect: Callable[..., Client], caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(serve(on_threads))
    client.send(b"GET / HTTP/1.1\r\n\r\n")
    assert client.answer().status == 400
    assert warnings(caplog) == []
