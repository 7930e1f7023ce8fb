"""Flask's contexts under `FlaskApp`: when they end; and files by sendfile."""

from __future__ import annotations

import contextvars
import io
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import flask
import pytest

from threadwell import ThreadedServer

from ....helpers.waiting import until
from ....helpers.wire_client import Client
from .site import VARIABLE, Counting, Site

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]


# ---- Contexts and ends ---------------------------------------------------------------------


def test_requests_see_nothing_of_each_other(serve: Serve, site: Site, connect: Connect) -> None:
    server = serve(site.app, threads=4)

    def visit(_number: int) -> set[bytes]:
        client = connect(server)
        return {client.get("/context").body for _ in range(50)}

    with ThreadPoolExecutor(8) as pool:
        answers = set().union(*pool.map(visit, range(8)))
    assert answers == {b'{"g":null,"variable":""}\n'}


def test_worker_threads_begin_with_an_empty_context(serve: Serve, connect: Connect) -> None:
    """Free-threaded Python would hand down the context of whoever starts the server."""
    app = flask.Flask(__name__)
    app.add_url_rule("/", view_func=lambda: VARIABLE.get("empty"), endpoint="index")

    def start() -> ThreadedServer:
        VARIABLE.set("of the test")
        with app.app_context():
            return serve(app)

    server = contextvars.copy_context().run(start)
    assert connect(server).get("/").body == b"empty"


# A view's teardown runs once more when the stream that keeps its context is closed.
ENDED = ["stream closed", "teardown /forever GeneratorExit", "appcontext"]


def test_a_stream_ends_when_its_client_has_left(serve: Serve, connect: Connect, site: Site) -> None:
    client = connect(serve(site.app))
    client.send(b"GET /forever HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.sock.recv(4096)
    client.close()
    until(lambda: site.seen[-1:] == ["appcontext"] and "stream closed" in site.seen)
    assert site.seen[-3:] == ENDED


def test_a_stream_ends_with_the_server(serve: Serve, connect: Connect, site: Site) -> None:
    server = serve(site.app)
    client = connect(server)
    client.send(b"GET /forever HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.sock.recv(4096)
    server.stop(0.1)
    until(lambda: site.seen[-1:] == ["appcontext"] and "stream closed" in site.seen)
    assert site.seen[-3:] == ENDED


def test_teardown_runs_when_the_answer_cannot_be_sent(
    serve: Serve, connect: Connect, site: Site
) -> None:
    begun, go_on = threading.Event(), threading.Event()

    @site.app.get("/slow")
    def slow() -> str:
        begun.set()
        go_on.wait(20)
        return "x" * 1_000_000

    client = connect(serve(site.app))
    client.send(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
    assert begun.wait(20)
    client.close()
    go_on.set()
    until(lambda: len(site.seen) == 2)


# ---- Files ---------------------------------------------------------------------------------


@pytest.fixture
def sendfiles(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """Offset and count of what each `os.sendfile` sent."""
    sent = []
    real = os.sendfile

    def sendfile(out: int, file: int, offset: int, count: int) -> int:
        done = real(out, file, offset, count)
        sent.append((offset, done))
        return done

    monkeypatch.setattr(os, "sendfile", sendfile)
    return sent


@pytest.mark.parametrize("around", [None, Counting])
@pytest.mark.parametrize(
    ("wanted", "first", "last"),
    [("", 0, 255_999), ("bytes=0-9", 0, 9), ("bytes=1000-200999", 1000, 200_999),
     ("bytes=255990-", 255_990, 255_999), ("bytes=-3", 255_997, 255_999)],
)  # fmt: skip
def test_send_file_goes_by_sendfile(
    serve: Serve,
    connect: Connect,
    site: Site,
    sendfiles: list[tuple[int, int]],
    around: Any,
    wanted: str,
    first: int,
    last: int,
) -> None:
    if around:
        site.app.wsgi_app = around(site.app.wsgi_app)  # type: ignore[method-assign]
    client = connect(serve(site.app))
    client.get("/text")
    before = len(os.listdir("/proc/self/fd"))
    answer = client.get("/file", headers=f"Range: {wanted}\r\n" if wanted else "")
    assert answer.status == (206 if wanted else 200)
    assert answer.body == site.file.read_bytes()[first : last + 1]
    assert client.get("/text").status == 200  # and the call before it has been noted
    assert sum(count for _, count in sendfiles) == last + 1 - first
    assert sendfiles[0][0] == first
    assert len(os.listdir("/proc/self/fd")) == before


def test_an_if_range_that_does_not_match(serve: Serve, connect: Connect, site: Site) -> None:
    client = connect(serve(site.app))
    tag = client.get("/file").header("etag")
    assert client.get("/file", headers=f"Range: bytes=0-9\r\nIf-Range: {tag}\r\n").status == 206
    assert client.get("/file", headers='Range: bytes=0-9\r\nIf-Range: "no"\r\n').status == 200


def test_a_range_of_what_is_no_file(serve: Serve, connect: Connect, site: Site) -> None:

    site.app.add_url_rule(
        "/memory",
        view_func=lambda: flask.send_file(
            io.BytesIO(b"0123456789" * 10), "text/plain", conditional=True, etag=False
        ),
        endpoint="memory",
    )
    client = connect(serve(site.app))
    assert client.get("/memory").body == b"0123456789" * 10
