"""Messages that a client could cause as often as it likes, and that are said seldom."""

from __future__ import annotations

import logging
import threading
import time

log = logging.getLogger("threadwell")

# Seconds between two lines of a kind.
_INTERVAL = 60.0


class ThrottledLog:
    """Logs each kind of message once a minute at most. Any thread may call.

    `_lock` guards the counts.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._next: dict[str, float] = {}
        self._unsaid: dict[str, int] = {}

    def say(self, kind: str, level: int, message: str, *args: object) -> None:
        """Log `message`, and how many of its kind were not said, unless one was just now."""
        now = time.monotonic()
        with self._lock:
            if now < self._next.get(kind, 0.0):
                self._unsaid[kind] = self._unsaid.get(kind, 0) + 1
                return
            self._next[kind] = now + _INTERVAL
            unsaid = self._unsaid.pop(kind, 0)
        if unsaid:
            message += f" ({unsaid} more such clients since this was said last)"
        log.log(level, message, *args)
