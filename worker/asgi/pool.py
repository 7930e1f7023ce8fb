"""`EventLoopPool`: the loops of one server, each on a thread of its own."""

from __future__ import annotations

import contextvars
import functools
import logging
import math
import queue
import socket
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from ..http1.body_store import BodyStore
from ..interfaces import PoolSnapshot
from ..lifecycle import LifecycleCollector, guarded
from ..net.bind import address_of
from ..polling.base import BlockingPoller
from ..polling.listener import Listener, connect
from ..system.resources import connection_limit
from ..system.stacks import current_frames
from ..system.threads import start_thread
from ..system.throttled_log import ThrottledLog
from ..tls.wrong_port import WrongPort
from ..watchdog import POLL_INTERVAL
from .event_loop import loop_count, loop_factory
from .loop_worker import LoopWorker

if TYPE_CHECKING:
    import asyncio
    import ssl
    from collections.abc import Callable, Sequence

    from ..config import ServerConfig
    from ..connection import Connection
    from ..interfaces import HTTP2Pool, OriginPool, PoolThread
    from ..lifecycle import RunningRequest
    from ..messages import ASGIApp, Request, Response
    from ..polling.base import ConnectionQueue, Poller
    from .interfaces import ALPNTable

log = logging.getLogger("threadwell")

# Seconds for loops to end whose connections were cut.
_TIME_TO_CLOSE = 3.0


