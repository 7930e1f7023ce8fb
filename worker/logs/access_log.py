"""The access log: a line for every answer, written by a thread of its own.

Whoever serves a request makes its line, for later its head would have to be kept; the writing,
which may have to wait for a disk or a reader, is the thread's. It sleeps while there is nothing,
and otherwise writes what has come together in a tenth of a second.
"""

from __future__ import annotations

import atexit
import logging
import math
import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from ..lifecycle import LifecycleEvent, ResponseCompleted
from .format import compile_format, fitted
from .target import Target, open_target

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..config.groups import Log

log = logging.getLogger("threadwell")

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

    event_types = (ResponseCompleted,)

    def __init__(self, target: Target, text: str) -> None:
        self._target = target
        self._format = text
        self._local = threading.local()
        # without its end; 0 for any length
        self._longest = max(target.longest - 1, 0)
        self._lines: deque[str] = deque()
        #: The thread looks by itself, so that nobody need wake it.
        self._awake = False
        self._alarm = threading.Event()
        self._hurry = threading.Event()
        self._closing = False
        self._writing = threading.Lock()  # guards the target, and whether it is closed
        self._closed = False
        self._losing = threading.Lock()  # guards what follows
        #: Lines that were not written.
        self.lost = 0
        self._reported = 0
        self._next_report = 0.0
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._run, name="threadwell-log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    @classmethod
    def open(cls, settings: Log) -> AccessLog:
        """As `settings` say. Raises `ConfigError` for a format or a place that cannot be used."""
        compile_format(settings.format)
        return cls(open_target(settings.access_log), settings.format)

    # ---- Any thread -----------------------------------------------------------------------

    def record(self, event: LifecycleEvent) -> None:
        if isinstance(event, ResponseCompleted):
            take = getattr(self._local, "take", None)
            if take is None:
                take = self._local.take = self.for_thread()
            take(event)

    def for_thread(self) -> Callable[[ResponseCompleted], None]:
        """See `lifecycle.for_thread`; what a format remembers is one thread's."""
        line_of = compile_format(self._format)
        lines, longest = self._lines, self._longest or math.inf

        def take(event: ResponseCompleted) -> None:
            line = line_of(event)
            if len(line) > longest:
                line = fitted(line_of, event, self._longest)
            waiting = len(lines)
            if waiting >= _MOST_WAITING or self._closing:
                self._lose(1)
                return
            lines.append(line)
            if not self._awake:
                self._awake = True
                self._alarm.set()
            elif waiting >= _MOST_WAITING // 2:
                self._hurry.set()

        return take

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
                if not self._closed:
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
        with self._writing:
            self._closed = True
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
