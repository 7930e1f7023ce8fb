"""How a process of the server begins and ends: forked in silence, left in good order."""

from __future__ import annotations

import atexit
import contextlib
import faulthandler
import logging
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

from ..config import ServerConfig
from ..errors import ConfigError
from ..net.bound_socket import turn_away
from ..server import Served, Server
from ..system.readiness import in_error
from .pipe import LONGEST_TEXT, Channel, Message

if TYPE_CHECKING:
    from ..metrics.shared_pages import SharedPages

log = logging.getLogger("threadwell")

# The exit code of a process whose code has a bug of threadwell: EX_SOFTWARE of sysexits.h.
_INTERNAL_ERROR = 70
# Not `sys.stderr`, which the application may have replaced by something without a descriptor.
_STDERR = 2

#: Signals that a terminal or an operator may send to all processes; only the supervisor acts.
_DEAF_TO = ("SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGTTIN", "SIGTTOU", "SIGWINCH")


@dataclass(frozen=True)
class Loaded:
    """An application, and what the start message says of it."""

    app: Served
    name: str = ""
    kind: str = ""


Build = Callable[[Served, Sequence[socket.socket]], Server]


@dataclass(frozen=True)
class Job:
    """What all processes of a server know. `load` imports the application, `build` serves it."""

    load: Callable[[], Loaded]
    build: Build
    config: ServerConfig
    sockets: list[socket.socket]
    opener: int = field(default_factory=os.getpid)
    #: Where the workers count, if anybody wants to know.
    shared_pages: SharedPages | None = None

    def take_sockets(self) -> list[socket.socket]:
        """The listening sockets for this process alone, and plain ones.

        Closing the one that was bound would remove the file of a unix socket.
        """
        return [socket.socket(fileno=sock.detach()) for sock in self.sockets]

    def close_sockets(self) -> None:
        """Listen no more; in the process that opened it, the file of a unix socket goes too."""
        own = os.getpid() == self.opener
        if own:
            turn_away(self.sockets)
        for sock in self.sockets if own else self.take_sockets():
            sock.close()
        self.sockets.clear()


def fork(main: Callable[[], int]) -> int:
    """The id of a new process that runs `main` and ends with the code it returns.

    Call it where no other thread runs. Raises `OSError` when the system has no means for one.
    """
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    # a signal in between would meet the parent's handlers in the child
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    pid = -1
    try:
        pid = os.fork()
        if pid == 0:
            _settle()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if pid == 0:
            _live(main)
    return pid


def _settle() -> None:
    """Forget what the parent does with signals and at its end."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    for name in _DEAF_TO:
        # not ignored: a program that the application starts would inherit that
        signal.signal(getattr(signal, name), _hear_nothing)
    atexit._clear()


def _hear_nothing(_number: int, _frame: object) -> None:
    """For a signal that is the supervisor's."""


def _live(main: Callable[[], int]) -> NoReturn:
    code = _INTERNAL_ERROR
    try:
        code = main()
    except BaseException:
        log.exception("A process met an internal error")
    finally:
        leave(code)


def leave(code: int) -> NoReturn:
    """End this process as the interpreter would, without the parent's frames below."""
    try:
        # as multiprocessing does: what is not a daemon is waited for
        getattr(threading, "_shutdown", _nothing)()
        atexit._run_exitfuncs()
        logging.shutdown()
        sys.stdout.flush()
        sys.stderr.flush()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _nothing() -> None:
    """Where there is nothing to wait for."""


@contextlib.contextmanager
def in_time(config: ServerConfig, channel: Channel) -> Iterator[None]:
    """For what a process does until it is ready: if that takes too long, say where it is.

    The supervisor, which is told by `channel` that the time counts, kills it then. The interpreter
    says it on a thread of its own, so that not even code that keeps the GIL can hinder it.
    """
    seconds = config.processes.start_timeout
    if seconds:
        faulthandler.dump_traceback_later(seconds, file=_STDERR)
        channel.send({"begun": True})
    try:
        with _not_orphaned(channel):
            yield
    finally:
        if seconds:
            faulthandler.cancel_dump_traceback_later()


@contextlib.contextmanager
def _not_orphaned(channel: Channel) -> Iterator[None]:
    """For a process that does not listen yet: end when the supervisor does.

    It would keep the port until the application is imported, and nobody would end an import that
    hangs. A signal tells, for a thread must not be there when the application is imported.
    """

    import fcntl  # which Windows has not

    def look(*_signal: object) -> None:
        if in_error([channel.fileno()]):
            os._exit(1)

    before = signal.signal(signal.SIGIO, look)
    fd = channel.fileno()
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_ASYNC)
    try:
        look()
        yield
    finally:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)
        if signal.getsignal(signal.SIGIO) is look:
            signal.signal(signal.SIGIO, before)


def failure(error: BaseException) -> Message:
    """What a process says of an application that it could not load, or not serve."""
    text = str(error)
    trace = getattr(error, "trace", None)
    if trace is None:
        trace = ""
        if not isinstance(error, ConfigError):
            trace = "".join(traceback.format_exception(error))
            text = f"the application failed: {type(error).__name__}: {error}".removesuffix(": ")
    return {"failed": text[-LONGEST_TEXT:], "trace": trace[-LONGEST_TEXT:]}


def describe(status: int) -> str:
    """How a process ended, of its `os.waitstatus_to_exitcode`."""
    if status >= 0:
        return f"ended with code {status}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-status).name}"
    return f"was ended by signal {-status}"


def facts(loaded: Loaded, gil: bool) -> dict[str, Any]:
    """What the start message needs to know of the application."""
    return {"ready": os.getpid(), "name": loaded.name, "kind": loaded.kind, "gil": gil}
