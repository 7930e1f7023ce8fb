"""Serving with several processes, for a command."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .banner import metrics_notes, start_message
from .binding import closed_in_the_end, open_sockets
from .process_setup import configure_logging, defer_signals_until_served, raise_descriptor_limit
from .worker import Request, Server, ServerConfig
from .worker.net.bind import url_of
from .worker.server import Served
from .worker.supervisor import Loaded, run_supervised
from .worker.system.pid_file import pid_file

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Sequence


def run_workers(
    load: Callable[[], Loaded],
    config: ServerConfig,
    say: Callable[[str], None],
    notes: Sequence[str] = (),
    ssl_context: ssl.SSLContext | None = None,
) -> int:
    """Serve what `load` imports with the processes that `config` says; the exit code.

    `load` is called in the new processes alone: nothing of the application should have been
    imported here, or a reload would not replace it. `say` prints a line; `notes` are for the start
    message; `ssl_context` is as for `Server`. Raises `ConfigError`, and `StartFailed` when no
    process becomes ready.
    """
    configure_logging(config.log.level)
    raise_descriptor_limit()
    sockets = open_sockets(config)
    # it is not started: what it knows of the sockets is for the start message
    front = Server(_nobody, config, sockets=sockets, ssl_context=ssl_context)
    front.bind()
    monitored = _open_metrics(config, sockets)
    urls = [url_of("http", sock.getsockname()) for sock in monitored]
    notes = [*notes, *metrics_notes(urls)]

    def load_loudly() -> Loaded:
        loaded = load()
        configure_logging(config.log.level)  # the application may have changed it
        return loaded

    def announce(facts: dict[str, Any]) -> None:
        workers = config.worker_count()
        name, kind, gil = facts["name"], facts["kind"], facts["gil"]
        say(start_message(front, name, kind, notes, workers=workers, gil=gil))

    def build(app: Served, given: Sequence[socket.socket]) -> Server:
        return Server(app, config, sockets=given, ssl_context=ssl_context)

    defer_signals_until_served()
    with closed_in_the_end([*sockets, *monitored]), pid_file(config.processes.pid_file):
        run_supervised(
            load_loudly,
            config,
            sockets,
            build=build,
            started=announce,
            stopping=lambda: say("stopping"),
            monitored=monitored,
        )
    return 0


def _open_metrics(
    config: ServerConfig, sockets: Sequence[socket.socket]
) -> Sequence[socket.socket]:
    """The sockets for metrics. Raises `ConfigError`, and closes `sockets` then."""
    if not config.metrics.bind:
        return ()
    from .worker.metrics.endpoint import open_metrics

    try:
        return open_metrics(config)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise


def _nobody(request: Request) -> None:
    """For a server that is never started."""
