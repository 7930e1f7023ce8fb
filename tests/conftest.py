"""Fixtures of all tests: servers on a free port, raw clients, and the interpreter's means."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from threadwell import ThreadedServer

from .helpers.certificates import Authority
from .helpers.wire_client import Client


@pytest.fixture(scope="session", autouse=True)
def _descriptors() -> None:
    """As many file descriptors as the system allows, for the tests with thousands of clients."""
    if sys.platform != "win32":
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@pytest.fixture(scope="session", autouse=True)
def _signals() -> None:
    """What is run in the background of a script, or by nohup, ignores these, and so would all that
    it starts."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGQUIT"):
        signal.signal(signal.SIGQUIT, signal.SIG_DFL)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture
def serve() -> Iterator[Callable[..., ThreadedServer]]:
    """`serve(app, **options)`: a started server on a free port, stopped after the test."""
    with contextlib.ExitStack() as stack:

        def start(app: Any, **options: Any) -> ThreadedServer:
            options.setdefault("bind", "127.0.0.1:0")
            options.setdefault("threads", 4)
            options.setdefault("graceful_timeout", 2)
            return stack.enter_context(ThreadedServer(app, **options))

        yield start


@pytest.fixture
def connect() -> Iterator[Callable[..., Client]]:
    """`connect(server)`: a raw client of a server, closed after the test."""
    with contextlib.ExitStack() as stack:

        def open_client(server: ThreadedServer, timeout: float = 10) -> Client:
            sock = socket.create_connection(("127.0.0.1", server.port), timeout)
            return stack.enter_context(contextlib.closing(Client(sock)))

        yield open_client


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """An authority of the tests' own."""
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def certificate_of_http2(authority: Authority) -> dict[str, str]:
    """The options of a server with TLS and HTTP/2."""
    cert, key = authority.issue("http2")
    return {"certfile": str(cert), "keyfile": str(key)}


@pytest.fixture
def serve_http2(
    serve: Callable[..., ThreadedServer], certificate_of_http2: dict[str, str]
) -> Callable[..., ThreadedServer]:
    """The same as `serve`, with TLS and HTTP/2."""

    def start(app: Any, **options: Any) -> ThreadedServer:
        return serve(app, http2=True, **certificate_of_http2, **options)

    return start


@pytest.fixture
def http2(authority: Authority) -> Iterator[Callable[..., Any]]:
    """`http2(server)`: a client of HTTP/2, closed after the test."""
    from .helpers.http2_client import Http2Client

    with contextlib.ExitStack() as stack:

        def open_client(server: ThreadedServer, **options: Any) -> Http2Client:
            client = Http2Client(server.port, authority.trusting(), **options)
            return stack.enter_context(contextlib.closing(client))

        yield open_client
