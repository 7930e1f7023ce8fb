"""`wsgiref.validate` in front of an application finds nothing to complain of."""

from __future__ import annotations

import wsgiref.validate
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from threadwell import ThreadedServer

from ...helpers.wire_client import Client
from .applications import PLAIN, Environ, StartResponse

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]


def _reference(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """A plain application that uses everything the validator watches."""
    environ["wsgi.errors"].write("")
    environ["wsgi.errors"].flush()
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    path = environ["PATH_INFO"]
    if path == "/write":
        write = start_response("200 OK", PLAIN)
        write(b"written ")
        return [b"returned"]
    if path == "/nothing":
        start_response("204 No Content", [])
        return []
    start_response("200 OK", PLAIN)
    if path == "/stream":
        return (b"%d " % number for number in range(10))
    return [b"got ", body]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("GET", "/", b"got "),
        ("GET", "/?a=b", b"got "),
        ("POST", "/", b"got some body"),
        ("PUT", "/stream", b"0 1 2 3 4 5 6 7 8 9 "),
        ("HEAD", "/", b""),
        ("HEAD", "/stream", b""),
        ("GET", "/stream", b"0 1 2 3 4 5 6 7 8 9 "),
        ("GET", "/write", b"written returned"),
        ("GET", "/nothing", b""),
        ("DELETE", "/", b"got "),
        ("OPTIONS", "/", b"got "),
    ],
)
def test_the_validator_does_not_complain(
    serve: Serve,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    method: str,
    target: str,
    expected: bytes,
) -> None:
    reference: Any = _reference
    server = serve(wsgiref.validate.validator(reference))
    client = connect(server)
    for framing in (
        b"Content-Length: 9\r\n\r\nsome body",
        b"Transfer-Encoding: chunked\r\n\r\n9\r\nsome body\r\n0\r\n\r\n",
    ):
        client.send(f"{method} {target} HTTP/1.1\r\nHost: x\r\n".encode())
        client.send(framing if method in ("POST", "PUT") else b"\r\n")
        answer = client.answer(method)
        assert answer.status == (204 if target == "/nothing" else 200)
        assert answer.body == expected
    server.stop()
    assert caplog.records == []
    assert capfd.readouterr().err == ""
