"""HTTP/2 to sync applications: their threads answer, the loop frames."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, send_file
from flask import Response as FlaskResponse
from flask import request as flask_request

from threadwell import Request, Response, ThreadedServer
from threadwell.worker.http2.thread_task import ThreadStream
from threadwell.worker.lifecycle import (
    ClientGone,
    RequestStarted,
    ResponseCompleted,
    StreamClosed,
)

from ..helpers.certificates import Authority
from ..helpers.http2_client import Http2Client
from ..helpers.recorder import Recorder
from ..helpers.waiting import until

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Http2Client]
MIB = 1024 * 1024


# ---- Answers -------------------------------------------------------------------------------


def test_an_answer(serve_http2: Serve, http2: Connect) -> None:
    def app(request: Request) -> Response:
        assert threading.current_thread().name.startswith("threadwell-")
        assert "http2" not in threading.current_thread().name
        shown = [request.method, request.target, request.path, request.query, request.version]
        return Response(
            "200 Fine",
            [("Content-Type", "application/json"), ("X-UPPER", "Value"), ("Connection", "close")],
            json.dumps([shown, request.headers, request.scheme]).encode(),
        )

    client = http2(serve_http2(app))
    answer = client.fetch("/a%20b?c=d", ("x-one", "1"))
    assert answer.status == 200
    assert answer.headers["server"] == "threadwell"
    assert answer.headers["x-upper"] == "Value"
    assert "date" in answer.headers
    assert "connection" not in answer.headers
    assert answer.headers["content-length"] == str(len(answer.body))
    shown, headers, scheme = json.loads(answer.body)
    assert shown == ["GET", "/a%20b?c=d", "/a%20b", "c=d", "2"]
    assert headers == [["host", "127.0.0.1"], ["x-one", "1"]]
    assert scheme == "https"


def test_a_head_of_several_frames(serve_http2: Serve, http2: Connect) -> None:
    headers = [("X-Large", "x" * 40_000), ("X-Last", "1")]
    client = http2(serve_http2(lambda request: Response(200, headers, b"body")))
    for _ in range(2):
        answer = client.fetch()
        assert (answer.headers["x-large"], answer.headers["x-last"]) == ("x" * 40_000, "1")
        assert answer.body == b"body"


def test_many_at_once_on_one_connection(serve_http2: Serve, http2: Connect) -> None:
    client = http2(serve_http2(lambda request: Response(200, [], request.path.encode())))
    numbers = {client.get(f"/{n}"): f"/{n}".encode() for n in range(100)}
    for number, expected in numbers.items():
        answer = client.answer(number)
        assert (answer.status, answer.body) == (200, expected)


def test_streams_do_not_wait_for_one_another(serve_http2: Serve, http2: Connect) -> None:
    going = threading.Event()

    def app(request: Request) -> Response:
        if request.path == "/slow":
            assert going.wait(10)
        return Response(200, [], b"done")

    client = http2(serve_http2(app))
    slow = client.get("/slow")
    assert client.fetch("/quick").body == b"done"
    assert not client.answers[slow].over
    going.set()
    assert client.answer(slow).body == b"done"


def test_connections_have_their_turns(serve_http2: Serve, http2: Connect) -> None:
    """However many requests one has made at once."""
    begun, going = threading.Event(), threading.Event()
    called: list[str] = []

    def app(request: Request) -> Response:
        called.append(request.path)
        begun.set()
        assert going.wait(10)
        return Response(200, [], b"")

    server = serve_http2(app, threads=1)
    client, other = http2(server), http2(server)
    other.settle()  # its handshake is done here, too, and wants the only thread no more
    numbers = [client.get("/many") for _ in range(50)]
    assert begun.wait(10)
    client.settle()
    only = other.get("/only")
    other.settle()
    going.set()
    assert other.answer(only).status == 200
    assert all(client.answer(number).status == 200 for number in numbers)
    assert called.index("/only") <= 2
    assert len(called) == 51


@pytest.mark.parametrize(
    ("status", "method", "body"),
    [(200, "HEAD", b"four"), (204, "GET", b""), (304, "GET", b"four"), (200, "GET", b"")],
)
def test_answers_without_a_body(
    serve_http2: Serve, http2: Connect, status: int, method: str, body: bytes
) -> None:
    client = http2(serve_http2(lambda request: Response(status, [], body)))
    answer = client.fetch("/", method=method)
    assert (answer.status, answer.body, answer.reset) == (status, b"", None)
    if method == "HEAD":
        assert answer.headers["content-length"] == "4"


def test_no_header_of_a_connection_leaves(serve_http2: Serve, http2: Connect) -> None:
    names = ["Connection", "Keep-Alive", "Transfer-Encoding", "Upgrade", "Proxy-Connection", "TE"]
    client = http2(serve_http2(lambda r: Response(200, [(name, "x") for name in names], b"")))
    assert not {name.lower() for name in names} & set(client.fetch().headers)


def test_what_must_not_leave_is_an_error(
    serve_http2: Serve, http2: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client = http2(serve_http2(lambda request: Response(200, [("X-A", "b\r\nX-C: d")], b"")))
    assert client.fetch().status == 500
    assert "control character" in caplog.text


def test_an_error_costs_a_stream(
    serve_http2: Serve, http2: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    def app(request: Request) -> Response:
        if request.path == "/fails":
            raise SystemExit(3)
        return Response(200, [], b"well")

    client = http2(serve_http2(app))
    assert client.fetch("/fails").status == 500
    assert client.fetch("/").body == b"well"
    assert "The application failed on GET /fails" in caplog.text


# ---- Bodies that leave ----------------------------------------------------------------------


def test_a_large_answer_waits_for_the_clients_windows(serve_http2: Serve, http2: Connect) -> None:
    body = b"0123456789abcdef" * (4 * MIB // 16)
    client = http2(serve_http2(lambda request: Response(200, [], body)))
    assert client.fetch().body == body
    numbers = [client.get() for _ in range(4)]
    assert all(client.answer(number).body == body for number in numbers)


def test_a_thread_waits_where_nobody_reads(serve_http2: Serve, http2: Connect) -> None:
    made: list[int] = []
    closed = threading.Event()

    def blocks() -> Iterator[bytes]:
        try:
            for number in range(200):
                made.append(number)
                yield b"x" * 65536
        finally:
            closed.set()

    server = serve_http2(
        lambda request: Response(200, [], b"quick" if request.path == "/quick" else blocks())
    )
    client = http2(server, read=False)
    number = client.get()
    client.until(lambda: len(client.answers[number].octets) == 65535)
    assert client.fetch("/quick", method="HEAD").status == 200  # others have their turn
    assert len(made) < 10
    client.conn.reset_stream(number)
    client.flush()
    assert closed.wait(10)
    assert len(made) < 10


def test_blocks_leave_as_they_are_made(serve_http2: Serve, http2: Connect) -> None:
    going = threading.Semaphore(0)
    closed = threading.Event()

    class Blocks:
        def __iter__(self) -> Iterator[bytes]:
            for number in range(3):
                yield b"%d" % number
                assert going.acquire(timeout=10)

        def close(self) -> None:
            closed.set()

    client = http2(serve_http2(lambda request: Response(200, [], Blocks())))
    number = client.get()
    for size in (1, 2, 3):
        client.until(lambda size=size: len(client.answers[number].octets) == size)
        going.release()
    answer = client.answer(number)
    assert answer.body == b"012"
    assert "content-length" not in answer.headers
    assert closed.wait(10)


def test_a_pushed_stream(serve_http2: Serve, http2: Connect) -> None:
    def app(request: Request) -> Response:
        request.inform(103, [("Link", "</a.css>; rel=preload"), ("Connection", "x")])
        stream = request.stream(Response(201, [("X-Kind", "pushed")]))
        assert not request.headers_sent
        stream.write(b"one ")
        assert request.headers_sent
        stream.write(b"two ")
        return Response(200, [], b"three")

    answer = http2(serve_http2(app)).fetch()
    assert answer.interim == [{":status": "103", "link": "</a.css>; rel=preload"}]
    assert (answer.status, answer.headers["x-kind"]) == (201, "pushed")
    assert answer.body == b"one two three"


def test_a_failure_within_an_answer_is_seen(
    serve_http2: Serve, http2: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    def blocks() -> Iterator[bytes]:
        yield b"some"
        raise ValueError("no more")

    client = http2(serve_http2(lambda request: Response(200, [], blocks())))
    answer = client.fetch()
    assert (answer.status, answer.reset, answer.ended) == (200, 2, False)
    assert client.fetch("/", method="HEAD").status == 200
    assert "in the middle of its answer" in caplog.text


def test_a_body_shorter_than_declared_is_seen(serve_http2: Serve, http2: Connect) -> None:
    def app(request: Request) -> Response:
        body: Any = iter([b"four"]) if request.path == "/made" else b"four"
        return Response(200, [("Content-Length", "10")], body)

    client = http2(serve_http2(app))
    for path in ("/", "/made"):
        number = client.get(path)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("h2.stream.H2Stream._track_content_length", lambda *args: None)
            answer = client.answer(number)
        assert (answer.body, answer.reset) == (b"four", 2)


def test_a_file(serve_http2: Serve, http2: Connect, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(bytes(range(256)) * 2048)
    app = Flask(__name__)

    @app.get("/")
    def index() -> FlaskResponse:
        return send_file(path, download_name="file.bin")

    client = http2(serve_http2(app))
    assert client.fetch().body == path.read_bytes()
    assert client.fetch("/", ("range", "bytes=10-19")).body == path.read_bytes()[10:20]
    assert client.fetch("/", method="HEAD").headers["content-length"] == str(256 * 2048)


# ---- What an application is told ------------------------------------------------------------


def test_environ(serve_http2: Serve, http2: Connect) -> None:
    seen: dict[str, Any] = {}
    app = Flask(__name__)

    @app.route("/<name>", methods=["GET", "POST"])
    def show(name: str) -> str:
        seen.update(flask_request.environ)
        return flask_request.get_data(as_text=True) + flask_request.cookies.get("b", "")

    client = http2(serve_http2(app))
    cookies = [("cookie", "a=1"), ("cookie", "b=2")]
    more = [*cookies, ("x-two", "1"), ("x-two", "2"), ("x_under", "3"), ("proxy", "x")]
    answer = client.fetch("/x", *more, method="POST", body=b"body ")
    assert answer.body == b"body 2"
    assert seen["SERVER_PROTOCOL"] == "HTTP/2"
    assert seen["wsgi.url_scheme"] == "https"
    assert seen["HTTP_COOKIE"] == "a=1; b=2"
    assert seen["HTTP_HOST"] == "127.0.0.1"
    assert seen["HTTP_X_TWO"] == "1, 2"
    assert seen["CONTENT_LENGTH"] == "5"
    assert "HTTP_X_UNDER" not in seen
    assert "HTTP_PROXY" not in seen
    assert "werkzeug.socket" not in seen


def test_a_clients_certificate(
    serve: Serve, authority: Authority, certificate_of_http2: dict[str, str]
) -> None:
    client_files = authority.issue("http2-client", "/CN=Ann")
    server = serve(
        lambda request: Response(200, [], request.tls["SSL_CLIENT_S_DN"].encode()),
        http2=True,
        client_certs="required",
        ca_certs=str(authority.cert),
        **certificate_of_http2,
    )
    context = authority.trusting()
    context.load_cert_chain(*client_files)
    client = Http2Client(server.port, context)
    assert client.fetch().body == b"CN=Ann"
    client.close()


def test_there_is_nothing_to_hijack(
    serve_http2: Serve, http2: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    def app(request: Request) -> Response:
        request.hijack()
        raise AssertionError("hijacked")

    assert http2(serve_http2(app)).fetch().status == 500
    assert "no connection of its own to hijack" in caplog.text


def test_http1_beside_it(serve_http2: Serve, authority: Authority) -> None:
    import http.client

    server = serve_http2(lambda request: Response(200, [], request.version.encode()))
    context = authority.trusting()
    connection = http.client.HTTPSConnection("127.0.0.1", server.port, context=context)
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"1.1"
    connection.close()


# ---- What is recorded -----------------------------------------------------------------------


def test_a_look_at_the_time_between_a_thread_and_its_loop(
    serve_http2: Serve, http2: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first block is there, and the loop has not heard that the answer begins."""
    begin = ThreadStream._begin_on_loop

    def late(self: ThreadStream) -> None:
        self._task.h2_stream.connection.check_deadline(time.monotonic())
        begin(self)

    monkeypatch.setattr(ThreadStream, "_begin_on_loop", late)
    client = http2(serve_http2(lambda request: Response(200, [], iter([b"a", b"b"]))))
    assert client.fetch("/").body == b"ab"


