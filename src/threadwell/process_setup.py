"""What a command does to its process before it serves."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from pathlib import Path

from .worker import ServerConfig
from .worker.assembly import check
from .worker.supervisor.user import find_identity
from .worker.tls.context import context_for

#: The exit code after a mistake of the user's.
USAGE_ERROR = 2

# What the application's threads have in any case to end, in seconds.
_LAST_MOMENT = 1.0

log = logging.getLogger("threadwell")


def check_files(config: ServerConfig) -> None:
    """Look at what `config` names, before an application is imported. Raises `ConfigError`."""
    check(config)
    find_identity(config.processes)
    context_for(config)


def configure_logging(level: str) -> None:
    """Show the server's messages on standard error, unless the application sees to them."""
    logger = logging.getLogger("threadwell")
    if logger.handlers:
        return
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    logger.addHandler(handler)
    logger.setLevel(level.upper())
    logger.propagate = False
    # Django's logging configuration disables the loggers that were there before it
    logger.disabled = False


def defer_signals_until_served() -> None:
    """Not to be ended by SIGHUP or SIGUSR1, which a script sends whenever there is a pid file.

    Call it before that is written, in the main thread; whoever serves heeds them.
    """
    for name in ("SIGHUP", "SIGUSR1"):
        if hasattr(signal, name):
            # not ignored: a program that the application starts would inherit that
            signal.signal(getattr(signal, name), _hear_nothing)


def exit_on_next_signal() -> None:
    """Let SIGINT and SIGTERM do no more than hasten the end: this process has stopped, and ends.

    As an exception one would come out of whatever is done last. Call it in the main thread.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _hasten)


def _hasten(_number: int, _frame: object) -> None:
    with contextlib.suppress(RuntimeError):  # it is so near that no thread can be started
        force_exit_by(time.monotonic())


def _hear_nothing(_number: int, _frame: object) -> None:
    """For a signal that nobody heeds yet."""


def raise_descriptor_limit() -> None:
    """Allow as many open connections as the system does; shells start with a low limit."""
    try:
        import resource
    except ImportError:  # Windows
        return
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    # macOS calls the limit infinite, and then takes no such number
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def force_exit_by(deadline: float) -> None:
    """See to it that a process whose main thread is at its end is over by `deadline`.

    That is a time of `time.monotonic`; a second is left in any case. Python waits for threads that
    are no daemons, for those of pools, as `asyncio.to_thread` has one, and for what `atexit` has
    been told to do: as long as they like, where a supervisor would kill the process.
    """
    deadline = max(deadline, time.monotonic() + _LAST_MOMENT)
    # the other is for a log that hangs, too
    for at, explain in ((deadline, True), (deadline + _LAST_MOMENT, False)):
        threading.Thread(
            target=_end, args=(at, explain), name="threadwell-end", daemon=True
        ).start()


def _end(at: float, explain: bool) -> None:
    time.sleep(at - time.monotonic())
    # The main thread is alive while the interpreter waits for the pools of concurrent.futures.
    if threading.main_thread().is_alive() and not getattr(threading, "_SHUTTING_DOWN", False):
        return  # its caller had more to do: this was not the end
    if explain:
        # whether they are daemons says little: pools wait for those, too
        others = [each for each in threading.enumerate() if each is not threading.main_thread()]
        left = ", ".join(each.name for each in others if not each.name.startswith("threadwell"))
        log.warning("The process took too long to end; left at work: %s", left or "atexit")
        logging.shutdown()
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(AttributeError, OSError, ValueError):
                stream.flush()
    os._exit(0)


def say(text: str) -> None:
    """Print `text` at once, also into a pipe. Nobody may be listening any more, or ever."""
    if sys.stdout is None:  # closed by who started this process
        return
    try:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()
    except OSError:
        # what is left in the buffer would fail once more at the end of the process
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
