"""How many requests fail while a server under load gets a new application.

disruptions.py asks more of threadwell: certificates, killed workers, replacements, event loops.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable

from .clients import Connection, in_threads
from .servers import Kind, Process, running

CLIENTS = 16
WORKERS = 2
REQUEST = b"GET /pid HTTP/1.1\r\nHost: localhost\r\n\r\n"
#: Longer than the grace that any server gives to open connections.
PATIENCE = 90.0


class _Counter:
    """What the clients have seen."""

    def __init__(self, port: int) -> None:
        self.ended = threading.Event()
        self.requests = self.failed = 0
        self._port = port
        self._lock = threading.Lock()
        self._last: dict[int, float] = {}

    def client(self, _: int) -> None:
        """Ask until `ended` is set."""
        connection = Connection(self._port, PATIENCE)
        while not self.ended.is_set():
            pid = 0
            try:
                answer = connection.ask(REQUEST)
                pid = int(answer.body) if answer.status == 200 else 0
            except OSError:
                self.ended.wait(0.01)  # a server that is away would be asked as often as can be
            with self._lock:
                self.requests += 1
                if pid:
                    self._last[pid] = time.monotonic()
                else:
                    self.failed += 1
        connection.close()

    def answering(self) -> set[int]:
        """The processes that have answered within the last second."""
        with self._lock:
            now = time.monotonic()
            return {pid for pid, then in self._last.items() if now - then < 1.0}

    def wait(self, reached: Callable[[set[int]], bool]) -> None:
        """Until `reached` is true of the processes that answer. Raises `TimeoutError`."""
        until = time.monotonic() + PATIENCE
        while not reached(self.answering()):
            if time.monotonic() > until:
                raise TimeoutError("the processes that answer are still the same")
            time.sleep(0.05)


def reload(kind: Kind, reloads: int = 5) -> dict[str, int]:
    """The requests, and those that failed, while SIGHUP comes `reloads` times.

    Clients keep their connections and do not try again. A failed request is one without a whole
    response of status 200, whatever the reason: also if the server closed the connection just when
    the request was sent.
    """
    with running(kind, "service", workers=WORKERS) as server:
        counter = _Counter(server.port)
        load = threading.Thread(target=in_threads, args=(counter.client, range(CLIENTS)))
        load.start()
        try:
            # maybe one process only: it can have all connections
            counter.wait(bool)
            for _ in range(reloads):
                _reload(server, counter)
        finally:
            counter.ended.set()
            load.join()
    return {"reloads": reloads, "requests": counter.requests, "failed": counter.failed}


def _reload(server: Process, counter: _Counter) -> None:
    """Send SIGHUP, and wait until other processes have answered for a second."""
    before = counter.answering()
    os.kill(server.process.pid, signal.SIGHUP)
    counter.wait(lambda pids: bool(pids) and not pids & before)
