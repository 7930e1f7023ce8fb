"""`FlaskApp`: the same responses as by WSGI, and what may be put around it."""

from __future__ import annotations

import contextlib
import gc
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import flask
import pytest
from werkzeug.wrappers import Response

from threadwell import ThreadedServer
from threadwell.adapters import WSGIApp, as_sync_app
from threadwell.adapters.flask import FlaskApp

from ....helpers.aborts import IMMORTAL_CLASSES
from ....helpers.wire_client import Answer, Client
from .site import Counting, Shouting, Site

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]


def ask(client: Client, method: str, target: str, headers: str = "", body: str = "") -> Answer:
    client.send(f"{method} {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n{body}".encode("latin-1"))
    return client.answer(method)


# ---- As by WSGI ----------------------------------------------------------------------------

ANSWERS = [
    *((method, path, "") for method in ("GET", "HEAD") for path in (
        "/text", "/empty", "/bytes", "/json", "/tuple", "/none", "/folder/", "/folder", "/away",
        "/blocks", "/stream", "/shout", "/file", "/session", "/fail", "/lookup", "/abort",
        "/closing", "/etag", "/content-location", "/dict", "/wsgi", "/nowhere",
    )),
    ("GET", "/etag", 'If-None-Match: "x"\r\n'),
    ("GET", "/file", "Range: bytes=10-19\r\n"),
    ("GET", "/file", "Range: bytes=999999999-\r\n"),
    ("GET", "/file", "If-Modified-Since: Thu, 01 Jan 2099 00:00:00 GMT\r\n"),
    ("POST", "/form", "Content-Length: 0\r\n"),
    ("OPTIONS", "/text", ""),
    ("DELETE", "/text", ""),
]  # fmt: skip


@pytest.mark.parametrize(("method", "target", "headers"), ANSWERS)
def test_the_answer_is_that_of_wsgi(
    serve: Serve, connect: Connect, site: Site, method: str, target: str, headers: str
) -> None:
    answers, seen = [], []
    for interface in ("wsgi", "auto"):
        server = serve(site.app, interface=interface)
        client = connect(server)
        for _ in range(2):
            answer = ask(client, method, target, headers)
            answers.append(
                (
                    answer.status,
                    answer.reason,
                    # both tell the time, a session cookie in its signature
                    sorted(
                        name if name in ("date", "set-cookie") else f"{name}: {value}"
                        for name, value in answer.headers
                    ),
                    answer.body,
                )
            )
        server.stop()
        seen.append(site.seen.copy())
        site.seen.clear()
    assert answers[0] == answers[1] == answers[2] == answers[3]
    assert seen[0] == seen[1]
    assert sum(what.startswith("teardown") for what in seen[1]) == 2


def test_which_adapter() -> None:
    app = flask.Flask("x")
    assert isinstance(as_sync_app(app), FlaskApp)
    assert type(as_sync_app(app, "wsgi")) is WSGIApp
    assert type(as_sync_app(app.wsgi_app)) is WSGIApp

    class Own(flask.Flask):
        pass

    assert isinstance(as_sync_app(Own("x")), FlaskApp)


