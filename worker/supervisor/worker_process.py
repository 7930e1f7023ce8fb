"""A worker process: it imports and serves the application, reports, and drains on command.

Its main thread listens to the supervisor and to signals; the threads of a `Server` serve.
"""

from __future__ import annotations

import contextlib
import logging
import math
import random
import signal
import socket
import threading
import time

from ..config import ServerConfig, gil_enabled
from ..control.single import set_log_level
from ..control.slow import described
from ..errors import ConfigError
from ..messages import Loaded
from ..server import Server
from ..system.process_title import set_process_title
from ..system.readiness import wait_for_input
from ..system.resources import resident_memory
from ..system.signals import Signals
from ..system.threads import start_or_run
from ..watchdog import Watchdog
from .answers import answer
from .forking import ServerSpec, failure_message, ready_message, start_timeout
from .phase import Phase, Phased
from .pipe import LONGEST_TEXT, Message, Pipe

log = logging.getLogger("threadwell")

# Seconds between two heartbeats.
_HEARTBEAT = 1.0


def run(
    spec: ServerSpec, sock: socket.socket, trace: int, page: int, loaded: Loaded | None = None
) -> int:
    """Serve until the supervisor says otherwise, or is gone; return the exit code.

    `sock` is the end of a pipe to the supervisor, and `trace` is for `start_timeout`. `page` is the
    number of this worker's page of metrics; negative for none. `loaded` is the application if the
    fork server has imported it.
    """
    pipe = Pipe(sock)
    sockets = spec.take_sockets()
    with contextlib.ExitStack() as stack:
        try:
            with start_timeout(spec.config, pipe, trace):
                if loaded is None:
                    loaded = spec.load()
                server = spec.build(loaded.app, sockets)
                if spec.shared_pages is not None and page >= 0:
                    server.count_into(spec.shared_pages.page(page))
                # handled before the server accepts anything: until then SIGTERM just ends it
                handled = (signal.SIGTERM, signal.SIGQUIT, signal.SIGUSR1)
                try:
                    signals = stack.enter_context(Signals(handled))
                    server.observers.supervised = True
                    server.start()
                except OSError as error:  # of the system: the application has no part in it
                    raise ConfigError(f"a worker cannot start: {error}") from None
        except BaseException as error:
            pipe.send(failure_message(error))
            for listener in sockets:
                listener.close()
            return 1
        return WorkerProcess(spec.config, server, pipe, signals).run(loaded)


class WorkerProcess(Phased):
    """The main thread of a worker, beside the threads that serve. Knows its `Server` only."""

    def __init__(self, config: ServerConfig, server: Server, pipe: Pipe, signals: Signals) -> None:
        super().__init__()
        self._server = server
        self._pipe = pipe
        self._signals = signals
        self._linger = config.timeouts.drain_idle
        self._watchdog = Watchdog(server.parts())
        self._recycle_policy = RecyclePolicy(config)
        self._replacement_asked = False
        self._stopper: threading.Thread | None = None

    def run(self, loaded: Loaded) -> int:
        """Serve until it is drained; return the exit code."""
        set_process_title("worker", loaded.name)
        self.become(Phase.SERVING)
        self._pipe.send(ready_message(loaded, gil=gil_enabled()))
        next_heartbeat = time.monotonic() + _HEARTBEAT
        while self.phase is not Phase.STOPPED:
            wait = max(next_heartbeat - time.monotonic(), 0)
            waited_for = [self._signals.fileno()]
            if not self._pipe.ended:
                waited_for.append(self._pipe.fileno())
            wait_for_input(waited_for, wait)
            for number in self._signals.take():
                self._on_signal(number)
            for message in self._pipe.receive():
                self._on_command(message)
            if self._pipe.ended:
                self._drain()  # without a supervisor nothing would restart or end this worker
            if time.monotonic() >= next_heartbeat:
                next_heartbeat += _HEARTBEAT
                self._report()
            if self._server.failed or self._has_drained():
                self.become(Phase.STOPPED)
        self._pipe.send({"exiting": True})
        return 1 if self._server.failed else 0

    def _has_drained(self) -> bool:
        return self._stopper is not None and not self._stopper.is_alive()

    def _on_signal(self, number: int) -> None:
        if number == signal.SIGTERM:
            self._ask_for_replacement("it got SIGTERM", "signal")
        elif number == signal.SIGQUIT:
            self._drain()
            self._server.cut()
        else:
            self._server.reopen_logs()

    def _on_command(self, message: Message) -> None:
        if "drain" in message:
            if not message["take_backlog"]:
                self._server.share_listeners()
            self._drain()
        elif "cut" in message:
            self._drain()
            self._server.cut()
        elif "reopen" in message:
            self._server.reopen_logs()
        elif "log_level" in message:
            set_log_level(message["log_level"])
        elif "ask" in message and self._server.observers.report is not None:
            for part in answer(self._server.observers.report, message):
                self._pipe.send_when_there_is_room(part)

    def _report(self) -> None:
        self._pipe.send({"heartbeat": self._watchdog.age()})
        observers = self._server.observers
        observers.tick()
        observers.write_gauges()
        if observers.slow_requests is not None and observers.slow_requests.overdue:
            reason = described(observers.slow_requests.overdue[0])
            self._ask_for_replacement(reason[:LONGEST_TEXT], "request_timeout")
            if self.phase is Phase.DRAINING and observers.has_only_overdue():
                self._server.cut()  # nothing else is worth waiting for
        due = self._recycle_policy.due(self._server.served())
        if due is not None:
            self._ask_for_replacement(*due)

    def _ask_for_replacement(self, reason: str, cause: str) -> None:
        """Ask the supervisor for a successor, once; this worker serves until it is drained."""
        if not self._replacement_asked and self.phase is Phase.SERVING:
            self._replacement_asked = True
            self._pipe.send({"replace": reason, "cause": cause})

    def _drain(self) -> None:
        if self.phase is not Phase.SERVING:
            return
        self.become(Phase.DRAINING)
        self._stopper = threading.Thread(target=self._stop, name="threadwell-stop", daemon=True)
        start_or_run(self._stopper)

    def _stop(self) -> None:
        try:
            self._server.stop(linger=self._linger)
        finally:
            self._signals.wake()


class RecyclePolicy:
    """Whether a worker is due to be replaced: by requests, memory or age."""

    def __init__(self, config: ServerConfig) -> None:
        processes = config.processes
        self._most_requests = processes.max_requests
        if self._most_requests:
            self._most_requests += random.randint(0, processes.max_requests_jitter)
        self._most_memory = processes.max_rss
        self._ends_at = math.inf
        if processes.max_age:
            age = processes.max_age + random.uniform(0, processes.max_age_jitter)
            self._ends_at = time.monotonic() + age

    def due(self, served: int) -> tuple[str, str] | None:
        """The reason in words, and one of `statistics.CAUSES`; None if it is not due."""
        if self._most_requests and served >= self._most_requests:
            return f"it has served {served} requests", "max_requests"
        if self._most_memory and (size := resident_memory()) > self._most_memory:
            return f"it takes {size >> 20} MiB of memory", "max_rss"
        if time.monotonic() >= self._ends_at:
            return "it has reached its age", "max_age"
        return None