class EventLoopPool:
    """Loops that share listeners: a `ServingPool`. Any thread may call.

    Every loop runs the application's lifespan, and has its own state. No connection is accepted
    before all loops are ready. `protocols` are spoken beside HTTP/1.1.

    Raises `ConfigError` if the loop that is configured is not installed.
    """

    def __init__(
        self,
        app: ASGIApp,
        config: ServerConfig,
        *,
        collector: LifecycleCollector | None = None,
        shutdown_event: threading.Event | None = None,
        ssl_context: ssl.SSLContext | None = None,
        conn_queue: ConnectionQueue | None = None,
        loops: int = 0,
        protocols: ALPNTable | None = None,
    ) -> None:
        loop_factory(config.asgi.loop)  # an error is raised here, and not on a thread
        self.config = config
        self._app = app
        self._collector = collector = guarded(collector)
        #: The state of `SyncWorker.set_lifespan_state`; see `ServingPool`.
        self.lifespan_state: dict[str, Any] = {}
        self.throttled_log = ThrottledLog()
        #: See `ServingPool`. Here each loop serves HTTP/2 by itself.
        self.http2: HTTP2Pool | None = None
        self.wrong_port = WrongPort(self.throttled_log)
        self.body_store = BodyStore(config.limits)
        self.shutdown_event = shutdown_event or threading.Event()
        #: Serves blocking sockets only; see `SyncWorker._recv_request_fast`.
        self.poller: Poller = BlockingPoller(connection_limit(config.limits.connections))
        self._ssl_context = ssl_context
        self._conn_queue = conn_queue
        self._protocols: ALPNTable = protocols or {}
        count = loops or loop_count(config)
        self.workers = [self._make_worker() for _ in range(count)]
        self.is_alone = count == 1
        self._listeners: list[Listener] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()  # guards the attributes that follow
        #: Connections may still be handed over: no loop ends before `shutdown`.
        self.expects_handoffs = False
        #: How many loops accept from each listener, or will; by the listener's id.
        self._loops_of_listener: dict[int, int] = {}
        self._waiting: list[tuple[Connection, Request, dict[str, Any]]] = []
        self._ready_loops: set[LoopWorker] = set()
        self._serving = False
        #: No more connections are accepted.
        self.stopping = False
        #: All loops are ready, or one has failed.
        self.ready = threading.Event()
        #: Guards `_joins_until`; notified when that changes and when a loop ends.
        self._ends = threading.Condition()
        #: Until when `shutdown` waits for the loops, in the seconds of `time.monotonic`.
        self._joins_until = math.inf

    def _make_worker(self) -> LoopWorker:
        return LoopWorker(self, self._app, self.config, self._collector, self._protocols)

    def add_protocols(self, protocols: ALPNTable) -> None:
        """Serve these protocols too. Called before a connection can have agreed on one."""
        self._protocols = {**self._protocols, **protocols}
        for worker in self.workers:
            worker.add_protocols(protocols)

    # ---- Start ----------------------------------------------------------------------------

    def listen(self, sock: socket.socket, *, plain: bool = False) -> None:
        """Accept connections from `sock`, a listening socket, once the application is ready.
        `plain`: without TLS."""
        listener = Listener(sock, self.config, None if plain else self._ssl_context)
        with self._lock:
            self._listeners.append(listener)
            self._loops_of_listener[id(listener)] = len(self.workers)
            serving = self._serving
        if serving:
            for worker in self.workers:
                worker.call(worker.listen, listener)

    def use_context(self, ssl_context: ssl.SSLContext) -> None:
        """Use `ssl_context` for new connections. Listeners without TLS stay without it."""
        with self._lock:
            if self._ssl_context is not None:
                self._ssl_context = ssl_context
            for listener in self._listeners:
                if listener.ssl_context is not None:
                    listener.ssl_context = ssl_context

    def start(self, name: str = "threadwell-loop") -> None:
        """Run every loop on a thread of its own. Raises `StartupError`, see `wait_until_ready`.

        Without a thread for any loop it raises `OSError`.
        """
        for number, worker in enumerate(self.workers.copy()):
            self._start_loop(worker, f"{name}-{number}")
        self.wait_until_ready()

    def add(self, worker: PoolThread) -> None:
        """Nothing to do: the loops have their own workers."""

    def number(self) -> int:
        """Always 0: the pool has one SyncWorker."""
        return 0

    def run(self, worker: PoolThread | None = None) -> None:  # noqa: ARG002
        """Serve until the end (blocking): the calling thread becomes that of the first loop."""
        try:
            self.run_loops(POLL_INTERVAL, None)
        except BaseException as error:  # of a loop that could not even say so: memory has run out
            self.workers[0].failure = self.workers[0].failure or error
            self.ready.set()
            raise

    def close(self, worker: PoolThread) -> None:  # noqa: ARG002
        """End everything now, and close what is open."""
        self.shutdown(0)

    def run_loops(self, poll_interval: float, runner: asyncio.Runner | None) -> bool:
        """Run the event loops until their end (blocking), the first in `runner` if it is given.

        `conn_queue`, if there is one, is read at least every `poll_interval` seconds.
        """
        first, *others = self.workers
        for number, each in enumerate(others, 1):
            self._start_loop(each, f"threadwell-{number}")
        if self._conn_queue is not None:
            distribute = functools.partial(self._distribute, self._conn_queue, poll_interval)
            self._start_thread(distribute, "threadwell-distributor")
        first.run(runner)
        for each in others:
            each.ended.wait()
        return True

    def _start_loop(self, worker: LoopWorker, name: str) -> None:
        """Run `worker` on a thread. If no thread can start, the other loops serve without it."""
        try:
            self._start_thread(worker.run, name)
        except OSError as error:
            with self._lock:
                if len(self.workers) > 1:
                    self.workers.remove(worker)
                    for listener in self._loops_of_listener:
                        self._loops_of_listener[listener] -= 1
                else:
                    worker.failure = error
                waiting = next(iter(self._ready_loops), None)
            log.warning("One event loop fewer serves: %s", error)
            worker.ready.set()
            worker.ended.set()
            if worker.failure is not None:
                self.loop_is_ready(worker)
            elif waiting is not None:  # perhaps for this one only
                self.loop_is_ready(waiting)

    def _start_thread(self, target: Callable[[], None], name: str) -> None:
        # an empty context: on free-threaded builds a thread inherits that of its starter
        kwargs: dict[str, Any] = {}
        if sys.version_info >= (3, 14):
            kwargs["context"] = contextvars.Context()
        thread = threading.Thread(target=target, name=name, daemon=True, **kwargs)
        start_thread(thread)
        self._threads.append(thread)

    def adopt(
        self,
        connection: Connection,
        request: Request,
        state: dict[str, Any],
        response: Response | None = None,  # noqa: ARG002 - beside no sync application there is none
    ) -> None:
        """See `AsyncPool.adopt`. If no loop runs yet, the caller goes on to `serve_waiting`."""
        worker = self.least_busy(self.workers[0])
        if worker.call(worker.adopt, connection, request, state, None):
            return
        if worker.ended.is_set():
            raise RuntimeError("the event loop has ended")
        with self._lock:
            self._waiting.append((connection, request, state))

    def serve_waiting(self, runner: asyncio.Runner | None) -> None:
        """Serve the connections that were adopted while no loop ran, until they are closed
        (blocking): on the loop of `runner`, or on one that is created here. No lifespan is run."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        worker = self._make_worker()
        self.workers.append(worker)
        try:
            worker.serve_waiting(waiting, runner)
        finally:
            self.workers.remove(worker)

    def loop_is_ready(self, worker: LoopWorker) -> None:
        """`worker` serves, or has failed or ended. Open the listeners with the last loop."""
        with self._lock:
            self._ready_loops.add(worker)
            if self.ready.is_set():
                return
            failed = self._failure() is not None
            if len(self._ready_loops) < len(self.workers) and not failed:
                return
            self._serving = not failed and not self.stopping
            listeners = list(self._listeners) if self._serving else []
        for each in self.workers:
            for listener in listeners:
                each.call(each.listen, listener)
        self.ready.set()
        if failed or self.stopping:
            self._stop(0)

    def wait_until_ready(self) -> None:
        """Return when all loops serve. Raises the error that kept the application from starting."""
        self.ready.wait()
        failure = self._failure()
        if failure is not None:
            self._stop(0)
            for thread in self._threads:
                thread.join(_TIME_TO_CLOSE)
            raise failure

    def _failure(self) -> BaseException | None:
        return next((each.failure for each in self.workers if each.failure is not None), None)

    # ---- Among the loops ------------------------------------------------------------------

    def has_no_room(self) -> bool:
        """Whether as many connections are open as the limit allows."""
        if self.is_alone:
            return self.workers[0].load() >= self.poller.limit
        return sum(worker.load() for worker in self.workers) >= self.poller.limit

    def least_busy(self, candidate: LoopWorker) -> LoopWorker:
        """The loop for a new connection: `candidate`, unless another has clearly fewer."""
        if self.is_alone:
            return candidate
        least = min(self.workers, key=LoopWorker.load)
        return candidate if candidate.load() <= least.load() + 1 else least

    def parts(self) -> list[LoopWorker]:
        """The parts that can hang by themselves: each loop."""
        return self.workers

    def served(self) -> int:
        """How many requests were begun."""
        return sum(worker.served for worker in self.workers)

    def snapshot(self) -> PoolSnapshot:
        """See `ServingPool.snapshot`."""
        workers = list(self.workers)
        states = Counter(
            each.state_name() for worker in workers for each in worker.connections.copy()
        )
        return PoolSnapshot(loops=len(workers), connections=states)

    def requests(self) -> list[RunningRequest]:
        """See `ServingPool.requests`."""
        frames = current_frames()
        found = [each for worker in list(self.workers) for each in worker.tracking.requests(frames)]
        frames.clear()  # this thread's own frame would refer to itself
        return found

    def waiting(self) -> int:
        """Always 0: a loop reads what has come by itself."""
        return 0

    def call_stacks(self, calls: Sequence[object], seconds: float) -> dict[int, str]:
        """See `ServingPool.call_stacks`."""
        asked = [worker.tracking.ask_stacks(calls) for worker in list(self.workers)]
        deadline = time.monotonic() + seconds
        found: dict[int, str] = {}
        for answer in asked:
            found.update(answer.wait(max(deadline - time.monotonic(), 0)))
        return found

    def cancel(self, call: object) -> None:
        """See `ServingPool.cancel`."""
        for worker in list(self.workers):
            worker.tracking.cancel(call)

    def take_durations(self) -> list[tuple[float, int]]:
        """See `ServingPool.take_durations`."""
        return [each for worker in list(self.workers) for each in worker.tracking.take_durations()]

    def share_listeners(self) -> None:
        """Another process has the sockets, and serves what waits in their backlog."""
        for listener in self._listeners:
            listener.shared = True

    def is_idle(self) -> bool:
        """Whether no request is under way."""
        return not any(worker.is_busy() for worker in self.workers)

    def _distribute(self, conn_queue: ConnectionQueue, poll_interval: float) -> None:
        self.ready.wait()
        while not self.workers[0].ended.is_set() and not self.stopping:
            try:
                sock, address = conn_queue.get(timeout=poll_interval)
            except queue.Empty:
                continue
            try:
                server = address_of(sock.getsockname())
                conn = connect(sock, address_of(address), server, self._ssl_context)
            except OSError:  # reset meanwhile
                sock.close()
                continue
            if not self.least_busy(self.workers[0]).offer(conn):
                conn.close()

    def check_shutdown_event(self) -> None:
        """Begin to stop if the shutdown event is set. Each loop calls it about once a second."""
        if self.shutdown_event.is_set() and not self.stopping:
            self._stop(self.config.timeouts.graceful)

    def release_listener(self, listener: Listener) -> None:
        """A loop no longer waits for `listener`. Each loop calls it once.

        The last call closes the listener. Before, a loop could take another socket for it, one that
        has got the same descriptor.
        """
        with self._lock:
            left = self._loops_of_listener[id(listener)] = self._loops_of_listener[id(listener)] - 1
        if not left:
            listener.close()

    # ---- Stop -----------------------------------------------------------------------------

    def drain(self, timeout: float | None = None, linger: float = 0.0) -> None:
        """Stop listening; let what is under way end, and cut what is left after `timeout` seconds
        (`graceful_timeout` if None). Idle connections stay for `linger` seconds. Returns at once.
        """
        self._stop(self.config.timeouts.graceful if timeout is None else timeout, linger)

    def stop(self) -> None:
        """End at once: as `drain` with a timeout of 0."""
        self._stop(0)

    def _stop(self, timeout: float, linger: float = 0.0) -> None:
        with self._lock:
            self.stopping = True
        deadline = time.monotonic() + timeout
        for worker in self.workers:
            worker.call(worker.drain, deadline, linger)

    def shutdown(self, timeout: float, linger: float = 0.0) -> None:
        """Drain for `timeout` seconds at most; return when the loops have ended.

        Idle connections stay for `linger` seconds: a request may be on its way.
        """
        self.expects_handoffs = False
        self._stop(timeout, linger)
        self._limit_wait(timeout + _TIME_TO_CLOSE)
        self._wait_for_loops()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(self._joins_until - time.monotonic(), 0.1))
        for listener in self._listeners:
            listener.close()

    def cut(self) -> None:
        """End every connection and every call now."""
        for worker in self.workers:
            worker.call(worker.cut)
        self._limit_wait(_TIME_TO_CLOSE)

    def loop_has_ended(self) -> None:
        """A loop has ended."""
        with self._ends:
            self._ends.notify_all()

    def _limit_wait(self, seconds: float) -> None:
        """Have `shutdown` wait for the loops for `seconds` more at most."""
        with self._ends:
            self._joins_until = min(self._joins_until, time.monotonic() + seconds)
            self._ends.notify_all()

    def _wait_for_loops(self) -> None:
        started = [worker for worker in self.workers if hasattr(worker, "loop")]
        with self._ends:
            while left := [worker for worker in started if not worker.ended.is_set()]:
                rest = self._joins_until - time.monotonic()
                if rest <= 0:
                    log.warning("%d loops are still in the application's code", len(left))
                    return
                self._ends.wait(rest)


class HandoffPool(EventLoopPool):
    """An `AsyncPool`: serves the requests that the threads hand over, and returns the connections.

    `start` runs its loops and the application's lifespan on them; `shutdown` ends both.
    """

    def __init__(self, app: ASGIApp, config: ServerConfig, **keywords: Any) -> None:
        # One loop by default. The threads do most of the work, and the state that WebSockets share
        # is seldom made for several loops; see the in-memory channel layer of Django Channels.
        keywords.setdefault("loops", config.asgi.loops or 1)
        super().__init__(app, config, **keywords)
        self.expects_handoffs = True

    def adopt(
        self,
        connection: Connection,
        request: Request,
        state: dict[str, Any],
        response: Response | None = None,
    ) -> None:
        """See `AsyncPool.adopt`."""
        worker = self.least_busy(self.workers[0])
        origin_pool = connection.worker
        if response is None:
            adopted = worker.call(worker.adopt, connection, request, state, origin_pool)
        else:  # the stream sees the context variables of its request, such as the language
            context = contextvars.copy_context()
            adopted = worker.call(
                worker.stream, connection, request, response, origin_pool, context
            )
        if not adopted:
            raise RuntimeError("the event loop has ended")

    def adopt_http2(self, connection: Connection, origin_pool: OriginPool) -> None:
        """Serve `connection`, which is ADOPTED, and whose TLS handshake has agreed on HTTP/2.

        The threads of `origin_pool` run the application. Any thread may call. Raises
        `RuntimeError` if the loop has ended: the connection is still the caller's.
        """
        worker = self.least_busy(self.workers[0])
        if not worker.call(worker.adopt_protocol, connection, "h2", origin_pool):
            raise RuntimeError("the event loop has ended")

    def make_room(self) -> None:
        """Close the connection that has been idle the longest. Any thread may call."""
        for worker in self.workers:
            worker.call(worker.close_idlest)
