"""Clients of HTTP/2 that others have made, and the end of servers that they talk to."""

from __future__ import annotations

import logging
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from threadwell import ConfigError, Request, Response, ThreadedServer

from ..helpers.certificates import Authority
from ..helpers.http2_client import Http2Client
from ..helpers.supervised import APP, Clients, Supervised
from ..helpers.waiting import until

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Http2Client]
Command = Callable[..., Supervised]
MIB = 1024 * 1024

FLASK = """
import flask
app = flask.Flask(__name__)

@app.route("/", methods=["GET", "POST"])
def index():
    return flask.request.get_data() or "hello over " + flask.request.environ["SERVER_PROTOCOL"]

@app.get("/stream")
def stream():
    return flask.Response(b"x" * 1000 for _ in range(100))
"""
DJANGO = """
from django.conf import settings
settings.configure(ALLOWED_HOSTS=["127.0.0.1"], ROOT_URLCONF=__name__, SECRET_KEY="for tests",
                   DATA_UPLOAD_MAX_MEMORY_SIZE=10_000_000, USE_TZ=True)
from django.core.wsgi import get_wsgi_application
from django.http import HttpResponse, StreamingHttpResponse
from django.urls import path

def index(request):
    return HttpResponse(request.body or "hello over " + request.META["SERVER_PROTOCOL"])

def stream(request):
    return StreamingHttpResponse(b"x" * 1000 for _ in range(100))

urlpatterns = [path("", index), path("stream", stream)]
app = get_wsgi_application()
"""
WSGI = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/stream":
        return (b"x" * 1000 for _ in range(100))
    text = "hello over " + environ["SERVER_PROTOCOL"]
    return [environ["wsgi.input"].read() or text.encode()]
"""
SYNC = """
from threadwell import Response

def app(request):
    if request.path == "/stream":
        return Response(200, [], (b"x" * 1000 for _ in range(100)))
    return Response(200, [], request.read() or f"hello over HTTP/{request.version}".encode())

