"""The Python API: serve any application in a line or two."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Protocol, Unpack

from .adapters import as_app, as_sync_app
from .app_loader import NestedServeError, load_app, refuse_nested_serve
from .worker import (
    ConfigError,
    Hybrid,
    LifecycleCollector,
    Served,
    Server,
    ServerConfig,
    app_kind,
    app_name,
    format_address,
    open_sockets,
)
from .worker.errors import StartFailed
from .worker.messages import Loaded
from .worker.system.pid_file import pid_file
from .worker.system.standard_streams import open_missing_streams
from .worker.system.systemd import inherited_sockets

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Iterable, Sequence

    from .worker import ASGIApp, SyncApp
    from .worker.config.options import Options

    class DjangoResponse(Protocol):
        """What Django's handler returns. Its stubs do not say that one can be iterated over."""

        status_code: int

        def close(self) -> None: ...

    #: PEP 3333; the arguments are the environ and `start_response`.
    WSGIApp = Callable[[dict[str, Any], Any], Iterable[bytes] | DjangoResponse]
    #: What can be served.
    App = WSGIApp | SyncApp | ASGIApp | Hybrid
    Interface = Literal["auto", "wsgi", "sync", "asgi"]


class ThreadedServer(Server):
    """A `Server` for any application, with the methods of the servers of `wsgiref` and Werkzeug.

    `app` is a WSGI application, a `SyncApp` or an ASGI application. `interface` says which one, if
    inspection cannot (see `app_kind`). `asgi_app` may stand beside a WSGI application or a
    `SyncApp`: it gets the WebSockets, and the requests that the `SyncApp` answers with None. The
    keyword arguments are the options of `ServerConfig.from_options`.

    Raises `ConfigError` for an option that cannot be used, `TypeError` if `app` is no application.
    """

    def __init__(
        self,
        app: App,
        *,
        interface: Interface = "auto",
        asgi_app: ASGIApp | None = None,
        ssl_context: ssl.SSLContext | None = None,
        lifecycle_collector: LifecycleCollector | None = None,
        **options: Unpack[Options],
    ) -> None:
        config = ServerConfig.from_options(**options)
        if option := config.processes.reason_for_supervisor:
            raise ConfigError(
                f"{option}: a server object serves in this process; serve() and the command"
                " threadwell start others"
            )
        if config.processes.pid_file:
            raise ConfigError(
                "pid_file: a process may have several server objects; serve() and the command"
                " threadwell write one"
            )
        super().__init__(
            _as_served(app, interface, asgi_app),
            config,
            ssl_context=ssl_context,
            lifecycle_collector=lifecycle_collector,
        )

    @property
    def server_port(self) -> int:
        """The same as `port`."""
        return self.port

    @property
    def server_address(self) -> tuple[str, int]:
        """The host and the port of the first socket; of a unix socket its path, and 0."""
        name = self.addresses[0] if self.addresses else ("", 0)
        return (str(name[0]), int(name[1])) if isinstance(name, tuple) else (str(name), 0)

    def shutdown(self) -> None:
        """The same as `stop`."""
        self.stop()

    def server_close(self) -> None:
        """Close the sockets: the same as `stop`."""
        self.stop()


def _as_served(app: Any, interface: str, asgi_app: Any, *, multiprocess: bool = False) -> Served:
    if asgi_app is None:
        served: Served = as_app(app, interface, multiprocess=multiprocess)
        return served
    return Hybrid(as_sync_app(app, interface, multiprocess=multiprocess), as_app(asgi_app, "asgi"))


