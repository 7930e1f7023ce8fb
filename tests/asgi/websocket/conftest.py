"""What holds for every test of WebSockets."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from threadwell import ThreadedServer

from ...helpers.asgi_tools import UPGRADE
from ...helpers.wire_client import Client
from .raw_frames import LIMIT, echo


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that an application failed on was unexpected, unless a test says so."""
    yield
    unexpected = [each for each in caplog.records if "internal error" in each.getMessage()]
    assert unexpected == []


@pytest.fixture(scope="module")
def server() -> Iterator[ThreadedServer]:
    options: Any = {"limit_ws_message": LIMIT, "linger_timeout": 0.1, "graceful_timeout": 2}
    with ThreadedServer(echo, bind="127.0.0.1:0", **options) as running:
        yield running


@pytest.fixture
def ws(server: ThreadedServer, connect: Callable[..., Client]) -> Callable[..., Client]:
    """`ws()`: a client behind its handshake."""

    def shake(extensions: str = "") -> Client:
        client = connect(server)
        offer = f"Sec-WebSocket-Extensions: {extensions}\r\n" if extensions else ""
        got = client.get(headers=UPGRADE + offer)
        assert got.status == 101
        client.extensions = got.header("sec-websocket-extensions")  # type: ignore[attr-defined]
        return client

    return shake
