"""`Server`: listening sockets, the pools that serve them, and an orderly end.

start
  bind              the sockets, and the context of TLS
  _make_pools       threads, event loops, or threads with event loops beside them
  _run              on a thread of its own: the life of the pools
serve_forever       start, then wait for a signal
stop                drain every pool, cut what is left, close
"""

from __future__ import annotations

import logging
import math
import signal
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Self, TextIO

from .app_kind import is_asgi
from .assembly import check, make_asgi_server, make_handoff_loops
from .config import ServerConfig, changed
from .control.observers import Observers
from .errors import ConfigError
from .lifecycle import LifecycleCollector
from .messages import ASGIApp, Hybrid, Served
from .net.bind import hosts_of, open_sockets, sockets_without_tls, url_of
from .sync_worker import SyncWorker
from .system.resources import require_descriptors
from .system.signals import UPGRADE, Signals, refuse_upgrade
from .system.systemd import Notifier
from .system.terminal import Terminal
from .system.threads import start_or_run, start_thread
from .tls.context import context_for
from .watchdog import UNSEEN, Probed, Watchdog

if TYPE_CHECKING:
    import ssl
    from pathlib import Path

    from .asgi.pool import EventLoopPool
    from .interfaces import ServingPool

# Seconds for the threads to end once their connections were cut.
_LAST_MOMENT = 2.0

# Windows has neither; 0 is no signal's number.
_REOPEN = getattr(signal, "SIGUSR1", 0)
_RELOAD = getattr(signal, "SIGHUP", 0)
_HANDLED = tuple(filter(None, (signal.SIGINT, signal.SIGTERM, _REOPEN, _RELOAD, UPGRADE)))

log = logging.getLogger("threadwell")


