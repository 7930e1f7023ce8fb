"""`Crew`: what the workers of one `run` share, and the threads they are on."""

from __future__ import annotations

import contextvars
import logging
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Protocol

from . import endings
from .connection import State
from .hijack import HijackedWebSocket
from .rota import Rota
from .wrong_port import WrongPort

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Iterable

    from .config import ServerConfig
    from .poller import Poller
    from .sync_worker import SyncWorker

log = logging.getLogger("loopless")

# Seconds of grace for what has no end of its own, WebSockets and event streams.
_FAREWELL = 0.5
# Seconds between two looks at what is left.
_GLANCE = 0.02
# Seconds for threads whose connection was cut to notice it.
_LAST_MOMENT = 1.0


class Crew:
    """A poller, a rota, and the workers that use them. All of it may be called from any thread.

    `lock` guards `workers`, `threads` and the numbers. `hire` makes and starts another worker.
    """

    def __init__(
        self,
        config: ServerConfig,
        poller: Poller,
        shutdown_event: threading.Event,
        hire: Callable[[], None],
        *,
        gil: bool,
    ) -> None:
        self.config = config
        self.poller = poller
        self.rota = Rota(config.threads(), config.workers.max_streams, hire, gil=gil)
        self.shutdown_event = shutdown_event
        self.lifespan_state: dict[str, Any] = {}
        self.ssl_context: ssl.SSLContext | None = None
        self.wrong_port = WrongPort()
        self.workers: set[SyncWorker] = set()
        self._threads: set[threading.Thread] = set()
        self._hired = 0
        self._served = 0
        #: When a thread last looked after the poller, in the seconds of `time.monotonic`.
        self.looked = time.monotonic()
        self._stop_at = self._farewell_at = 0.0
        self.lock = threading.Lock()
        poller.every_second = self._look

    # ---- Threads --------------------------------------------------------------------------

    def number(self) -> int:
        """A new number for a worker."""
        with self.lock:
            self._hired += 1
            return self._hired

    def start(self, target: Callable[[], None], name: str) -> None:
        """Run `target` on a new thread. Raises `RuntimeError` when there can be none."""
        # An empty context: free-threaded builds would hand this thread's down, request and all
        kwargs: dict[str, Any] = {}
        if sys.version_info >= (3, 14):
            kwargs["context"] = contextvars.Context()
        thread = threading.Thread(target=target, name=name, daemon=True, **kwargs)
        with self.lock:
            self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            self.ended(thread)
            raise

    def ended(self, thread: threading.Thread) -> None:
        """`thread` runs no more."""
        with self.lock:
            self._threads.discard(thread)

    def left(self, worker: SyncWorker) -> None:
        """`worker` serves no more."""
        with self.lock:
            self.workers.discard(worker)
            self._served += worker.served

    def served(self) -> int:
        """How many requests the application was given, by all workers together."""
        with self.lock:
            return self._served + sum(worker.served for worker in self.workers)

    def activity(self) -> frozenset[tuple[int, int]]:
        """Something that is the same at two looks if no request was begun between them."""
        with self.lock:
            return frozenset((id(worker), worker.served) for worker in self.workers)

    def is_full(self) -> bool:
        """Whether every seat is held by a thread that is inside a request."""
        with self.lock:
            inside = sum(worker.seated and worker.serving is not None for worker in self.workers)
        return inside >= self.rota.threads

    # ---- The end --------------------------------------------------------------------------

    def is_idle(self) -> bool:
        """Whether nothing is being read, served, streamed or written."""
        with self.lock:
            if any(worker.serving is not None for worker in self.workers):
                return False
        idle = (State.IDLE, State.LINGERING, State.CLOSED, State.ADOPTED)
        return all(connection.state in idle for connection in self.poller.connections.copy())

    def shutdown(self, timeout: float, linger: float = 0.0) -> None:
        """Drain, for `timeout` seconds at most; then cut what is left, and stop.

        WebSockets and event streams have half a second to end. Idle connections stay for another
        `linger` seconds: see `Poller.drain`.
        """
        self.poller.drain(linger)
        self._say_goodbye()
        drained, now = self.poller.drained, time.monotonic()
        until, farewell = now + timeout, now + min(timeout, _FAREWELL)
        while (now := time.monotonic()) < until and not drained.wait(min(_GLANCE, until - now)):
            self._say_goodbye()
            if now >= farewell and self._cut_endless():
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
        self.poller.drain()
        self._say_goodbye()
        ended = self.poller.drained.is_set() or now >= self._stop_at
        if ended or (now >= self._farewell_at and self._cut_endless()):
            self.stop()

    def _say_goodbye(self) -> None:
        """Close WebSockets; those whose client has not read so far at the next call."""
        for connection in self.poller.connections.copy():
            hijacked = connection.hijacked
            if isinstance(hijacked, HijackedWebSocket):
                hijacked.part()

    def _cut_endless(self) -> bool:
        """Cut what has no end of its own; whether nothing else is left."""
        connections = self.poller.connections.copy()
        endless = [connection for connection in connections if connection.endless]
        for connection in endless:
            connection.disconnect()
        return len(endless) == len(connections)

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
        self.rota.stop()
        self.poller.wake()

    def disband(self, worker: SyncWorker) -> None:
        """Cut, and wait for the threads; those in the application's code for a moment only.

        `worker` is the caller's: it closes what no thread has closed.
        """
        self.stop()
        self.poller.drain()
        self.cut()
        until = time.monotonic() + _LAST_MOMENT
        with self.lock:
            threads = list(self._threads)
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
            if connection.state is not State.CLOSED:
                endings.close(worker, connection, "cut at shutdown")


class Watched(Protocol):
    """A part of a server that can hang by itself: the threads together, or an event loop."""

    @property
    def looked(self) -> float:
        """Changes about once a second, while somebody comes by to see what there is to do."""

    def activity(self) -> object:
        """Something that is the same at two looks if no request was begun between them."""

    def is_full(self) -> bool:
        """Whether nobody is free to begin another."""


class Pulse:
    """Whether all `parts` take requests. One that is idle, or full of short ones, is well."""

    def __init__(self, parts: Iterable[Watched]) -> None:
        self._beats = [_Beat(part) for part in parts]

    def age(self) -> float:
        """For how many seconds some part has taken no request, nor could have."""
        return max((beat.age() for beat in self._beats), default=0.0)


class _Beat:
    def __init__(self, part: Watched) -> None:
        self._part = part
        self._activity = part.activity()
        self._looked = part.looked
        self._well_at = time.monotonic()

    def age(self) -> float:
        activity, looked = self._part.activity(), self._part.looked
        # somebody came by, and was free to serve
        waiting = looked != self._looked and not self._part.is_full()
        if waiting or activity != self._activity:
            self._activity, self._looked = activity, looked
            self._well_at = time.monotonic()
        return time.monotonic() - self._well_at
