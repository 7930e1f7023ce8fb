"""The protocols by which a server, its threads and its event loops know each other.

Threads and event loops never import each other. A `SyncWorker` sees its pool as a `ServingPool`,
and the event loops beside it as an `AsyncPool`; a pool sees its workers as `PoolThread`s.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from .connection import Connection
from .messages import Request, Response
from .system.durations import Durations
from .system.throttled_log import ThrottledLog
from .tls.wrong_port import WrongPort
from .watchdog import Probed

if TYPE_CHECKING:
    import asyncio
    import socket
    import ssl
    from types import FrameType

    from .http1.body_store import BodyStore
    from .lifecycle import RunningRequest
    from .polling.base import Poller


class PoolSnapshot(NamedTuple):
    """What a pool has at one moment. `metrics.gauges` adds up the snapshots of a server's pools."""

    #: Serving threads, those that run a request, and those lent to a long response.
    threads: int = 0
    busy: int = 0
    lent: int = 0
    #: How many threads may run requests at the same time.
    slots: int = 0
    #: Event loops.
    loops: int = 0
    #: Open connections by the name of their state, see `metrics.gauges.STATES`.
    connections: Mapping[str, int] = MappingProxyType({})


class AsyncPool(Protocol):
    """Takes over connections whose request needs an event loop."""

    def adopt(
        self,
        connection: Connection,
        request: Request,
        state: dict[str, Any],
        response: Response | None = None,
    ) -> None:
        """Own `connection` from now on, which is ADOPTED, and answer `request`.

        The request has arrived in full, with its body; pipelined octets are in
        `connection.buffer`. `state` is the lifespan's. `response` is given only if the sync
        application has answered with an asynchronous body: the pool sends it and closes it.
        `connection.worker.adopt_back` takes the connection for its next request.

        Called on a worker's thread; must not block. If it raises, the connection, the request's
        body and the response still belong to the worker.
        """


class OriginPool(Protocol):
    """The pool whose threads answer the requests of an HTTP/2 connection."""

    poller: Poller
    lifespan_state: dict[str, Any]


class HTTP2Pool(AsyncPool, Protocol):
    """The event loops that own the HTTP/2 connections of a `ServingPool` of threads.

    Any thread may call it. In a hybrid these are the loops of the ASGI application.
    """

    #: The memory for large request bodies. The threads give it theirs.
    body_store: BodyStore

    def start(self, name: str) -> None:
        """Run every loop on a thread whose name begins with `name`. Raises `StartupError`."""

    def adopt_http2(self, connection: Connection, origin_pool: OriginPool) -> None:
        """Own `connection`, which is ADOPTED and has negotiated HTTP/2.

        The threads of `origin_pool` answer its requests. Raises `RuntimeError` if the connection
        still belongs to the caller.
        """

    def make_room(self) -> None:
        """Close the connection that has been idle the longest, on each loop."""

    def is_idle(self) -> bool:
        """Whether no request is under way."""

    def snapshot(self) -> PoolSnapshot:
        """Count the loops and their connections."""

    def drain(self, timeout: float | None = None, linger: float = 0.0) -> None:
        """Let the connections finish; see `ServingPool.drain`."""

    def shutdown(self, timeout: float, linger: float = 0.0) -> None:
        """Drain, then end the loops; see `ServingPool.shutdown`."""


class PoolThread(Protocol):
    """What a pool knows of a worker, which belongs to one serving thread."""

    worker_id: int
    #: How many requests this worker has given to the application.
    served: int
    #: A `leader_follower.Slot`: whether the thread has a slot, and what it serves.
    slot: Any
    #: Assigned by a pool of threads in `add`.
    leader_follower: Any
    #: What adapters store for this thread, closed with it.
    notes: dict[Any, Any]
    #: The durations of some requests; None unless requests are tracked.
    durations: Durations | None

    def bind_to_thread(self) -> None:
        """Called once, on the thread that the worker belongs to from now on."""

    def running(self, frames: dict[int, FrameType]) -> RunningRequest | None:
        """The request that the thread runs. `frames` are those of `system.stacks.current_frames`.
        Any thread may call."""

    def sample(self, *, wanted: bool) -> None:
        """Take the time of the next requests, or of no more. Any thread may call."""

    def poll_and_serve(self, poll_interval: float) -> None:
        """Poll, and serve, while the calling thread has its slot."""

    def close_connection(self, conn: Connection, reason: str) -> None:
        """Close `conn`, which no thread owns any more, and report `reason`."""


