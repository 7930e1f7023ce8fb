"""Live tests on threadwell: Django's classes, with this server in them.

`from threadwell.adapters.django.test import LiveServerTestCase` in the place of Django's own. With
pytest-django, the option `--threadwell-live-server` does it for `live_server`.
"""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from django.contrib.staticfiles import testing
from django.db import connections
from django.test import testcases

from threadwell.worker import Request, Response, Server, ServerConfig
from threadwell.worker.net.bind import open_socket, parse_bind

from .handler import django_app

if TYPE_CHECKING:
    from collections.abc import Mapping

    from django.db.backends.base.base import BaseDatabaseWrapper

    from threadwell.adapters.wsgi import WSGIApplication
    from threadwell.worker import SyncApp

# Seconds for requests in flight when a test class has ended.
_GRACE = 2.0


class LiveServer:
    """The server object that Django's `LiveServerThread` expects, with a threadwell server in it.

    `address` is (host, port), where port 0 takes a free one; it is bound at once, and
    `server_address` tells. `connections_override` has the database connections that the threads
    of the server share with the test's: those of databases in memory.
    """

    def __init__(
        self,
        address: tuple[str, int],
        handler_class: object = None,  # noqa: ARG002  # no such thing here
        *,
        allow_reuse_address: bool = True,  # noqa: ARG002  # on Linux it hinders nobody
        connections_override: Mapping[str, BaseDatabaseWrapper] | None = None,
    ) -> None:
        host, port = address
        bind = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._config = ServerConfig.from_options(bind=bind, graceful_timeout=_GRACE)
        self._socket = open_socket(parse_bind(bind), self._config.bind.backlog)
        self._connections = dict(connections_override or {})
        self._one_by_one = _one_by_one()
        for connection in self._connections.values():
            connection.execute_wrappers.append(self._one_by_one)
        self._server: Server | None = None
        self.server_address: tuple[str, int] = self._socket.getsockname()[:2]

    def set_app(self, application: WSGIApplication) -> None:
        """What to serve."""
        app = _SharedConnections(django_app(application), self._connections)
        self._server = Server(app, self._config, sockets=[self._socket])

    def serve_forever(self) -> None:
        """Serve until `shutdown` (blocking)."""
        assert self._server is not None
        self._server.serve_forever()

    def shutdown(self) -> None:
        """Answer what is in flight, and end."""
        if self._server is not None:
            self._server.stop()

    def server_close(self) -> None:
        """Close the socket, if nothing was ever served, and leave the connections as they were."""
        self._socket.close()
        for connection in self._connections.values():
            with contextlib.suppress(ValueError):
                connection.execute_wrappers.remove(self._one_by_one)


def _one_by_one() -> Callable[..., Any]:
    """A wrapper for the queries of a connection that several threads share.

    sqlite3 prepares a text once for a connection, and may reset for one thread what another has
    just begun to use (`bad parameter or other API misuse`). So each thread has texts of its own,
    and a row's number is read before somebody else inserts.
    """
    lock = threading.RLock()

    def execute(run: Callable[..., Any], sql: str, *rest: Any) -> Any:
        with lock:
            return run(f"{sql} /* thread {threading.get_ident()} */", *rest)

    return execute


class _SharedConnections:
    """A `SyncApp` around another that runs each request on the test's database connections."""

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
        return response._replace(close=_closing(close))


def _closing(close: Callable[[], object] | None) -> Callable[[], None]:
    def finish() -> None:
        try:
            if close is not None:
                close()
        finally:
            # an open one would keep the test's database from being dropped
            connections.close_all()

    return finish


class LiveServerThread(testcases.LiveServerThread):
    """Django's thread, which serves with threadwell."""

    server_class: Any = LiveServer


class LiveServerTestCase(testcases.LiveServerTestCase):
    """Django's `LiveServerTestCase`, on threadwell."""

    server_thread_class = LiveServerThread


class StaticLiveServerTestCase(testing.StaticLiveServerTestCase):
    """Django's `StaticLiveServerTestCase`, on threadwell."""

    server_thread_class = LiveServerThread
