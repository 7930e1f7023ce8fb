"""What a command does to its process before it serves, and when it has served."""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import signal
import sys
import threading
import time
from typing import TYPE_CHECKING, TextIO

from .worker import ServerConfig
from .worker.assembly import check
from .worker.system.pid_file import pid_file
from .worker.system.standard_streams import (
    StandardErrorHandler,
    TextFormatter,
    flush_streams,
    open_missing_streams,
    write_text,
)
from .worker.system.terminal import Terminal
from .worker.system.threads import start_thread
from .worker.tls.context import context_for

if TYPE_CHECKING:
    from .worker.config.groups import Log

__all__ = [
    "DEVELOPMENT_LIMITS",
    "USAGE_ERROR",
    "check_config",
    "configure_logging",
    "defer_signals_until_served",
    "end_output",
    "exit_on_next_signal",
    "flush_streams",
    "force_exit_by",
    "open_missing_streams",
    "pid_file",
    "raise_descriptor_limit",
    "say",
    "start_thread",
]

#: Limits of the development commands: those of `http.server`, and so of `flask run` and
#: `runserver`. The cookies of all projects on a developer's machine share the host localhost.
DEVELOPMENT_LIMITS = {
    "limit_request_line": 65536,
    "limit_field_size": 65536,
    "limit_head": 262144,
}
#: The exit code after a usage error.
USAGE_ERROR = 2

# Seconds that the threads of the application have at least to end.
_LEAST_EXIT_TIME = 1.0

log = logging.getLogger("threadwell")


def check_config(config: ServerConfig) -> None:
    """Check everything that `config` says, without serving. Raises `ConfigError`.

    Every command calls it before it imports the application. It checks the options that depend on
    each other, the syntax of addresses and formats, and that the files it names can be used.
    """
    check(config)
    if config.processes.user or config.processes.group:
        from .worker.supervisor.user import find_identity

        find_identity(config.processes)
    context_for(config)


def configure_logging(settings: Log) -> None:
    """Write the server's messages to standard error, unless the application has set up a handler.

    May be called again after the application was imported, which may have changed the logger.
    """
    logger = logging.getLogger("threadwell")
    if logger.handlers:
        return
    handler = StandardErrorHandler()
    if settings.error_format == "json":
        from .worker.logs.error_log import JSONFormatter

        handler.setFormatter(JSONFormatter())
    else:
        handler.setFormatter(TextFormatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(settings.level.upper())
    logger.propagate = False
    # Django's logging configuration disables the loggers that existed before it.
    logger.disabled = False


def raise_descriptor_limit() -> None:
    """Allow as many open connections as the system does: shells start with a low limit."""
    try:
        import resource
    except ImportError:  # Windows
        return
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    # macOS reports an infinite limit and then refuses that number.
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


# ---- Signals and the end of the process ---------------------------------------------------


def defer_signals_until_served() -> None:
    """Ignore SIGHUP, SIGUSR1 and SIGUSR2 until the server handles them.

    Scripts send them as soon as there is a pid file, and by default they end the process. Call this
    in the main thread, before the pid file is written. If the terminal is closed meanwhile, a
    `KeyboardInterrupt` is raised there.
    """
    terminal = Terminal()

    def ignore(number: int, _frame: object) -> None:
        if number == signal.SIGHUP and terminal.hung_up():
            raise KeyboardInterrupt

    for name in ("SIGHUP", "SIGUSR1", "SIGUSR2"):
        # nohup(1) ignores SIGHUP; the server looks whether it is ignored.
        if hasattr(signal, name) and signal.getsignal(getattr(signal, name)) != signal.SIG_IGN:
            # SIG_IGN would be inherited by programs that the application starts.
            signal.signal(getattr(signal, name), ignore)


def exit_on_next_signal() -> None:
    """From now on, let SIGINT and SIGTERM shorten the exit of the process instead of raising.

    The server has stopped. A `KeyboardInterrupt` would be raised in whatever runs last. Call this
    in the main thread.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _shorten_exit)


def _shorten_exit(_number: int, _frame: object) -> None:
    with contextlib.suppress(RuntimeError):  # The interpreter is too far gone to start a thread.
        force_exit_by(time.monotonic())


def force_exit_by(deadline: float, code: int = 0) -> None:
    """End this process with `code` by `deadline`, or a second from now if that is later.

    `deadline` is a time of `time.monotonic`.

    Call it when the main thread has nothing left to do. Python then waits, without a limit, for
    threads that are not daemons, for those of pools (`asyncio.to_thread` has one) and for `atexit`
    handlers. A supervisor would kill the process.
    """
    deadline = max(deadline, time.monotonic() + _LEAST_EXIT_TIME)
    # The second thread covers the case that logging hangs in the first.
    for at, explain in ((deadline, True), (deadline + _LEAST_EXIT_TIME, False)):
        thread = threading.Thread(
            target=_exit_at, args=(at, explain, code), name="threadwell-end", daemon=True
        )
        with contextlib.suppress(RuntimeError):  # The system has no thread left.
            thread.start()


def _exit_at(at: float, explain: bool, code: int) -> None:
    time.sleep(at - time.monotonic())
    # The main thread is alive while the interpreter waits for the pools of concurrent.futures.
    if threading.main_thread().is_alive() and not getattr(threading, "_SHUTTING_DOWN", False):
        return  # The caller of the command goes on: the process is not at its end.
    if explain:
        # Daemons are included, because the interpreter waits for daemons of pools, too.
        others = [each for each in threading.enumerate() if each is not threading.main_thread()]
        left = ", ".join(each.name for each in others if not each.name.startswith("threadwell"))
        log.warning("The process took too long to end; still running: %s", left or "atexit")
        if flush_streams():
            logging.shutdown()
    os._exit(code)


# ---- Standard output ----------------------------------------------------------------------


def say(text: str, stream: TextIO | None = None) -> None:
    """Print `text` on `stream`, by default standard output.

    It is dropped if nobody reads it. It overtakes what is in the buffer of `stream`.
    """
    write_text(sys.stdout if stream is None else stream, text + "\n")


def end_output(code: int = 0) -> None:
    """Flush standard output and standard error, when the server has stopped.

    If the reader of one has stopped reading, the process exits before the interpreter flushes them
    again, which has no limit; its exit code is `code`. The functions of `atexit` are called all the
    same.
    """
    if not flush_streams():
        _unread.append(code)


# The exit code, once a reader has stopped reading.
_unread: list[int] = []


@atexit.register
def _exit_unflushed() -> None:
    # Registered when the command is imported, so it runs after the functions of the application,
    # and before that of `logging`, which flushes.
    if _unread:
        os._exit(_unread[0])
