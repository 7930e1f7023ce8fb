"""`LoopWorker`: one event loop, the application on it, and its connections."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import threading
import time
from operator import itemgetter
from typing import TYPE_CHECKING, Any

from ..config import ServerConfig
from ..connection import Connection, State
from ..errors import StartupError
from ..http1.parser import RequestParser
from ..lifecycle import ConnectionOpened, LifecycleCollector
from ..net.bound_socket import refuse_connections
from ..proxies.trust import Forwarding
from ..request_id import request_ids, within
from ..system.readiness import has_input, in_error, octet_count
from .acceptor import Acceptor
from .async_body import Streamed
from .event_loop import loop_factory, misses_resets, run_to_its_end, unless_set
from .forwarded import ForwardedConnection
from .http1 import HTTP1Connection
from .lifespan import Lifespan
from .loop_calls import LoopCalls
from .opening import OpeningConnection
from .reporter import Reporter
from .scope import Scopes
from .task_start import TaskStart, task_start
from .tracking import LoopTracking
from .writer import EchoingLoopWriter, LoopWriter

if TYPE_CHECKING:
    from ..http1.body_store import BodyStore
    from ..interfaces import OriginPool, ReturnsConnections
    from ..messages import ASGIApp, Request, Response
    from ..polling.listener import Listener
    from .interfaces import (
        ALPNTable,
        Call,
        ConnectionFactory,
        ConnectionOnLoop,
        LoopPoolView,
    )

log = logging.getLogger("threadwell")

# Seconds between two checks of all deadlines: how much later than its deadline a wait may end.
_SWEEP = 1.0
# Seconds at the end of the graceful timeout: for streams that were asked to end, and for calls that
# were cancelled; and the least for the application's lifespan, if both took all the time.
_TIME_TO_END = 2.0
_TIME_TO_CANCEL = 1.0
_LEAST_SHUTDOWN = 2.0


class LoopWorker:
    """Serves an ASGI application on a loop of its own. Belongs to the loop's thread.

    The exceptions are `run`, which makes the calling thread the loop's, and the methods whose
    docstring allows any thread.
    """

    #: Set when the loop runs.
    loop: asyncio.AbstractEventLoop
    _empty: asyncio.Event
    _start_task: TaskStart
    thread_calls: LoopCalls

    def __init__(
        self,
        pool: LoopPoolView[LoopWorker],
        app: ASGIApp,
        config: ServerConfig,
        collector: LifecycleCollector | None,
        protocols: ALPNTable,
    ) -> None:
        self.pool = pool
        self.throttled_log = pool.throttled_log
        self.wrong_port = pool.wrong_port
        self.app = app
        self.config = config
        self.collector = collector
        self.reporter = None if collector is None else Reporter(collector)
        #: How many requests were begun, and how often all deadlines were checked.
        self.served = self.sweeps = 0
        self.persistent = config.timeouts.keep_alive > 0
        self.octets = octet_count()
        self.parser = RequestParser(config.limits)
        self.request_ids = request_ids(config)
        self.writer = _make_writer(config)
        self.scopes = Scopes(config.asgi.root_path, pathsend=config.asgi.pathsend)
        trusted = config.proxies.trusted
        self._http1 = ForwardedConnection if trusted else HTTP1Connection
        #: Reads the headers of trusted proxies; None where no proxy is trusted.
        self.forwarding = Forwarding(config.proxies, pool.throttled_log) if trusted else None
        #: The state of the lifespan. Every scope gets a copy.
        self.state: dict[str, Any] = {}
        self.connections: set[ConnectionOnLoop] = set()
        #: Connections that another loop has accepted for this one.
        self.offered: set[Connection] = set()
        #: The state of `SyncWorker.set_lifespan_state`, for requests that the threads hand over.
        self.shared_state: dict[str, Any] = {}
        #: Calls that wait for something, and when each has begun (0: that was not noted).
        self.calls: dict[Call, float] = {}
        self.tracking = LoopTracking(self, config)
        self.draining = False
        #: While draining: when idle connections are closed, in the seconds of `time.monotonic`.
        self.idle_until = 0.0
        #: Nothing is left to serve, and no connection is accepted from another loop any more.
        self._is_ending = False
        #: The loop ends with its last connection; see `serve_waiting`.
        self._ends_when_empty = False
        # the calls that are left are being cancelled
        self._cancelling = False
        #: The error that kept the application from starting.
        self.failure: BaseException | None = None
        #: The application is ready, or has failed to start.
        self.ready = threading.Event()
        #: The loop has ended.
        self.ended = threading.Event()
        self._acceptor = Acceptor(self)
        self._deadline = 0.0
        self._timers: list[asyncio.TimerHandle] = []
        # the context of callbacks from other threads, which must see nothing of their requests
        self._context = contextvars.Context()
        self._protocols: dict[str, ConnectionFactory] = {}
        self.add_protocols(protocols)

    def add_protocols(self, protocols: ALPNTable) -> None:
        """Serve these protocols too. Called before a connection can have agreed on one."""
        self._protocols.update({name: make(self) for name, make in protocols.items()})

    # ---- The loop's life ------------------------------------------------------------------

    def run(self, runner: asyncio.Runner | None = None) -> None:
        """Serve until the end (blocking). The calling thread becomes the loop's.

        Without a `runner` the loop is created here, and closed at the end.
        """
        try:
            made = runner or asyncio.Runner(loop_factory=loop_factory(self.config.asgi.loop))
            with contextlib.nullcontext(runner) if runner is not None else made:
                run_to_its_end(made, self.main())
        except BaseException as error:
            self.failure = self.failure or error
            if isinstance(error, OSError) and not self.ready.is_set():
                log.error("An event loop cannot start: %s", error)
            else:
                log.exception("An event loop met an internal error")
        finally:
            self.ready.set()
            self.ended.set()
            self.pool.loop_is_ready(self)
            self.pool.loop_has_ended()

    async def main(self) -> None:
        """Start the application, serve, and shut the application down."""
        self._enter_loop()
        if self.pool.stopping:  # it called `drain` before the loop could run it
            self._empty.set()
        required = self.config.asgi.lifespan == "on"
        lifespan = Lifespan(self.app, self.state, required=required)
        try:
            if self.config.asgi.lifespan != "off":
                await unless_set(self._empty, lifespan.startup())
        except StartupError as error:
            self.failure = error
            await lifespan.shutdown(0)
            return
        if self._empty.is_set():  # the pool has stopped meanwhile
            await lifespan.shutdown(_LEAST_SHUTDOWN)
            return
        sweep = self.loop.call_later(_SWEEP, self._sweep)
        self._timers.append(sweep)
        self.ready.set()
        self.pool.loop_is_ready(self)
        if self.pool.stopping:  # it called `drain` before the loop could run it
            self.drain(time.monotonic())
        try:
            await self._empty.wait()
        finally:
            for timer in self._timers:
                timer.cancel()
            self._acceptor.close()
            left = self._deadline - time.monotonic()
            await lifespan.shutdown(max(left, _LEAST_SHUTDOWN))

    def serve_waiting(
        self,
        adopted: list[tuple[Connection, Request, dict[str, Any]]],
        runner: asyncio.Runner | None,
    ) -> None:
        """Serve the requests in `adopted`, without a lifespan, until their connections are closed
        (blocking). The calling thread becomes the loop's.

        Without a `runner` the loop is created here, and closed at the end.
        """
        made = runner or asyncio.Runner(loop_factory=loop_factory(self.config.asgi.loop))
        try:
            with contextlib.nullcontext(runner) if runner is not None else made:
                run_to_its_end(made, self._serve_waiting(adopted))
        finally:
            self.ended.set()
            self.pool.loop_has_ended()

    def _enter_loop(self) -> None:
        self._empty = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        self._start_task = task_start(self.loop)
        self.thread_calls = LoopCalls(self.loop, self._context)
        self.tracking.enter_thread()
        if self.reporter is not None:
            self.reporter.enter_thread()

    async def _serve_waiting(
        self, adopted: list[tuple[Connection, Request, dict[str, Any]]]
    ) -> None:
        self._enter_loop()
        self._timers.append(self.loop.call_later(_SWEEP, self._sweep))
        for connection, request, state in adopted:
            self.adopt(connection, request, state, None)
        self._ends_when_empty = True
        self._check_empty()
        try:
            await self._empty.wait()
        finally:
            for timer in self._timers:
                timer.cancel()

    def call(self, function: Any, *arguments: Any) -> bool:
        """Run `function` on the loop, soon; False when the loop has ended. Any thread may call."""
        try:
            self.thread_calls.add(function, *arguments)
        except (AttributeError, RuntimeError):
            return False
        return True

    # ---- Connections ----------------------------------------------------------------------

    def listen(self, listener: Listener) -> None:
        """Accept from `listener`. Other loops may accept from it at the same time."""
        if self.draining:
            self.pool.release_listener(listener)
        else:
            self._acceptor.listen(listener)

    def place(self, conn: Connection) -> None:
        """Serve a connection that was just accepted, on this loop or on one with clearly fewer."""
        worker = self.pool.least_busy(self)
        if worker is self or not worker.offer(conn):
            self.serve(conn)

    def offer(self, conn: Connection) -> bool:
        """Have this loop serve `conn`, which was just accepted; False when the loop ends.

        Any thread may call.
        """
        self.offered.add(conn)
        if not self._is_ending and self.call(self.serve, conn):
            return True
        self.offered.discard(conn)
        self.call(self._check_empty)
        return False

    def serve(self, conn: Connection) -> None:
        """Serve a connection that was accepted just now."""
        self.offered.discard(conn)
        conn.become(State.ADOPTED)
        if self.collector is not None:
            self.collector.record(ConnectionOpened(conn.peer))
        connection: ConnectionOnLoop
        if conn.encrypted or self.config.proxies.protocol:
            connection = OpeningConnection(self, conn)
        else:
            connection = self._http1(self, conn)
        self._start(connection)
        if self.draining and not connection.closed:
            connection.drain(self.idle_until)

    def _start(self, connection: ConnectionOnLoop) -> None:
        # complete from now on: other threads call methods of the connections in the set
        self.connections.add(connection)
        connection.start()

    def begin_protocol(self, connection: ConnectionOnLoop, protocol: str | None) -> None:
        """Serve the client of `connection`, which is done with its opening. The TLS handshake has
        agreed on `protocol` (ALPN, RFC 7301); HTTP/1.1 is spoken where it is unknown or None."""
        factory = self._protocols.get(protocol or "")
        if factory is None:
            self._start(self._http1(self, connection.conn))
        else:
            self._start(factory(connection.conn, None))
        self.forget(connection)

    def adopt(
        self,
        conn: Connection,
        request: Request,
        state: dict[str, Any],
        origin_pool: ReturnsConnections | None,
    ) -> None:
        """Serve a connection of the threads, from `request` on."""
        self.shared_state = state
        connection = self._http1(self, conn, origin_pool)
        self.connections.add(connection)
        connection.adopt(request)

    def stream(
        self,
        conn: Connection,
        request: Request,
        response: Response,
        origin_pool: ReturnsConnections | None,
        context: contextvars.Context,
    ) -> None:
        """Send `response`, which the sync application has returned with an asynchronous body."""
        connection = self._http1(self, conn, origin_pool)
        self.connections.add(connection)
        cycle = connection.adopt_cycle(request)
        self.begin(cycle, {}, Streamed(request, response), context)

    def adopt_protocol(self, conn: Connection, protocol: str, origin_pool: OriginPool) -> None:
        """Serve a connection of the threads, whose TLS handshake has agreed on `protocol`. The
        threads of `origin_pool` run the application."""
        self._start(self._protocols[protocol](conn, origin_pool))

    def close_idlest(self) -> bool:
        """Close the connection that has been idle the longest; False when none is idle."""
        idle = [
            (since, connection)
            for connection in self.connections
            if (since := connection.idle_since()) is not None
        ]
        for _, connection in sorted(idle, key=itemgetter(0)):
            if not has_input(connection.conn.fd):  # else its next request has just arrived
                connection.close("closed for a new connection")
                return True
        return False

    def begin(
        self,
        call: Call,
        scope: dict[str, Any],
        app: ASGIApp | None = None,
        context: contextvars.Context | None = None,
        request_id: str = "",
    ) -> None:
        """Start a call of `app`, or of the worker's application. `scope` gets a shallow copy of the
        state, as the ASGI specification says."""
        shared = self.shared_state or self.pool.lifespan_state
        scope["state"] = {**shared, **self.state} if shared else self.state.copy()
        running = call.run(app or self.app, scope)
        if request_id:
            running = within(request_id, running)
        task = self._start_task(running, context)
        if not task.done():
            call.task = task
            self.calls[call] = self.tracking.began

    def replace_begin(self, begin: Any) -> None:
        """Replace the method `begin` with a function; None restores the method."""
        vars(self).pop("begin", None)
        if begin is not None:
            self.begin = begin  # type: ignore[method-assign]

    def is_cancelled(self) -> bool:
        """Whether it was the server that has cancelled the call that is running."""
        return self._cancelling or self.tracking.has_timed_out()

    def is_busy(self) -> bool:
        """Whether a request is under way. Any thread may call."""
        if self.calls:
            return True
        return any(connection.is_busy() for connection in list(self.connections))

    def forget(self, connection: ConnectionOnLoop) -> None:
        """`connection` is closed, or has another owner."""
        self.connections.discard(connection)
        self._check_empty()

    def load(self) -> int:
        """How many connections the loop has. Any thread may call."""
        return len(self.connections) + len(self.offered)

    def call_over(self, call: Call) -> None:
        """A call of the application has ended."""
        began = self.calls.pop(call, 0.0)
        if began:
            self.tracking.durations.add(time.monotonic() - began)
        self._check_empty()

    def _check_empty(self) -> None:
        if not (self.draining or self._ends_when_empty) or self.pool.expects_handoffs:
            return
        # before the check: another loop that offers a connection either sees this, or is seen
        self._is_ending = True
        if self.connections or self.offered or self.calls:
            self._is_ending = False
        else:
            self._empty.set()

    def _sweep(self) -> None:
        now = time.monotonic()
        self.sweeps += 1
        connections = list(self.connections)
        reset = in_error(each.conn.fd for each in connections) if misses_resets(self.loop) else ()
        for connection in connections:
            try:
                if reset and connection.conn.fd in reset and connection.watches_input():
                    connection.on_readable()
                if not connection.closed:
                    connection.check_deadline(now)
            except Exception as error:
                connection.fail(error)
        self._acceptor.resume()
        self.pool.check_shutdown_event()
        self._timers[0] = self.loop.call_later(_SWEEP, self._sweep)

    # ---- `watchdog.Probed`: any thread may call ---------------------------------------------

    @property
    def looked(self) -> float:
        """How often the deadlines were checked: never while the application blocks the loop."""
        return self.sweeps

    @property
    def body_store(self) -> BodyStore:
        """The memory for large request bodies of HTTP/2. Any thread may call."""
        return self.pool.body_store

    def activity(self) -> object:
        """A number that changes with each request."""
        return self.served

    def is_full(self) -> bool:
        """A loop always takes another request."""
        return False

    # ---- The end --------------------------------------------------------------------------

    def drain(self, deadline: float, linger: float = 0.0) -> None:
        """Stop accepting; let what is under way end by `deadline`, and then cut what is left.

        WebSockets and event streams, which may never end, are asked to end now, and other streams
        shortly before the deadline. Idle connections stay for `linger` seconds.
        """
        if self.draining:
            self._check_empty()
            return
        self.draining = True
        self._deadline = deadline
        self.idle_until = time.monotonic() + linger if linger else 0.0
        refuse_connections(listener.sock for listener in self._acceptor.listeners)
        self._acceptor.take_backlogs()
        self._acceptor.close()
        for connection in list(self.connections):
            connection.drain(self.idle_until)
        self._check_empty()
        left = max(deadline - time.monotonic(), 0)
        ending, cancelling = min(_TIME_TO_END, left / 4), min(_TIME_TO_CANCEL, left / 8)
        later = self.loop.call_later
        self._timers += [
            later(left - ending, self._ask_to_end),
            later(left - cancelling, self._cancel),
            later(left, self.cut),
        ]

    def _ask_to_end(self) -> None:
        for call in list(self.calls):
            call.ask_to_end()

    def _cancel(self) -> None:
        self._cancelling = True
        for call in list(self.calls):
            if call.task is not None:
                call.task.cancel()

    def cut(self) -> None:
        """End every connection and every call now."""
        self.draining = True
        if self.connections:
            log.warning("%d connections were cut", len(self.connections))
        self._cancel()
        for connection in list(self.connections):
            connection.conn.abort_with_reset()
            connection.close("cut at shutdown")
        # a call that suppresses its cancellation is not waited for
        self.loop.call_later(min(_TIME_TO_CANCEL, 0.2), self._empty.set)
        self._check_empty()


def _make_writer(config: ServerConfig) -> LoopWriter:
    if config.log.request_id_echo:
        return EchoingLoopWriter(config)
    return LoopWriter(config)
