"""Fixtures of the tests of ownership."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from threadwell.worker.polling import kernel
from threadwell.worker.polling.kernel import EpollPoller

from .driven import Driven, looks


@pytest.fixture
def drive(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[..., Driven]]:
    made: list[Driven] = []

    def start(**options: Any) -> Driven:
        made.append(Driven(**options))
        return made[-1]

    looks.clear()
    yield start
    for driven in made:
        driven.close()
    assert looks == []
    assert "internal error" not in caplog.text


@pytest.fixture
def epoll() -> Iterator[EpollPoller]:
    if not hasattr(kernel.select, "epoll"):
        pytest.skip("Linux")
    poller = EpollPoller(10)
    yield poller
    for connection in poller.close():
        connection.close()
