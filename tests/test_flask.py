"""`FlaskApp`: the same answers as by WSGI, and what Flask and Werkzeug leave to their server."""

from __future__ import annotations

import contextvars
import io
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import flask
import pytest
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.wrappers import Response

from threadwell import ThreadedServer
from threadwell.adapters import WSGIApp, as_sync_app
from threadwell.adapters.flask import FlaskApp

from .waiting import until
from .wire_client import Answer, Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("VARIABLE")


class Shouting(flask.Response):
    """A response that makes its body when it is asked for."""

    def iter_encoded(self) -> Iterator[bytes]:
        for block in super().iter_encoded():
            yield block.upper()


class Site:
    """An application with every kind of answer, and what was torn down and closed."""

    def __init__(self, folder: Path) -> None:
        self.seen: list[str] = []
        self.file = folder / "file.bin"
        self.file.write_bytes(bytes(range(256)) * 1000)
        os.utime(self.file, (1_700_000_000, 1_700_000_000))
        self.app = app = flask.Flask(__name__)
        app.secret_key = "for a test"
        self._hooks(app)
        self._answers(app)
        self._special(app)

    def note(self, what: str) -> None:
        self.seen.append(what)

    def _hooks(self, app: flask.Flask) -> None:
        @app.teardown_request
        def teardown(error: BaseException | None) -> None:
            self.note(f"teardown {flask.request.path} {type(error).__name__}")

        @app.teardown_appcontext
        def appcontext(_error: BaseException | None) -> None:
            self.note("appcontext")

        @app.after_request
        def after(response: flask.Response) -> flask.Response:
            response.headers["X-After"] = "1"
            return response

        @app.errorhandler(LookupError)
        def lookup(error: LookupError) -> tuple[str, int]:
            return f"handled: {error}", 404

    def _answers(self, app: flask.Flask) -> None:
        app.add_url_rule(
            "/text", view_func=lambda: "täxt", endpoint="text", methods=["GET", "POST"]
        )
        app.add_url_rule("/empty", view_func=lambda: "", endpoint="empty")
        app.add_url_rule("/bytes", view_func=lambda: b"\x00\xff", endpoint="bytes")
        app.add_url_rule("/json", view_func=lambda: {"a": [1, "ä"]}, endpoint="json")
        app.add_url_rule(
            "/tuple", view_func=lambda: ("made", 201, {"X-Own": "ä b"}), endpoint="tuple"
        )
        app.add_url_rule("/none", view_func=lambda: ("", 204), endpoint="none")
        app.add_url_rule("/folder/", view_func=lambda: "in it", endpoint="folder")
        app.add_url_rule("/away", view_func=lambda: flask.redirect("/täxt?a=b"), endpoint="away")
        app.add_url_rule("/blocks", view_func=lambda: Response(["one ", b"two"]), endpoint="blocks")
        app.add_url_rule("/stream", view_func=lambda: (x for x in ("a", "b")), endpoint="stream")
        app.add_url_rule("/shout", view_func=lambda: Shouting("quiet"), endpoint="shout")
        app.add_url_rule("/file", view_func=lambda: flask.send_file(self.file), endpoint="file")

        @app.get("/session")
        def session() -> str:
            flask.session["visits"] = flask.session.get("visits", 0) + 1
            return str(flask.session["visits"])

        @app.get("/fail")
        def fail() -> str:
            raise ZeroDivisionError

        @app.get("/lookup")
        def failed_lookup() -> str:
            raise KeyError("gone")

        @app.get("/abort")
        def abort() -> str:
            flask.abort(418, "short and stout")

    def _special(self, app: flask.Flask) -> None:
        @app.get("/closing")
        def closing() -> flask.Response:
            response = flask.make_response("then closed")
            response.call_on_close(lambda: self.note("closed"))
            return response

        @app.get("/etag")
        def etag() -> Response:
            response = flask.make_response("tagged")
            response.set_etag("x")
            return response.make_conditional(flask.request)

        @app.get("/dict")
        def dict_of_headers() -> Response:
            response = flask.make_response("with headers of its own")
            response.headers = {"X-Own": "1"}  # type: ignore[assignment]
            return response

        @app.get("/content-location")
        def content_location() -> Response:
            return Response("there", headers={"content-LOCATION": "/ä"})

        @app.get("/wsgi")
        def wsgi() -> Any:
            def other(environ: Any, start_response: Any) -> list[bytes]:
                start_response("200 OK", [("X-Other", "1")])
                return [b"by another WSGI application"]

            return other

        @app.post("/form")
        def form() -> Any:
            return {"form": flask.request.form, "args": flask.request.args}

        @app.get("/context")
        def context() -> Any:
            answer = {"g": flask.g.get("x"), "variable": VARIABLE.get("")}
            flask.g.x = VARIABLE.set("left behind").var.get()
            return answer

        @app.get("/forever")
        def forever() -> flask.Response:
            def blocks() -> Iterator[str]:
                try:
                    while True:
                        yield f"{flask.request.path}\n"
                        time.sleep(0.01)
                finally:
                    self.note("stream closed")

            return flask.Response(flask.stream_with_context(blocks()))


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A fresh application."""
    return Site(tmp_path)


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


class Counting:
    """Middleware that counts, and says so."""

    def __init__(self, wsgi_app: Any) -> None:
        self.wsgi_app = wsgi_app
        self.calls = 0

    def __call__(self, environ: Any, start_response: Any) -> Iterable[bytes]:
        self.calls += 1
        return self.wsgi_app(environ, start_response)  # type: ignore[no-any-return]


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


# ---- What Flask and Werkzeug leave to the server ---------------------------------------------


def application(**config: Any) -> flask.Flask:
    """An application that says what it has understood."""
    app = flask.Flask(__name__, subdomain_matching=bool(config.get("SERVER_NAME")))
    app.config.update(config)

    @app.get("/where")
    def where() -> Any:
        request = flask.request
        return {
            "url": request.url,
            "root": request.url_root,
            "host": request.host,
            "for": flask.url_for("where", _external=True),
            "remote": request.remote_addr,
            "port": request.environ["REMOTE_PORT"],
            "scheme": request.scheme,
        }

    @app.get("/", subdomain="api")
    def api() -> str:
        return "the API"

    @app.get("/")
    def index() -> str:
        return "the index"

    @app.post("/read")
    def read() -> str:
        return str(len(flask.request.get_data()))

    @app.post("/form")
    def form() -> str:
        return str(len(flask.request.form.get("field", "")))

    return app


def get(client: Client, target: str, host: str) -> Answer:
    client.send(f"GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    return client.answer()


def json_of(answer: Answer) -> Any:
    assert answer.status == 200
    return flask.json.loads(answer.body)


def test_urls_and_addresses(serve: Serve, connect: Connect) -> None:
    client = connect(serve(application()))
    facts = json_of(get(client, "/where?q=%C3%A4", "example.org:8080"))
    assert facts == {
        "url": "http://example.org:8080/where?q=ä",
        "root": "http://example.org:8080/",
        "host": "example.org:8080",
        "for": "http://example.org:8080/where",
        "remote": "127.0.0.1",
        "port": str(client.sock.getsockname()[1]),
        "scheme": "http",
    }


def test_server_name_and_subdomains(serve: Serve, connect: Connect) -> None:
    client = connect(serve(application(SERVER_NAME="example.org:8000")))
    assert get(client, "/", "example.org:8000").body == b"the index"
    assert get(client, "/", "api.example.org:8000").body == b"the API"
    assert get(client, "/", "other.example.org:8000").status == 404
    assert json_of(get(client, "/where", "example.org:8000"))["for"] == (
        "http://example.org:8000/where"
    )


def test_trusted_hosts(serve: Serve, connect: Connect) -> None:
    client = connect(serve(application(TRUSTED_HOSTS=[".example.org", "localhost"])))
    assert get(client, "/", "www.example.org").body == b"the index"
    assert get(client, "/", "localhost:5000").body == b"the index"
    assert get(client, "/", "evil.example").status == 400


def test_application_root(serve: Serve, connect: Connect) -> None:
    app = application()
    client = connect(serve(FlaskApp(app, script_name="/shop")))
    assert json_of(get(client, "/shop/where", "x"))["for"] == "http://x/shop/where"
    assert get(client, "/shop/", "x").body == b"the index"


def test_behind_a_proxy(serve: Serve, connect: Connect) -> None:
    app = application()
    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1, x_host=1, x_prefix=1)  # type: ignore[method-assign]
    client = connect(serve(app))
    client.send(
        b"GET /where HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: 1.2.3.4\r\n"
        b"X-Forwarded-Proto: https\r\nX-Forwarded-Host: example.org\r\n"
        b"X-Forwarded-Prefix: /shop\r\n\r\n"
    )
    facts = json_of(client.answer())
    assert facts["url"] == "https://example.org/shop/where"
    assert facts["remote"] == "1.2.3.4"


def chunked(body: bytes, size: int = 1000) -> bytes:
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


@pytest.mark.parametrize("framing", ["length", "chunked"])
@pytest.mark.parametrize(
    ("size", "config", "status"),
    [
        (5000, {}, 200),
        (5000, {"MAX_CONTENT_LENGTH": 5000}, 200),
        (5001, {"MAX_CONTENT_LENGTH": 5000}, 413),
        (600_000, {"MAX_CONTENT_LENGTH": 5000}, 413),
        (600_000, {}, 200),
    ],
)
def test_max_content_length(
    serve: Serve, connect: Connect, framing: str, size: int, config: dict[str, int], status: int
) -> None:
    client = connect(serve(application(**config)))
    body = b"x" * size
    if framing == "chunked":
        head, sent = "Transfer-Encoding: chunked", chunked(body)
    else:
        head, sent = f"Content-Length: {size}", body
    client.send(f"POST /read HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode() + sent)
    answer = client.answer()
    assert answer.status == status
    if status == 200:
        assert answer.body == str(size).encode()
    # whatever the application has left unread, the connection goes on with the next request
    assert get(client, "/", "x").body == b"the index"


def test_max_form_memory_size(serve: Serve, connect: Connect) -> None:
    client = connect(serve(application(MAX_FORM_MEMORY_SIZE=1000)))
    for size, status in ((900, 200), (2000, 413)):
        field = b'--x\r\nContent-Disposition: form-data; name="field"\r\n\r\n'
        client.send(
            b"POST /form HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=x\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n" + chunked(field + b"x" * size + b"\r\n--x--\r\n")
        )
        assert client.answer().status == status


def test_the_environ_is_complete(serve: Serve, connect: Connect) -> None:
    app = flask.Flask(__name__)
    app.add_url_rule("/a b", view_func=lambda: {
        key: str(value) for key, value in flask.request.environ.items()
    }, endpoint="x")  # fmt: skip
    environ = json_of(get(connect(serve(app)), "/a%20b?q=1", "x"))
    assert environ["REQUEST_METHOD"] == "GET"
    assert environ["PATH_INFO"] == "/a b"
    assert environ["RAW_URI"] == environ["REQUEST_URI"] == "/a%20b?q=1"
    assert environ["QUERY_STRING"] == "q=1"
    assert environ["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert environ["wsgi.url_scheme"] == "http"
    assert environ["wsgi.multithread"] == "True"
    assert environ["wsgi.input_terminated"] == "True"


def test_streams_are_sent_as_they_are_made(serve: Serve, connect: Connect) -> None:
    app = flask.Flask(__name__)
    go_on = threading.Event()

    @app.get("/")
    def index() -> flask.Response:
        def blocks() -> Iterator[str]:
            yield "first"
            go_on.wait(20)
            yield "second"

        return flask.Response(blocks(), mimetype="text/event-stream")

    client = connect(serve(app))
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    received = b""
    while b"first" not in received:
        received += client.sock.recv(4096)
    go_on.set()
    while not received.endswith(b"0\r\n\r\n"):
        received += client.sock.recv(4096)
    assert b"second" in received


def test_a_client_of_http_1_0(serve: Serve, site: Site) -> None:
    server = serve(site.app)
    with socket.create_connection(("127.0.0.1", server.port), 10) as sock:
        sock.sendall(b"GET /json HTTP/1.0\r\n\r\n")
        data = b""
        while received := sock.recv(4096):
            data += received
    assert data.startswith(b"HTTP/1.1 200 OK\r\n")
    assert data.endswith(b'{"a":[1,"\\u00e4"]}\n')
