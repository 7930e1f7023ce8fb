"""A hybrid with TLS."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from websockets.asyncio.client import connect as connect_websocket

from threadwell import ThreadedServer

from ...helpers.wire_client import Client
from .both import Both, each_loop, post

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]


@pytest.fixture(scope="module")
def contexts(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's and the client's."""
    if shutil.which("openssl") is None:
        pytest.skip("there is no openssl command to make a certificate with")
    folder = tmp_path_factory.mktemp("tls")
    cert, key = str(folder / "cert.pem"), str(folder / "key.pem")
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost"
    subprocess.run(
        [*command.split(), "-keyout", key, "-out", cert], check=True, capture_output=True
    )
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(cert, key)
    client = ssl.create_default_context()
    client.check_hostname = False
    client.verify_mode = ssl.CERT_NONE
    return server, client


@pytest.fixture
def secure(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
) -> Iterator[Callable[[ThreadedServer], Client]]:
    """`secure(server)`: a client behind its TLS handshake."""
    with contextlib.ExitStack() as stack:

        def open_client(server: ThreadedServer) -> Client:
            raw = socket.create_connection(("127.0.0.1", server.port), 10)
            wrapped = contexts[1].wrap_socket(raw, server_hostname="localhost")
            return stack.enter_context(contextlib.closing(Client(wrapped)))

        yield open_client


async def exchange(url: str, context: ssl.SSLContext, messages: list[Any]) -> None:
    """Send `messages` to an echo. The synchronous client would read on a thread while another
    writes; OpenSSL's objects are not made for that, and a request could get lost."""
    async with connect_websocket(url, ssl=context, proxy=None, max_size=None) as ws:
        for message in messages:
            await ws.send(message)
            assert await ws.recv() == message


@each_loop
@pytest.mark.parametrize("hybrid", [True, False])
def test_tls(
    serve: Serve,
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
    secure: Callable[[ThreadedServer], Client],
    both: Both,
    loop: str,
    hybrid: bool,
) -> None:
    options: Any = {"ssl_context": contexts[0], "loop": loop, "loops": 1}
    server = (
        serve(both.sync, asgi_app=both.asgi, **options) if hybrid else serve(both.asgi, **options)
    )
    client = secure(server)
    for number in range(3):
        if hybrid:
            client.send(post("/sync", b"%d" % number))
            assert client.answer().body == b"sync %d" % number
        client.send(post("/async/stream", b"%d" % number))
        assert client.answer().body == b"async %d" % number
    body = os.urandom(5_000_000)
    client.send(post("/async", body))  # it is read to its end before it is answered
    assert client.answer().body == b"async " + body
    url = f"wss://127.0.0.1:{server.port}/ws"
    asyncio.run(exchange(url, contexts[1], ["a", body]))
    assert both.seen.wait(2)[1] == 1000


@each_loop
def test_a_handshake_that_never_ends(
    serve: Serve,
    connect: Connect,
    contexts: tuple[ssl.SSLContext, ssl.SSLContext],
    secure: Callable[[ThreadedServer], Client],
    both: Both,
    loop: str,
) -> None:
    server = serve(both.asgi, ssl_context=contexts[0], handshake_timeout=0.2, loop=loop)
    silent, wrong = connect(server), connect(server)
    silent.send(b"\x16\x03\x01")
    wrong.send(b"GET / HTTP/1.1\r\n\r\n")
    client = secure(server)
    client.send(post("/async", b"x"))
    assert client.answer().body == b"async x"
    assert silent.closed()
    wrong.rest()
