"""`ThreadPool`: what the workers of one `run` share, and the threads they are on."""

from __future__ import annotations

import contextvars
import functools
import logging
import sys
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING, Any

from ..config import gil_enabled
from ..connection import State
from ..hijack import HijackedWebSocket
from ..http.response_body import close_response
from ..interfaces import PoolSnapshot
from ..polling.distributor import QueuePoller
from ..polling.listener import Listener
from ..system.throttled_log import ThrottledLog
from ..tls.wrong_port import WrongPort
from ..watchdog import POLL_INTERVAL, Probed
from .leader_follower import LeaderFollower

if TYPE_CHECKING:
    import asyncio
    import socket
    import ssl
    from collections.abc import Callable, Sequence

    from ..config import ServerConfig
    from ..interfaces import HTTP2Pool, PoolThread
    from ..polling.base import Poller

log = logging.getLogger("threadwell")

# Seconds of grace for what has no end of its own, WebSockets and event streams.
_FAREWELL = 0.5
# Seconds between two looks at what is left.
_GLANCE = 0.02
# Seconds for threads whose connection was cut to notice it.
_LAST_MOMENT = 1.0


class ThreadPool:
    """A poller, a rota, and the workers that use them: an `ServingPool` of threads.

    `lock` guards `workers` and the numbers, and is held for moments only: a signal that raises in
    the main thread may come right after it has waited for a lock, which then nobody gives back.
    `_starting` guards `_threads`, while one starts. `clone` makes another worker.
    """

    def __init__(
        self,
        config: ServerConfig,
        poller: Poller,
        shutdown_event: threading.Event | None,
        clone: Callable[[], PoolThread],
        *,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        self.config = config
        self.poller = poller
        gil = gil_enabled() and not isinstance(poller, QueuePoller)
        self.leader_follower = LeaderFollower(
            config.thread_count(), config.threads.max_streams, self.spawn, gil=gil
        )
        self.shutdown_event = shutdown_event or threading.Event()
        self.lifespan_state: dict[str, Any] = {}
        self._ssl_context = ssl_context
        self._clone = clone
        self.throttled_log = ThrottledLog()
        self.wrong_port = WrongPort(self.throttled_log)
        #: The loops of HTTP/2, where that is offered; and whether they end with this crew.
        self.http2: HTTP2Pool | None = None
        self._owns_http2 = False
        self.workers: set[PoolThread] = set()
        self._threads: set[threading.Thread] = set()
        self._spawned = 0
        self._served = 0
        #: When a thread last looked after the poller, in the seconds of `time.monotonic`.
        self.looked = time.monotonic()
        self._stop_at = self._farewell_at = 0.0
        self.lock = threading.Lock()
        self._starting = threading.Lock()
        poller.every_second = self._look

    # ---- Listening ------------------------------------------------------------------------

    def listen(self, sock: socket.socket, *, plain: bool = False) -> None:
        """Accept connections from `sock`, which listens; `plain` ones are without TLS."""
        self.poller.listen(Listener(sock, self.config, None if plain else self._ssl_context))

    def use_context(self, ssl_context: ssl.SSLContext) -> None:
        """Begin handshakes with `ssl_context` from now on; what is without TLS stays so."""
        self._ssl_context = ssl_context
        self.poller.use_context(ssl_context)

    def wait_until_ready(self) -> None:
        """Nothing to wait for: the kernel keeps connections until the threads are there."""

    # ---- Threads --------------------------------------------------------------------------

    def run(self, worker: PoolThread) -> None:
        """Serve until `stop`, with `worker` on the calling thread, and others on threads of
        their own."""
        try:
            if self.http2 is not None and self._owns_http2:
                self.http2.start("threadwell-http2")
            for _ in range(self.config.thread_count() - 1):
                self.spawn()
                self.leader_follower.joined()
            self.leader_follower.joined()
            self._live(worker, permanent=True)
        finally:
            self.close(worker)

    def spawn(self) -> None:
        """Start a thread with a worker of its own. Raises `RuntimeError` when there can be none."""
        worker = self._clone()
        try:
            self._start(functools.partial(self._live, worker), f"threadwell-{worker.worker_id}")
        except RuntimeError:
            self._left(worker)
            raise

    def _live(self, worker: PoolThread, *, permanent: bool = False) -> None:
        """The life of a thread."""
        queued = isinstance(self.poller, QueuePoller)
        worker.settle_in()
        take_turn = worker._run_from_queue if queued else worker._run_accept_loop
        try:
            while self.leader_follower.acquire_slot(worker, permanent=permanent):
                worker.lost_seat = False
                try:
                    take_turn(POLL_INTERVAL, None)
                except Exception:
                    # a bug of threadwell, or a kernel without means: the thread goes on
                    log.exception("A thread met an internal error while it polled")
                finally:
                    self.leader_follower.leave(worker)
        finally:
            for note in worker.notes.values():
                if hasattr(note, "close"):
                    close_response(note.close)
            self._left(worker)

    def take_turn(
        self, worker: PoolThread, poll_interval: float, runner: asyncio.Runner | None
    ) -> None:
        """Poll, and serve with `worker`, until the calling thread's turn ends."""
        leader_follower, wait, handle = (
            self.leader_follower,
            self.poller.wait,
            worker._handle_connection,
        )
        while leader_follower.leader is worker:
            connection = wait(poll_interval)
            worker.events_taken += 1
            if leader_follower.deputy_asleep:
                leader_follower.wake()
            if connection is not None:
                handle(connection, connection.client, runner)
        while leader_follower.eager and worker.seated:
            connection = wait(poll_interval)
            started = time.monotonic()
            if connection is not None:
                handle(connection, connection.client, runner)
                if not leader_follower.always_eager:
                    leader_follower.observe(worker, time.monotonic() - started)

    def offer_http2(self, pool: HTTP2Pool, *, owned: bool) -> None:
        """Let `pool` have the connections of HTTP/2, their requests being this crew's; it starts
        and ends with the crew if it is `owned`. Before anybody serves."""
        self.http2, self._owns_http2 = pool, owned
        self.poller.expect_tasks()
        self.poller.when_full = pool.make_room

    def serve_waiting(self, runner: asyncio.Runner | None) -> None:
        """Nothing to do: what is handed over has the pool's loops."""

    def add(self, worker: PoolThread) -> None:
        """`worker` is one of this crew's."""
        worker.leader_follower = self.leader_follower
        with self.lock:
            self.workers.add(worker)

    def number(self) -> int:
        """A new number for a worker."""
        with self.lock:
            self._spawned += 1
            return self._spawned

    def _start(self, target: Callable[[], None], name: str) -> None:
        """Run `target` on a new thread. Raises `RuntimeError` when there can be none."""
        # An empty context: free-threaded builds would hand this thread's down, request and all
        kwargs: dict[str, Any] = {}
        if sys.version_info >= (3, 14):
            kwargs["context"] = contextvars.Context()
        thread = threading.Thread(target=target, name=name, daemon=True, **kwargs)
        # until it has started, for nobody can wait for the end of a thread before
        with self._starting:
            # a thread cannot say itself that it has ended: there is always something left to do
            self._threads = {each for each in self._threads if each.is_alive()}
            self._threads.add(thread)
            thread.start()

    def _left(self, worker: PoolThread) -> None:
        """`worker` serves no more."""
        with self.lock:
            self.workers.discard(worker)
            self._served += worker.served

    def served(self) -> int:
        """How many requests the application was given, by all workers together."""
        with self.lock:
            return self._served + sum(worker.served for worker in self.workers)

    def parts(self) -> Sequence[Probed]:
        """Threads are as good as each other: together they hang or not."""
        return [self]

    def activity(self) -> frozenset[tuple[int, int]]:
        """Something that is the same at two looks if no request was begun between them."""
        with self.lock:
            return frozenset((id(worker), worker.served) for worker in self.workers)

    def is_full(self) -> bool:
        """Whether every seat is held by a thread that is inside a request."""
        with self.lock:
            inside = sum(worker.seated and worker.serving is not None for worker in self.workers)
        return inside >= self.leader_follower.threads

    def snapshot(self) -> PoolSnapshot:
        """See `ServingPool.snapshot`. Connections on loops of HTTP/2 are counted, not the loops."""
        with self.lock:
            workers = list(self.workers)
        states: Counter[str] = Counter()
        if self.http2 is not None and self._owns_http2:
            states.update(self.http2.snapshot().connections)
        for connection in self.poller.connections.copy():
            state = connection.state  # another thread may change it at any time
            if state is not State.ADOPTED:  # the loops count those
                states[state.value] += 1
        return PoolSnapshot(
            threads=len(workers),
            busy=sum(worker.serving is not None for worker in workers),
            lent=self.leader_follower.lent,
            slots=self.leader_follower.threads,
            connections=states,
        )

    # ---- The end --------------------------------------------------------------------------

    def drain(self, timeout: float | None = None, linger: float = 0.0) -> None:
        """See `ServingPool.drain`; `timeout` is for the loops of HTTP/2."""
        self.poller.drain(linger)
        if self.http2 is not None:
            self.http2.drain(timeout, linger)

    def is_idle(self) -> bool:
        """Whether nothing is being read, served, streamed or written."""
        with self.lock:
            if any(worker.serving is not None for worker in self.workers):
                return False
        if self.http2 is not None and not self.http2.is_idle():
            return False
        idle = (State.IDLE, State.LINGERING, State.CLOSED, State.ADOPTED)
        return all(connection.state in idle for connection in self.poller.connections.copy())

    def shutdown(self, timeout: float, linger: float = 0.0) -> None:
        """Drain, for `timeout` seconds at most; then cut what is left, and stop.

        WebSockets and event streams have half a second to end. Idle connections stay for another
        `linger` seconds: see `Poller.drain`.
        """
        self.drain(timeout, linger)
        self._close_websockets()
        drained, now = self.poller.drained, time.monotonic()
        until, farewell = now + timeout, now + min(timeout, _FAREWELL)
        while (now := time.monotonic()) < until and not drained.wait(min(_GLANCE, until - now)):
            self._close_websockets()
            if now >= farewell and self._cut_unbounded():
                drained.set()
        if not drained.is_set():
            left = len(self.poller.connections)
            log.warning("%d connections were cut after %g seconds of grace", left, timeout)
            self.cut()
        self.stop()

    def _look(self) -> None:
        """Once a second: has somebody set `shutdown_event`? Then `shutdown`, without waiting."""
        self.looked = time.monotonic()
        if not self.shutdown_event.is_set():
            return
        now = time.monotonic()
        with self.lock:
            if not self._stop_at:
                self._stop_at = now + self.config.timeouts.graceful
                self._farewell_at = now + _FAREWELL
        self.drain()
        self._close_websockets()
        ended = self.poller.drained.is_set() or now >= self._stop_at
        if ended or (now >= self._farewell_at and self._cut_unbounded()):
            self.stop()

    def _close_websockets(self) -> None:
        """Close WebSockets; those whose client has not read so far at the next call."""
        for connection in self.poller.connections.copy():
            hijacked = connection.hijacked
            if isinstance(hijacked, HijackedWebSocket):
                hijacked.close_with_1001()

    def _cut_unbounded(self) -> bool:
        """Cut what has no end of its own; whether nothing else is left."""
        more = self.poller.expects_some()  # first, as `Poller._is_empty` asks
        connections = self.poller.connections.copy()
        unbounded = [connection for connection in connections if connection.unbounded]
        for connection in unbounded:
            connection.disconnect()
        return not more and len(unbounded) == len(connections)

    def share_listeners(self) -> None:
        """Whoever else has the sockets takes what waits in their backlog."""
        for listener in list(self.poller.listeners.values()):
            listener.shared = True

    def cut(self) -> None:
        """End every connection now, whatever it is at."""
        for connection in self.poller.connections.copy():
            connection.disconnect()
        self.poller.drained.set()

    def stop(self) -> None:
        """Let the threads end when they are done with what they are at."""
        self.leader_follower.stop()
        self.poller.wake()

    def close(self, worker: PoolThread) -> None:
        """Cut, and wait for the threads; those in the application's code for a moment only.

        `worker` is the caller's: it closes what no thread has closed.
        """
        if self.http2 is not None and self._owns_http2:
            self.http2.shutdown(0)
        self.stop()
        self.poller.drain()
        self.cut()
        until = time.monotonic() + _LAST_MOMENT
        with self._starting:
            threads = [thread for thread in self._threads if thread.is_alive()]
        for thread in threads:
            thread.join(max(until - time.monotonic(), 0))
        stuck = sum(thread.is_alive() for thread in threads)
        if stuck:
            log.warning("%d threads were left in the application's code", stuck)
        left = self.poller.close()
        with self.lock:
            owned = {each.serving for each in self.workers}
        # and those whose thread was interrupted: by Ctrl-C, say, in the main thread
        left += self.poller.connections.copy().difference(left, owned)
        for connection in left:
            if connection.state is State.ADOPTED:  # a loop closes it
                connection.disconnect()
            elif connection.state is not State.CLOSED:
                worker.close_connection(connection, "cut at shutdown")
