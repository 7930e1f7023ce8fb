"""The server's messages as JSON lines. Handlers of an application may have the formatter, too."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

from ..request_id import request_id


class JSONFormatter(logging.Formatter):
    """Formats a record as one line of JSON, in ASCII. Any thread may use it.

    The fields are `time` (UTC), `level`, `logger`, `message`, `process` and `thread`. Where there
    are any, it has `request_id`, `exception` (the traceback), `stack`, and `dropped`, the number of
    messages before this one that were dropped.
    """

    def format(self, record: logging.LogRecord) -> str:
        second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        fields: dict[str, Any] = {
            "time": f"{second}.{int(record.msecs):03}+00:00",
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            "process": record.process,
            "thread": record.threadName,
            # of the record, if another thread formats it
            "request_id": getattr(record, "request_id", "") or request_id(),
            "exception": self.formatException(record.exc_info) if record.exc_info else "",
            "stack": self.formatStack(record.stack_info) if record.stack_info else "",
            "dropped": getattr(record, "dropped", 0),
        }
        return json.dumps({name: value for name, value in fields.items() if value})
