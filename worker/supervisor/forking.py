"""How a process of the server is forked, starts within its time, and exits."""

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
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NoReturn

from ..config import ServerConfig
from ..errors import ConfigError
from ..messages import Loaded, Served
from ..net.bound_socket import refuse_connections
from ..server import Server
from ..system.readiness import in_error
from ..system.standard_streams import flush_streams
from ..system.threads import start_thread
from .pipe import LONGEST_TEXT, Message, Pipe

if TYPE_CHECKING:
    from ..metrics.shared_pages import SharedPages

log = logging.getLogger("threadwell")

# The exit code after an internal error of threadwell: EX_SOFTWARE of sysexits.h.
_INTERNAL_ERROR = 70
# Seconds for threads that are no daemons to end, before they are named.
_THREADS_EXIT = 1.0

# Signals that a terminal or an operator may send to all processes; only the supervisor acts on
# them.
_SUPERVISOR_ONLY = ("SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGTTIN", "SIGTTOU", "SIGWINCH")


Build = Callable[[Served, Sequence[socket.socket]], Server]


@dataclass(frozen=True)
class ServerSpec:
    """What every process knows of the server. `load` imports the application, `build` serves it."""

    load: Callable[[], Loaded]
    build: Build
    config: ServerConfig
    sockets: list[socket.socket]
    #: The process that has bound the sockets.
    owner: int = field(default_factory=os.getpid)
    #: The pages that workers count on; None without metrics.
    shared_pages: SharedPages | None = None

    def take_sockets(self) -> list[socket.socket]:
        """The listening sockets, as plain ones that this process owns.

        Closing a `BoundUnixSocket` would remove the file, which other processes still listen on.
        """
        return [socket.socket(fileno=sock.detach()) for sock in self.sockets]

    def close_sockets(self) -> None:
        """Stop listening. The process that has bound a unix socket also removes its file."""
        is_owner = os.getpid() == self.owner
        if is_owner:
            refuse_connections(self.sockets)
        for sock in self.sockets if is_owner else self.take_sockets():
            sock.close()
        self.sockets.clear()


def fork(main: Callable[[], int]) -> int:
    """Fork a process that runs `main` and exits with the code that it returns; return its id.

    Call it while no other thread runs. Raises `OSError` if the system cannot fork.
    """
    with contextlib.suppress(AttributeError, OSError, ValueError):  # None, if it is closed
        sys.stdout.flush()
        sys.stderr.flush()
    # until its handlers are reset, a signal in the child would run those of the parent
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    pid = -1
    try:
        pid = os.fork()
        if pid == 0:
            _reset_handlers()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if pid == 0:
            _run_child(main)
    return pid


def _reset_handlers() -> None:
    """Drop the signal handlers and `atexit` functions of the parent."""
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGQUIT, signal.SIGCHLD):
        signal.signal(number, signal.SIG_DFL)
    for name in _SUPERVISOR_ONLY:
        # not SIG_IGN: `exec` would pass that on to programs that the application starts
        signal.signal(getattr(signal, name), _do_nothing)
    atexit._clear()


def _do_nothing(*_arguments: object) -> None:
    pass


def _run_child(main: Callable[[], int]) -> NoReturn:
    code = _INTERNAL_ERROR
    try:
        code = main()
    except BaseException:
        log.exception("A process met an internal error")
    finally:
        exit_process(code)


def exit_process(code: int) -> NoReturn:
    """Exit as the interpreter would, but without unwinding the parent's frames of the stack."""
    try:
        _name_threads_left()
        # as multiprocessing does: wait for threads that are not daemons
        getattr(threading, "_shutdown", _do_nothing)()
        over = threading.Event()
        watch = threading.Thread(target=_name_atexit, args=(over,), daemon=True)
        with contextlib.suppress(OSError):  # the system has no thread left
            start_thread(watch)
        atexit._run_exitfuncs()
        over.set()
        if flush_streams():  # else both would wait for a reader that has stopped
            logging.shutdown()
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _name_atexit(over: threading.Event) -> None:
    """Log that functions of `atexit` keep this process from exiting, after a moment."""
    if not over.wait(_THREADS_EXIT):
        log.warning(
            "Process %d waits for what the application has registered with atexit, and is killed if"
            " that does not end",
            os.getpid(),
        )


