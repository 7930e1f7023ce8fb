"""The border to the asyncio side: what a `SyncWorker` needs of it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Protocol

from .connection import Connection
from .messages import Request, Response
from .system.throttled_log import ThrottledLog
from .tls.wrong_port import WrongPort
from .watchdog import Probed

if TYPE_CHECKING:
    import asyncio
    import socket
    import ssl
    from collections.abc import Callable, Sequence

    from .asgi.pool import HandoffPool
    from .polling.base import Poller
    from .sync_worker import SyncWorker


class AsyncPool(Protocol):
    """Takes over connections whose request wants an event loop."""

    def adopt(
        self,
        connection: Connection,
        request: Request,
        state: dict[str, Any],
        response: Response | None = None,
    ) -> None:
        """Own `connection` from now on, which is ADOPTED, and answer `request`.

        The request is whole, with its body; what came behind it is in `connection.buffer`. `state`
        is the lifespan's. `response`, given only where there is one, is what the sync application
        has answered already: its body is asynchronous, and it is to be sent and closed.
        `connection.worker.adopt_back` takes the connection for its next request.
        Called on a worker's thread; must not block. What it raises says that the connection, the
        request's body and the response are still the worker's.
        """


class ServingPool(Protocol):
    """What a `SyncWorker` and a `Server` need of those who serve: threads, as here, or the event
    loops of `asgi.pool`.

    Any thread may call it, but for the four that take a worker: those are the worker's thread's.
    """

    lifespan_state: dict[str, Any]
    shutdown_event: threading.Event
    throttled_log: ThrottledLog
    wrong_port: WrongPort
    poller: Poller
    http2: HandoffPool | None

    def add(self, worker: SyncWorker) -> None:
        """`worker` is to be used with this crew."""

    def run(self, worker: SyncWorker) -> None:
        """Serve until the end (blocking); the calling thread serves too."""

    def take_turn(
        self, worker: SyncWorker, poll_interval: float, runner: asyncio.Runner | None
    ) -> None:
        """The calling thread's part of it, until its turn ends; on the loop of `runner`, where
        there are loops."""

    def serve_waiting(self, runner: asyncio.Runner | None) -> None:
        """Serve what was handed over and has no loop yet (blocking), on that of `runner`, if
        given."""

    def close(self, worker: SyncWorker) -> None:
        """End everything now, and close what is open."""

    def number(self) -> int:
        """A new number for a worker."""

    def wait_until_ready(self) -> None:
        """Return when requests are served. Raises what kept the application from starting."""

    def listen(self, sock: socket.socket, *, plain: bool = False) -> None:
        """Accept connections from `sock`, which listens; `plain` ones are without TLS."""

    def use_context(self, ssl_context: ssl.SSLContext) -> None:
        """Begin handshakes with `ssl_context` from now on; what is without TLS stays so."""

    def share_listeners(self) -> None:
        """Whoever else has the sockets takes what waits in their backlog."""

    def drain(self) -> None:
        """Stop listening; let everything end well."""

    def shutdown(self, timeout: float, linger: float = 0.0) -> None:
        """The same, for `timeout` seconds at most, and return when it has ended. Idle connections
        stay for `linger` seconds, for a request that is on its way."""

    def cut(self) -> None:
        """End every connection now, whatever it is at."""

    def stop(self) -> None:
        """Let those who serve end when they are done with what they are at."""

    def is_idle(self) -> bool:
        """Whether nothing is being read, served, streamed or written."""

    def served(self) -> int:
        """How many requests the application was given."""

    def parts(self) -> Sequence[Probed]:
        """What of it can hang by itself."""


class ReturnsConnections(Protocol):
    """What a loop needs of the SyncWorker that a connection came from."""

    def adopt_back(self, conn: Connection, let_go: Callable[[], object]) -> bool:
        """Serve the next request of `conn`, which was handed over before. Any thread may call.

        `let_go` is called first, and must leave `conn` IDLE or YIELDED. False, and nothing happens,
        if the threads serve no more.
        """


class OriginPool(Protocol):
    """The threads that answer the requests of an HTTP/2 connection: a `ThreadPool`."""

    poller: Poller
    lifespan_state: dict[str, Any]