class Server:
    """Serves a `SyncApp` from threads of this process, or an ASGI application from event loops.

    With `asgi_app` beside a `SyncApp` the server is a hybrid: WebSockets, and requests that the
    `SyncApp` answers with None, go to `asgi_app`; no other request meets an event loop. A `Hybrid`
    as `app` has both.

    `sockets`, which listen already, replace `config.bind`. If there are as many of them as
    addresses, in the same order, these say which speak TLS. `ssl_context` replaces `config.tls`.

    Any thread may call `start` and `stop`; a second `stop` waits for the first. As a context
    manager the server is started and stopped. The constructor raises `ConfigError`; `bind` and
    `start` raise that too, and `OSError` for an address that cannot be bound; `start` raises
    `StartupError` when the lifespan of the application fails.
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
            raise ConfigError(f"{given[0]}: ssl_context sets it already; leave one of them out")
        self._ssl_context = ssl_context
        # For each socket, whether it is without TLS.
        self._plain: list[bool] = []
        self._collector = lifecycle_collector
        #: The access log, the metrics and the control socket.
        self.observers = Observers(self, self.config)
        self._watchdog: Watchdog | None = None
        #: What serves, by the order in which requests meet it; empty before `start`.
        self.pools: list[ServingPool] = []
        # The first worker of the threads, and the event loops; a hybrid has both.
        self._worker: SyncWorker | None = None
        self._loops: EventLoopPool | None = None
        self._thread: threading.Thread | None = None
        self.addresses: list[Any] = []
        self._lock = threading.Lock()  # guards `_stopping`, and the start
        self._stopping = False
        self._stop_asked = threading.Event()
        self._stopped = threading.Event()
        #: When requests in flight are cut, by `time.monotonic`; known once `stop` was called.
        self.deadline = math.inf
        #: Where `stop` shows what it waits for, if that is a terminal and this process its own.
        self.terminal: TextIO | None = None
        #: The threads have ended, and nobody has asked them to.
        self.failed = False
        self._signals: Signals | None = None
        self._terminal: Terminal

    # ---- Addresses ------------------------------------------------------------------------

    def bind(self) -> None:
        """Open the sockets, so that `port` is known; clients wait until `start`."""
        if self.addresses:
            return
        texts = self.config.bind.addresses
        try:
            check(self.config)
            if self._ssl_context is None:
                self._ssl_context = context_for(self.config)
            if not self._sockets:
                self._sockets = open_sockets(self.config.bind)
            encrypted = self._ssl_context is not None
            self._plain = sockets_without_tls(texts, len(self._sockets), encrypted=encrypted)
        except BaseException:
            self._close_sockets()
            raise
        self.addresses = [sock.getsockname() for sock in self._sockets]

    def use_context(self, ssl_context: ssl.SSLContext) -> None:
        """Before `bind`: use `ssl_context` in place of the files that `config.tls` names."""
        self._ssl_context = ssl_context

    @property
    def port(self) -> int:
        """The first TCP port that the server listens on; 0 without one. Known after `bind`."""
        return next((name[1] for name in self.addresses if isinstance(name, tuple)), 0)

    @property
    def listeners(self) -> Sequence[socket.socket]:
        """The listening sockets. Any of them may be closed at any time."""
        return self._sockets.copy()

    @property
    def urls(self) -> list[str]:
        """Where the server is reached: a URL for each TCP socket, `unix:/PATH` for the others."""
        return [
            url_of("http" if plain else "https", name)
            for plain, name in zip(self._plain, self.addresses, strict=True)
        ]

    @property
    def authority_file(self) -> Path | None:
        """The certificate for clients to trust, if `cert` is `adhoc` and `bind` has kept it."""
        if not self.config.tls.cert:
            return None
        from .tls import adhoc

        return adhoc.authority_file(hosts_of(self.config))

    def reload_certificates(self) -> bool:
        """Read certificate, key and authorities again, for new handshakes.

        Any thread may call it; a signal handler must not, it could wait for a lock that the
        interrupted code holds. If the files cannot be used, this logs why, changes nothing, and
        returns False. Without TLS, and with the caller's own `ssl_context`, it does nothing.
        """
        if not self.config.tls.on:
            return True
        try:
            context = context_for(self.config)
        except ConfigError as error:
            log.error("The certificate was not reloaded; the old one stays in use: %s", error)
            return False
        assert context is not None
        with self._lock:
            self._ssl_context = context
            for pool in self.pools:
                pool.use_context(context)
        log.info("The certificate was reloaded")
        return True

    # ---- Start ----------------------------------------------------------------------------

    def start(self) -> None:
        """Accept connections, on threads of the server's own. Does nothing after a `stop`.

        The lifespan of an ASGI application has started up when it returns.
        """
        with self._lock:  # a concurrent `stop` waits until there is something to stop
            if self._stopping:
                return
            self.bind()
            try:
                self._make_pools()
                self._thread = threading.Thread(target=self._run, name="threadwell-0", daemon=True)
                start_thread(self._thread)
                pools = self.pools
            except BaseException as error:
                # a signal may interrupt the start of a thread that runs: `stop` ends it
                if self._thread is None or isinstance(error, Exception):
                    self._give_up()
                raise
        try:  # without the lock, so that `stop` may be called meanwhile
            for pool in pools:
                pool.wait_until_ready()
            require_descriptors(3)  # for a connection, and for `Signals`
            self.observers.start()
        except BaseException as error:
            # a signal may come when the threads serve already; a lifespan may never end
            serves = isinstance(error, KeyboardInterrupt) and self._loops is None
            self.stop(None if serves else 0)
            raise
        self._watchdog = Watchdog(self.parts())

    def _make_pools(self) -> None:
        collector = self.observers.open(self._collector)
        if self.asgi_app is None and is_asgi(self.app):
            self._loops = make_asgi_server(self.app, self.config, collector, self._ssl_context)
            self.pools = [self._loops]
        else:
            self._make_threads(collector)
        for sock, plain in zip(self._sockets, self._plain, strict=True):
            self.pools[0].listen(sock, plain=plain)

    def _make_threads(self, collector: LifecycleCollector | None) -> None:
        app, sync_app, handoff = self.app, None, None
        if self.asgi_app is not None:
            app, sync_app = self.asgi_app, self.app
            self._loops = handoff = make_handoff_loops(self.asgi_app, self.config, collector)
        self._worker = SyncWorker(
            self.config,
            app,
            None,
            ssl_context=self._ssl_context,
            lifecycle_collector=collector,
            async_pool=handoff,
            sync_app=sync_app,
        )
        self.pools = [self._worker.pool] if handoff is None else [self._worker.pool, handoff]

    def _run(self) -> None:
        """The body of the server's thread. If it ends before `stop`, the server has failed."""
        try:
            self._serve()
        except Exception:
            if self._watchdog is not None:  # else `start` raises it
                log.exception("The server has ended: its threads met an internal error")
        finally:
            if not self._stop_asked.is_set():
                self.failed = True
                self._stop_asked.set()
                self._wake()

    def _serve(self) -> None:
        worker, loops = self._worker, self._loops
        if worker is None:
            assert loops is not None
            loops.run()
            return
        if loops is not None:
            try:
                loops.start()
            except BaseException:
                worker.close()  # `start` waits for the loops too, and raises what this was
                return
        worker.run()

    def _start_once(self) -> None:
        if self._thread is None and not self._stopping:
            self.start()

    def _give_up(self) -> None:
        """Close what was opened for a thread that does not run."""
        worker, loops = self._worker, self._loops
        self._worker = self._loops = self._thread = None
        self.pools = []
        if loops is not None:
            loops.shutdown(0)
        if worker is not None:
            worker.close()
        self._close_sockets()
        self.observers.close()

    # ---- The end --------------------------------------------------------------------------

    def stop(self, timeout: float | None = None, *, linger: float = 0.0) -> None:
        """Stop listening at once, finish the requests in flight, then end the threads.

        After `timeout` seconds (`graceful_timeout` if None) what is left is cut. Idle connections
        stay open for `linger` seconds: a request that was on its way is answered.
        """
        self._stop_asked.set()
        self._wake()
        with self._lock:
            stopping, self._stopping = self._stopping, True
        if stopping:
            self._stopped.wait()
            return
        patience = self.config.timeouts.graceful if timeout is None else timeout
        until = time.monotonic() + patience
        self.deadline = min(self.deadline, until)
        try:
            if not self.pools or self._thread is None:
                self._close_sockets()
            elif self._thread.ident is None:  # `start` was interrupted before the thread ran
                self._give_up()
            else:
                with self.observers.watch_end(self, self.terminal):
                    self._end(self._thread, patience, until, linger)
        finally:
            try:
                self.observers.close()
            finally:  # else other callers of `stop` would wait for ever
                self._stopped.set()
                self._wake()

    def begin_stop(self) -> None:
        """`stop`, as after SIGTERM, on a thread of its own. Any thread may call it."""
        linger = self.config.timeouts.drain_idle
        stopper = threading.Thread(
            target=self.stop, kwargs={"linger": linger}, name="threadwell-stop", daemon=True
        )
        start_or_run(stopper)

    def give_up(self) -> None:
        """`begin_stop`, as after a failure: a request holds a thread beyond its time."""
        if not self._stop_asked.is_set():
            self.failed = True
            self.begin_stop()

    def _end(self, thread: threading.Thread, patience: float, until: float, linger: float) -> None:
        """Drain all pools at the same time. The first ends first: it hands over until then."""
        first, *others = self.pools
        for pool in others:
            pool.drain(patience, linger)
        first.shutdown(patience, linger)
        for pool in others:
            pool.shutdown(max(until - time.monotonic(), 0))
        if thread is not threading.current_thread():  # else the application stops its server
            rest = self.deadline + _LAST_MOMENT - time.monotonic()
            thread.join(min(max(rest, 0.1), _LAST_MOMENT))
            if thread.is_alive():
                log.warning("A thread is still in the application's code")

    def cut(self) -> None:
        """After `stop`: cut the requests in flight now. Any thread may call it."""
        self.deadline = min(self.deadline, time.monotonic())
        for pool in self.pools:
            pool.cut()

    def share_listeners(self) -> None:
        """Before `stop`: leave the backlog to the other processes that have the same sockets."""
        for pool in self.pools:
            pool.share_listeners()

    def reopen_logs(self) -> None:
        """Reopen the access log, after its file was renamed. Any thread may call it."""
        self.observers.reopen_logs()

    def _close_sockets(self) -> None:
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()

    # ---- Watching -------------------------------------------------------------------------

    def count_into(self, page: memoryview[int]) -> None:
        """Before `start`: count metrics on `page`, which another process serves."""
        self.observers.count_into(page)

    @property
    def state(self) -> str:
        """`starting`, `serving`, `draining` or `stopped`, for the control socket."""
        if self._stopped.is_set():
            return "stopped"
        if self._stop_asked.is_set():
            return "draining"
        return "serving" if self._watchdog is not None else "starting"

    def unready_reason(self) -> str:
        """Why no requests should be sent here; empty if they may. One thread at a time."""
        if self._stop_asked.is_set():
            return "nothing serves" if self.failed else "draining"
        if self._watchdog is None:
            return "starting"
        age, timeout = self._watchdog.age(), self.config.processes.worker_timeout
        hangs = 0 < timeout <= age - UNSEEN
        return f"no request was taken for {age:.0f} seconds" if hangs else ""

    def served(self) -> int:
        """How many requests were begun. Any thread may call it."""
        # each begins in the pool that listens, which also counts those that it hands over
        return self.pools[0].served() if self.pools else 0

    def parts(self) -> list[Probed]:
        """The parts that can hang independently: the threads together, and each event loop."""
        return [part for pool in self.pools for part in pool.parts()]

    @property
    def lost_lines(self) -> int:
        """How many lines of the access log could not be written."""
        return self.observers.lost_lines

    @property
    def metrics_urls(self) -> list[str]:
        """Where the metrics are served; known after `start`."""
        return self.observers.metrics_urls

    # ---- Signals --------------------------------------------------------------------------

    def serve_forever(self, started: Callable[[], None] | None = None) -> None:
        """Serve until `stop` is called, or SIGINT or SIGTERM comes; a second one cuts.

        After SIGTERM idle connections linger for `drain_idle` seconds. SIGUSR1 opens the log files
        anew. SIGHUP reads the certificates again, or ends the server if its controlling terminal
        was closed. Signals are handled in the main thread only, and their handlers are restored
        afterwards. Once connections are accepted and signals are handled, `started` is called, and
        systemd is told.
        """
        if threading.current_thread() is not threading.main_thread():
            self._start_once()
            if started is not None:
                started()
            self._stop_asked.wait()
            self.stop()
            return
        self._terminal = Terminal()
        with Signals(_HANDLED) as signals:
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
        start_or_run(stopper)
        while not self._stopped.is_set():
            # the kernel and a shell both send SIGHUP when a terminal is closed
            ends += self._stop_signals([each for each in signals.wait() if each != _RELOAD])
            if len(ends) > 1:
                self.cut()
        if stopper.ident is not None:  # else there was no thread for it
            stopper.join()

    def _stop_signals(self, received: list[int]) -> list[int]:
        """The signals of `received` that end the server; the others are acted on here."""
        if _REOPEN in received:
            self.reopen_logs()
        if UPGRADE in received:
            refuse_upgrade()
        hung_up = _RELOAD in received and self._terminal.hung_up()
        if _RELOAD in received and not hung_up:
            log.info("SIGHUP: the application is not reloaded; with --workers it would be")
            self.reload_certificates()
        ends = [n for n in received if n not in (_REOPEN, _RELOAD, UPGRADE)]
        return ends or [_RELOAD] * hung_up

    def _wake(self) -> None:
        """Let `serve_forever` see that the server stops."""
        signals = self._signals
        if signals is not None:
            signals.wake()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()
