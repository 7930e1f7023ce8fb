"""Wiring: the checks of a configuration, and the threads or event loops of a `SyncWorker`."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any, cast

from .app_kind import is_asgi
from .lifecycle import ConnectionOpened, LifecycleCollector
from .logs.format import compile_format
from .logs.target import parse_syslog
from .net.bind import check_metrics_addresses
from .polling.base import ConnectionQueue, connection_limit
from .polling.kernel import make_poller
from .proxies.trust import check as check_proxies
from .request_id import check as check_request_ids
from .threads.pool import ThreadPool
from .tls.context import check as check_tls
from .tls.context import require_h2

if TYPE_CHECKING:
    import ssl
    import threading

    from .asgi.pool import EventLoopPool
    from .config import ServerConfig
    from .config.groups import Static
    from .connection import Connection
    from .messages import ASGIApp, SyncApp
    from .sync_worker import SyncWorker

log = logging.getLogger("threadwell")


def check(config: ServerConfig) -> None:
    """Check that the settings of `config` are valid and fit each other. Raises `ConfigError`.

    The commands, `Server` and `SyncWorker` all call it. It opens no file and no socket; making the
    TLS context checks the certificate files (`tls.context.context_for`).
    """
    config.static.check()
    if config.static.mounts:
        from .static import check_static  # which needs whitenoise

        check_static(config.static)
    compile_format(config.log.format)
    check_proxies(config.proxies)
    parse_syslog(config.log.access_log)
    check_request_ids(config.log)
    check_metrics_addresses(config.metrics)
    check_tls(config.tls)


def make_loops(
    worker: SyncWorker,
    ssl_context: ssl.SSLContext | None,
    shutdown_event: threading.Event | None,
    conn_queue: ConnectionQueue | None,
) -> EventLoopPool:
    """Event loops for the ASGI application of `worker`."""
    from .asgi.pool import EventLoopPool

    return EventLoopPool(
        cast("ASGIApp", worker.app),
        worker.config,
        collector=worker.collector,
        shutdown_event=shutdown_event,
        ssl_context=ssl_context,
        conn_queue=conn_queue,
    )


def make_threads(
    worker: SyncWorker,
    ssl_context: ssl.SSLContext | None,
    shutdown_event: threading.Event | None,
    conn_queue: ConnectionQueue | None,
) -> ThreadPool:
    """Threads for the sync application of `worker`, and loops for HTTP/2 if that is offered."""
    config = worker.config
    limit = connection_limit(config.limits.connections)
    poller = make_poller(config.threads.poller, limit, conn_queue, ssl_context)
    poller.takes_turns = config.processes.needs_supervisor
    if worker.collector is not None:
        poller.opened = functools.partial(_opened, worker.collector)
    pool = ThreadPool(config, poller, shutdown_event, worker.clone, ssl_context=ssl_context)
    if config.http2.on:
        _offer_http2(worker, pool)
    return pool


def _offer_http2(worker: SyncWorker, pool: ThreadPool) -> None:
    """Let clients have HTTP/2, on the loops of the ASGI application, if they are there."""
    require_h2()
    from .asgi.pool import HandoffPool
    from .http2.pool import make_pool

    if isinstance(worker.async_pool, HandoffPool):
        pool.offer_http2(worker.async_pool, owned=False)
    else:
        pool.offer_http2(make_pool(worker.config, worker.collector), owned=True)


def _opened(collector: LifecycleCollector, conn: Connection) -> None:
    """Tell the collector of a connection that no thread has seen come."""
    try:
        collector.record(ConnectionOpened(conn.peer))
    except Exception:
        log.exception("A collector failed")


def with_files(settings: Static, app: Any, sync_app: SyncApp | None) -> tuple[Any, SyncApp | None]:
    """`app` and the `sync_app` beside it, if there is one, with the files in front of them.

    Raises `ConfigError`.
    """
    from .static import StaticApp, StaticFiles  # which need whitenoise

    files = StaticFiles(settings)
    if sync_app is not None:
        return app, StaticApp(sync_app, files)
    if is_asgi(app):
        from .asgi.static import ASGIStaticApp

        return ASGIStaticApp(app, files), None
    return StaticApp(app, files), None
