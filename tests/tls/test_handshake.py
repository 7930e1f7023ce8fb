"""Handshakes that never end, clients that end their output, and curl."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from threadwell import (
    ThreadedServer,
)
from threadwell.worker.threads.pool import ThreadPool

from ..helpers.asgi_tools import answer, no_lifespan
from ..helpers.waiting import until
from ..helpers.wire_client import Client
from .files import Files, app, session_of

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]
GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


# ---- Clients that end their output ----------------------------------------------------------


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("announced", [True, False])
def test_a_client_that_ends_its_output_gets_its_answers(
    serve: Serve, connect_tls: Connect, files: Files, asynchronous: bool, announced: bool
) -> None:
    """By a closure alert, as RFC 8446, 6.1 has it, or without."""
    ended = threading.Event()

    def patient(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        ended.wait(10)
        return app(environ, start_response)

    async def patient_asgi(scope: Any, receive: Any, send: Any) -> None:
        await no_lifespan(scope)
        await asyncio.to_thread(ended.wait, 10)
        await answer(send, b"https")

    kind = patient_asgi if asynchronous else patient
    client = connect_tls(serve(kind, certfile=str(files.both)))
    sock = session_of(client)
    client.send(GET * 3)
    if announced:
        # OpenSSL reads once it has sent its alert, and takes an answer for a fault: there is none
        sock.settimeout(0)
        with contextlib.suppress(ssl.SSLWantReadError):
            sock.unwrap()
        sock.settimeout(10)
    else:
        socket.socket.shutdown(sock, socket.SHUT_WR)
    ended.set()
    assert [client.answer().body for _ in range(3)] == [b"https"] * 3
    with contextlib.suppress(ssl.SSLZeroReturnError):  # how one who has said it hears it, too
        assert client.closed()


# ---- Handshakes that never end --------------------------------------------------------------


def test_promise_3_a_thousand_half_open_handshakes_and_the_requests_of_others(
    serve: Serve, connect: Connect, connect_tls: Connect, files: Files
) -> None:
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"
    binds = ["127.0.0.1:0", "http://127.0.0.1:0"]
    certfile = str(files.both)
    server = serve(app, bind=binds, certfile=certfile, threads=1, handshake_timeout=600)
    pool = server.pools[0]
    assert isinstance(pool, ThreadPool)
    for number in range(1000):
        connect(server).send(hello[: number % len(hello)])
    until(lambda: len(pool.poller.connections) == 1000)
    with socket.create_connection(server.addresses[1], 10) as sock:
        plain = Client(sock)
        for _ in range(20):
            started = time.monotonic()
            assert plain.get().body == b"http"
            assert connect_tls(server).get().body == b"https"
            assert time.monotonic() - started < 2
    # they are all there yet
    assert len(pool.poller.connections) >= 1000


# ---- Other programs -------------------------------------------------------------------------


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl(serve: Serve, files: Files) -> None:
    server = serve(
        app,
        certfile=str(files.both),
        client_certs="required",
        ca_certs=str(files.authority.cert),
    )
    cert, key = map(str, files.client)
    url = f"{server.urls[0]}/environ/SSL_CLIENT_S_DN_CN"
    command = ["curl", "-sS", "--cacert", str(files.authority.cert), "--cert", cert, "--key", key]
    done = subprocess.run([*command, url], capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("Ann", "")


# ---- Sessions -------------------------------------------------------------------------------


def test_each_connection_gets_a_ticket_for_the_next(serve: Serve, files: Files) -> None:
    """RFC 8446, 4.6.1. A client uses each of them once (C.4)."""
    server = serve(app, certfile=str(files.both))
    context = files.authority.trusting()
    session: ssl.SSLSession | None = None
    for number in range(3):
        raw = socket.create_connection(("127.0.0.1", server.port), 10)
        with context.wrap_socket(raw, server_hostname="127.0.0.1", session=session) as sock:
            client = Client(sock)
            assert client.get().status == 200  # the ticket is before it
            assert sock.session_reused == (number > 0)
            session = sock.session
