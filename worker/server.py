"""`Server`: sockets, a crew of workers on threads, and an orderly end."""

from __future__ import annotations

import logging
import math
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple, Self

from .assembly import check
from .config import ServerConfig, changed
from .errors import ConfigError
from .lifecycle import Collectors, LifecycleCollector
from .logs.access_log import AccessLog
from .messages import ASGIApp, SyncApp
from .net.bind import BindAddress, hosts_of, open_sockets, parse_bind, url_of
from .sync_worker import SyncWorker
from .system.signals import Signals
from .system.systemd import Notifier
from .tls.context import context_for
from .watchdog import UNSEEN, Probed, Watchdog

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from .asgi.pool import HandoffPool
    from .interfaces import ServingPool
    from .metrics.endpoint import Monitor

# Seconds for the threads to end once their connections were cut.
_LAST_MOMENT = 2.0

# What Windows does not have is never heard there.
_REOPEN = getattr(signal, "SIGUSR1", 0)
_RELOAD = getattr(signal, "SIGHUP", 0)
_HEEDED = tuple(filter(None, (signal.SIGINT, signal.SIGTERM, _REOPEN, _RELOAD)))

log = logging.getLogger("threadwell")


class Hybrid(NamedTuple):
    """A `SyncApp`, and the ASGI application beside it, for who hands over one application."""

    sync_app: SyncApp
    asgi_app: ASGIApp


#: What a `Server` serves.
Served = SyncApp | ASGIApp | Hybrid


