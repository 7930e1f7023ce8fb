"""HTTP sent to a port with TLS, and TLS sent to a port without."""

from __future__ import annotations

import logging
import socket
import ssl
from collections.abc import Callable
from typing import Any

import pytest

from threadwell import (
    ThreadedServer,
)

from ..helpers.wire_client import Client
from .files import Files, app

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]


@pytest.mark.parametrize("poller", ["auto", "queue"])
def test_a_plain_request_to_a_port_with_tls(
    serve: Serve, connect: Connect, connect_tls: Connect, files: Files, poller: str, caplog: Any
) -> None:
    server = serve(app, certfile=str(files.both), poller=poller, threads=1)
    with caplog.at_level(logging.INFO, "threadwell"):
        for method in ("GET", "OPTIONS", "PATCH", "POST"):
            client = connect(server)
            client.send(f"{method} / HTTP/1.1\r\nHost: x\r\n\r\n".encode() + b"x" * 5000)
            answer = client.answer()
            assert answer.status == 400
            assert answer.body == b"This port speaks https, and the request came without TLS\n"
            assert client.closed()
            assert connect_tls(server).get().body == b"https"
    said = [text for text in caplog.messages if "asked for" in text]
    assert said == [
        f"127.0.0.1 asked for http at 127.0.0.1:{server.port}, which speaks https; use https://"
        " there"
    ]


def test_a_handshake_on_a_port_without_tls(
    serve: Serve, connect: Connect, files: Files, caplog: Any
) -> None:
    server = serve(app, threads=1)
    with caplog.at_level(logging.INFO, "threadwell"):
        for _ in range(3):
            raw = socket.create_connection(("127.0.0.1", server.port), 10)
            with raw, pytest.raises(ssl.SSLError):
                files.authority.trusting().wrap_socket(raw, server_hostname="127.0.0.1")
        client = connect(server)
        client.send(b"\x16\x03\x01\x02\x00\x01")
        answer = client.answer()
    assert answer.status == 400
    assert answer.body == b"This port speaks http, and the client began a TLS handshake\n"
    assert len([text for text in caplog.messages if "asked for https at" in text]) == 1
    assert connect(server).get().body == b"http"


def test_what_was_not_said_is_counted(serve: Serve, connect: Connect, caplog: Any) -> None:
    server = serve(app)
    worker = server._worker
    assert worker is not None

    def mistake_the_port() -> None:
        client = connect(server)
        client.send(b"\x16\x03\x01")
        assert client.answer().status == 400

    with caplog.at_level(logging.INFO, "threadwell"):
        for _ in range(3):
            mistake_the_port()
        worker.throttled_log._next.clear()  # a minute later
        mistake_the_port()
    first, second = [text for text in caplog.messages if "asked for https" in text]
    assert first.endswith("or give the server a certificate")
    assert second.endswith("(2 more such clients since this was said last)")