def serve(
    app: App | str,
    *,
    interface: Interface = "auto",
    asgi_app: ASGIApp | None = None,
    ssl_context: ssl.SSLContext | None = None,
    lifecycle_collector: LifecycleCollector | None = None,
    quiet: bool = False,
    **options: Unpack[Options],
) -> None:
    """Serve `app` until SIGINT or SIGTERM (blocking). Call it in the main thread.

    `app` is a WSGI application, an ASGI application or a `SyncApp`. It may also be a text such as
    `"module:app"`, which is imported in this process, or with `workers` in each worker process, so
    that SIGHUP loads it again. `options` are those of `ServerConfig.from_options`, such as
    `bind="0.0.0.0:8000"` and `threads=8`. The other arguments are those of `ThreadedServer`.

    Unless `quiet`, it prints what the command `threadwell` prints, and writes the messages of the
    server to standard error if the program has not set up logging.

    Raises `ConfigError` for an option that cannot be used, and if it is called while an application
    is imported (put the call under `if __name__ == "__main__":`), `TypeError` if `app` is no
    application, `OSError` if an address cannot be bound, and what `run_supervised` raises.
    """
    # Imported here, as most programs that import threadwell do not call this.
    from .process_setup import configure_logging
    from .single_process import AnnouncingServer

    refuse_nested_serve()
    open_missing_streams()
    config = ServerConfig.from_options(**options)
    supervised = config.processes.needs_supervisor

    def build(served: Served, sockets: Sequence[socket.socket]) -> AnnouncingServer:
        server = AnnouncingServer(
            served,
            config,
            sockets=sockets,
            ssl_context=ssl_context,
            lifecycle_collector=lifecycle_collector,
        )
        server.announced = quiet or supervised  # The supervisor announces for its workers.
        return server

    if not quiet and not logging.getLogger("threadwell").hasHandlers():
        configure_logging(config.log)
    load = partial(_load, app, interface, asgi_app, multiprocess=supervised)
    if supervised:
        _supervise(load, config, build, quiet=quiet)
        return
    loaded = load()
    server = build(loaded.app, inherited_sockets(config.bind.backlog))
    server.bind()
    with pid_file(config.processes.pid_file):
        server.serve_forever(None if quiet else partial(server.announce, loaded.name, loaded.kind))


def _load(app: Any, interface: str, asgi_app: Any, *, multiprocess: bool) -> Loaded:
    found, name = load_app(app) if isinstance(app, str) else (app, app_name(app))
    served = _as_served(found, interface, asgi_app, multiprocess=multiprocess)
    kind = app_kind(found) if interface == "auto" else interface
    return Loaded(served, name, kind if asgi_app is None else f"{kind}, with an ASGI application")


def _supervise(
    load: Callable[[], Loaded],
    config: ServerConfig,
    build: Callable[[Served, Sequence[socket.socket]], Server],
    *,
    quiet: bool,
) -> None:
    """Serve with several processes. Raises as `serve`."""
    from .multi_process import announcer, no_app, open_monitored
    from .process_setup import say
    from .worker.supervisor import run_supervised

    sockets = inherited_sockets(config.bind.backlog) or open_sockets(config.bind)
    described = build(no_app, sockets)
    described.bind()
    monitored = open_monitored(config, sockets)
    try:
        with pid_file(config.processes.pid_file):
            run_supervised(
                load,
                config,
                sockets,
                build=build,
                started=None if quiet else announcer(described, monitored),
                stopping=None if quiet else partial(say, "stopping"),
                monitored=monitored,
            )
    except StartFailed as error:
        if str(error) == str(NestedServeError()):  # It was raised in a worker.
            raise NestedServeError from None
        raise


def make_server(host: str, port: int, app: App, **options: Unpack[Options]) -> ThreadedServer:
    """A bound server for `app`: call its `serve_forever`, or use it as a context manager.

    The arguments are those of `wsgiref.simple_server.make_server`, and options. `host` may also be
    `unix:PATH`, which ignores `port`. Port 0 takes a free port; `server_port` tells which. Raises
    as `ThreadedServer`, and `OSError` if the address cannot be bound.
    """
    if "bind" in options:
        raise ConfigError("bind: make_server takes the host and the port as arguments")
    options["bind"] = host if host.startswith("unix:") else format_address(host, port)
    server = ThreadedServer(app, **options)
    server.bind()
    return server