def test_events(serve_http2: Serve, http2: Connect) -> None:
    recorder = Recorder()

    def app(request: Request) -> Response:
        if request.path == "/stream":
            return Response(200, [], iter([b"a", b"b"]))
        return Response(201, [], b"four")

    client = http2(serve_http2(app, lifecycle_collector=recorder))
    client.fetch("/")
    client.fetch("/stream")
    client.close()
    recorder.until(ResponseCompleted, 2)
    recorder.until(StreamClosed)  # by its thread, which may be later than the loop
    completed = recorder.of(ResponseCompleted)
    assert [(e.status, e.body_bytes, e.complete) for e in completed] == [
        (201, 4, True),
        (200, 2, True),
    ]
    names = [type(event).__name__ for event in recorder.events]
    assert names.count("RequestStarted") == 2
    assert names.count("StreamOpened") == names.count("StreamClosed") == 1
    assert names[0] == "ConnectionOpened"


def test_a_client_that_leaves(serve_http2: Serve, http2: Connect) -> None:
    recorder = Recorder()
    begun, going = threading.Event(), threading.Event()

    def app(request: Request) -> Response:
        begun.set()
        assert going.wait(10)
        return Response(200, [], b"late")

    client = http2(serve_http2(app, lifecycle_collector=recorder))
    client.get()
    assert begun.wait(10)
    client.close()
    recorder.until(ClientGone)
    going.set()
    recorder.until(ResponseCompleted)
    assert not recorder.of(ResponseCompleted)[0].complete


