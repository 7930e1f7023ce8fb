"""TLS: the same server, behind a handshake that holds no thread."""

from __future__ import annotations

import contextlib
import logging
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from threadwell import Request, Response, ThreadedServer

from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]
MIB = 1024 * 1024


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl command to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    command = (
        "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2"
        " -subj /CN=localhost -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run(
        [*command.split(), "-keyout", str(key), "-out", str(cert)], check=True, capture_output=True
    )
    return cert, key


@pytest.fixture(params=["TLSv1.2", "TLSv1.3"])
def context(request: pytest.FixtureRequest, certificate: tuple[Path, Path]) -> ssl.SSLContext:
    made = server_context(certificate)
    made.maximum_version = getattr(ssl.TLSVersion, request.param.replace(".", "_"))
    return made


@pytest.fixture
def newest(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    return server_context(certificate)


def server_context(certificate: tuple[Path, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificate)
    return context


@pytest.fixture
def connect_tls(certificate: tuple[Path, Path]) -> Iterator[Connect]:
    """`connect_tls(server)`: a client behind a finished handshake, strict about its end."""
    trusting = ssl.create_default_context(cafile=str(certificate[0]))
    with contextlib.ExitStack() as stack:

        def open_client(server: ThreadedServer, timeout: float = 10) -> Client:
            raw = socket.create_connection(("127.0.0.1", server.port), timeout)
            sock = trusting.wrap_socket(
                raw, server_hostname="127.0.0.1", suppress_ragged_eofs=False
            )
            return stack.enter_context(contextlib.closing(Client(sock)))

        yield open_client


def app(environ: dict[str, Any], start_response: Any) -> Any:
    path = environ["PATH_INFO"]
    start_response("200 OK", [("Content-Type", "text/plain")])
    if path == "/stream":
        return (b"block %d " % number for number in range(5))
    if path == "/large":
        return [bytes(range(256)) * (8 * MIB // 256)]
    if path == "/large-stream":
        return (bytes(range(256)) * (MIB // 256) for _ in range(8))
    if path == "/file":
        return environ["wsgi.file_wrapper"](Path(environ["QUERY_STRING"]).open("rb"))
    if path == "/echo":
        return [environ["wsgi.input"].read()]
    return [environ["wsgi.url_scheme"].encode() + b" " + environ.get("HTTPS", "").encode()]


def test_requests_over_tls(serve: Serve, connect_tls: Connect, context: ssl.SSLContext) -> None:
    client = connect_tls(serve(app, ssl_context=context))
    for _ in range(5):
        assert client.get().body == b"https on"
    assert client.get("/stream").body == b"block 0 block 1 block 2 block 3 block 4 "
    assert client.get().body == b"https on"


def test_pipelined_requests(serve: Serve, connect_tls: Connect, context: ssl.SSLContext) -> None:
    client = connect_tls(serve(app, ssl_context=context, threads=2))
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 50)
    for _ in range(50):
        assert client.answer().body == b"https on"


def test_many_requests_in_one_record_and_a_head_in_many(
    serve: Serve, connect_tls: Connect, newest: ssl.SSLContext
) -> None:
    client = connect_tls(serve(app, ssl_context=newest))
    for octet in b"GET / HTTP/1.1\r\nHost: x\r\n\r\n":
        client.send(bytes([octet]))
    assert client.answer().body == b"https on"


@pytest.mark.parametrize("poller", ["auto", "queue"])
@pytest.mark.parametrize("path", ["/large", "/large-stream", "/file"])
def test_a_large_response_arrives_whole(
    serve: Serve,
    connect_tls: Connect,
    context: ssl.SSLContext,
    path: str,
    poller: str,
    tmp_path: Path,
) -> None:
    body = bytes(range(256)) * (8 * MIB // 256)
    if path == "/file":
        file = tmp_path / "file"
        file.write_bytes(body)
        path = f"/file?{file}"
    client = connect_tls(serve(app, ssl_context=context, poller=poller))
    for _ in range(2):
        answer = client.get(path)
        assert answer.complete
        assert answer.body == body
    assert client.get().body == b"https on"


@pytest.mark.parametrize("framing", ["length", "chunked"])
def test_a_large_body_is_received_whole(
    serve: Serve, connect_tls: Connect, context: ssl.SSLContext, framing: str
) -> None:
    body = bytes(range(256)) * (4 * MIB // 256)
    client = connect_tls(serve(app, ssl_context=context))
    head = b"POST /echo HTTP/1.1\r\nHost: x\r\n"
    if framing == "length":
        data = head + b"Content-Length: %d\r\n\r\n" % len(body) + body
    else:
        data = head + b"Transfer-Encoding: chunked\r\n\r\n"
        data += b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    for _ in range(2):
        client.send(data)
        assert client.answer().body == body


def test_expect_continue(serve: Serve, connect_tls: Connect, context: ssl.SSLContext) -> None:
    client = connect_tls(serve(app, ssl_context=context))
    client.send(
        b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n"
    )
    assert client.answer().status == 100
    client.send(b"body")
    assert client.answer().body == b"body"


def test_the_end_is_announced(serve: Serve, connect_tls: Connect, context: ssl.SSLContext) -> None:
    """RFC 9112, 9.8: a closure alert, without which an attacker could cut an answer short."""
    client = connect_tls(serve(app, ssl_context=context))
    assert client.get(headers="Connection: close\r\n").body == b"https on"
    assert client.sock.recv(1) == b""


def test_the_end_of_a_body_without_length_is_announced(
    serve: Serve, connect_tls: Connect, context: ssl.SSLContext
) -> None:
    client = connect_tls(serve(app, ssl_context=context))
    client.send(b"GET /stream HTTP/1.0\r\nHost: x\r\n\r\n")
    assert client.answer().body == b"block 0 block 1 block 2 block 3 block 4 "


def test_a_refused_request_is_answered(
    serve: Serve, connect_tls: Connect, context: ssl.SSLContext
) -> None:
    client = connect_tls(serve(app, ssl_context=context))
    client.send(b"GET / HTTP/1.1\r\nBad Field: x\r\n\r\n" + b"x" * 100_000)
    assert client.answer().status == 400
    with contextlib.suppress(ssl.SSLEOFError):  # the tests above are about the closure alert
        assert client.closed()


@pytest.mark.parametrize("poller", ["auto", "queue"])
@pytest.mark.parametrize("hello", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["silent", "half"])
def test_promise_3_unfinished_handshakes_hold_no_thread(
    serve: Serve,
    connect: Connect,
    connect_tls: Connect,
    newest: ssl.SSLContext,
    poller: str,
    hello: bytes,
) -> None:
    server = serve(app, ssl_context=newest, threads=1, poller=poller)
    for _ in range(100):
        connect(server).send(hello)
    for _ in range(10):
        started = time.monotonic()
        assert connect_tls(server).get().body == b"https on"
        assert time.monotonic() - started < 2


def test_promise_8_a_dribbled_handshake_does_not_extend_its_deadline(
    serve: Serve, connect: Connect, newest: ssl.SSLContext
) -> None:
    client = connect(serve(app, ssl_context=newest, handshake_timeout=0.5))
    client.send(b"\x16\x03\x01\x10\x00\x01\x00\x0f\xfc\x03\x03")
    started = time.monotonic()
    client.sock.settimeout(0.1)
    while True:
        assert time.monotonic() - started < 4, "every byte extended the deadline"
        try:
            client.send(b"x")
            if not client.sock.recv(100):
                break
        except TimeoutError:
            pass
        except OSError:
            break


def test_a_silent_client_is_closed_in_time(
    serve: Serve, connect: Connect, newest: ssl.SSLContext
) -> None:
    client = connect(serve(app, ssl_context=newest, handshake_timeout=0.3), timeout=4)
    assert client.closed()


@pytest.mark.parametrize(
    "data",
    [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\0" * 100, b"\x16\x03\x01\0\1x", b"\xff" * 9999],
)
def test_what_is_not_tls_is_closed_without_a_traceback(
    serve: Serve,
    connect: Connect,
    connect_tls: Connect,
    newest: ssl.SSLContext,
    caplog: pytest.LogCaptureFixture,
    data: bytes,
) -> None:
    server = serve(app, ssl_context=newest, threads=1)
    with caplog.at_level(logging.INFO):
        client = connect(server)
        client.send(data)
        assert b"HTTP/1.1 200" not in client.rest()
        assert connect_tls(server).get().body == b"https on"
    assert not [record for record in caplog.records if record.exc_info]


def test_clients_that_leave_at_every_point_cost_nothing(
    serve: Serve, connect: Connect, connect_tls: Connect, newest: ssl.SSLContext, caplog: Any
) -> None:
    server = serve(app, ssl_context=newest, threads=1)
    for data in (b"", b"\x16", b"\x16\x03\x01\x02\x00\x01"):
        client = connect(server)
        client.send(data)
        client.close()
    for data in (b"", b"GET", b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"):
        client = connect_tls(server)
        client.send(data)
        client.close()
    worker = server._worker
    assert worker is not None
    deadline = time.monotonic() + 5
    while worker.poller.connections:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert not [record for record in caplog.records if record.exc_info]
    assert connect_tls(server).get().body == b"https on"


def test_a_hijacked_session(serve: Serve, connect_tls: Connect, context: ssl.SSLContext) -> None:
    def takes_over(request: Request) -> Response:
        sock = request.hijack()
        sock.sendall(b"ready\n")
        while data := sock.recv(100):
            sock.sendall(data.upper())
            if data.endswith(b"end"):
                break
        return Response(200)

    client = connect_tls(serve(takes_over, ssl_context=context, threads=1))
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\nearly ")
    received = b""
    while not received.endswith(b"EARLY "):
        received += client.sock.recv(100)
    assert received == b"ready\nEARLY "
    for word in (b"some", b"more", b"end"):
        client.send(word)
        assert client.sock.recv(100) == word.upper()


@pytest.mark.parametrize("poller", ["auto", "queue"])
def test_eight_clients_at_once(
    serve: Serve, connect_tls: Connect, newest: ssl.SSLContext, poller: str
) -> None:
    server = serve(app, ssl_context=newest, threads=4, poller=poller)
    wrong: list[object] = []

    def requests(number: int) -> None:
        client = connect_tls(server)
        for turn in range(50):
            body = b"%d-%d" % (number, turn) * (1 + turn * 100)
            head = b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body)
            client.send(head + body)
            if client.answer().body != body:
                wrong.append((number, turn))

    threads = [threading.Thread(target=requests, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_promise_12_a_request_under_way_is_answered_after_stop(
    serve: Serve, connect_tls: Connect, newest: ssl.SSLContext
) -> None:
    running, go_on = threading.Event(), threading.Event()

    def waits(environ: dict[str, Any], start_response: Any) -> Any:
        running.set()
        go_on.wait(5)
        return app(environ, start_response)

    server = serve(waits, ssl_context=newest, graceful_timeout=5)
    idle, client = connect_tls(server), connect_tls(server)
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert running.wait(5)
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    with contextlib.suppress(ssl.SSLEOFError):
        assert idle.sock.recv(1) == b""
    go_on.set()
    assert client.answer().body == b"https on"
    stopping.join(5)
    assert not stopping.is_alive()
