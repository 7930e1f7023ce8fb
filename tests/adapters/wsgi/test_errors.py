"""Exceptions of an application, before and after the first byte of its response."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import pytest

from threadwell import ThreadedServer

from ...helpers.wire_client import Client
from .applications import ERRORS, PLAIN, Environ, StartResponse, failures

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("where", ["call", "lazy", "first", "after start", "iter"])
def test_an_error_before_the_first_byte(
    serve: Serve,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    where: str,
) -> None:
    error = ERRORS[kind]()

    def lazy() -> Iterator[bytes]:
        raise error
        yield b""

    class Bad:
        def __iter__(self) -> Iterator[bytes]:
            raise error

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/fine":
            start_response("200 OK", PLAIN)
            return [b"fine"]
        if where == "call":
            raise error
        if where == "lazy":
            return lazy()
        start_response("200 OK", [("X-Lost", "1")])
        if where == "after start":
            raise error
        return Bad() if where == "iter" else lazy()

    server = serve(app, threads=1)
    client = connect(server)
    answer = client.get("/bad")
    assert (answer.status, answer.complete, answer.header("x-lost")) == (500, True, None)
    for word in (b"secret", b"Traceback", b"Error:", b"test_wsgi"):
        assert word not in answer.body
    records = failures(caplog)
    assert len(records) == 1
    assert records[0].exc_info is not None
    assert records[0].exc_info[1] is error
    assert connect(server).get("/fine").body == b"fine"
    assert client.get("/fine").body == b"fine"


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("declared", [False, True])
def test_an_error_after_the_first_byte(
    serve: Serve,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    declared: bool,
) -> None:
    error = ERRORS[kind]()

    def blocks() -> Iterator[bytes]:
        yield b"partial"
        raise error

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "100")] if declared else [])
        return blocks() if environ["PATH_INFO"] == "/bad" else [b"x" * 100]

    server = serve(app, threads=1)
    answer = connect(server).get("/bad")
    assert (answer.status, answer.body, answer.complete) == (200, b"partial", False)
    records = failures(caplog)
    assert len(records) == 1
    assert records[0].exc_info is not None
    assert records[0].exc_info[1] is error
    assert connect(server).get("/fine").complete


def test_an_error_after_the_first_byte_shows_to_http_1_0(serve: Serve, connect: Connect) -> None:
    """Only a reset tells such a client that the body is not whole."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        yield b"partial"
        raise LookupError

    client = connect(serve(app))
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        while client.sock.recv(4096):
            pass


@pytest.mark.parametrize("kind", ERRORS)
def test_many_errors_leave_the_threads_alive(serve: Serve, connect: Connect, kind: str) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/bad":
            error = ERRORS[kind]()
            raise error
        start_response("200 OK", PLAIN)
        return [b"fine"]

    server = serve(app, threads=2)
    for _ in range(10):
        assert connect(server).get("/bad").status == 500
    assert connect(server).get("/fine").body == b"fine"
