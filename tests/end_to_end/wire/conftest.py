"""Fixtures of the tests on the wire: a recording server, raw clients, and a bench."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import pytest

from threadwell import ThreadedServer

from ...helpers.wire_client import Client
from .bench import Bench, Recorder


@pytest.fixture(scope="module")
def recording() -> Iterator[tuple[ThreadedServer, Recorder]]:
    app = Recorder()
    with ThreadedServer(app, bind="127.0.0.1:0", threads=2, graceful_timeout=2) as server:
        yield server, app


@pytest.fixture
def open_client(
    recording: tuple[ThreadedServer, Recorder], connect: Callable[..., Client]
) -> Callable[[], tuple[Client, Recorder]]:
    server, app = recording

    def open_one() -> tuple[Client, Recorder]:
        app.seen.clear()
        return connect(server, timeout=5), app

    return open_one


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with contextlib.closing(Bench()) as made:
        yield made
