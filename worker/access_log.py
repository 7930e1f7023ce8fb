"""The access log: a line for every answer, written by a thread of its own.

Whoever serves a request makes its line, for later its head would have to be kept; the writing,
which may have to wait for a disk or a reader, is the thread's. It sleeps while there is nothing,
and otherwise writes what has come together in a tenth of a second.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from .lifecycle import LifecycleEvent, ResponseCompleted
from .log_format import LineOf, compile_format, fitted
from .log_target import Target, open_target

if TYPE_CHECKING:
    from .settings import Log

log = logging.getLogger("loopless")

# Seconds for which lines are collected, so that one write is for many.
_COLLECTED = 0.1
# Lines that may wait: at most a few megabytes, and the work of a fraction of a second.
_MOST_WAITING = 16384
# Seconds between two messages about lines that were lost.
_QUIET = 10.0
# Seconds for the last lines to be written when the server stops.
_LAST_MOMENT = 3.0


class AccessLog:
    """A `LifecycleCollector` that writes a line for every answer. Safe from all threads.

    A line that finds no room, because nothing can be written for a while, is lost and counted: a
    log must not be what an answer waits for.
    """

    def __init__(self, target: Target, line_of: LineOf) -> None:
        self._target = target
        self._line_of = line_of
        self._longest = target.longest - 1
        self._lines: deque[str] = deque()
        #: The thread looks by itself, so that nobody need wake it.
        self._awake = False
        self._alarm = threading.Event()
        self._hurry = threading.Event()
        self._closing = False
        self._writing = threading.Lock()  # guards the target
        self._losing = threading.Lock()  # guards what follows
        #: Lines that were not written.
        self.lost = 0
        self._reported = 0
        self._next_report = 0.0
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._run, name="loopless-log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    @classmethod
    def open(cls, settings: Log) -> AccessLog:
        """As `settings` say. Raises `ConfigError` for a format or a place that cannot be used."""
        line_of = compile_format(settings.format)
        return cls(open_target(settings.access_log), line_of)

    # ---- Any thread -----------------------------------------------------------------------

    def record(self, event: LifecycleEvent) -> None:
        if type(event) is not ResponseCompleted:
            return
        line = self._line_of(event)
        if 0 < self._longest < len(line):
            line = fitted(self._line_of, event, self._longest)
        lines = self._lines
        if len(lines) >= _MOST_WAITING or self._closing:
            self._lose(1)
            return
        lines.append(line)
        if not self._awake:
            self._awake = True
            self._alarm.set()
        elif len(lines) >= _MOST_WAITING // 2:
            self._hurry.set()

    def flush(self) -> None:
        """Write what waits."""
        with self._writing:
            # before the lines are taken: whoever comes later wakes the thread
            self._awake = False
            # no more than there are now: without a GIL they may come as fast as they are taken
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            if not lines:
                return
            lost = self._target.write(lines)
            why = self._target.trouble
        if lost:
            self._lose(lost)
        if self.lost != self._reported:
            self._report(why)

    def reopen(self) -> None:
        """Go on in the file that has the name now, for whoever renames logs. No line is lost."""
        self.flush()
        try:
            with self._writing:
                self._target.reopen()
        except OSError as error:
            log.error("The access log cannot be opened again: %s", error)
        self._next_report = 0.0

    def close(self) -> None:
        """Write what waits, and close the file. What is recorded afterwards is dropped."""
        if self._closing or os.getpid() != self._process:  # a copy of what another one writes
            return
        self._closing = True
        atexit.unregister(self.close)
        self._alarm.set()
        self._hurry.set()
        self._thread.join(_LAST_MOMENT)
        if self._thread.is_alive():
            self._lose(len(self._lines))
            log.error("The access log could not be written to its end")
            return
        self._next_report = 0.0
        self._report(self._target.trouble)
        self._target.close()

    # ---- Inside ---------------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing:
            self._alarm.wait()
            self._alarm.clear()
            self._hurry.wait(_COLLECTED)
            self._hurry.clear()
            try:
                self.flush()
            except Exception:
                log.exception("The access log met an internal error")
        self.flush()

    def _lose(self, count: int) -> None:
        with self._losing:
            self.lost += count

    def _report(self, why: OSError | None) -> None:
        now = time.monotonic()
        if now < self._next_report:
            return
        with self._losing:
            lost, self._reported = self.lost - self._reported, self.lost
        if lost:
            self._next_report = now + _QUIET
            reason = why or "its lines come faster than they can be written"
            log.error("The access log cannot be written, %d lines are lost: %s", lost, reason)
