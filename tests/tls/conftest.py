"""Fixtures of the tests of TLS: certificates in files, and clients that trust them."""

from __future__ import annotations

import contextlib
import socket
import ssl
from collections.abc import Callable, Iterator

import pytest

from threadwell import (
    ThreadedServer,
)

from ..helpers.certificates import Authority
from ..helpers.wire_client import Client
from .files import Files

Connect = Callable[..., Client]


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    cert, key = authority.issue("server")
    both = cert.with_name("both.pem")
    both.write_bytes(key.read_bytes() + cert.read_bytes())
    return Files(
        authority,
        cert,
        key,
        authority.encrypted(key),
        both,
        authority.issue("other")[1],
        authority.issue(
            "client", "/C=DE/O=Müller, Söhne\\+Co/CN=Ann", "DNS:ann.example,email:ann@example.com"
        ),
    )


@pytest.fixture
def connect_tls(files: Files) -> Iterator[Connect]:
    """`connect_tls(server, context=None)`: a client behind a finished handshake."""
    with contextlib.ExitStack() as stack:

        def open_client(server: ThreadedServer, context: ssl.SSLContext | None = None) -> Client:
            context = context or files.authority.trusting()
            raw = stack.enter_context(socket.create_connection(("127.0.0.1", server.port), 10))
            sock = context.wrap_socket(raw, server_hostname="127.0.0.1")
            return stack.enter_context(contextlib.closing(Client(sock)))

        yield open_client
