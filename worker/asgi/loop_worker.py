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
from ..lifecycle import (
    ConnectionOpened,
    LifecycleCollector,
    RequestStarted,
    RequestWaited,
    event_types_of,
)
from ..net.bound_socket import turn_away
from ..proxies.trust import Forwarding
from ..request_id import request_ids, within
from ..system.readiness import has_input, in_error
from .async_body import Streamed
from .event_loop import Call, loop_factory, misses_resets, run_to_its_end, start_task, unless_set
from .http1 import ForwardedLine, HTTP1Connection, adopted, answering
from .lifespan import Lifespan
from .scope import Scopes
from .writer import EchoingLoopWriter, LoopWriter

if TYPE_CHECKING:
    from ..http2.pool import Tools
    from ..interfaces import OriginPool
    from ..messages import ASGIApp, Request, Response
    from ..polling.listener import Listener
    from ..sync_worker import SyncWorker
    from .connection import LoopConnection
    from .pool import EventLoopPool

log = logging.getLogger("threadwell")

# Seconds between two looks at the deadlines: how much later than its deadline a wait may end.
_SWEEP = 1.0
# How many connections are accepted before what they want is looked at.
_ACCEPTS_A_TURN = 16
# Seconds at the end of the grace: for streams that were asked to end, for calls that were
# cancelled, and for a lifespan that got no time because they took it all.
_LAST_WORDS = 2.0
_CANCELLED = 1.0
_LAST_LIFESPAN = 2.0


