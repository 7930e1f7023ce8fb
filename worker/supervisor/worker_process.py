"""The life of a worker process: it imports, serves, says how it is, and drains when it is told.

Its main thread listens to the supervisor and to signals; threads of `Server` serve.
"""

from __future__ import annotations

import contextlib
import logging
import random
import signal
import socket
import threading
import time

from ..config import ServerConfig, gil_enabled
from ..server import Server
from ..system.readiness import wait_for_input
from ..system.resources import resident_memory
from ..system.signals import Signals
from ..watchdog import Watchdog
from .forking import Job, Loaded, facts, failure, in_time
from .phase import Phase, Phased
from .pipe import Channel, Message

log = logging.getLogger("threadwell")

# Seconds between two looks at how it goes.
_LOOK = 1.0


def run(job: Job, sock: socket.socket, loaded: Loaded | None = None, *, page: int = -1) -> int:
    """Serve until the supervisor, or its absence, says otherwise; the exit code.

    `page` is the number of its page in the job's ledger; negative for none.
    """
    channel = Channel(sock)
    sockets = job.take_sockets()
    with contextlib.ExitStack() as stack:
        try:
            with in_time(job.config, channel):
                if loaded is None:
                    loaded = job.load()
                server = job.build(loaded.app, sockets)
                if job.shared_pages is not None and page >= 0:
                    server.count_into(job.shared_pages.page(page))
                # before it accepts anything: until then SIGTERM may end it at once
                heeded = (signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1)
                signals = stack.enter_context(Signals(heeded))
                server.start()
        except BaseException as error:
            channel.send(failure(error))
            for listener in sockets:
                listener.close()
            return 1
        return WorkerProcess(job.config, server, channel, signals).run(loaded)


class WorkerProcess(Phased):
    """What the main thread of a worker does while others serve."""

    def __init__(
        self, config: ServerConfig, server: Server, channel: Channel, signals: Signals
    ) -> None:
        super().__init__()
        self._server = server
        self._channel = channel
        self._signals = signals
        self._linger = config.timeouts.drain_idle
        self._pulse = Watchdog(server.parts())
        self._wear = RecyclePolicy(config)
        self._asked = False  # to be replaced
        self._stopper: threading.Thread | None = None

    def run(self, loaded: Loaded) -> int:
        """Until it is drained; the exit code."""
        self.become(Phase.SERVING)
        self._channel.send(facts(loaded, gil_enabled()))
        next_look = time.monotonic() + _LOOK
        while self.phase is not Phase.STOPPED:
            wait = max(next_look - time.monotonic(), 0)
            watched = [self._signals.fileno()]
            if not self._channel.ended:
                watched.append(self._channel.fileno())
            wait_for_input(watched, wait)
            for number in self._signals.take():
                self._on_signal(number)
            for message in self._channel.receive():
                self._on_command(message)
            if self._channel.ended:
                self._drain()  # the supervisor is gone; nobody would restart this worker
            if time.monotonic() >= next_look:
                next_look += _LOOK
                self._look()
            if self._stopper is not None and not self._stopper.is_alive():
                self.become(Phase.STOPPED)
        return 0

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGTERM:
            self._ask("it got SIGTERM", "signal")
        elif number == signal.SIGQUIT:
            self._drain()
            self._server.cut()
        else:
            self._server.reopen_logs()

    def _on_command(self, message: Message) -> None:
        if "drain" in message:
            if not message["adopt"]:
                self._server.share_listeners()
            self._drain()
        elif "cut" in message:
            self._drain()
            self._server.cut()
        elif "reopen" in message:
            self._server.reopen_logs()

    def _look(self) -> None:
        self._channel.send({"beat": self._pulse.age()})
        self._server.write_gauges()
        due = self._wear.reason(self._server.served())
        if due is not None:
            self._ask(*due)

    def _ask(self, reason: str, cause: str) -> None:
        """Let the supervisor replace this worker: it serves on until its successor does."""
        if not self._asked and self.phase is Phase.SERVING:
            self._asked = True
            self._channel.send({"replace": reason, "cause": cause})

    def _drain(self) -> None:
        if self.phase is not Phase.SERVING:
            return
        self.become(Phase.DRAINING)
        self._stopper = threading.Thread(target=self._stop, name="threadwell-stop", daemon=True)
        self._stopper.start()

    def _stop(self) -> None:
        try:
            self._server.stop(linger=self._linger)
        finally:
            self._signals.wake()


class RecyclePolicy:
    """Whether a worker is to be replaced because of its age or its size."""

    def __init__(self, config: ServerConfig) -> None:
        processes = config.processes
        self._most_requests = processes.max_requests
        if self._most_requests:
            self._most_requests += random.randint(0, processes.max_requests_jitter)
        self._most_memory = processes.max_rss

    def reason(self, served: int) -> tuple[str, str] | None:
        """Why, in words and as a cause for `statistics`; None if it is not."""
        if self._most_requests and served >= self._most_requests:
            return f"it has served {served} requests", "max_requests"
        if self._most_memory and (size := resident_memory()) > self._most_memory:
            return f"it takes {size >> 20} MiB of memory", "max_rss"
        return None