app.threadwell_interface = "sync"
"""
ASGI = """
async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        raise RuntimeError
    body = b""
    while True:
        message = await receive()
        body += message["body"]
        if not message["more_body"]:
            break
    await send({"type": "http.response.start", "status": 200, "headers": []})
    if scope["path"] == "/stream":
        for _ in range(100):
            await send({"type": "http.response.body", "body": b"x" * 1000, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
        return
    text = "hello over HTTP/" + scope["http_version"]
    await send({"type": "http.response.body", "body": body or text.encode()})
"""


@pytest.fixture
def command(tmp_path: Path, certificate_of_http2: dict[str, str]) -> Iterator[Command]:
    """`command(text, *arguments)`: the command, with HTTP/2 and an application of `text`."""
    servers = []

    def run(text: str, *arguments: str) -> Supervised:
        (tmp_path / "app.py").write_text(text)
        files = [f"--{name}={path}" for name, path in certificate_of_http2.items()]
        arguments = ("app:app", "--http2", "--bind", "127.0.0.1:0", *files, *arguments)
        servers.append(Supervised(tmp_path, *arguments))
        return servers[-1]

    yield run
    for server in servers:
        server.close()


def program(name: str) -> str:
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"there is no {name} here")
    return path


def run(name: str, *arguments: str) -> str:
    result = subprocess.run(
        [program(name), *arguments], check=True, capture_output=True, timeout=50
    )
    return result.stdout.decode("latin-1")


# ---- Programs --------------------------------------------------------------------------------


@pytest.mark.parametrize("text", [FLASK, DJANGO, WSGI, SYNC, ASGI],
                         ids=["flask", "django", "wsgi", "sync", "asgi"])  # fmt: skip
def test_clients(command: Command, authority: Authority, tmp_path: Path, text: str) -> None:
    server = command(text)
    url = f"https://127.0.0.1:{server.port}/"
    # httpx
    with httpx.Client(http2=True, verify=authority.trusting()) as client:
        answer = client.get(url)
        assert (answer.http_version, answer.text) == ("HTTP/2", "hello over HTTP/2")
        assert client.post(url, content=b"x" * MIB).content == b"x" * MIB
        assert client.get(url + "stream").content == b"x" * 100_000
    # curl
    curl = ("--http2", "--silent", "--show-error", "--cacert", str(authority.cert))
    shown = run("curl", *curl, "--write-out", " %{http_version} %{http_code}", url)
    assert shown == "hello over HTTP/2 2 200"
    body = tmp_path / "body"
    body.write_bytes(bytes(range(256)) * (MIB // 256))
    shown = run("curl", *curl, "--data-binary", f"@{body}", url)
    assert shown.encode("latin-1") == body.read_bytes()
    assert run("curl", *curl, url + "stream") == "x" * 100_000
    assert "HTTP/2 200" in run("curl", *curl, "--head", url)
    # nghttp
    shown = run("nghttp", "--verbose", url, url + "stream")
    assert shown.count(":status: 200") == 2
    assert "error_code=NO_ERROR" in shown
    # h2load
    shown = run("h2load", "--requests=500", "--clients=4", "--max-concurrent-streams=25", url)
    assert "500 succeeded, 0 failed, 0 errored" in shown
    shown = run("h2load", "-n20", "-c2", "-m10", f"--data={body}", url)
    assert "20 succeeded, 0 failed, 0 errored" in shown
    assert server.end() == 0
    assert not server.said("Traceback")
    assert not server.said("ResourceWarning")


def test_http1_stays_with_those_who_want_it(command: Command, authority: Authority) -> None:
    server = command(FLASK)
    url = f"https://127.0.0.1:{server.port}/"
    with httpx.Client(verify=authority.trusting()) as client:
        assert client.get(url).text == "hello over HTTP/1.1"


def test_it_is_not_offered_unasked(
    serve: Serve, authority: Authority, certificate_of_http2: dict[str, str]
) -> None:
    server = serve(lambda request: Response(200, [], b""), **certificate_of_http2)
    context = authority.trusting()
    context.set_alpn_protocols(["h2", "http/1.1"])
    raw = socket.create_connection(("127.0.0.1", server.port), 10)
    with context.wrap_socket(raw, server_hostname="127.0.0.1") as sock:
        assert sock.selected_alpn_protocol() == "http/1.1"


# ---- Options ---------------------------------------------------------------------------------


def test_it_needs_tls() -> None:
    with pytest.raises(ConfigError, match=r"^http2: clients negotiate it in TLS; give certfile"):
        ThreadedServer(lambda request: Response(200), http2=True, bind="127.0.0.1:0").start()


def test_it_needs_hpack(
    monkeypatch: pytest.MonkeyPatch, certificate_of_http2: dict[str, str]
) -> None:
    monkeypatch.setitem(sys.modules, "hpack", None)
    server = ThreadedServer(
        lambda request: Response(200), http2=True, bind="127.0.0.1:0", **certificate_of_http2
    )
    with pytest.raises(ConfigError, match=r"hpack is not installed; pip install hpack"):
        server.start()


@pytest.mark.parametrize("poller", ["auto", "queue"])
def test_with_every_poller(serve_http2: Serve, http2: Connect, poller: str) -> None:
    def app(request: Request) -> Response:
        body: Any = iter([b"a", b"b"]) if request.path == "/stream" else request.read()
        return Response(200, [], body)

    client = http2(serve_http2(app, poller=poller))
    numbers = [client.get("/stream") for _ in range(20)]
    assert all(client.answer(number).body == b"ab" for number in numbers)
    assert client.fetch("/", method="POST", body=b"x" * MIB).body == b"x" * MIB


def test_an_idle_client_gives_way(
    serve_http2: Serve, http2: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    server = serve_http2(lambda request: Response(200, [], b"x"), limit_connections=2)
    for _ in range(4):
        assert http2(server).fetch().body == b"x"


# ---- The end ---------------------------------------------------------------------------------


def test_what_is_under_way_is_finished(serve_http2: Serve, http2: Connect) -> None:
    begun, going = threading.Semaphore(0), threading.Event()

    def blocks() -> Iterator[bytes]:
        yield b"begun "
        begun.release()
        assert going.wait(10)
        yield b"finished"

    def app(request: Request) -> Response:
        if request.path == "/stream":
            return Response(200, [], blocks())
        begun.release()
        assert going.wait(10)
        return Response(200, [], request.read())

    server = serve_http2(app, graceful_timeout=20)
    client = http2(server)
    plain, stream = client.get("/"), client.get("/stream")
    upload = client.request("/", method="POST", ended=False)
    for _ in range(2):
        assert begun.acquire(timeout=10)
    client.settle()
    stopper = threading.Thread(target=server.stop)
    stopper.start()
    client.until(lambda: client.goaways)
    assert client.goaways == [(0, upload)]
    late = client.get("/")
    client.body(upload, b"uploaded")
    assert client.answer(late).reset == 7  # refused: it may be sent again elsewhere
    going.set()
    assert client.answer(plain).status == 200
    assert client.answer(stream).body == b"begun finished"
    assert client.answer(upload).body == b"uploaded"
    client.end()
    client.close()
    stopper.join(10)
    assert not stopper.is_alive()


def test_what_does_not_end_is_cut(serve_http2: Serve, http2: Connect) -> None:
    closed = threading.Event()

    def blocks() -> Iterator[bytes]:
        try:
            while True:
                yield b"x"
                closed.wait(0.01)
        finally:
            closed.set()

    headers = [("Content-Type", "text/event-stream")]
    for sent in ([], headers):
        closed.clear()
        server = serve_http2(
            lambda request, sent=sent: Response(200, sent, blocks()), graceful_timeout=0.5
        )
        client = http2(server)
        number = client.get()
        client.until(lambda number=number, client=client: client.answers[number].octets)
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        client.end()
        client.close()
        stopper.join(10)
        assert not stopper.is_alive()
        assert closed.wait(10)
        assert client.answers[number].ended is bool(sent)


@pytest.mark.parametrize("first", ["/events", "/slow"])
def test_an_event_stream_costs_no_other_stream_its_grace(
    serve_http2: Serve, http2: Connect, first: str
) -> None:
    """Nor does another one make the server wait for it when that has ended."""
    begun, going, over = threading.Semaphore(0), threading.Event(), threading.Event()

    def events() -> Iterator[bytes]:
        yield b"data: 1\n\n"
        begun.release()
        over.wait(20)

    def app(request: Request) -> Response:
        if request.path == "/events":
            return Response(200, [("Content-Type", "text/event-stream")], events())
        begun.release()
        assert going.wait(10)
        return Response(200, [], b"slow")

    server = serve_http2(app, graceful_timeout=20)
    client = http2(server)
    numbers = {}
    for path in sorted(["/events", "/slow"], key=lambda path: path != first):
        numbers[path] = client.get(path)
        assert begun.acquire(timeout=10)
    client.until(lambda: client.answers[numbers["/events"]].body)
    stopper = threading.Thread(target=server.stop)
    stopper.start()
    client.until(lambda: client.goaways)
    time.sleep(1)  # longer than an event stream that is alone would have
    going.set()
    assert client.answer(numbers["/slow"]).body == b"slow"
    client.end()
    stopper.join(10)
    assert not stopper.is_alive()
    over.set()


class Load(Clients):
    """Clients that ask again and again, several streams at once, and heed what GOAWAY says."""

    def __init__(self, port: int, authority: Authority) -> None:
        self.repeated = 0
        self.versions: set[str] = set()
        self._port, self._authority = port, authority
        super().__init__(4)

    def _run(self) -> None:
        while not self._over.is_set():
            try:
                client = Http2Client(self._port, self._authority.trusting(), timeout=20)
            except ConnectionError:  # by a worker that ends: nothing was asked
                continue
            try:
                while not (client.goaways or self._over.is_set()):
                    self._ask(client, [client.get() for _ in range(5)])
            except Exception as error:
                self.failures.append(repr(error))
            client.close()

    def _ask(self, client: Http2Client, numbers: list[int]) -> None:
        for number in numbers:
            try:
                answer = client.answer(number)
            except AssertionError:
                if client.goaways and number > client.goaways[-1][1]:
                    self.repeated += 1
                    continue
                raise
            if answer.reset == 7:
                self.repeated += 1
                continue
            assert (answer.status, answer.ended) == (200, True), (answer.headers, answer.reset)
            with self._lock:
                self.answers += 1
                self.versions.add(answer.body.split()[0].decode())


@pytest.mark.parametrize("workers", ["1", "2"])
def test_reloads_lose_nothing(
    command: Command, authority: Authority, tmp_path: Path, workers: str
) -> None:
    extra = ("--max-requests", "1000000") if workers == "1" else ()
    server = command(APP.format(version="v0"), "--workers", workers, *extra)
    with Load(server.port, authority) as load:
        for turn in range(1, 4):
            load.more()
            (tmp_path / "app.py").write_text(APP.format(version=f"v{turn}"))
            server.send(signal.SIGHUP)
            server.await_line("The new application is served", turn)
            load.more()
            until(lambda turn=turn: f"v{turn}" in load.versions)
    assert not load.failures


def test_at_sigterm_nothing_is_lost(command: Command, authority: Authority) -> None:
    server = command(FLASK)
    with Load(server.port, authority) as load:
        load.more()
        load._over.set()  # the connections stay open, idle, or with their last requests
        assert server.end() == 0
    assert not load.failures
