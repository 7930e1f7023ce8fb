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
from ..http1.body_store import BodyStore
from ..interfaces import PoolSnapshot
from ..polling.listener import Listener
from ..system.readiness import count_readable
from ..system.stacks import current_frames
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
    from ..lifecycle import RunningRequest
    from ..polling.base import Poller

log = logging.getLogger("threadwell")

# Seconds of grace for WebSockets and event streams, which have no end of their own.
_FAREWELL = 0.5
# Seconds between two looks at the connections that are left.
_GLANCE = 0.02
# Seconds for threads whose connection was cut to notice it.
_LAST_MOMENT = 1.0
# Input means that a request is here, and waits for a thread.
_BETWEEN_REQUESTS = frozenset({State.IDLE, State.YIELDED})


class ThreadPool:
    """A `ServingPool` of threads: a poller, the leader/follower schedule, and their workers.

    `lock` guards `workers` and the numbers. It is held for moments only: a signal that raises in
    the main thread right after this has acquired a lock leaves it locked for good. `_starting`
    guards `_threads` while a thread starts. `clone` makes a worker for another thread.
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
        gil = gil_enabled() and not poller.has_queue
        self.leader_follower = LeaderFollower(
            config.thread_count(), config.threads.max_streams, self.spawn, gil=gil
        )
        self.shutdown_event = shutdown_event or threading.Event()
        self.lifespan_state: dict[str, Any] = {}
        self._ssl_context = ssl_context
        self._clone = clone
        self.throttled_log = ThrottledLog()
        self.wrong_port = WrongPort(self.throttled_log)
        self.body_store = BodyStore(config.limits)
        #: The loops of HTTP/2, where that is offered; and whether they end with this pool.
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
        # Requests are served, or `run` has failed or ended.
        self._ready = threading.Event()
        self._failure: BaseException | None = None
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
        """Return when requests are served. Raises what has kept `run` from that."""
        self._ready.wait()
        if self._failure is not None:
            raise self._failure

    # ---- Threads --------------------------------------------------------------------------

    def run(self, worker: PoolThread) -> None:
        """Serve until `stop` (blocking): `worker` on the calling thread, others on threads of
        their own."""
        try:
            if self.http2 is not None and self._owns_http2:
                self.http2.start("threadwell-http2")
            self._spawn_all(self.config.thread_count() - 1)
            self.leader_follower.joined()
            self._ready.set()
            self._run_thread(worker, permanent=True)
        except BaseException as error:
            self._failure = error
            raise
        finally:
            self.close(worker)

    def _spawn_all(self, count: int) -> None:
        """Start `count` threads, or as many as the system has: those serve, and it is said."""
        for number in range(count):
            try:
                self.spawn()
            except RuntimeError as error:
                log.warning(
                    "Only %d of %d threads serve, because the system has no more: %s",
                    *(number + 1, count + 1, error),
                )
                return
            self.leader_follower.joined()

    def run_loops(self, poll_interval: float, runner: asyncio.Runner | None) -> bool:  # noqa: ARG002
        """False: threads serve."""
        return False

    def spawn(self) -> None:
        """Start a thread with a worker of its own. Raises `RuntimeError` if none can be started."""
        worker = self._clone()
        try:
            run = functools.partial(self._run_thread, worker)
            self._start(run, f"threadwell-{worker.worker_id}")
        except RuntimeError:
            self._remove(worker)
            raise

    def _run_thread(self, worker: PoolThread, *, permanent: bool = False) -> None:
        """The life of a serving thread."""
        worker.bind_to_thread()
        schedule, slot = self.leader_follower, worker.slot
        try:
            while schedule.acquire_slot(slot, permanent=permanent):
                try:
                    worker.poll_and_serve(POLL_INTERVAL)
                except Exception:
                    # a bug of threadwell, or a kernel without resources: the thread goes on
                    log.exception("A thread met an internal error while it polled")
                finally:
                    schedule.leave(slot)
        finally:
            for note in worker.notes.values():
                if hasattr(note, "close"):
                    close_response(note.close)
            self._remove(worker)

    def offer_http2(self, pool: HTTP2Pool, *, owned: bool) -> None:
        """Give the connections of HTTP/2 to `pool`, and their requests to this pool's threads.

        An `owned` pool starts and ends with this one. Called before `run`.
        """
        self.http2, self._owns_http2 = pool, owned
        pool.body_store = self.body_store  # one bound for the bodies of both protocols
        self.poller.expect_tasks()
        self.poller.when_full = pool.make_room

    def serve_waiting(self, runner: asyncio.Runner | None) -> None:
        """Nothing to do: the loops beside the threads run already."""

    def add(self, worker: PoolThread) -> None:
        """Register `worker`, which was made for this pool."""
        worker.leader_follower = self.leader_follower
        with self.lock:
            self.workers.add(worker)

    def number(self) -> int:
        """The next number for a worker."""
        with self.lock:
            self._spawned += 1
            return self._spawned

    def _start(self, target: Callable[[], None], name: str) -> None:
        """Run `target` on a new thread. Raises `RuntimeError` if none can be started."""
        # an empty context: free-threaded builds would pass on this thread's, with its request
        kwargs: dict[str, Any] = {}
        if sys.version_info >= (3, 14):
            kwargs["context"] = contextvars.Context()
        thread = threading.Thread(target=target, name=name, daemon=True, **kwargs)
        # until it has started: a thread cannot be joined before
        with self._starting:
            # a thread cannot report its own end: it still has something to do
            self._threads = {each for each in self._threads if each.is_alive()}
            self._threads.add(thread)
            thread.start()

    def _remove(self, worker: PoolThread) -> None:
        with self.lock:
            self.workers.discard(worker)
            self._served += worker.served

    def served(self) -> int:
        """How many requests the application was given, by all threads."""
        with self.lock:
            return self._served + sum(worker.served for worker in self.workers)

    def parts(self) -> Sequence[Probed]:
        """The threads together: any of them can take the next request."""
        return [self]

    def activity(self) -> frozenset[tuple[int, int]]:
        """A value that is equal at two calls if no request was begun between them."""
        with self.lock:
            return frozenset((id(worker), worker.served) for worker in self.workers)

    def is_full(self) -> bool:
        """Whether every slot is held by a thread that is inside a request."""
        with self.lock:
            slots = [worker.slot for worker in self.workers]
        inside = sum(bool(slot.seated and slot.serving is not None) for slot in slots)
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
            busy=sum(worker.slot.serving is not None for worker in workers),
            lent=self.leader_follower.lent,
            slots=self.leader_follower.threads,
            connections=states,
        )

    def requests(self) -> list[RunningRequest]:
        """See `ServingPool.requests`. Those of loops that belong to another pool are not here."""
        with self.lock:
            workers = list(self.workers)
        frames = current_frames()
        found = [worker.running(frames) for worker in workers]
        frames.clear()  # this thread's own frame would refer to itself
        return [request for request in found if request is not None]

    def waiting(self) -> int:
        """See `ServingPool.waiting`."""
        connections = self.poller.connections.copy()
        return count_readable(each.fd for each in connections if each.state in _BETWEEN_REQUESTS)

    def call_stacks(self, calls: Sequence[object], seconds: float) -> dict[int, str]:  # noqa: ARG002
        """Nothing: no call here is a loop's."""
        return {}

    def cancel(self, call: object) -> None:
        """Nothing: what runs on a thread cannot be cancelled."""

    def take_durations(self) -> list[tuple[float, int]]:
        """See `ServingPool.take_durations`."""
        with self.lock:
            workers = list(self.workers)
        found: list[tuple[float, int]] = []
        for worker in workers:
            if worker.durations is not None:
                found += worker.durations.take(worker.served)
                worker.sample(wanted=True)
        return found

    # ---- The end --------------------------------------------------------------------------

    def drain(self, timeout: float | None = None, linger: float = 0.0) -> None:
        """See `ServingPool.drain`; `timeout` is for the loops of HTTP/2."""
        self.poller.drain(linger)
        if self.http2 is not None:
            self.http2.drain(timeout, linger)

    def is_idle(self) -> bool:
        """Whether nothing is being read, served, streamed or written."""
        with self.lock:
            if any(worker.slot.serving is not None for worker in self.workers):
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
        """Once a second: begin `shutdown`, without waiting, if `shutdown_event` is set."""
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
        """Close WebSockets with 1001. One whose client has not read yet waits for the next call."""
        for connection in self.poller.connections.copy():
            hijacked = connection.hijacked
            if isinstance(hijacked, HijackedWebSocket):
                hijacked.close_with_1001()

    def _cut_unbounded(self) -> bool:
        """Cut event streams and WebSockets; whether nothing else is left."""
        more = self.poller.expects_some()  # first, in the order of `Poller._is_empty`
        connections = self.poller.connections.copy()
        unbounded = [connection for connection in connections if connection.unbounded]
        for connection in unbounded:
            connection.disconnect()
        return not more and len(unbounded) == len(connections)

    def share_listeners(self) -> None:
        """Leave the backlog to the other processes that have the same listening sockets."""
        for listener in list(self.poller.listeners.values()):
            listener.shared = True

    def cut(self) -> None:
        """End every connection now, in whatever state it is."""
        for connection in self.poller.connections.copy():
            connection.disconnect()
        self.poller.drained.set()

    def stop(self) -> None:
        """Let each thread end once it has finished its request."""
        self.leader_follower.stop()
        self.poller.wake()

    def close(self, worker: PoolThread) -> None:
        """Cut every connection, and wait a moment for threads that are in the application's code.

        `worker` is the caller's: it closes the connections that no thread has closed.
        """
        self._ready.set()
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
            log.warning("%d threads are still in the application's code", stuck)
        left = self.poller.close()
        with self.lock:
            owned = {each.slot.serving for each in self.workers}
        # and those whose thread was interrupted, by Ctrl-C in the main thread for one
        left += self.poller.connections.copy().difference(left, owned)
        for connection in left:
            if connection.state is State.ADOPTED:  # a loop closes it
                connection.disconnect()
            elif connection.state is not State.CLOSED:
                worker.close_connection(connection, "cut at shutdown")
