"""The access log: one log line for each response, written by a thread of its own.

The thread that serves a request formats its log line, so the head need not be kept. The log thread
writes the lines, because writing may block on a disk or a reader. It sleeps while there are none,
and otherwise collects them for a tenth of a second.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from ..lifecycle import (
    CODES_WITH_BODY,
    LifecycleEvent,
    ResponseCompleted,
    complain,
    completed_at,
)
from ..system.threads import start_thread
from .format import compile_format, compile_quick, fit_line
from .target import Target, open_target

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..config.groups import Log
    from ..lifecycle import RecordedConnection, TakeAnswer
    from ..messages import Request, Response

log = logging.getLogger("threadwell")

# Seconds for which log lines are collected, so that one write has many.
_COLLECT_SECONDS = 0.1
# Log lines that may wait: a few megabytes, which are written in a fraction of a second.
_MOST_WAITING = 16384
# Seconds between two messages about lost log lines.
_REPORT_INTERVAL = 10.0
# Seconds to write the last log lines when the server stops.
_LAST_MOMENT = 3.0


class AccessLog:
    """A `LifecycleCollector` that writes a log line for each response. Any thread may call.

    If the queue is full, because the target does not accept lines, a line is dropped and counted:
    a response must not wait for the log.
    """

    event_types = (ResponseCompleted,)

    def __init__(self, target: Target, text: str) -> None:
        self._target = target
        self._format = text
        self._local = threading.local()
        # without the newline; 0 for no limit
        self._longest = max(target.longest - 1, 0)
        self._lines: deque[str] = deque()
        #: The log thread will look at the queue without being woken.
        self._thread_awake = False
        self._wakeup = threading.Event()
        self._flush_early = threading.Event()
        self._reopen_asked = False
        self._closing = False
        self._write_lock = threading.Lock()  # guards `_target` and `_closed`
        self._closed = False
        self._lost_lock = threading.Lock()  # guards the next three
        #: How many log lines were lost.
        self.lost = 0
        self._reported = 0
        self._next_report = 0.0
        self._process = os.getpid()
        self._thread = threading.Thread(target=self._run, name="threadwell-log", daemon=True)
        start_thread(self._thread)
        atexit.register(self.close)

    @classmethod
    def open(cls, settings: Log) -> AccessLog:
        """Open the access log that `settings` describe. Raises `ConfigError`, `OSError`."""
        compile_format(settings.format)
        target = open_target(settings.access_log)
        try:
            return cls(target, settings.format)
        except OSError:
            target.close()
            raise

    # ---- Any thread -----------------------------------------------------------------------

    def record(self, event: LifecycleEvent) -> None:
        if isinstance(event, ResponseCompleted):
            take = getattr(self._local, "take", None)
            if take is None:
                take = self._local.take = self.for_thread()
            take(event)

    def for_thread(self) -> Callable[[ResponseCompleted], None]:
        """Return a collector for one thread, with its own caches: see `lifecycle.for_thread`."""
        line_of = compile_format(self._format)
        append, longest = self._append, self._longest or sys.maxsize

        def take(event: ResponseCompleted) -> None:
            line = line_of(event)
            if len(line) > longest:
                line = fit_line(line_of, event, self._longest)
            append(line)

        return take

    def take_answers(self) -> TakeAnswer | None:
        """See `lifecycle.take_answers`."""
        quick = compile_quick(self._format)
        if quick is None:
            return None
        line_of, otherwise = quick, self.for_thread()
        # of `CODES_WITH_BODY`, with the application's own objects as keys: an object is found in
        # half the time that an equal text takes
        codes: dict[int | str, int] = {}
        lines, longest, half = self._lines, self._longest or sys.maxsize, _MOST_WAITING // 2

        def take(
            conn: RecordedConnection, request: Request, response: Response, now: float
        ) -> None:
            try:
                head = request.head
                status = codes.get(response.status)
                if status is None or head.method == "HEAD":
                    otherwise(completed_at(conn, request, response, now))
                    if (code := CODES_WITH_BODY.get(response.status)) is not None:
                        codes[response.status] = code
                    return
                client, started = conn.origin.client, conn.started
                sent = len(response.body)  # type: ignore[arg-type]
                received = 0 if head.is_simple else len(request.body)  # type: ignore[arg-type]
                line = line_of(
                    client, conn.peer, head, status, sent, received, started, now - started,
                    True, conn.request_id,
                )  # fmt: skip
                # what `_append` does, where the log thread keeps up
                if len(line) > longest:
                    otherwise(completed_at(conn, request, response, now))
                elif not self._closing and len(lines) < half:
                    lines.append(line)
                    # afterwards: a thread that goes to sleep meanwhile finds the line, or is woken
                    if not self._thread_awake:
                        self._thread_awake = True
                        self._wakeup.set()
                else:
                    self._append(line)
            except Exception as error:
                complain(ResponseCompleted, error)

        return take

    def _append(self, line: str) -> None:
        waiting = len(self._lines)
        if waiting >= _MOST_WAITING or self._closing:
            self._count_lost(1)
            return
        self._lines.append(line)
        if not self._thread_awake:
            self._thread_awake = True
            self._wakeup.set()
        elif waiting >= _MOST_WAITING // 2:
            self._flush_early.set()

    def flush(self) -> None:
        """Write the queued log lines."""
        with self._write_lock:
            # reset before the queue is read, so that a later line wakes the thread
            self._thread_awake = False
            # no more than are queued now: on free-threaded Python new ones may never cease
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            if not lines:
                return
            lost = self._target.write(lines)
            why = self._target.last_error
        if lost:
            self._count_lost(lost)
        if self.lost != self._reported:
            self._report(why)

    def reopen(self) -> None:
        """Reopen the file, after a log rotation has renamed it. No log line is lost.

        The log thread does it: the caller, which has to handle signals, must not wait for a file.
        """
        self._reopen_asked = True
        self._wakeup.set()
        self._flush_early.set()

    def _reopen(self) -> None:
        self._reopen_asked = False
        try:
            with self._write_lock:
                if not self._closed:
                    self._target.reopen()
        except OSError as error:
            log.error("The access log cannot be opened again: %s", error)
        self._next_report = 0.0

    def close(self) -> None:
        """Write the queued log lines, and close the target. Later records are dropped."""
        if (
            self._closing or os.getpid() != self._process
        ):  # in a forked child: the parent writes the log
            return
        self._closing = True
        atexit.unregister(self.close)
        self._wakeup.set()
        self._flush_early.set()
        self._thread.join(_LAST_MOMENT)
        if self._thread.is_alive():
            self._count_lost(len(self._lines))
            log.error("The access log could not be written completely")
            return
        self._next_report = 0.0
        self._report(self._target.last_error)
        with self._write_lock:
            self._closed = True
            self._target.close()

    # ---- The log thread -------------------------------------------------------------------

    def _run(self) -> None:
        while not self._closing:
            self._wakeup.wait()
            self._wakeup.clear()
            self._flush_early.wait(_COLLECT_SECONDS)
            self._flush_early.clear()
            try:
                self.flush()
                if self._reopen_asked:
                    self._reopen()
            except Exception:
                log.exception("The access log met an internal error")
        self.flush()

    def _count_lost(self, count: int) -> None:
        with self._lost_lock:
            self.lost += count

    def _report(self, why: OSError | None) -> None:
        now = time.monotonic()
        if now < self._next_report:
            return
        with self._lost_lock:
            lost, self._reported = self.lost - self._reported, self.lost
        if lost:
            self._next_report = now + _REPORT_INTERVAL
            reason = why or "its lines come faster than they can be written"
            log.error("The access log cannot be written, %d lines are lost: %s", lost, reason)
