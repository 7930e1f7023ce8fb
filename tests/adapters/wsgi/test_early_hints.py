"""`wsgi.early_hints`: 103 responses before the final one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from threadwell import ThreadedServer

from ...helpers.wire_client import Client
from .applications import PLAIN, Environ, StartResponse, http10

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

LINKS = [("Link", "</a.css>; rel=preload"), ("Link", "</b.js>; rel=preload")]


def _hinting(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    environ["wsgi.early_hints"](LINKS)
    start_response("200 OK", PLAIN)
    return [b"ok"]


def test_early_hints(serve: Serve, connect: Connect) -> None:
    client = connect(serve(_hinting))
    for _ in range(2):
        hints = client.get()
        assert hints.status == 103
        assert hints.headers == [("link", value) for _, value in LINKS]
        answer = client.answer()
        assert (answer.status, answer.body) == (200, b"ok")


def test_early_hints_are_not_for_http_1_0(serve: Serve, connect: Connect) -> None:
    answer = http10(connect(serve(_hinting)))
    assert (answer.status, answer.body) == (200, b"ok")


def test_early_hints_that_are_invalid(serve: Serve, connect: Connect) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.early_hints"]([("Link", "a\r\nX-Evil: 1")])
        start_response("200 OK", PLAIN)
        return [b"ok"]

    answer = connect(serve(app)).get()
    assert (answer.status, answer.header("x-evil")) == (500, None)


def test_early_hints_come_before_the_answer_is_made(serve: Serve, connect: Connect) -> None:
    read = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.early_hints"](LINKS)
        assert read.wait(10)
        start_response("200 OK", PLAIN)
        return [b"ok"]

    client = connect(serve(app))
    assert client.get().status == 103
    read.set()
    assert client.answer().status == 200