class ReturnsConnections(Protocol):
    """What a loop needs of the SyncWorker that a connection came from."""

    def adopt_back(self, conn: Connection, let_go: Callable[[], object]) -> bool:
        """Serve the next request of `conn`, which a loop had adopted. Any thread may call.

        `let_go` is called first, and must leave `conn` IDLE or YIELDED. False, and nothing happens,
        if the threads serve no more.
        """


class ServingPool(Protocol):
    """The threads, or the event loops, of a server.

    Any thread may call it, except for the methods that take a worker: these belong to the
    worker's thread.
    """

    lifespan_state: dict[str, Any]
    shutdown_event: threading.Event
    throttled_log: ThrottledLog
    wrong_port: WrongPort
    body_store: BodyStore
    poller: Poller
    #: The loops that own HTTP/2 connections; None if HTTP/2 is off, or each loop has its own.
    http2: HTTP2Pool | None

    def add(self, worker: PoolThread) -> None:
        """Register `worker`, which was made for this pool."""

    def run(self, worker: PoolThread) -> None:
        """Serve until the pool is stopped (blocking); the calling thread serves too."""

    def run_loops(self, poll_interval: float, runner: asyncio.Runner | None) -> bool:
        """Run the event loops until their end (blocking), the first in `runner` if it is given.

        Returns False at once if threads serve.
        """

    def serve_waiting(self, runner: asyncio.Runner | None) -> None:
        """Serve connections that were handed over while no loop ran (blocking).

        The loop is that of `runner`, or a new one if it is None.
        """

    def close(self, worker: PoolThread) -> None:
        """Cut every connection, end the threads, and close the listeners."""

    def number(self) -> int:
        """The next number for a worker."""

    def wait_until_ready(self) -> None:
        """Block until requests are served. Raises what kept the application from starting."""

    def listen(self, sock: socket.socket, *, plain: bool = False) -> None:
        """Accept connections from the listening `sock`; without TLS if `plain`."""

    def use_context(self, ssl_context: ssl.SSLContext) -> None:
        """Use `ssl_context` for new handshakes. Listeners without TLS stay without."""

    def share_listeners(self) -> None:
        """Leave the backlog to the other processes that have the same listening sockets."""

    def drain(self, timeout: float | None = None, linger: float = 0.0) -> None:
        """Stop listening, and let requests in flight finish; return at once.

        Loops cut what is left after `timeout` seconds, `graceful_timeout` if None. Idle
        connections stay open for `linger` seconds, for a request that is on its way.
        """

    def shutdown(self, timeout: float, linger: float = 0.0) -> None:
        """Drain for at most `timeout` seconds, cut what is left, and return when it has ended."""

    def cut(self) -> None:
        """End every connection now, in whatever state it is."""

    def stop(self) -> None:
        """Let each serving thread end once it has finished what it does."""

    def is_idle(self) -> bool:
        """Whether no request is being read, served, streamed or written."""

    def served(self) -> int:
        """How many requests the application was given."""

    def parts(self) -> Sequence[Probed]:
        """The parts that can hang independently of each other."""

    def snapshot(self) -> PoolSnapshot:
        """Count threads, loops and connections. Each may change while it is counted."""

    def requests(self) -> list[RunningRequest]:
        """The requests under way. Empty unless `ServerConfig.tracks_requests`."""

    def waiting(self) -> int:
        """How many connections have input and no thread yet."""

    def call_stacks(self, calls: Sequence[object], seconds: float) -> dict[int, str]:
        """The Python stacks of `RunningRequest.call`s on loops, by the `id` of each call.

        The loops are asked. What none answers within `seconds` is missing: a loop that is blocked
        has only the stack of its thread.
        """

    def cancel(self, call: object) -> None:
        """Cancel a `RunningRequest.call` that takes too long, as soon as its loop runs."""

    def take_durations(self) -> list[tuple[float, int]]:
        """Durations of requests since the last call, in seconds, and for how many requests each
        stands: some requests are sampled. One thread at a time may call."""
