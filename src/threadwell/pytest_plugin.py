"""The pytest plugin: the fixture `threadwell_server`, and `live_server` of pytest-django."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from .api import ThreadedServer

_INI = "threadwell_live_server"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the option, for the command line and for the ini file."""
    text = "Run Django's live servers, as pytest-django's live_server, on threadwell."
    group = parser.getgroup("threadwell")
    group.addoption("--threadwell-live-server", action="store_true", default=None, help=text)
    parser.addini(_INI, text, type="bool", default=False)


@pytest.hookimpl(trylast=True)
def pytest_configure(config: pytest.Config) -> None:
    """Let Django's live servers use threadwell, if the option is set."""
    if config.getoption("--threadwell-live-server") or config.getini(_INI):
        try:
            from django.test.testcases import LiveServerThread
        except ImportError as error:
            raise pytest.UsageError(f"{_INI}: there is no Django to test: {error}") from None

        from .adapters.django.test import LiveServer

        LiveServerThread.server_class = LiveServer  # type: ignore[assignment]


@pytest.fixture
def threadwell_server() -> Iterator[Callable[..., ThreadedServer]]:
    """A function `threadwell_server(app, **options)` that serves `app` on a free port.

    It returns the `ThreadedServer`, whose `port` and `urls` say where it listens. The options are
    those of `threadwell.serve`. The server stops when the test ends.
    """
    from .api import ThreadedServer

    with contextlib.ExitStack() as stack:

        def start(app: Any, **options: Any) -> ThreadedServer:
            options.setdefault("bind", "127.0.0.1:0")
            options.setdefault("graceful_timeout", 2)
            return stack.enter_context(ThreadedServer(app, **options))

        yield start
