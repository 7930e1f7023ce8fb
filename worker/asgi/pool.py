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

from ..interfaces import PoolSnapshot
from ..lifecycle import LifecycleCollector, guarded
from ..net.bind import address_of
from ..polling.base import BlockingPoller, connection_limit
from ..polling.listener import Listener, connect
from ..system.throttled_log import ThrottledLog
from ..tls.wrong_port import WrongPort
from .event_loop import loop_count, loop_factory
from .loop_worker import LoopWorker

if TYPE_CHECKING:
    import asyncio
    import ssl
    from collections.abc import Callable

    from ..config import ServerConfig
    from ..connection import Connection
    from ..interfaces import HTTP2Pool, OriginPool, PoolThread
    from ..messages import ASGIApp, Request, Response
    from ..polling.base import ConnectionQueue, Poller

log = logging.getLogger("threadwell")

# Seconds for loops whose connections were cut to end.
_LAST_MOMENT = 3.0
POLL_INTERVAL = 1.0


class EventLoopPool:
    """Loops that share listeners: an `ServingPool`. All of it may be called from any thread.

    Every loop runs the application's lifespan, and has its own state. No connection is accepted
    before all of them are ready. Raises `ConfigError` where the loop asked for cannot be had.
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
    ) -> None:
        loop_factory(config.asgi.loop)  # now, and not first on a thread
        self.config = config
        self._app = app
        self._collector = collector = guarded(collector)
        #: What requests see beside what the lifespan says.
        self.lifespan_state: dict[str, Any] = {}
        self.throttled_log = ThrottledLog()
        #: See `pool.ServingPool`: here each loop has them among its own.
        self.http2: HTTP2Pool | None = None
        self.wrong_port = WrongPort(self.throttled_log)
        self.shutdown_event = shutdown_event or threading.Event()
        #: What only serves sockets that block: see `SyncWorker._recv_request_fast`.
        self.poller: Poller = BlockingPoller(connection_limit(config.limits.connections))
        self._ssl_context = ssl_context
        self._conn_queue = conn_queue
        count = loops or loop_count(config)
        self.workers = [LoopWorker(self, app, config, collector) for _ in range(count)]
        self.is_alone = count == 1
        self._listeners: list[Listener] = []
        self._threads: list[threading.Thread] = []
        self._lock = threading.Lock()  # guards what follows
        #: Connections may still be handed over, so that nothing ends before `shutdown`.
        self.held = False
        #: How many loops accept from each listener, or will: by its id.
        self._holders: dict[int, int] = {}
        self._waiting: list[tuple[Connection, Request, dict[str, Any]]] = []
        self._arrived: set[LoopWorker] = set()
        self._serving = False
        #: No more is accepted.
        self.stopping = False
        #: All loops are ready, or one has failed.
        self.ready = threading.Event()
        self._ends = threading.Condition()  # guards what follows; notified as it changes
        #: Until when `shutdown` waits for the loops, by `time.monotonic`.
        self._patient_until = math.inf

    # ---- Start ----------------------------------------------------------------------------

    def listen(self, sock: socket.socket, *, plain: bool = False) -> None:
        """Accept connections from `sock`, which listens, once the application is ready; `plain`
        ones are without TLS."""
        listener = Listener(sock, self.config, None if plain else self._ssl_context)
        with self._lock:
            self._listeners.append(listener)
            self._holders[id(listener)] = len(self.workers)
            serving = self._serving
        if serving:
            for worker in self.workers:
                worker.call(worker.listen, listener)

    def use_context(self, ssl_context: ssl.SSLContext) -> None:
        """Begin handshakes with `ssl_context` from now on; listeners without TLS stay so."""
        with self._lock:
            if self._ssl_context is not None:
                self._ssl_context = ssl_context
            for listener in self._listeners:
                if listener.ssl_context is not None:
                    listener.ssl_context = ssl_context

    def start(self, name: str = "threadwell-loop") -> None:
        """Run every loop on a thread of its own. Raises `StartupError`, see `wait_until_ready`."""
        for number, worker in enumerate(self.workers):
            self._start_thread(worker.run, f"{name}-{number}")
        self.wait_until_ready()

    def add(self, worker: PoolThread) -> None:
        """Nothing to do: loops have workers of their own."""

    def number(self) -> int:
        """Always 0: there is but one such worker."""
        return 0

    def run(self, worker: PoolThread | None = None) -> None:  # noqa: ARG002
        """Serve until the end (blocking): the calling thread becomes that of the first loop."""
        self.run_loops(POLL_INTERVAL, None)

    def close(self, worker: PoolThread) -> None:  # noqa: ARG002
        """End everything now, and close what is open."""
        self.shutdown(0)

    def run_loops(self, poll_interval: float, runner: asyncio.Runner | None) -> bool:
        """Run the event loops until their end (blocking), the first in `runner` if it is given.

        `conn_queue`, if there is one, is read at least every `poll_interval` seconds.
        """
        first, *others = self.workers
        for number, each in enumerate(others, 1):
            self._start_thread(each.run, f"threadwell-{number}")
        if self._conn_queue is not None:
            take = functools.partial(self._take_from, self._conn_queue, poll_interval)
            self._start_thread(take, "threadwell-distributor")
        first.run(runner)
        for each in others:
            each.ended.wait()
        return True

    def _start_thread(self, target: Callable[[], None], name: str) -> None:
        # An empty context: free-threaded builds would hand this thread's down
        kwargs: dict[str, Any] = {}
        if sys.version_info >= (3, 14):
            kwargs["context"] = contextvars.Context()
        thread = threading.Thread(target=target, name=name, daemon=True, **kwargs)
        self._threads.append(thread)
        thread.start()

    def adopt(
        self,
        connection: Connection,
        request: Request,
        state: dict[str, Any],
        response: Response | None = None,  # noqa: ARG002 - beside no sync application there is none
    ) -> None:
        """See `AsyncPool.adopt`. Where no loop runs yet, `serve_waiting` will be called."""
        worker = self.least_busy(self.workers[0])
        if worker.call(worker.adopt, connection, request, state, None):
            return
        if worker.ended.is_set():
            raise RuntimeError("the event loop has ended")
        with self._lock:
            self._waiting.append((connection, request, state))

    def serve_waiting(self, runner: asyncio.Runner | None) -> None:
        """Serve what was adopted while no loop ran, on that of `runner` or one made here, until
        it is closed (blocking). The application's lifespan is somebody else's affair."""
        with self._lock:
            waiting, self._waiting = self._waiting, []
        if not waiting:
            return
        worker = LoopWorker(self, self._app, self.config, self._collector)
        self.workers.append(worker)
        try:
            worker.serve_waiting(waiting, runner)
        finally:
            self.workers.remove(worker)

    def arrived(self, worker: LoopWorker) -> None:
        """`worker` is ready, or has failed or ended."""
        with self._lock:
            self._arrived.add(worker)
            if self.ready.is_set():
                return
            failed = self._failure() is not None
            if len(self._arrived) < len(self.workers) and not failed:
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
        """Return when all loops serve. Raises what kept the application from starting."""
        self.ready.wait()
        failure = self._failure()
        if failure is not None:
            self._stop(0)
            for thread in self._threads:
                thread.join(_LAST_MOMENT)
            raise failure

    def _failure(self) -> BaseException | None:
        return next((each.failure for each in self.workers if each.failure is not None), None)

    # ---- Among the loops ------------------------------------------------------------------

    def has_no_room(self) -> bool:
        """Whether as many connections are open as may be."""
        return sum(worker.load() for worker in self.workers) >= self.poller.limit

    def least_busy(self, candidate: LoopWorker) -> LoopWorker:
        """Who takes a new connection: `candidate`, unless another has clearly fewer."""
        if self.is_alone:
            return candidate
        least = min(self.workers, key=LoopWorker.load)
        return candidate if candidate.load() <= least.load() + 1 else least

    def parts(self) -> list[LoopWorker]:
        """Each loop can hang by itself."""
        return self.workers

    def served(self) -> int:
        """How many requests were begun."""
        return sum(worker.served for worker in self.workers)

    def snapshot(self) -> PoolSnapshot:
        """See `ServingPool.snapshot`."""
        workers = list(self.workers)
        states = Counter(each.at() for worker in workers for each in worker.connections.copy())
        return PoolSnapshot(loops=len(workers), connections=states)

    def share_listeners(self) -> None:
        """Whoever else has the sockets takes what waits in their backlog."""
        for listener in self._listeners:
            listener.shared = True

    def is_idle(self) -> bool:
        """Whether no request is under way."""
        return not any(worker.is_busy() for worker in self.workers)

    def _take_from(self, conn_queue: ConnectionQueue, poll_interval: float) -> None:
        self.ready.wait()
        while not self.workers[0].ended.is_set() and not self.stopping:
            try:
                sock, what = conn_queue.get(timeout=poll_interval)
            except queue.Empty:
                continue
            try:
                server = address_of(sock.getsockname())
                conn = connect(sock, address_of(what), server, self._ssl_context)
            except OSError:  # reset meanwhile
                sock.close()
                continue
            if not self.least_busy(self.workers[0]).offer(conn):
                conn.close()

    def every_second(self) -> None:
        """On a loop: has somebody set the event?"""
        if self.shutdown_event.is_set() and not self.stopping:
            self._stop(self.config.timeouts.graceful)

    def let_go(self, listener: Listener) -> None:
        """On a loop, once: it waits for `listener` no more. The last closes it, since whatever has
        its descriptor next would be taken for it by a loop that still waits."""
        with self._lock:
            left = self._holders[id(listener)] = self._holders[id(listener)] - 1
        if not left:
            listener.close()

    # ---- Stop -----------------------------------------------------------------------------

    def drain(self, timeout: float | None = None, linger: float = 0.0) -> None:
        """Stop listening; let everything end well, and cut what is left after `timeout` seconds
        (`graceful_timeout` if None). Idle connections stay for `linger` seconds."""
        self._stop(self.config.timeouts.graceful if timeout is None else timeout, linger)

    def stop(self) -> None:
        """End now, but in order."""
        self._stop(0)

    def _stop(self, timeout: float, linger: float = 0.0) -> None:
        with self._lock:
            self.stopping = True
        deadline = time.monotonic() + timeout
        for worker in self.workers:
            worker.call(worker.drain, deadline, linger)

    def shutdown(self, timeout: float, linger: float = 0.0) -> None:
        """Drain, for `timeout` seconds at most; return when the loops have ended.

        Idle connections stay for `linger` seconds, for a request that is on its way.
        """
        self.held = False
        self._stop(timeout, linger)
        self._hurry(timeout + _LAST_MOMENT)
        self._wait_for_loops()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(self._patient_until - time.monotonic(), 0.1))
        for listener in self._listeners:
            listener.close()

    def cut(self) -> None:
        """End every connection now, whatever it is at."""
        for worker in self.workers:
            worker.call(worker.cut)
        self._hurry(_LAST_MOMENT)

    def over(self) -> None:
        """A loop has ended."""
        with self._ends:
            self._ends.notify_all()

    def _hurry(self, seconds: float) -> None:
        """Let `shutdown` wait so many seconds more, at most."""
        with self._ends:
            self._patient_until = min(self._patient_until, time.monotonic() + seconds)
            self._ends.notify_all()

    def _wait_for_loops(self) -> None:
        headers_sent = [worker for worker in self.workers if hasattr(worker, "loop")]
        with self._ends:
            while left := [worker for worker in headers_sent if not worker.ended.is_set()]:
                rest = self._patient_until - time.monotonic()
                if rest <= 0:
                    log.warning("%d loops were left in the application's code", len(left))
                    return
                self._ends.wait(rest)


class HandoffPool(EventLoopPool):
    """An `AsyncPool`: takes over what the threads cannot answer, and gives connections back.

    `start` runs its loops, and the application's lifespan on them; `shutdown` ends both.
    """

    def __init__(self, app: ASGIApp, config: ServerConfig, **keywords: Any) -> None:
        # One loop carries what threads do not; and what WebSockets share, as the channel layer in
        # memory of Channels does, is seldom made for several.
        keywords.setdefault("loops", config.asgi.loops or 1)
        super().__init__(app, config, **keywords)
        self.held = True

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
            taken = worker.call(worker.adopt, connection, request, state, origin_pool)
        else:  # what has been set for the request, such as a language, is set for its stream
            context = contextvars.copy_context()
            taken = worker.call(worker.stream, connection, request, response, origin_pool, context)
        if not taken:
            raise RuntimeError("the event loop has ended")

    def adopt_http2(self, connection: Connection, origin_pool: OriginPool) -> None:
        """Serve `connection`, which is ADOPTED and has agreed on HTTP/2.

        `origin_pool` has the threads for its requests. Any thread may call. Raises `RuntimeError`
        when the connection is still the caller's.
        """
        worker = self.least_busy(self.workers[0])
        if not worker.call(worker.take_http2, connection, origin_pool):
            raise RuntimeError("the event loop has ended")

    def make_room(self) -> None:
        """Close the connection that has been idle the longest. Any thread may call."""
        for worker in self.workers:
            worker.call(worker.close_idlest)
