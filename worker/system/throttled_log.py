"""A logger with a rate limit, for messages that any client can cause."""

from __future__ import annotations

import logging
import threading
import time

log = logging.getLogger("threadwell")

# Seconds between two messages of a kind.
_INTERVAL = 60.0


class ThrottledLog:
    """Logs each kind of message at most once a minute. Any thread may call."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards the two dictionaries
        self._next: dict[str, float] = {}
        self._suppressed: dict[str, int] = {}

    def log(self, kind: str, level: int, message: str, *args: object) -> None:
        """Log `message`, with the number suppressed since the last one of its `kind`.

        Within a minute of the last one it is only counted.
        """
        now = time.monotonic()
        with self._lock:
            if now < self._next.get(kind, 0.0):
                self._suppressed[kind] = self._suppressed.get(kind, 0) + 1
                return
            self._next[kind] = now + _INTERVAL
            suppressed = self._suppressed.pop(kind, 0)
        if suppressed:
            message += f" ({suppressed} more such clients since this was said last)"
        log.log(level, message, *args)
