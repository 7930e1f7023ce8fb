"""The fork server, with --preload: a process that has imported the application and serves nothing.

The workers of a generation are forked from it, so that they share the memory of that import. The
supervisor itself never imports the application; each reload starts a new fork server.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import threading

from ..config import gil_enabled
from ..control.single import set_log_level
from ..messages import Loaded
from ..system.process_title import set_process_title
from ..system.readiness import wait_for_input
from ..system.signals import Signals
from . import worker_process
from .forking import ServerSpec, failure_message, fork, start_timeout
from .pipe import LONGEST_TEXT, Pipe

log = logging.getLogger("threadwell")


def run(spec: ServerSpec, sock: socket.socket, trace: int) -> int:
    """Import the application, then fork a worker at each request; return the exit code.

    `sock` is the end of a pipe to the supervisor, and `trace` is for `start_timeout`.
    """
    pipe = Pipe(sock, descriptors=True)
    try:
        with start_timeout(spec.config, pipe, trace):
            loaded = spec.load()
    except BaseException as error:
        pipe.send(failure_message(error))
        return 1
    if threading.active_count() > 1:
        log.warning(
            "The application has started threads while it was imported; they do not exist in the"
            " workers. Start them with the first request, or leave out --preload"
        )
    # A collection in a worker would write to the objects of the import, and so copy shared memory.
    # Without a GIL, CPython 3.13 writes to them anyway: it makes functions, code and types immortal
    # when the first thread is started. It leaves out the frozen ones, whose references all threads
    # would then count in turn.
    gc.collect()
    if gil_enabled():
        gc.freeze()
    set_process_title("fork server", loaded.name)
    pipe.send({"loaded": True})
    # SIGTERM may be for the whole process group; the end of the pipe is what ends this process
    with Signals((signal.SIGCHLD, signal.SIGTERM)) as signals:
        ForkServerProcess(spec, pipe, loaded, signals).run()
    return 0


class ForkServerProcess:
    """Forks the workers that the supervisor asks for, and reports their exits."""

    def __init__(self, spec: ServerSpec, pipe: Pipe, loaded: Loaded, signals: Signals) -> None:
        self._spec = spec
        self._pipe = pipe
        self._loaded = loaded
        self._signals = signals
        self._children: set[int] = set()

    def run(self) -> None:
        """Return when the supervisor closes the pipe."""
        pipe, signals = self._pipe, self._signals
        while not pipe.ended:
            wait_for_input((pipe.fileno(), signals.fileno()), None)
            for message in pipe.receive():
                if "fork" in message:
                    self._fork(message["fork"], message["page"])
                elif "log_level" in message:
                    set_log_level(message["log_level"])
                else:
                    self._spec.close_sockets()
            signals.take()
            self._reap()

    def _fork(self, number: int, page: int) -> None:
        sock = socket.socket(fileno=self._pipe.next_descriptor())
        trace = self._pipe.next_descriptor()
        with sock:
            try:
                pid = fork(lambda: self._become_worker(sock, trace, page))
            except OSError as error:
                self._pipe.send({"fork_failed": number, "why": str(error)[:LONGEST_TEXT]})
                return
            finally:
                os.close(trace)
        self._children.add(pid)
        self._pipe.send({"forked": number, "pid": pid})

    def _become_worker(self, sock: socket.socket, trace: int, page: int) -> int:
        self._signals.close()
        return worker_process.run(self._spec, sock, trace, page, self._loaded)

    def _reap(self) -> None:
        for pid in self._children.copy():
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                self._children.discard(pid)
                code = os.waitstatus_to_exitcode(status)
                self._pipe.send({"exited": pid, "status": code})
