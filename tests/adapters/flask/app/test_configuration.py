"""What Flask and Werkzeug leave to their server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import flask
import pytest
from werkzeug.middleware.proxy_fix import ProxyFix

from threadwell import ThreadedServer
from threadwell.adapters.flask import FlaskApp

from ....helpers.wire_client import Answer, Client
from .site import Site

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]


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