def test_a_client_that_does_not_read_is_read_on(serve_http2: Serve, http2: Connect) -> None:
    """What waits for it is a response, and not replies to its frames."""
    recorder = Recorder()
    server = serve_http2(
        lambda request: Response(200, [], bytes(14_000_000 if request.path == "/large" else 1)),
        lifecycle_collector=recorder,
    )
    client = http2(server)
    client.conn.update_settings({4: 2**30})
    client.conn.increment_flow_control_window(2**30)
    client.settle()
    client.get("/large")
    until(lambda: any(each.send_buffer for each in list(server.pools[0].poller.connections)))
    client.get("/")
    recorder.until(RequestStarted, 2)


def test_a_client_that_leaves_without_reading(serve_http2: Serve, http2: Connect) -> None:
    """Each request has its end, the one too of whose answer only the last octets were missing."""
    recorder = Recorder()
    server = serve_http2(
        lambda request: Response(200, [], bytes(100_000)), lifecycle_collector=recorder
    )
    client = http2(server)
    client.conn.update_settings({4: 2**30})
    client.conn.increment_flow_control_window(2**30)
    client.settle()
    for _ in range(99):
        client.get()
    pool = server.pools[0]
    until(lambda: any(each.send_buffer for each in list(pool.poller.connections)))
    recorder.until(RequestStarted, 99)
    client.close()
    recorder.until(ResponseCompleted, 99)
    recorder.until(ClientGone)
    assert not recorder.of(ResponseCompleted)[-1].complete


def test_the_access_log(serve_http2: Serve, http2: Connect, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    server = serve_http2(lambda request: Response(200, [], b"four"), access_log=str(path))
    client = http2(server)
    client.fetch("/x?y=z", ("user-agent", "test"))
    client.close()
    server.stop()
    line = path.read_text()
    assert '"GET /x?y=z HTTP/2" 200 4 "-" "test"' in line


def test_the_application_is_not_called_for_a_stream_that_was_reset(
    serve_http2: Serve, http2: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "threadwell")
    begun, going = threading.Event(), threading.Event()
    called: list[str] = []

    def app(request: Request) -> Response:
        called.append(request.path)
        begun.set()
        assert going.wait(10)
        return Response(200, [], b"")

    client = http2(serve_http2(app, threads=1))
    first = client.get("/first")
    assert begun.wait(10)
    second = client.get("/second")
    client.conn.reset_stream(second)
    client.flush()
    third = client.get("/third")
    client.settle()
    going.set()
    client.answer(first)
    client.answer(third)
    assert called == ["/first", "/third"]
