"""A signal that comes while a server starts."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

from threadwell import Request, Response
from threadwell.worker import Server, ServerConfig
from threadwell.worker.threads.pool import ThreadPool

from ..helpers.wire_client import Client

Connect = Callable[..., Client]


def test_requests_in_flight_have_their_time(
    connect: Connect, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The threads serve a moment before `start` returns."""
    begun, going = threading.Event(), threading.Event()
    ready = ThreadPool.wait_until_ready
    clients: list[Client] = []

    def app(request: Request) -> Response:
        begun.set()
        assert going.wait(20)
        return Response(200, [], b"whole")

    def interrupted(pool: Any) -> None:
        ready(pool)
        clients.append(connect(server))
        clients[0].send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert begun.wait(20)
        threading.Timer(0.3, going.set).start()  # while `stop` waits
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadPool, "wait_until_ready", interrupted)
    server: Any = Server(app, ServerConfig.from_options(bind="127.0.0.1:0", threads=1))
    with pytest.raises(KeyboardInterrupt):
        server.start()
    assert clients[0].answer().body == b"whole"
    assert [each for each in caplog.records if each.levelno >= logging.WARNING] == []
