"""Flask and Django as their users write them, and the promise: no event loop."""

from __future__ import annotations

import hashlib
import json
import logging
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import flask
import pytest
import requests
from werkzeug.middleware.proxy_fix import ProxyFix

from threadwell import ThreadedServer

from ..helpers.process import Script, script
from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]


def failures(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


@pytest.fixture
def session() -> Iterator[requests.Session]:
    """requests, without the proxies of the environment."""
    with requests.Session() as session:
        session.trust_env = False
        yield session


# ---- Flask ---------------------------------------------------------------------------------


class Site:
    """A Flask application, and what its hooks have seen."""

    def __init__(self, folder: Path) -> None:
        self.torn_down: list[str] = []
        self.closed = threading.Event()
        self.generators: list[str] = []
        self.go_on = threading.Event()
        self.app = flask.Flask(__name__)
        self.file = folder / "file.txt"
        self.file.write_bytes(b"0123456789" * 1000)
        self._hooks(self.app)
        self._pages(self.app)
        self._streams(self.app)

    def _hooks(self, app: flask.Flask) -> None:
        @app.teardown_request
        def teardown(_error: BaseException | None) -> None:
            self.torn_down.append(flask.request.path)

        @app.errorhandler(LookupError)
        def lookup(error: LookupError) -> tuple[str, int]:
            return f"handled: {error}", 404

    def _pages(self, app: flask.Flask) -> None:
        @app.post("/json")
        def json_view() -> Any:
            return {"got": flask.request.get_json()}

        @app.get("/where")
        def where() -> Any:
            return {
                "url": flask.request.url,
                "remote": flask.request.remote_addr,
                "secure": flask.request.is_secure,
                "root": flask.request.root_path,
            }

        @app.get("/file")
        def file() -> flask.Response:
            return flask.send_file(self.file, conditional=True)

        @app.get("/lookup")
        def fail_handled() -> str:
            raise LookupError("sought")

        @app.get("/fail")
        def fail() -> str:
            raise ValueError("the secret")

    def _streams(self, app: flask.Flask) -> None:
        @app.get("/events")
        def events() -> flask.Response:
            def blocks() -> Iterator[str]:
                yield f"data: {flask.request.args['name']}\n\n"
                assert self.go_on.wait(10)
                yield f"data: {flask.request.path}\n\n"

            response = flask.Response(flask.stream_with_context(blocks()))
            response.mimetype = "text/event-stream"
            response.call_on_close(self.closed.set)
            return response

        @app.get("/endless")
        def endless() -> flask.Response:
            def blocks() -> Iterator[bytes]:
                try:
                    while True:
                        yield b"x" * 65536
                finally:
                    self.generators.append(flask.request.path)

            response = flask.Response(flask.stream_with_context(blocks()))
            response.call_on_close(self.closed.set)
            return response


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A fresh Flask application."""
    return Site(tmp_path)


def test_flask_json(serve: Serve, connect: Connect, site: Site) -> None:
    server = serve(site.app)
    body = json.dumps({"key": "\u20ac" * 1000}).encode()
    client = connect(server)
    for framing in (
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body),
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(body), body),
    ):
        client.send(
            b"POST /json HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" + framing
        )
        assert json.loads(client.answer().body) == {"got": {"key": "\u20ac" * 1000}}
    client.send(b"POST /json HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}")
    assert client.answer().status == 415


def test_flask_event_stream(serve: Serve, connect: Connect, site: Site) -> None:
    client = connect(serve(site.app))
    client.send(b"GET /events?name=first HTTP/1.1\r\nHost: x\r\n\r\n")
    received = b""
    while b"data: first\n\n" not in received:
        received += client.sock.recv(4096)
    assert not site.closed.is_set()
    site.go_on.set()
    while not received.endswith(b"0\r\n\r\n"):
        received += client.sock.recv(4096)
    assert b"data: /events\n\n" in received
    assert site.closed.wait(10)
    assert set(site.torn_down) == {"/events"}


def test_flask_send_file(serve: Serve, session: requests.Session, site: Site) -> None:
    url = f"http://127.0.0.1:{serve(site.app).port}/file"
    data = site.file.read_bytes()
    whole = session.get(url, timeout=10)
    assert (whole.status_code, whole.content) == (200, data)
    assert whole.headers["Content-Length"] == str(len(data))
    for name, value in (
        ("If-None-Match", whole.headers["ETag"]),
        ("If-Modified-Since", whole.headers["Last-Modified"]),
    ):
        reply = session.get(url, headers={name: value}, timeout=10)
        assert (reply.status_code, reply.content) == (304, b"")
    for wanted, expected in (
        ("bytes=0-9", data[:10]),
        ("bytes=9995-", data[9995:]),
        ("bytes=-3", data[-3:]),
        ("bytes=5-5", data[5:6]),
    ):
        part = session.get(url, headers={"Range": wanted}, timeout=10)
        assert (part.status_code, part.content) == (206, expected)
    assert session.get(url, headers={"Range": "bytes=20000-"}, timeout=10).status_code == 416
    head = session.head(url, timeout=10)
    assert head.headers["Content-Length"] == str(len(data))


def test_flask_behind_a_proxy(serve: Serve, connect: Connect, site: Site) -> None:
    forwarded = (
        "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\n"
        "X-Forwarded-Host: example.org\r\nX-Forwarded-Prefix: /shop\r\n"
    )
    plain = json.loads(connect(serve(site.app)).get("/where", headers=forwarded).body)
    assert plain == {
        "url": "http://x/where",
        "remote": "127.0.0.1",
        "secure": False,
        "root": "",
    }
    site.app.wsgi_app = ProxyFix(  # type: ignore[method-assign]
        site.app.wsgi_app, x_for=1, x_proto=1, x_host=1, x_prefix=1
    )
    fixed = json.loads(connect(serve(site.app)).get("/where", headers=forwarded).body)
    assert fixed == {
        "url": "https://example.org/shop/where",
        "remote": "1.2.3.4",
        "secure": True,
        "root": "/shop",
    }


def test_flask_errors(
    serve: Serve, connect: Connect, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect(serve(site.app))
    answer = client.get("/lookup")
    assert (answer.status, answer.body) == (404, b"handled: sought")
    assert failures(caplog) == []
    answer = client.get("/fail")
    assert answer.status == 500
    assert b"secret" not in answer.body
    site.app.config["PROPAGATE_EXCEPTIONS"] = True
    answer = client.get("/fail")
    assert answer.status == 500
    assert b"secret" not in answer.body
    # one that Flask answered and logged, and one that came through to the server
    assert [record.name for record in failures(caplog)] == [__name__, "threadwell"]
    assert site.torn_down == ["/lookup", "/fail", "/fail"]


@pytest.mark.parametrize("path", ["/where", "/file", "/json", "/nowhere", "/lookup"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_flask_teardown_runs_once(
    serve: Serve, connect: Connect, site: Site, method: str, path: str
) -> None:
    server = serve(site.app)
    client = connect(server)
    client.send(f"{method} {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    client.answer(method)
    server.stop()
    assert site.torn_down == [path]


def test_flask_teardown_runs_when_the_client_has_left(
    serve: Serve, connect: Connect, site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    server = serve(site.app)
    client = connect(server)
    client.send(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.sock.recv(4096)
    assert not site.closed.is_set()
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    assert site.closed.wait(10)
    server.stop()
    # Flask's hook, once for the view and once for the generator
    assert set(site.torn_down) == {"/endless"}
    assert site.generators == ["/endless"]
    assert failures(caplog) == []


def test_flask_upload_streams_from_disk(serve: Serve, session: requests.Session) -> None:
    app = flask.Flask(__name__)

    @app.post("/")
    def upload() -> Any:
        sha = hashlib.sha256()
        for block in iter(lambda: flask.request.stream.read(10_000), b""):
            sha.update(block)
        return {"sha": sha.hexdigest(), "length": flask.request.content_length}

    blocks = [bytes([number % 256]) * 5000 for number in range(100)]
    whole = b"".join(blocks)
    url = f"http://127.0.0.1:{serve(app, memory_body=1000).port}/"
    for data in (whole, iter(blocks)):
        reply = session.post(url, data=data, timeout=10)
        assert reply.json() == {"sha": hashlib.sha256(whole).hexdigest(), "length": len(whole)}


def test_flask_limits_what_a_chunked_client_sends(serve: Serve, session: requests.Session) -> None:
    app = flask.Flask(__name__)
    app.config["MAX_CONTENT_LENGTH"] = 1000

    @app.post("/")
    def upload() -> Any:
        return {"size": len(flask.request.get_data())}

    url = f"http://127.0.0.1:{serve(app).port}/"
    assert session.post(url, data=iter([b"x" * 1000]), timeout=10).json() == {"size": 1000}
    assert session.post(url, data=iter([b"x" * 1001]), timeout=10).status_code == 413


def test_several_applications_by_middleware(serve: Serve, connect: Connect, site: Site) -> None:
    """Plain WSGI middleware around a framework: it changes headers and blocks."""

    def middleware(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        def start(status: str, headers: Any, exc_info: Any = None) -> Any:
            return start_response(status, [*headers, ("X-Seen", "1")], exc_info)

        return site.app(environ, start)

    answer = connect(serve(middleware)).get("/where")
    assert (answer.status, answer.header("x-seen")) == (200, "1")


# ---- No event loop -------------------------------------------------------------------------


def test_flask_without_asyncio(session: requests.Session) -> None:
    with script("flask_promise.py") as server:
        assert session.get(server.url, timeout=10).json() == {"asyncio": False}
        assert session.get(f"{server.url}/stream", timeout=10).content == b"xxx"
        assert session.post(server.url, data=iter([b"ab", b"c"]), timeout=10).content == b"abc"
        session.close()
        assert server.finish() == "asyncio: False\n"


# ---- Django --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def django_site() -> Iterator[Script]:
    """The Django project, served in its own process, where no event loop can be made."""
    pytest.importorskip("django")
    with script("django_site.py") as server:
        yield server


def test_django_view(django_site: Script, session: requests.Session) -> None:
    reply = session.get(f"{django_site.url}/?a=1&b=%C3%A9", timeout=10)
    said = reply.json()
    assert said["path"] == "/"
    assert said["query"] == {"a": "1", "b": "\xe9"}
    assert said["url"].startswith(django_site.url)


def test_django_requests_are_finished(django_site: Script, session: requests.Session) -> None:
    """`close` runs Django's signals, which give database connections back."""

    reads = 0

    def finished_others() -> int:
        """How many requests have finished beside the reads of this function."""
        nonlocal reads
        while True:  # a request is finished a moment after its answer has come
            reads += 1
            said = session.get(django_site.url, timeout=10).json()
            if said["finished"] == said["started"] - 1:
                return int(said["finished"]) - reads

    before = finished_others()
    for path in ("/stream", "/file", "/nowhere"):
        session.get(django_site.url + path, timeout=10)
    session.head(django_site.url, timeout=10)
    assert finished_others() == before + 4


def test_django_stream(django_site: Script, session: requests.Session) -> None:
    reply = session.get(f"{django_site.url}/stream", timeout=10)
    assert reply.text == "".join(f"data: {number}\n\n" for number in range(5))
    assert "Content-Length" not in reply.headers


def test_django_file(django_site: Script, session: requests.Session) -> None:
    for _ in range(2):
        reply = session.get(f"{django_site.url}/file", timeout=10)
        assert reply.content == bytes(range(256)) * 4096
        assert reply.headers["Content-Disposition"] == 'attachment; filename="a.bin"'
    head = session.head(f"{django_site.url}/file", timeout=10)
    assert head.headers["Content-Length"] == str(256 * 4096)


def test_django_conditional_get(django_site: Script, session: requests.Session) -> None:
    reply = session.get(f"{django_site.url}/upload", timeout=10)
    assert reply.status_code == 200
    again = session.get(
        f"{django_site.url}/upload", headers={"If-None-Match": reply.headers["ETag"]}, timeout=10
    )
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("size", [0, 10, 300_000, 3_000_000])
@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_django_sees_the_body(
    django_site: Script, session: requests.Session, size: int, chunked: bool
) -> None:
    """Django reads nothing without CONTENT_LENGTH, and so loses chunked bodies elsewhere."""
    body = bytes(number % 251 for number in range(size))
    blocks = (body[at : at + 7000] for at in range(0, size, 7000))
    reply = session.post(
        f"{django_site.url}/upload",
        data=blocks if chunked else body,
        headers={"Content-Type": "application/octet-stream"},
        timeout=10,
    )
    assert reply.json() == {"size": size, "sha": hashlib.sha256(body).hexdigest()}


def test_django_forms_and_files(django_site: Script, session: requests.Session) -> None:
    url = f"{django_site.url}/upload"
    reply = session.post(url, data={"a": "1", "b": "\u20ac"}, timeout=10)
    assert reply.json() == {"form": {"a": "1", "b": "\u20ac"}, "files": {}}
    files = {"small": b"x" * 10, "large": b"y" * 4_000_000}
    reply = session.post(url, data={"a": "1"}, files=files, timeout=10)
    assert reply.json() == {
        "form": {"a": "1"},
        "files": {"small": 10, "large": 4_000_000},
    }


def test_django_refuses_a_post_without_a_token(
    django_site: Script, session: requests.Session
) -> None:
    assert session.post(django_site.url, data={"a": "1"}, timeout=10).status_code == 403


def test_django_error(django_site: Script, session: requests.Session) -> None:
    reply = session.get(f"{django_site.url}/fail", timeout=10)
    assert reply.status_code == 500
    assert "secret" not in reply.text
    assert session.get(django_site.url, timeout=10).status_code == 200