def test_flask_is_not_imported_for_others() -> None:
    program = (
        "import sys, threadwell.adapters\n"
        "threadwell.adapters.as_sync_app(lambda environ, start_response: [])\n"
        "print(sorted({'flask', 'werkzeug', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"


def test_the_application_is_called_directly(
    serve: Serve, connect: Connect, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else none of what is measured is true; a finished answer is one block without a stream."""
    called = []
    real = Response.__call__

    def call(self: Any, *args: Any) -> Any:
        called.append(flask.request.path)
        return real(self, *args)

    client = connect(serve(site.app))
    assert client.get("/json").status == 200
    monkeypatch.setattr(Response, "__call__", call)
    # the class was found to be its own before; a patch of Werkzeug itself must come in time
    assert client.get("/stream").body == b"ab"
    assert client.get("/json").status == 200
    assert called == ["/stream"]


# ---- What is put around it -----------------------------------------------------------------


def test_middleware_that_comes_later(serve: Serve, connect: Connect, site: Site) -> None:
    client = connect(serve(site.app))
    assert client.get("/text").status == 200
    counting = Counting(site.app.wsgi_app)
    site.app.wsgi_app = counting  # type: ignore[method-assign]
    assert client.get("/text").body == "täxt".encode()
    assert client.get("/fail").status == 500
    assert counting.calls == 2
    del site.app.wsgi_app
    client.get("/text")
    assert counting.calls == 2


@pytest.mark.parametrize("name", ["wsgi_app", "__call__"])
def test_a_subclass_that_overrides(serve: Serve, connect: Connect, site: Site, name: str) -> None:
    called = []

    def override(self: Any, environ: Any, start_response: Any) -> Any:
        called.append(environ["PATH_INFO"])
        return getattr(flask.Flask, name)(self, environ, start_response)

    site.app.__class__ = type("Own", (flask.Flask,), {name: override})
    assert connect(serve(site.app)).get("/text").status == 200
    assert called == ["/text"]


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("name", ["wsgi_app", "__call__"])
def test_a_patch_of_flask_itself(
    serve: Serve,
    connect: Connect,
    site: Site,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    late: bool,
) -> None:
    """As tracing tools do it."""
    called = []
    real = getattr(flask.Flask, name)

    def patched(self: Any, environ: Any, start_response: Any) -> Any:
        called.append(environ["PATH_INFO"])
        return real(self, environ, start_response)

    if not late:
        monkeypatch.setattr(flask.Flask, name, patched)
    client = connect(serve(site.app))
    client.get("/json")
    if late:
        assert called == []
        monkeypatch.setattr(flask.Flask, name, patched)
        client.get("/json")
    assert called == ["/json"]


def test_methods_that_a_subclass_overrides(serve: Serve, connect: Connect) -> None:
    class Own(flask.Flask):
        response_class = Shouting

        def full_dispatch_request(self) -> flask.Response:
            response = super().full_dispatch_request()
            response.headers["X-Dispatched"] = "1"
            return response

        def handle_exception(self, e: Exception) -> flask.Response:
            return self.make_response((f"own page of {type(e).__name__}", 500))

    app = Own(__name__)
    app.add_url_rule("/fail", view_func=lambda: 1 // 0, endpoint="fail")
    app.add_url_rule("/", view_func=lambda: "text", endpoint="text")
    client = connect(serve(app))
    answer = client.get("/")
    assert (answer.body, answer.header("x-dispatched")) == (b"TEXT", "1")
    answer = client.get("/fail")
    assert (answer.status, answer.body) == (500, b"OWN PAGE OF ZERODIVISIONERROR")


def test_an_unknown_flask_is_served_by_wsgi(
    serve: Serve, connect: Connect, site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = flask.Flask.wsgi_app

    def full_dispatch_request(self: Any, context: Any) -> Any:
        raise AssertionError("called as it was in another version")

    with monkeypatch.context() as patched:
        patched.setattr(flask.Flask, "full_dispatch_request", full_dispatch_request)
        adapted = FlaskApp(site.app)
    assert flask.Flask.wsgi_app is real
    monkeypatch.setattr(flask.Flask, "request_context", flask.Flask.request_context)
    counting = Counting(flask.Flask.wsgi_app.__get__(site.app))
    site.app.wsgi_app = counting  # type: ignore[method-assign]
    assert connect(serve(adapted)).get("/json").status == 200
    assert counting.calls == 1


def test_exceptions_are_propagated(
    serve: Serve, connect: Connect, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """With TESTING or PROPAGATE_EXCEPTIONS the server answers, and logs; once."""
    site.app.testing = True
    answer = connect(serve(site.app)).get("/fail")
    assert (answer.status, answer.body) == (500, b"Internal Server Error\n")
    assert site.seen == ["teardown /fail ZeroDivisionError", "appcontext"]
    assert [record.name for record in caplog.records if record.exc_info] == ["threadwell"]


@pytest.mark.skipif(IMMORTAL_CLASSES, reason="a class stays for ever on this Python")
def test_a_response_class_of_one_request_is_forgotten(serve: Serve, connect: Connect) -> None:
    """As flask-sock makes them: such a class holds the request, and all of its connection."""
    app = flask.Flask(__name__)
    made: list[weakref.ref[type]] = []

    @app.route("/")
    def view() -> flask.Response:
        class OfThisRequest(flask.Response):
            request = flask.request._get_current_object()  # type: ignore[attr-defined]

        made.append(weakref.ref(OfThisRequest))
        return OfThisRequest("text")

    client = connect(serve(app))
    for _ in range(3):
        assert client.get().body == b"text"
    client.get("/nowhere")  # the last request of a connection is still there
    gc.collect()
    assert [reference() for reference in made] == [None] * 3


def test_a_hijack_that_is_refused_is_no_page_of_flask(serve: Serve, connect: Connect) -> None:
    """Flask, or the view, may make a page of the error. It is the server that has no room."""
    app = flask.Flask(__name__)
    go_on = threading.Event()

    @app.get("/blocks")
    def blocks() -> Response:
        def wait() -> Iterator[bytes]:
            yield b"one "
            assert go_on.wait(10)
            yield b"two"

        return Response(wait())

    @app.get("/raw")
    def raw() -> str:
        flask.request.environ["werkzeug.socket"].sendall(b"raw")
        return "never"

    @app.get("/caught")
    def caught() -> str:
        with contextlib.suppress(OSError, RuntimeError):
            raw()
        return "caught"

    server = serve(app, max_streams=1, threads=2)
    first, second = connect(server), connect(server)
    first.send(b"GET /blocks HTTP/1.1\r\nHost: x\r\n\r\n")
    assert first.sock.recv(1)  # so it has begun
    for path in ("/raw", "/caught"):
        assert ask(second, "GET", path, "Connection: Upgrade\r\nUpgrade: x\r\n").status == 503
    go_on.set()
    received = b""
    while not received.endswith(b"0\r\n\r\n"):
        received += first.sock.recv(4096)
