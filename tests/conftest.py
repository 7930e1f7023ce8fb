"""Fixtures of all tests: servers on a free port, raw clients, and the interpreter's means."""

from __future__ import annotations

import contextlib
import resource
import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from loopless import ThreadedServer

from .wire_client import Client


@pytest.fixture(scope="session", autouse=True)
def _descriptors() -> None:
    """As many file descriptors as the system allows, for the tests with thousands of clients."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


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