class Server:
    """Serves one `SyncApp` from threads of this process, or an ASGI application from event loops.

    With `asgi_app` beside a `SyncApp` the server is a hybrid: WebSockets, and the requests that the
    `SyncApp` answers with None, go to that; everything else never meets an event loop. A `Hybrid`
    as `app` is both.

    `start` returns when connections are accepted; `stop` when the last request is answered, or
    the time for that is over. As a context manager it is started and stopped. `sockets`, which
    listen already, take the place of `config.bind`; if they are as many, in the same order, they
    are with or without TLS as it says. `ssl_context` takes the place of `config.tls`. `start` and
    `stop` may be called from any thread; a second `stop` waits for the first.

    `bind` and `start` raise `OSError` when an address cannot be bound, and `ConfigError`, which
    the constructor raises too; `start` raises `StartupError` when an ASGI application says that it
    cannot start.
    """

    def __init__(
        self,
        app: Served,
        config: ServerConfig | None = None,
        *,
        sockets: Sequence[socket.socket] | None = None,
        ssl_context: ssl.SSLContext | None = None,
        lifecycle_collector: LifecycleCollector | None = None,
        asgi_app: ASGIApp | None = None,
    ) -> None:
        self.app: Any = app
        self.asgi_app = asgi_app
        if isinstance(app, Hybrid):
            self.app, self.asgi_app = app
        self.config = config or ServerConfig()
        self._sockets = list(sockets or ())
        if ssl_context is not None and (given := changed(self.config.tls)):
            raise ConfigError(f"{given[0]}: ssl_context says it already; leave one of them out")
        self._ssl_context = ssl_context
        # For each socket, whether it is without TLS.
        self._plain: list[bool] = []
        self._collector = lifecycle_collector
        self._access_log: AccessLog | None = None
        # Where it is counted what happens: given by a supervisor, which serves it, else served here
        self._page: memoryview[int] | None = None
        self._monitor: Monitor | None = None
        self._pulse: Watchdog | None = None
        self._worker: SyncWorker | None = None
        self._pool: HandoffPool | None = None
        self._thread: threading.Thread | None = None
        self.addresses: list[Any] = []
        self._lock = threading.Lock()  # guards `_stopping`, and the start
        self._stopping = False
        self._stop_asked = threading.Event()
        self._stopped = threading.Event()
        #: When what is in flight is cut, by `time.monotonic`; known once it is told to stop.
        self.deadline = math.inf
        self._signals: Signals | None = None

    # ---- Where ----------------------------------------------------------------------------

    def bind(self) -> None:
        """Open the sockets, so that `port` is known; clients wait until `start`."""
        if self.addresses:
            return
        addresses = [parse_bind(text) for text in self.config.bind.addresses]
        try:
            check(self.config)
            if self._ssl_context is None:
                self._ssl_context = context_for(self.config)
            if not self._sockets:
                self._sockets = open_sockets(self.config.bind)
            self._plain = self._without_tls(addresses)
        except BaseException:
            self._close_sockets()
            raise
        self.addresses = [sock.getsockname() for sock in self._sockets]

    def use_context(self, ssl_context: ssl.SSLContext) -> None:
        """Let `ssl_context` be what `config.tls` says: read before its files were out of reach.

        Before `bind`.
        """
        self._ssl_context = ssl_context

    def _without_tls(self, addresses: list[BindAddress]) -> list[bool]:
        """Which of the sockets speak plain HTTP. Raises `ConfigError`."""
        if len(addresses) != len(self._sockets):  # they come from somewhere else
            return [self._ssl_context is None] * len(self._sockets)
        for text, address in zip(self.config.bind.addresses, addresses, strict=True):
            if address.scheme == "https" and self._ssl_context is None:
                raise ConfigError(
                    f"bind: {text} needs a certificate; give certfile, or adhoc as cert"
                )
        return [self._ssl_context is None or each.scheme == "http" for each in addresses]

    @property
    def port(self) -> int:
        """The first TCP port that is listened on; 0 when there is none. Known after `bind`."""
        return next((name[1] for name in self.addresses if isinstance(name, tuple)), 0)

    @property
    def urls(self) -> list[str]:
        """Where the server is reached: an URL each for TCP sockets, `unix:/PATH` for the others."""
        return [
            url_of("http" if plain else "https", name)
            for plain, name in zip(self._plain, self.addresses, strict=True)
        ]

    @property
    def authority_file(self) -> Path | None:
        """Where the certificate is that clients should trust, if `cert` is `adhoc` and it is kept.

        It is made by `bind`.
        """
        if not self.config.tls.cert:
            return None
        from .tls import adhoc

        return adhoc.authority_file(hosts_of(self.config))

    def reload_certificates(self) -> bool:
        """Read certificate, key and authorities again, for the handshakes to come.

        Any thread may call it, but no signal handler: what that interrupts may hold the lock.
        Open connections keep theirs. Returns False, and logs why, if they cannot be used: then all
        stays as it was. There is nothing to do, and it is True, without TLS, and with an
        `ssl_context`, which is its maker's to change.
        """
        if not self.config.tls.on:
            return True
        try:
            context = context_for(self.config)
        except ConfigError as error:
            log.error("The certificate was not reloaded, and the old one stays: %s", error)
            return False
        assert context is not None
        with self._lock:
            self._ssl_context = context
            if self._worker is not None:
                self._worker.use_context(context)
        log.info("The certificate was reloaded")
        return True

    # ---- When -----------------------------------------------------------------------------

    def start(self) -> None:
        """Accept connections, on threads of the server's own. Nothing after a `stop`.

        An ASGI application's lifespan has started up when it returns.
        """
        with self._lock:  # a `stop` meanwhile waits until there is something to stop
            if self._stopping:
                return
            self.bind()
            try:
                self._hire()
                self._thread = threading.Thread(target=self._run, name="threadwell-0", daemon=True)
                self._thread.start()
                worker, pool = self._worker, self._pool
            except BaseException as error:
                # a signal may interrupt the start of a thread that runs: `stop` ends it
                if self._thread is None or isinstance(error, Exception):
                    self._give_up()
                raise
        try:  # without the lock, for a `stop` may come first
            if pool is not None:
                pool.wait_until_ready()
            if worker is not None:
                worker.wait_until_ready()
        except BaseException:
            self.stop(0)
            raise
        self._pulse = Watchdog(self.parts())

    def _give_up(self) -> None:
        """Close what was opened for a thread that does not run."""
        worker, self._worker, self._thread = self._worker, None, None
        if self._pool is not None:
            self._pool.shutdown(0)
        if worker is not None:
            worker.close()
        self._close_sockets()
        self._close_log()

    def _hire(self) -> None:
        collector = self._collector_of_all()
        app: Any = self.app
        sync_app: Any = None
        if self.asgi_app is not None:
            from .asgi.pool import HandoffPool

            app, sync_app = self.asgi_app, self.app
            self._pool = HandoffPool(self.asgi_app, self.config, collector=collector)
        self._worker = SyncWorker(
            self.config,
            app,
            None,
            ssl_context=self._ssl_context,
            lifecycle_collector=collector,
            async_pool=self._pool,
            sync_app=sync_app,
        )
        for sock, plain in zip(self._sockets, self._plain, strict=True):
            self._worker.listen(sock, plain=plain)

    def _collector_of_all(self) -> LifecycleCollector | None:
        collectors: list[LifecycleCollector] = []
        if self._collector is not None:
            collectors.append(self._collector)
        if self._page is None and self.config.metrics.bind:
            from .metrics.endpoint import watch

            self._monitor, self._page = watch(self)
        if self._page is not None:
            from .metrics.counters import Counter

            collectors.append(Counter(self._page))
        if self.config.log.access_log:
            self._access_log = AccessLog.open(self.config.log)
            collectors.append(self._access_log)
        return Collectors(*collectors) if len(collectors) > 1 else next(iter(collectors), None)

    def _close_sockets(self) -> None:
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()

    def _close_log(self) -> None:
        if self._access_log is not None:
            self._access_log.close()
        self.write_gauges()
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None

    def stop(self, timeout: float | None = None, *, linger: float = 0.0) -> None:
        """Stop listening at once, finish the requests in flight, then end the threads.

        After `timeout` seconds (`graceful_timeout` if None) what is left is cut. Idle connections
        stay for `linger` seconds: a request that was on its way is answered.
        """
        self._stop_asked.set()
        self._nudge()
        with self._lock:
            headers_sent, self._stopping = self._stopping, True
        if headers_sent:
            self._stopped.wait()
            return
        patience = self.config.timeouts.graceful if timeout is None else timeout
        until = time.monotonic() + patience
        self.deadline = min(self.deadline, until)
        worker, thread = self._worker, self._thread
        if worker is None or thread is None:
            self._close_sockets()
            self._stopped.set()
            self._nudge()
            return
        try:
            if thread.ident is None:  # interrupted before it ran
                self._give_up()
                return
            if self._pool is not None:
                self._pool.drain(patience, linger)
            worker.shutdown(patience, linger)
            if self._pool is not None:
                self._pool.shutdown(max(until - time.monotonic(), 0))
            if thread is not threading.current_thread():  # else the application stops its server
                rest = self.deadline + _LAST_MOMENT - time.monotonic()
                thread.join(min(max(rest, 0.1), _LAST_MOMENT))
                if thread.is_alive():
                    log.warning("A thread was left in the application's code")
        finally:
            try:
                self._close_log()
            finally:  # or whoever waits would do so for ever
                self._stopped.set()
                self._nudge()

    def cut(self) -> None:
        """After `stop`: be no longer patient with what is in flight. From any thread."""
        self.deadline = min(self.deadline, time.monotonic())
        if self._worker is not None:
            self._worker.cut()
            if self._pool is not None:
                self._pool.cut()

    def reopen_logs(self) -> None:
        """Write on into a new file, where the old one was renamed. May be called from any thread.

        An access log that cannot be opened again goes on as it was, with a message.
        """
        if self._access_log is not None:
            self._access_log.reopen()

    # ---- How it is ------------------------------------------------------------------------

    def count_into(self, page: memoryview[int]) -> None:
        """Before `start`: count what happens on `page`, for somebody else who serves it."""
        self._page = page

    def write_gauges(self) -> None:
        """Write down what there is, if there is a page for it. One thread at a time."""
        if self._page is not None:
            from .metrics.gauges import write_gauges

            write_gauges(self, self._page)

    def unready_reason(self) -> str:
        """Why no requests should be sent here; empty when all is well. One thread at a time."""
        if self._stop_asked.is_set():
            return "draining"
        if self._pulse is None:
            return "starting"
        age, timeout = self._pulse.age(), self.config.processes.worker_timeout
        hangs = 0 < timeout <= age - UNSEEN
        return f"no request was taken for {age:.0f} seconds" if hangs else ""

    def pools(self) -> list[ServingPool]:
        """The threads and the loops that serve; none before `start`."""
        return [pool for pool in (self.pool, self._pool) if pool is not None]

    @property
    def lost_lines(self) -> int:
        """How many lines of the access log could not be written."""
        return self._access_log.lost if self._access_log is not None else 0

    @property
    def metrics_urls(self) -> list[str]:
        """Where its metrics are served; known after `start`."""
        addresses = self._monitor.addresses if self._monitor is not None else []
        return [url_of("http", name) for name in addresses]

    @property
    def pool(self) -> ServingPool | None:
        """Who serves; None before `start`."""
        return self._worker.pool if self._worker is not None else None

    def parts(self) -> list[Probed]:
        """What can hang by itself, of a server that was started: the threads, and each loop."""
        parts: list[Probed] = []
        for pool in self.pools():
            parts += pool.parts()
        return parts

    def serve_forever(self, started: Callable[[], None] | None = None) -> None:
        """Serve until `stop` is called, or SIGINT or SIGTERM comes; a second one is not patient.

        SIGTERM lets idle connections linger (`drain_idle`); at SIGINT somebody waits. Signals are
        heeded in the main thread only; their handlers are put back afterwards. SIGUSR1 opens the
        log files again, SIGHUP reads the certificates again. `started` is called when connections
        are accepted and signals heeded; a service manager that asks for it is told then, too.
        """
        if threading.current_thread() is not threading.main_thread():
            self._start_once()
            if started is not None:
                started()
            self._stop_asked.wait()
            self.stop()
            return
        with Signals(_HEEDED) as signals:
            self._signals = signals
            try:
                self._serve_until_signal(signals, started)
            finally:
                self._signals = None

    def _serve_until_signal(self, signals: Signals, started: Callable[[], None] | None) -> None:
        self._start_once()
        if started is not None:
            started()
        notifier = Notifier()
        notifier.ready("serving")
        watchdog = Watchdog(self.parts())
        ends: list[int] = []
        while not self._stop_asked.is_set() and not ends:
            if watchdog.age() <= 2 * notifier.interval:
                notifier.alive()
            ends = self._stop_signals(signals.wait(notifier.interval / 2 or None))
        notifier.stopping()
        linger = self.config.timeouts.drain_idle if signal.SIGTERM in ends[:1] else 0.0
        stopper = threading.Thread(
            target=self.stop, kwargs={"linger": linger}, name="threadwell-stop", daemon=True
        )
        stopper.start()
        while not self._stopped.is_set():
            ends += self._stop_signals(signals.wait())
            if len(ends) > 1:
                self.cut()
        stopper.join()

    def _stop_signals(self, came: list[int]) -> list[int]:
        """Those of the signals that end the server; the others are done as they say."""
        if _REOPEN in came:
            self.reopen_logs()
        if _RELOAD in came:
            log.info("SIGHUP: the application stays; under --workers it would be loaded anew")
            self.reload_certificates()
        return [number for number in came if number not in (_REOPEN, _RELOAD)]

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    # ---- Inside ---------------------------------------------------------------------------

    def _run(self) -> None:
        assert self._worker is not None
        if self._pool is not None:
            try:
                self._pool.start()
            except BaseException:
                self._worker.close()  # `start` waits for the pool too, and says why
                return
        self._worker.run()

    def _start_once(self) -> None:
        if self._thread is None and not self._stopping:
            self.start()

    def _nudge(self) -> None:
        """Let `serve_forever` look what has changed."""
        signals = self._signals
        if signals is not None:
            signals.wake()
