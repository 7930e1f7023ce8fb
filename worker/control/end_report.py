"""Tells what a server that stops waits for, and what it has cut."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from typing import TYPE_CHECKING, Protocol, Self, TextIO

from ..system.standard_streams import write_text
from ..system.threads import start_thread
from .interfaces import Observed
from .report import ProcessReport

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..lifecycle import RunningRequest

log = logging.getLogger("threadwell")

# Seconds until the first line: most servers have ended by then.
_PATIENCE = 1.0
# Seconds between two looks at the requests under way.
_INTERVAL = 0.5
# Seconds between two lines on a terminal that cannot go back to the beginning of a line.
_DUMB_INTERVAL = 5.0
# At most so many requests are named.
_MOST_NAMED = 10


class Stopping(Observed, Protocol):
    """What is read here of a `Server`."""

    #: When what is left is cut, in seconds of `time.monotonic`.
    deadline: float


class EndReport:
    """While it is entered, `server` stops. Any thread may use it, once.

    On `terminal`, if there is one, a line shows what is waited for, and changes with it. The log
    has a line when the wait begins, and one when it is over.
    """

    def __init__(self, server: Stopping, terminal: TextIO | None) -> None:
        self._server = server
        self._terminal = terminal
        self._report = ProcessReport(server)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="threadwell-waits", daemon=True)
        # What was under way at the last look before it was cut.
        self._left: list[RunningRequest] = []
        self._told = False
        self._next_line = 0.0

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError):  # the system has no thread left
            start_thread(self._thread)
        return self

    def __exit__(self, *_error: object) -> None:
        self._over.set()
        if self._thread.ident is not None:
            self._thread.join()
        if not self._told:
            return
        if self._terminal is not None:
            write_text(self._terminal, "\n")
        if self._left and time.monotonic() >= self._server.deadline:
            log.warning("The remaining requests were cut: %s", named(self._left))
        else:
            log.info("All requests have ended")

    def _run(self) -> None:
        wait = _PATIENCE
        while not self._over.wait(wait) and time.monotonic() < self._server.deadline:
            wait = _INTERVAL
            self._left = self._report.running()
            text = waited_for(self._left, self._busy())
            if text:
                self._tell(text)

    def _busy(self) -> int:
        return sum(pool.snapshot().busy for pool in self._server.pools)

    def _tell(self, text: str) -> None:
        if not self._told:
            log.info("Waiting for %s", text)
        self._told = True
        if self._terminal is None:
            return
        text = f"waiting for {text}; Ctrl-C again cuts them"
        if os.environ.get("TERM", "dumb") != "dumb":
            write_text(self._terminal, f"\r\x1b[K{text}")
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + _DUMB_INTERVAL
            write_text(self._terminal, text + "\n")


def waited_for(running: Sequence[RunningRequest], busy: int) -> str:
    """The requests under way in words, the oldest first in `running`; empty for none.

    `busy` is how many threads are inside requests, for where these cannot be looked at.
    """
    requests = [each for each in running if each.state == "running"]
    streams = len(running) - len(requests)
    parts = []
    if requests:
        oldest = requests[0]
        since = f"{printable(f'{oldest.method} {oldest.path}')} since {oldest.age:.0f} s"
        many = f"{len(requests)} requests, the oldest"
        parts.append(f"{many if len(requests) > 1 else 'the request'} {since}")
    if streams:
        parts.append(f"{streams} streams" if streams > 1 else "1 stream")
    if not running and busy:
        parts.append(f"{busy} requests" if busy > 1 else "1 request")
    return "; ".join(parts)


def named(requests: Sequence[RunningRequest]) -> str:
    """The names and ages of `requests`, not too many of them."""
    shown = [
        f"{printable(f'{each.method} {each.path}')} since {each.age:.0f} s"
        for each in requests[:_MOST_NAMED]
    ]
    more = len(requests) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more else "")


def printable(text: str) -> str:
    """`text` of a client, without what could act on a terminal, and not too much of it."""
    return ascii(text)[1:-1][:200]
