"""The template: a process that has imported the application and serves nothing.

The workers of a generation are forked from it, so that they share the memory of what it has
imported. The supervisor itself never imports the application; a reload makes a new template.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import threading

from ..system.readiness import wait_for_input
from ..system.signals import Signals
from . import worker_process
from .forking import Job, Loaded, failure, fork, in_time
from .pipe import Channel

log = logging.getLogger("threadwell")


def run(job: Job, sock: socket.socket) -> int:
    """Import the application, then fork a worker for each that is asked for; the exit code."""
    channel = Channel(sock)
    try:
        with in_time(job.config, channel):
            loaded = job.load()
    except BaseException as error:
        channel.send(failure(error))
        return 1
    if threading.active_count() > 1:
        log.warning(
            "The application has started threads while it was imported; they do not exist in the"
            " workers. Start them with the first request, or leave out --preload"
        )
    # what is there now is never garbage; looking at it would copy the memory that is shared
    gc.collect()
    gc.freeze()
    channel.send({"loaded": True})
    # SIGTERM may be for the whole group; it ends with the supervisor's end of the line
    with Signals((signal.SIGCHLD, signal.SIGTERM)) as signals:
        _Nursery(job, channel, loaded, signals).run()
    return 0


class _Nursery:
    def __init__(self, job: Job, channel: Channel, loaded: Loaded, signals: Signals) -> None:
        self._job = job
        self._channel = channel
        self._loaded = loaded
        self._signals = signals
        self._children: set[int] = set()

    def run(self) -> None:
        """Until the supervisor hangs up."""
        channel, signals = self._channel, self._signals
        while not channel.ended:
            wait_for_input((channel.fileno(), signals.fileno()), None)
            for message in channel.receive():
                if "fork" in message:
                    self._fork(message["fork"], message["page"])
                else:
                    self._job.close_sockets()
            signals.take()
            self._reap()

    def _fork(self, number: int, page: int) -> None:
        sock = socket.socket(fileno=self._channel.descriptor())
        with sock:
            try:
                pid = fork(lambda: self._become_worker(sock, page))
            except OSError as error:
                self._channel.send({"fork_failed": number, "why": str(error)})
                return
        self._children.add(pid)
        self._channel.send({"forked": number, "pid": pid})

    def _become_worker(self, sock: socket.socket, page: int) -> int:
        self._signals.close()
        return worker_process.run(self._job, sock, self._loaded, page=page)

    def _reap(self) -> None:
        for pid in self._children.copy():
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                self._children.discard(pid)
                code = os.waitstatus_to_exitcode(status)
                self._channel.send({"exited": pid, "status": code})
