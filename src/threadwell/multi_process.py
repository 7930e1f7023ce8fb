"""Serves with several processes, for a command."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from .banner import metrics_notes, start_message
from .binding import closing_all, open_sockets
from .process_setup import (
    configure_logging,
    defer_signals_until_served,
    end_output,
    pid_file,
    raise_descriptor_limit,
    say,
)
from .worker import Request, Served, Server, ServerConfig
from .worker.net.bind import url_of
from .worker.supervisor import Loaded, StartFailed, run_supervised
from .worker.system.process_title import set_process_title

if TYPE_CHECKING:
    import socket
    import ssl
    from collections.abc import Callable, Sequence

__all__ = ["Loaded", "StartFailed", "run_workers"]


def run_workers(
    load: Callable[[], Loaded],
    config: ServerConfig,
    notes: Sequence[str] = (),
    ssl_context: ssl.SSLContext | None = None,
) -> int:
    """Serve what `load` imports, with the processes that `config` asks for; return the exit code.

    `load` is called in the new processes only. Import nothing of the application in this one, or a
    reload cannot replace it. `notes` are lines of the start message;
    `ssl_context` is as for `Server`. Call this in the main thread.

    Raises `ConfigError`, and `StartFailed` if no process becomes ready.
    """
    configure_logging(config.log)
    raise_descriptor_limit()
    sockets = open_sockets(config)
    # This server is never started: it describes the sockets for the start message.
    described = Server(no_app, config, sockets=sockets, ssl_context=ssl_context)
    described.bind()
    monitored = open_monitored(config, sockets)

    def load_and_log() -> Loaded:
        loaded = load()
        configure_logging(config.log)  # The application may have changed it.
        return loaded

    def build(app: Served, given: Sequence[socket.socket]) -> Server:
        return Server(app, config, sockets=given, ssl_context=ssl_context)

    announce = announcer(described, monitored, notes)

    def started(facts: dict[str, Any]) -> None:
        set_process_title("supervisor", facts["name"])
        announce(facts)

    defer_signals_until_served()
    with closing_all([*sockets, *monitored]), pid_file(config.processes.pid_file):
        run_supervised(
            load_and_log,
            config,
            sockets,
            build=build,
            started=started,
            stopping=partial(say, "stopping"),
            monitored=monitored,
        )
    end_output()
    return 0


def announcer(
    described: Server, monitored: Sequence[socket.socket], notes: Sequence[str] = ()
) -> Callable[[dict[str, Any]], None]:
    """Prints the start message, as `started` of `run_supervised`.

    `described` is a server that is bound and never started; `monitored` serve metrics.
    """
    urls = [url_of("http", sock.getsockname()) for sock in monitored]
    lines = [*notes, *metrics_notes(urls)]

    def announce(facts: dict[str, Any]) -> None:
        workers = described.config.worker_count()
        name, kind, gil = facts["name"], facts["kind"], facts["gil"]
        say(start_message(described, name, kind, lines, workers=workers, gil=gil))

    return announce


def open_monitored(
    config: ServerConfig, sockets: Sequence[socket.socket]
) -> Sequence[socket.socket]:
    """Listening sockets for metrics. Raises `ConfigError`, after it has closed `sockets`."""
    if not config.metrics.bind:
        return ()
    from .worker.metrics.endpoint import open_metrics

    try:
        return open_metrics(config)
    except BaseException:
        for sock in sockets:
            sock.close()
        raise


def no_app(request: Request) -> None:
    """The application of a server that is never started."""
