"""Waiting for what has no event."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator

from loopless import ThreadedServer


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
