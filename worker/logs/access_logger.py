"""The access log as records of `logging`, for the handlers of the application."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ..lifecycle import LifecycleEvent, ResponseCompleted
from .format import compile_format

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..config.groups import Log

#: Gets a record for each response.
logger = logging.getLogger("threadwell.access")


class AccessLogger:
    """A `LifecycleCollector` that logs each response to `threadwell.access`. Any thread may call.

    The thread that serves calls the handlers, within the context of the request. A record has the
    line as its message, and the attributes `request_id`, `client`, `method`, `path`, `status`,
    `body_bytes` and `seconds`.
    """

    event_types = (ResponseCompleted,)
    #: No line is lost here: handlers have their own ways with errors.
    lost = 0

    def __init__(self, settings: Log) -> None:
        self._format = settings.format
        if logger.level == logging.NOTSET:  # else --log-level warning would switch it off
            logger.setLevel(logging.INFO)

    def record(self, event: LifecycleEvent) -> None:
        """Log `event` if it is a completed response."""
        if isinstance(event, ResponseCompleted):
            self.for_thread()(event)

    def for_thread(self) -> Callable[[ResponseCompleted], None]:
        """Return a collector for one thread, with its own caches: see `lifecycle.for_thread`."""
        line_of = compile_format(self._format)

        def take(event: ResponseCompleted) -> None:
            if not logger.isEnabledFor(logging.INFO):
                return
            request = event.request
            extra = {
                "request_id": event.request_id,
                "client": event.client[0],
                "method": request.method if request is not None else "",
                "path": request.path if request is not None else "",
                "status": event.status,
                "body_bytes": event.body_bytes,
                "seconds": event.seconds,
            }
            logger.info("%s", line_of(event), extra=extra)

        return take

    def take_answers(self) -> None:
        """None: a record of `logging` needs a `ResponseCompleted`."""

    def reopen(self) -> None:
        """Nothing: handlers that have a file look after it themselves."""

    def close(self) -> None:
        """Nothing: the handlers are the application's."""
