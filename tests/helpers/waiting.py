"""Waiting for what has no event."""

from __future__ import annotations

import contextlib
import math
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from threadwell import SyncWorker, ThreadedServer
from threadwell.worker.connection import Connection
from threadwell.worker.threads import finalize


def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Return when `condition` holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.001)


@contextlib.contextmanager
def no_hurry(server: ThreadedServer) -> Iterator[None]:
    """Let `server` find no wait overdue meanwhile: for a client that is to begin in time, and may
    have to wait for its processor."""
    worker = server._worker
    assert worker is not None
    worker.poller._next_sweep = math.inf
    yield
    worker.poller._next_sweep = 0.0


class Held:
    """Threads that have found nothing to read stop there, each time, until they may go on."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, later: Callable[[Connection], object] | None = None
    ) -> None:
        """`later` is called before they do, with the connection."""
        self.looked, self.go_on = threading.Event(), threading.Event()
        park_unfinished = finalize.park_unfinished

        def slow(worker: SyncWorker, conn: Connection) -> None:
            self.looked.set()
            assert self.go_on.wait(10)
            self.go_on.clear()
            if later is not None:
                later(conn)
            park_unfinished(worker, conn)

        monkeypatch.setattr(finalize, "park_unfinished", slow)
