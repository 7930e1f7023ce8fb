"""The live server test cases of Django, on threadwell.

Import `LiveServerTestCase` from here instead of `django.test`. With pytest-django, the option
`--threadwell-live-server` lets `live_server` use threadwell.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.contrib.staticfiles import testing
from django.db import connections
from django.test import testcases

from threadwell.worker import (
    Request,
    Response,
    Server,
    ServerConfig,
    format_address,
    open_sockets,
)

from .handler import django_app

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.db.backends.base.base import BaseDatabaseWrapper

    from threadwell.adapters.wsgi import WSGIApplication
    from threadwell.worker import SyncApp

# Seconds that requests in flight get when a test class ends.
_GRACE = 2.0


class LiveServer:
    """The server object that `LiveServerThread` of Django expects. It runs a `Server`.

    `address` is (host, port), where port 0 takes a free one. It is bound at once, and
    `server_address` is the result. `connections_override` has the database connections that the
    threads of the server share with the test: those of databases in memory.
    """

    def __init__(
        self,
        address: tuple[str, int],
        handler_class: object = None,  # noqa: ARG002  # There is no such class here.
        *,
        allow_reuse_address: bool = True,  # noqa: ARG002  # Harmless on Linux.
        connections_override: Mapping[str, BaseDatabaseWrapper] | None = None,
    ) -> None:
        bind = format_address(*address)
        self._config = ServerConfig.from_options(bind=bind, graceful_timeout=_GRACE)
        (self._socket,) = open_sockets(self._config.bind)
        self._connections = dict(connections_override or {})
        self._serialize = _serialize_queries()
        for connection in self._connections.values():
            connection.execute_wrappers.append(self._serialize)
        self._server: Server | None = None
        self.server_address: tuple[str, int] = self._socket.getsockname()[:2]

    def set_app(self, application: WSGIApplication) -> None:
        """Set the application. Call it before `serve_forever`."""
        app = _SharedConnections(django_app(application), self._connections)
        self._server = Server(app, self._config, sockets=[self._socket])

    def serve_forever(self) -> None:
        """Serve until `shutdown` (blocking)."""
        assert self._server is not None
        self._server.serve_forever()

    def shutdown(self) -> None:
        """Answer the requests in flight and stop."""
        if self._server is not None:
            self._server.stop()

    def server_close(self) -> None:
        """Close the socket if it was never served, and restore the database connections."""
        self._socket.close()
        for connection in self._connections.values():
            with contextlib.suppress(ValueError):
                connection.execute_wrappers.remove(self._serialize)


def _serialize_queries() -> Callable[..., Any]:
    """A wrapper that serializes the queries of a connection that several threads share.

    sqlite3 caches prepared statements by their text, and one thread may reset a statement that
    another has begun to use (`bad parameter or other API misuse`). So each thread gets texts of its
    own. The lock lets a thread read the id of its new row before another thread inserts one.
    """
    lock = threading.RLock()

    def execute(run: Callable[..., Any], sql: str, *rest: Any) -> Any:
        with lock:
            return run(f"{sql} /* thread {threading.get_ident()} */", *rest)

    return execute


class _SharedConnections:
    """A `SyncApp` that calls `app` with the database connections of the test."""

    threadwell_interface = "sync"

    def __init__(self, app: SyncApp, shared: Mapping[str, BaseDatabaseWrapper]) -> None:
        self._app = app
        self._shared = shared

    def __call__(self, request: Request) -> Response | None:
        for alias, connection in self._shared.items():
            connections[alias] = connection
        try:
            response = self._app(request)
        except BaseException:
            connections.close_all()
            raise
        if response is None:
            return None
        close = response.close or getattr(response.body, "close", None)
        return response._replace(close=_and_close_connections(close))


def _and_close_connections(close: Callable[[], object] | None) -> Callable[[], None]:
    def finish() -> None:
        try:
            if close is not None:
                close()
        finally:
            # An open connection would keep the test database from being dropped.
            connections.close_all()

    return finish


class LiveServerThread(testcases.LiveServerThread):
    """The `LiveServerThread` of Django, on threadwell."""

    server_class: Any = LiveServer


class LiveServerTestCase(testcases.LiveServerTestCase):
    """The `LiveServerTestCase` of Django, on threadwell."""

    server_thread_class = LiveServerThread


class StaticLiveServerTestCase(testing.StaticLiveServerTestCase):
    """The `StaticLiveServerTestCase` of Django, on threadwell."""

    server_thread_class = LiveServerThread