def _name_threads_left() -> None:
    """Log which threads of the application keep this process from exiting, after a moment.

    The supervisor kills a process that does not exit in time; nobody would know why.
    """
    until = time.monotonic() + _THREADS_EXIT
    current = threading.current_thread()
    others = [each for each in threading.enumerate() if not (each.daemon or each is current)]
    for thread in others:
        thread.join(max(until - time.monotonic(), 0))
    left = ", ".join(thread.name for thread in others if thread.is_alive())
    if left:
        log.warning(
            "Process %d waits for non-daemon threads, and is killed if they do not end: %s",
            *(os.getpid(), left),
        )


@contextlib.contextmanager
def start_timeout(config: ServerConfig, pipe: Pipe, trace: int) -> Iterator[None]:
    """Around the start of a process: after `start_timeout` seconds it writes where it hangs.

    It writes to `trace`, a copy of a `StartTrace`, which is closed at the end. The supervisor
    counts from the message that is sent here, and kills the process soon after. faulthandler writes
    from a thread of its own, so this works even if code keeps the GIL.
    """
    seconds = config.processes.start_timeout
    if seconds:
        with contextlib.suppress(RuntimeError):  # no thread: then the start fails for that, too
            faulthandler.dump_traceback_later(seconds, file=trace)
        pipe.send({"starting": True})
    try:
        with _exit_with_supervisor(pipe):
            yield
    finally:
        if seconds:
            faulthandler.cancel_dump_traceback_later()
        os.close(trace)


@contextlib.contextmanager
def _exit_with_supervisor(pipe: Pipe) -> Iterator[None]:
    """Around the start of a process: exit if the supervisor does, whose pipe is not read yet.

    Otherwise an orphan would keep the port until the import is over, or for ever if that hangs. A
    signal reports the exit: a thread that watches would run beside the import, and in each fork.
    """

    import fcntl  # which Windows does not have

    def check(*_signal: object) -> None:
        if in_error([pipe.fileno()]):
            os._exit(1)

    before = signal.signal(signal.SIGIO, check)
    fd = pipe.fileno()
    flags = fcntl.fcntl(fd, fcntl.F_GETFL)
    fcntl.fcntl(fd, fcntl.F_SETOWN, os.getpid())
    fcntl.fcntl(fd, fcntl.F_SETFL, flags | os.O_ASYNC)
    try:
        check()
        yield
    finally:
        fcntl.fcntl(fd, fcntl.F_SETFL, flags)
        if signal.getsignal(signal.SIGIO) is check:
            signal.signal(signal.SIGIO, before)


def failure_message(error: BaseException) -> Message:
    """The message of a process that could not load, or not serve, the application."""
    text = str(error)
    trace = getattr(error, "trace", None)
    if trace is None:
        trace = ""
        if not isinstance(error, ConfigError):
            trace = "".join(traceback.format_exception(error))
            text = f"the application failed: {type(error).__name__}: {error}".removesuffix(": ")
    return {"failed": text[-LONGEST_TEXT:], "trace": trace[-LONGEST_TEXT:]}


def ready_message(loaded: Loaded, *, gil: bool) -> Message:
    """The message of a worker that serves `loaded`, with the facts for the start message."""
    name, kind = loaded.name[:LONGEST_TEXT], loaded.kind[:LONGEST_TEXT]
    return {"ready": True, "name": name, "kind": kind, "gil": gil}


def describe_exit(status: int) -> str:
    """How a process has ended; `status` is as `os.waitstatus_to_exitcode` returns it."""
    if status >= 0:
        return f"ended with code {status}"
    with contextlib.suppress(ValueError):
        return f"was ended by {signal.Signals(-status).name}"
    return f"was ended by signal {-status}"
