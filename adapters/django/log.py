"""Logs each request on the terminal of a developer, as `runserver` does."""

from __future__ import annotations

import logging
import time

from threadwell.worker import LifecycleEvent, ResponseCompleted

# Django's logging configuration gives this logger its colours, times and levels.
logger = logging.getLogger("django.server")


class RequestLog:
    """A `LifecycleCollector` that logs every response to `django.server`. Any thread may use it."""

    def record(self, event: LifecycleEvent) -> None:
        """Log `event` if it is a completed response."""
        if type(event) is not ResponseCompleted:
            return
        level = logging.INFO
        if event.status >= 400:
            level = logging.ERROR if event.status >= 500 else logging.WARNING
        request = event.request
        line = f"{request.method} {request.target} HTTP/{request.version}" if request else "-"
        logger.log(
            level,
            '"%s" %s %s',
            # Control characters of a client must not reach the terminal.
            line.encode("unicode_escape").decode("ascii"),
            event.status,
            event.body_bytes,
            extra={
                "request": request,
                "status_code": event.status,
                "server_time": time.strftime("%d/%b/%Y %H:%M:%S"),
            },
        )
