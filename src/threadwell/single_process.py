"""Serves in this process, or in a child of a reloader, for a command."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
from typing import TYPE_CHECKING, Any

from .app_loader import AppError
from .banner import metrics_notes, start_message
from .binding import closing_all, open_sockets
from .process_setup import (
    check_config,
    configure_logging,
    defer_signals_until_served,
    end_output,
    exit_on_next_signal,
    flush_streams,
    force_exit_by,
    pid_file,
    raise_descriptor_limit,
    say,
)
from .worker import ConfigError, Server, ServerConfig, StartupError
from .worker.system.process_title import set_process_title

if TYPE_CHECKING:
    import ssl
    from collections.abc import Sequence

    from .reload import Inherited, WatchedFiles
    from .worker import Served

# The exit code after an internal error of threadwell: EX_SOFTWARE of sysexits.h.
_INTERNAL_ERROR = 70


class AnnouncingServer(Server):
    """A server that prints when it begins to stop. It waits at most `grace` seconds then."""

    announced = False
    grace = math.inf

    def start(self) -> None:
        announced, self.announced = self.announced, True  # A failing start prints no "stopping".
        super().start()
        self.announced = announced

    def announce(self, name: str, kind: str, notes: Sequence[str] = ()) -> None:
        """Print the start message; the arguments are those of `start_message`."""
        say(start_message(self, name, kind, [*notes, *metrics_notes(self.metrics_urls)]))

    def stop(self, timeout: float | None = None, *, linger: float = 0.0) -> None:
        if not self.announced:
            self.announced = True
            say("stopping")
            self.terminal = sys.stdout if sys.stdout.isatty() else None
        if timeout is None:
            timeout = self.config.timeouts.graceful
        super().stop(min(timeout, self.grace), linger=linger)


def checked_config(options: dict[str, Any]) -> ServerConfig:
    """The configuration of these options, with everything checked. Raises `ConfigError`."""
    config = ServerConfig.from_options(**options)
    check_config(config)
    return config


def run_reloader(
    config: ServerConfig,
    watched: WatchedFiles,
    command: Sequence[str] = (),
    ssl_context: ssl.SSLContext | None = None,
) -> int:
    """Open the sockets and run `command` with them in a child, again after every change.

    Without a `command`, the child runs the command line of this process. While the child has
    failed, an error page is served, with `ssl_context` as for `Server`. Returns the exit code.
    Raises `ConfigError` for an address that cannot be bound, and if the system refuses a process, a
    thread or a descriptor.
    """
    from .error_page import serve_error
    from .reload import Reloader, this_command

    sockets = open_sockets(config)

    def show(text: str) -> Server:
        return serve_error(text, config, sockets, ssl_context)

    with closing_all(sockets), pid_file(config.processes.pid_file):
        try:
            return Reloader(command or this_command(), sockets, watched, say, show).run()
        except OSError as error:
            raise ConfigError(f"the reloader cannot run: {error}") from None


def run_server(
    app: Served,
    config: ServerConfig,
    name: str,
    kind: str,
    inherited: Inherited | None = None,
    notes: Sequence[str] = (),
    ssl_context: ssl.SSLContext | None = None,
) -> int:
    """Serve `app` until a signal stops it; return the exit code. Call it in the main thread.

    `name`, `kind` and `notes` are for the start message (see `start_message`). `inherited` is what
    the parent has left to a child of a reloader. Raises `ConfigError` if an address cannot be
    bound or a setting cannot be used, and `AppError` if the application does not start.
    """
    if config.processes.needs_supervisor:
        raise ConfigError("workers: this serves in one process; `threadwell APP` starts others")
    configure_logging(config.log)
    set_process_title("server", name)
    flush_streams()  # What the application has printed comes before the start message.
    raise_descriptor_limit()
    sockets = open_sockets(config) if inherited is None else inherited.sockets
    server = AnnouncingServer(app, config, sockets=sockets, ssl_context=ssl_context)
    if inherited is not None:
        from .reload import GRACE

        server.announced, server.grace = True, GRACE
        notes = [*notes, f"Restarts when a file changes ({inherited.engine})"]

    def announce() -> None:
        if inherited is None or inherited.first:
            if inherited is not None:
                inherited.report_announced()  # A signal does not end the process before the print.
            server.announce(name, kind, notes)
        else:
            say(f"threadwell serves {name} again")

    # Both signals abort the start, until `serve_forever` handles them.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    defer_signals_until_served()
    # Under a reloader, the parent writes the pid file.
    written = "" if inherited is not None else config.processes.pid_file
    with closing_all(sockets), pid_file(written):
        try:
            _start(server)
            try:
                server.serve_forever(announce)
            except OSError as error:  # It has no descriptor left, not even for signals.
                server.stop(0)
                raise ConfigError(f"the server cannot continue: {error}") from None
            exit_on_next_signal()
        except KeyboardInterrupt:
            with contextlib.suppress(KeyboardInterrupt):  # A second one ends the waiting.
                server.stop()
            exit_on_next_signal()
    code = _INTERNAL_ERROR if server.failed else 0
    force_exit_by(server.deadline, code)
    end_output(code)
    return code


def _start(server: AnnouncingServer) -> None:
    try:
        server.start()
    except StartupError as error:
        text = str(error).strip()
        trace = text + "\n" if "\n" in text else ""
        reason = text.rpartition("\n")[2] or "its lifespan reported a failure"
        raise AppError(f"the application did not start: {reason}", trace) from None
    except (ConfigError, OSError) as error:
        server.announced = True  # Only the sockets are to be closed.
        server.stop()
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"the server cannot start: {error}") from None