class LoopWorker:
    """Serves an ASGI application on a loop of its own. Used on the loop's thread.

    `run` and `call` are the exceptions: the first makes the thread the loop's, the second may be
    used from any thread.
    """

    def __init__(
        self,
        pool: EventLoopPool,
        app: ASGIApp,
        config: ServerConfig,
        collector: LifecycleCollector | None,
    ) -> None:
        self.pool = pool
        self.app = app
        self.config = config
        self.collector = collector
        self.announcing = RequestStarted in event_types_of(collector)
        self.sampling = RequestWaited in event_types_of(collector)
        #: Requests that were begun, and looks at the deadlines that were taken.
        self.served = 0
        self.sweeps = 0
        self.persistent = config.timeouts.keep_alive > 0
        self.parser = RequestParser(config.limits)
        self.request_ids = request_ids(config)
        self.writer = (
            EchoingLoopWriter(config.timeouts, config.log.request_id_header)
            if config.log.request_id_echo
            else LoopWriter(config.timeouts)
        )
        self.scopes = Scopes(config.asgi.root_path)
        #: What trusted proxies say; None where none is trusted.
        self.forwarding: Forwarding | None = None
        self._connection_class = HTTP1Connection
        if config.proxies.trusted:
            self.forwarding = Forwarding(config.proxies, pool.throttled_log)
            self._connection_class = ForwardedLine
        self._http2: Tools | None = None
        #: The lifespan's; every scope gets a copy.
        self.state: dict[str, Any] = {}
        self.connections: set[LoopConnection] = set()
        #: Connections that another loop has accepted for this one.
        self.coming: set[Connection] = set()
        #: What `SyncWorker.set_lifespan_state` was given, for the connections that it hands over.
        self.given: dict[str, Any] = {}
        #: Applications' calls that wait for something.
        self.calls: set[Call] = set()
        self.draining = False
        #: While draining: when idle connections are closed, in the seconds of `time.monotonic`.
        self.idle_until = 0.0
        #: Nothing is left, and nothing more is taken.
        self._ending = False
        #: There is nothing to wait for but what is open.
        self._passing = False
        #: The calls that are left are being cancelled.
        self.cancelling = False
        self.loop: asyncio.AbstractEventLoop
        #: What kept the application from starting.
        self.failure: BaseException | None = None
        #: The application is ready, or never will be.
        self.ready = threading.Event()
        #: The loop has ended.
        self.ended = threading.Event()
        self._listeners: dict[int, Listener] = {}
        self._listening = False
        self._empty: asyncio.Event
        self._deadline = 0.0
        self._timers: list[asyncio.TimerHandle] = []
        # what callbacks of other threads run in: nothing of their requests
        self._context = contextvars.Context()

    # ---- The loop's life ------------------------------------------------------------------

    def run(self, runner: asyncio.Runner | None = None) -> None:
        """Serve until the end (blocking): the calling thread becomes the loop's.

        Without a `runner` the loop is made here, and closed.
        """
        made = runner or asyncio.Runner(loop_factory=loop_factory(self.config.asgi.loop))
        try:
            with contextlib.nullcontext(runner) if runner is not None else made:
                run_to_its_end(made, self.main())
        except BaseException as error:
            self.failure = self.failure or error
            log.exception("An event loop met an internal error")
        finally:
            self.ready.set()
            self.ended.set()
            self.pool.arrived(self)
            self.pool.over()

    async def main(self) -> None:
        """The application's whole life on this loop."""
        self._empty = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        if self.pool.stopping:  # before this loop could be told
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
        if self._empty.is_set():  # told to stop meanwhile
            await lifespan.shutdown(_LAST_LIFESPAN)
            return
        sweep = self.loop.call_later(_SWEEP, self._sweep)
        self._timers.append(sweep)
        self.ready.set()
        self.pool.arrived(self)
        if self.pool.stopping:  # before this loop could be told
            self.drain(time.monotonic())
        try:
            await self._empty.wait()
        finally:
            for timer in self._timers:
                timer.cancel()
            self._close_listeners()
            left = self._deadline - time.monotonic()
            await lifespan.shutdown(max(left, _LAST_LIFESPAN))

    def serve_waiting(
        self,
        adopted: list[tuple[Connection, Request, dict[str, Any]]],
        runner: asyncio.Runner | None,
    ) -> None:
        """Serve what was adopted, and end with it (blocking); without a lifespan, nor listening.

        Without a `runner` the loop is made here, and closed.
        """
        made = runner or asyncio.Runner(loop_factory=loop_factory(self.config.asgi.loop))
        try:
            with contextlib.nullcontext(runner) if runner is not None else made:
                run_to_its_end(made, self._serve_waiting(adopted))
        finally:
            self.ended.set()
            self.pool.over()

    async def _serve_waiting(
        self, adopted: list[tuple[Connection, Request, dict[str, Any]]]
    ) -> None:
        self._empty = asyncio.Event()
        self.loop = asyncio.get_running_loop()
        self._timers.append(self.loop.call_later(_SWEEP, self._sweep))
        for connection, request, state in adopted:
            self.adopt(connection, request, state, None)
        self._passing = True
        self._look_whether_empty()
        try:
            await self._empty.wait()
        finally:
            for timer in self._timers:
                timer.cancel()

    def call(self, function: Any, *arguments: Any) -> bool:
        """Run `function` on the loop, soon. Any thread may; False when the loop has ended."""
        try:
            self.loop.call_soon_threadsafe(function, *arguments, context=self._context)
        except (AttributeError, RuntimeError):
            return False
        return True

    # ---- Connections ----------------------------------------------------------------------

    def listen(self, listener: Listener) -> None:
        """Accept from `listener`, which other loops may accept from too."""
        if self.draining:
            self.pool.let_go(listener)
            return
        self._listeners[listener.fileno()] = listener
        self.loop.add_reader(listener.fileno(), self._accept, listener)
        self._listening = True

    def _accept(self, listener: Listener) -> None:
        for _ in range(_ACCEPTS_A_TURN if self.pool.is_alone else 1):
            if self.pool.has_no_room() and (
                not has_input(listener.fileno()) or not self._make_room()
            ):
                return
            try:
                conn = listener.accept()
            except OSError as error:
                if not self._make_room():
                    self._pause(str(error))
                return
            if conn is None:
                return
            taker = self.pool.least_busy(self)
            if taker is self or not taker.offer(conn):
                self.take(conn)

    def offer(self, conn: Connection) -> bool:
        """Have this loop serve a connection that was accepted just now; False when it ends. Any
        thread may call."""
        self.coming.add(conn)
        if not self._ending and self.call(self.take, conn):
            return True
        self.coming.discard(conn)
        self.call(self._look_whether_empty)
        return False

    def take(self, conn: Connection) -> None:
        """Serve a connection that was accepted just now."""
        self.coming.discard(conn)
        conn.become(State.ADOPTED)
        if self.collector is not None:
            self.collector.record(ConnectionOpened(conn.peer))
        connection = self._new_connection(conn)
        connection.start()
        if self.draining and not connection.closed:
            connection.drain(self.idle_until)

    def _new_connection(
        self, conn: Connection, origin_pool: SyncWorker | None = None
    ) -> HTTP1Connection:
        connection = self._connection_class(self, conn, origin_pool)
        self.connections.add(connection)  # now, for other threads look at what is in there
        return connection

    def adopt(
        self,
        conn: Connection,
        request: Request,
        state: dict[str, Any],
        origin_pool: SyncWorker | None,
    ) -> None:
        """Serve a connection of the threads, from `request` on."""
        self.given = state
        adopted(self._new_connection(conn, origin_pool), request)

    def stream(
        self,
        conn: Connection,
        request: Request,
        response: Response,
        origin_pool: SyncWorker | None,
        context: contextvars.Context,
    ) -> None:
        """Send the asynchronous body of `response`, which a thread's application has returned."""
        connection = self._new_connection(conn, origin_pool)
        self.begin(answering(connection, request), {}, Streamed(request, response), context)

    def take_http2(self, conn: Connection, origin_pool: OriginPool | None = None) -> None:
        """Serve a connection that has agreed on HTTP/2.

        `origin_pool` has the threads for its requests; None where the application is on this loop.
        """
        from ..http2.connection import HTTP2Connection

        connection = HTTP2Connection(self, conn, origin_pool)
        self.connections.add(connection)
        connection.start()
        if self.draining:  # what it has sent in the meantime is answered
            connection.drain(time.monotonic() + _SWEEP)

    def http2(self) -> Tools:
        """What lines of HTTP/2 share."""
        if self._http2 is None:
            from ..http2.pool import Tools

            self._http2 = Tools.make(self.config)
        return self._http2

    def _make_room(self) -> bool:
        """Close the connection that has been idle the longest; False when none is idle."""
        if self.close_idlest():
            return True
        self._pause("as many connections are open as limit_connections allows")
        return False

    def close_idlest(self) -> bool:
        """The same, and nothing else."""
        idle = [
            (since, connection)
            for connection in self.connections
            if (since := connection.idle_since()) is not None
        ]
        for _, connection in sorted(idle, key=itemgetter(0)):
            if not has_input(connection.conn.fd):  # else its next request has just come
                connection.close("closed for a new connection")
                return True
        return False

    def _pause(self, why: str) -> None:
        if self._listening:
            log.warning("No new connections are accepted for now: %s", why)
            self._listening = False
            for fd in self._listeners:
                self.loop.remove_reader(fd)

    def _resume(self) -> None:
        if not self._listening and not self.draining and not self.pool.has_no_room():
            self._listening = True
            for fd, listener in self._listeners.items():
                self.loop.add_reader(fd, self._accept, listener)

    def begin(
        self,
        call: Call,
        scope: dict[str, Any],
        app: ASGIApp | None = None,
        context: contextvars.Context | None = None,
        *,
        request_id: str = "",
    ) -> None:
        """Start an application's call, the worker's if not another's is given. `scope` gets the
        state: a shallow copy, as the specification wants it."""
        given = self.given or self.pool.lifespan_state
        scope["state"] = {**given, **self.state} if given else self.state.copy()
        running = call.run(app or self.app, scope)
        if request_id:
            running = within(request_id, running)
        task = start_task(running, self.loop, context)
        if not task.done():
            call.task = task
            self.calls.add(call)

    def is_busy(self) -> bool:
        """Whether a request is under way. Any thread may ask."""
        if self.calls:
            return True
        return any(connection.is_busy() for connection in list(self.connections))

    def gone(self, connection: LoopConnection) -> None:
        """`connection` is closed, or another's."""
        self.connections.discard(connection)
        self._look_whether_empty()

    def load(self) -> int:
        """How many connections there are. Any thread may ask."""
        return len(self.connections) + len(self.coming)

    def call_over(self, call: Call) -> None:
        """An application's call has ended."""
        self.calls.discard(call)
        self._look_whether_empty()

    def _look_whether_empty(self) -> None:
        if not (self.draining or self._passing) or self.pool.held:
            return
        # before the look: whoever offers a connection sees this, or is seen
        self._ending = True
        if self.connections or self.coming or self.calls:
            self._ending = False
        else:
            self._empty.set()

    def _sweep(self) -> None:
        now = time.monotonic()
        self.sweeps += 1
        connections = list(self.connections)
        reset = in_error(each.conn.fd for each in connections) if misses_resets(self.loop) else ()
        for connection in connections:
            try:
                if reset and connection.conn.fd in reset and connection.hears():
                    connection.on_readable()
                if not connection.closed:
                    connection.look(now)
            except Exception as error:
                connection.broken(error)
        if self._listeners and not self._listening:
            self._resume()
        self.pool.every_second()
        self._timers[0] = self.loop.call_later(_SWEEP, self._sweep)

    # ---- Whether it hangs; any thread may ask: see `pool.Watched` ---------------------------

    @property
    def looked(self) -> float:
        """Looks at the deadlines that were taken: none while the application holds the loop."""
        return self.sweeps

    def activity(self) -> object:
        """Changes with each request."""
        return self.served

    def is_full(self) -> bool:
        """A loop always takes another request."""
        return False

    # ---- The end --------------------------------------------------------------------------

    def drain(self, deadline: float, linger: float = 0.0) -> None:
        """Stop accepting; end everything well by `deadline`, and then anyhow.

        WebSockets and event streams, which have no end of their own, are asked to end now, other
        streams shortly before the time is up. Idle connections stay for `linger` seconds.
        """
        if self.draining:
            self._look_whether_empty()
            return
        self.draining = True
        self._deadline = deadline
        self.idle_until = time.monotonic() + linger if linger else 0.0
        turn_away(listener.sock for listener in self._listeners.values())
        for listener in self._listeners.values():
            if not listener.shared:
                self._take_backlog(listener)
        self._close_listeners()
        for connection in list(self.connections):
            connection.drain(self.idle_until)
        self._look_whether_empty()
        left = max(deadline - time.monotonic(), 0)
        words, cancelled = min(_LAST_WORDS, left / 4), min(_CANCELLED, left / 8)
        later = self.loop.call_later
        self._timers += [
            later(left - words, self._ask_to_end),
            later(left - cancelled, self._cancel),
            later(left, self.cut),
        ]

    def _take_backlog(self, listener: Listener) -> None:
        """Take what the kernel has accepted: closing the listener would reset it."""
        while True:
            try:
                conn = listener.accept()
            except OSError:
                return
            if conn is None:
                return
            self.take(conn)

    def _close_listeners(self) -> None:
        for fd, listener in self._listeners.items():
            if self._listening:
                self.loop.remove_reader(fd)
            self.pool.let_go(listener)
        self._listeners.clear()

    def _ask_to_end(self) -> None:
        for call in list(self.calls):
            call.ask_to_end()

    def _cancel(self) -> None:
        self.cancelling = True
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
        # what does not let itself be cancelled is not waited for
        self.loop.call_later(min(_CANCELLED, 0.2), self._empty.set)
        self._look_whether_empty()
