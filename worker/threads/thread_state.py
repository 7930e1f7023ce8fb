"""What a serving thread works with: the attributes that all modules of `threads` share.

`SyncWorker` is one. The functions of this package take a `ThreadState`, and so need not know the
worker. An attribute stands under the heading that says how long it lives and who else uses it.
"""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING, Any

from ..connection import RequestHost
from ..deadlines import first_wait
from ..http1.parser import RequestParser
from ..http1.writer import ResponseWriter
from ..lifecycle import (
    RequestStarted,
    RequestWaited,
    answer_taker,
    event_types_of,
    take_answers,
    take_waits,
)
from ..request_id import request_ids
from ..system.durations import Durations
from ..system.readiness import octet_count
from .leader_follower import Slot

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..config import ServerConfig
    from ..interfaces import AsyncPool, ServingPool
    from ..lifecycle import LifecycleCollector, TakeAnswer
    from ..messages import ASGIApp, Request, SyncApp
    from ..proxies.trust import Forwarding
    from .leader_follower import LeaderFollower


class ThreadState(RequestHost):
    """The state of one serving thread. Only that thread uses what is *of the thread*."""

    #: Set by `ThreadPool.add`; workers of event loops have none.
    leader_follower: LeaderFollower
    #: Of the thread: for bodies that go to files; None before the first.
    body_buffer: memoryview | None = None

    def __init__(
        self,
        config: ServerConfig,
        app: ASGIApp | SyncApp,
        sync_app: SyncApp,
        pool: ServingPool,
        *,
        worker_id: int,
        collector: LifecycleCollector | None,
        async_pool: AsyncPool | None,
    ) -> None:
        # Of the server
        self.config = config
        self.app = app
        self.sync_app = sync_app
        #: The asyncio side, which adopts connections; None where there is none.
        self.async_pool = async_pool
        #: Whether a connection may stay open at all.
        self.persistent = config.timeouts.keep_alive > 0
        #: What a new connection waits for first, and for how long: without TLS, and with it.
        self.first_waits = [first_wait(config, encrypted=encrypted) for encrypted in (False, True)]
        #: A body up to this size that has arrived with its head needs no `BodyReceiver`.
        self.largest_direct_body = min(config.limits.memory_body, config.limits.body)

        # Of the pool: shared by its threads
        self.pool = pool
        self.poller = pool.poller
        self.throttled_log = pool.throttled_log
        self.wrong_port = pool.wrong_port

        # Of the thread
        self.worker_id = worker_id
        self.slot = Slot()
        self.parser = RequestParser(config.limits)
        self.writer = _make_writer(config)
        self.request_ids = request_ids(config)
        #: What trusted proxies say; None where none is trusted.
        self.forwarding: Forwarding | None = None
        if config.proxies.trusted:
            from ..proxies.trust import Forwarding

            self.forwarding = Forwarding(config.proxies, self.throttled_log)
        #: For what adapters want to remember: see `messages.Channel`.
        self.notes: dict[Any, Any] = {}
        #: For `has_octets`.
        self.octets = octet_count()
        #: How many requests this thread has given to the application.
        self.served = 0
        #: The thread: its id and its name, for those who look from outside.
        self.ident = 0
        self.thread_name = ""
        #: The durations of some requests; None unless requests are tracked.
        self.durations = Durations() if config.tracks_requests() else None
        self._collect(collector)

    def _collect(self, collector: LifecycleCollector | None) -> None:
        self.collector = collector
        #: The request that runs, if something of it is to be noted.
        self.request: Request | None = None
        #: Something is to be done or noted before the application sees a request.
        self.is_watched = collector is not None or self.request_ids is not None
        event_types = event_types_of(collector)
        self.announces_requests = RequestStarted in event_types
        self.samples_waits = RequestWaited in event_types
        #: The request, by `served`, from which on more is to be done than to note its beginning.
        self.watched_from = sys.maxsize
        if self.announces_requests or self.request_ids is not None:
            self.watched_from = 0
        elif self.samples_waits:
            self.watched_from = 1
        #: Tells the collector of an answer that has left in one send.
        self.take_answer: TakeAnswer
        #: Takes the seconds of a sampled wait; None if a `RequestWaited` is to be made.
        self.take_wait: Callable[[float], None] | None = None
        if collector is not None:
            self.take_answer = answer_taker(collector)

    @property
    def shutdown_event(self) -> threading.Event:
        """Setting it stops `SyncWorker.run`. Any thread may set it."""
        return self.pool.shutdown_event

    @property
    def lifespan_state(self) -> dict[str, Any]:
        """The lifespan's state, shared with all requests that go to the asyncio side."""
        return self.pool.lifespan_state

    def bind_to_thread(self) -> None:
        """Get what belongs to the calling thread, which uses this state from now on."""
        self.ident, self.thread_name = threading.get_ident(), threading.current_thread().name
        if self.collector is not None:
            self.take_answer = take_answers(self.collector)
            self.take_wait = take_waits(self.collector)


def _make_writer(config: ServerConfig) -> ResponseWriter:
    if not config.log.request_id_echo:
        return ResponseWriter(config)
    from ..http1.request_id_writer import RequestIdWriter

    return RequestIdWriter(config)
