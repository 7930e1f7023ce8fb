from __future__ import annotations

from collections.abc import Callable

from threadwell import ThreadedServer

from ..helpers.wire_client import Client


def hello(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def test_hello(serve: Callable[..., ThreadedServer], connect: Callable[..., Client]) -> None:
    client = connect(serve(hello))
    for _ in range(3):
        assert client.get().body == b"hello"
