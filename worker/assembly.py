"""Wiring: checks of a configuration, and the pools that serve: threads, event loops, or both."""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any

from .app_kind import is_asgi
from .config import changed
from .http.own_fields import own_fields
from .lifecycle import ConnectionOpened, LifecycleCollector
from .net.bind import check_addresses, check_metrics_addresses
from .polling.kernel import make_poller
from .request_id import check as check_request_ids
from .system.resources import connection_limit
from .threads.pool import ThreadPool
from .tls.context import check as check_tls
from .tls.context import require_hpack

if TYPE_CHECKING:
    import ssl
    import threading
    from collections.abc import Callable

    from .asgi.interfaces import ALPNTable
    from .asgi.pool import EventLoopPool, HandoffPool
    from .config import ServerConfig
    from .config.groups import Static
    from .connection import Connection
    from .interfaces import AsyncPool, PoolThread
    from .messages import ASGIApp, SyncApp
    from .polling.base import ConnectionQueue

log = logging.getLogger("threadwell")


def check(config: ServerConfig) -> None:
    """Check that the settings of `config` are valid and fit each other. Raises `ConfigError`.

    The commands, `Server` and `SyncWorker` all call it. It opens no file and no socket; making the
    TLS context checks the certificate files (`tls.context.context_for`).
    """
    config.processes.check()
    config.static.check()
    if config.static.mounts:
        from .static import check_static  # which needs whitenoise

        check_static(config.static)
    if changed(config.responses):
        own_fields(config.responses)
    if changed(config.log):
        from .logs.request_log import check as check_request_log

        check_request_log(config.log)
    if changed(config.proxies):
        from .proxies.trust import check as check_proxies

        check_proxies(config.proxies)
    check_request_ids(config.log)
    check_metrics_addresses(config.metrics)
    check_addresses(config)
    check_tls(config.tls)


def alpn_table(config: ServerConfig) -> ALPNTable:
    """The protocols that loops serve beside HTTP/1.1. Raises `ConfigError` without hpack."""
    if not config.http2.on:
        return {}
    require_hpack()
    from .http2.connection import connection_factory
    from .http2.send_budget import ProcessBudget

    return {
        "h2": functools.partial(connection_factory, ProcessBudget(config.http2.send_buffer_total))
    }


def make_loops(
    app: ASGIApp,
    config: ServerConfig,
    collector: LifecycleCollector | None,
    ssl_context: ssl.SSLContext | None,
    shutdown_event: threading.Event | None = None,
    conn_queue: ConnectionQueue | None = None,
) -> EventLoopPool:
    """Event loops for `app`, whose static files are in front of it already."""
    from .asgi.pool import EventLoopPool

    return EventLoopPool(
        app,
        config,
        collector=collector,
        shutdown_event=shutdown_event,
        ssl_context=ssl_context,
        conn_queue=conn_queue,
        protocols=alpn_table(config),
    )


def make_asgi_server(
    app: ASGIApp,
    config: ServerConfig,
    collector: LifecycleCollector | None,
    ssl_context: ssl.SSLContext | None,
) -> EventLoopPool:
    """Event loops that serve `app` alone, with the static files that `config` names.

    Raises `ConfigError`.
    """
    if config.static.mounts:
        app, _ = with_files(config.static, app, None)
    return make_loops(app, config, collector, ssl_context)


def make_handoff_loops(
    app: ASGIApp, config: ServerConfig, collector: LifecycleCollector | None
) -> HandoffPool:
    """Event loops for the ASGI application of a hybrid. Raises `ConfigError`."""
    from .asgi.pool import HandoffPool

    return HandoffPool(app, config, collector=collector)


def make_threads(
    config: ServerConfig,
    collector: LifecycleCollector | None,
    clone: Callable[[], PoolThread],
    async_pool: AsyncPool | None,
    ssl_context: ssl.SSLContext | None,
    shutdown_event: threading.Event | None = None,
    conn_queue: ConnectionQueue | None = None,
) -> ThreadPool:
    """Threads whose workers `clone` makes, and the loops of HTTP/2 if `config` offers it.

    With HTTP/2 these loops are those of `async_pool` if it can take them. Raises `ConfigError`.
    """
    limit = connection_limit(config.limits.connections)
    poller = make_poller(config.threads.poller, limit, conn_queue, ssl_context)
    if config.processes.needs_supervisor:
        poller.takes_turns, poller.sharers = True, config.worker_count()
    if collector is not None:
        poller.opened = functools.partial(_opened, collector)
    pool = ThreadPool(config, poller, shutdown_event, clone, ssl_context=ssl_context)
    if config.http2.on:
        _offer_http2(pool, config, collector, async_pool)
    return pool


def _offer_http2(
    pool: ThreadPool,
    config: ServerConfig,
    collector: LifecycleCollector | None,
    async_pool: AsyncPool | None,
) -> None:
    protocols = alpn_table(config)
    from .asgi.pool import HandoffPool
    from .http2.pool import make_pool

    if isinstance(async_pool, HandoffPool):
        async_pool.add_protocols(protocols)
        pool.offer_http2(async_pool, owned=False)
    else:
        pool.offer_http2(make_pool(config, collector, protocols), owned=True)


def _opened(collector: LifecycleCollector, conn: Connection) -> None:
    """Report a connection that the poller accepted before any thread has it."""
    try:
        collector.record(ConnectionOpened(conn.peer))
    except Exception:
        log.exception("A collector failed")


def with_files(settings: Static, app: Any, sync_app: SyncApp | None) -> tuple[Any, SyncApp | None]:
    """`app` and `sync_app` with static files in front of the one that sees requests first.

    That is `sync_app` if it is given. Raises `ConfigError`.
    """
    from .static import StaticApp, StaticFiles  # which need whitenoise

    files = StaticFiles(settings)
    if sync_app is not None:
        return app, StaticApp(sync_app, files)
    if is_asgi(app):
        from .asgi.static import ASGIStaticApp

        return ASGIStaticApp(app, files), None
    return StaticApp(app, files), None
