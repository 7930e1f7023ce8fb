"""A line a request on the terminal of a developer, as `runserver` writes it."""

from __future__ import annotations

import logging
import time

from threadwell.worker import LifecycleEvent
from threadwell.worker.lifecycle import ResponseCompleted

# Colours, times and levels are those of Django's logging configuration for its own server.
logger = logging.getLogger("django.server")


class RequestLog:
    """A `LifecycleCollector` that logs every answer to `django.server`. Safe from all threads."""

    def record(self, event: LifecycleEvent) -> None:
        """Log `event`, if it is an answer."""
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
            # control characters would reach the terminal
            line.encode("unicode_escape").decode("ascii"),
            event.status,
            event.body_bytes,
            extra={
                "request": request,
                "status_code": event.status,
                "server_time": time.strftime("%d/%b/%Y %H:%M:%S"),
            },
        )
