"""Opens the access log that the settings ask for, and leaves out the paths that they name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from ..errors import ConfigError
from ..lifecycle import LifecycleEvent, ResponseCompleted
from .access_log import AccessLog
from .access_logger import AccessLogger
from .format import compile_format
from .target import parse_syslog

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from ..config.groups import Log
    from ..lifecycle import RecordedConnection, TakeAnswer
    from ..messages import Request, Response

# The lowest status of an error. Errors are never left out: they tell why a probe has failed.
_ERROR = 400


class RequestLog(Protocol):
    """A `LifecycleCollector` that logs responses."""

    @property
    def event_types(self) -> Collection[type]: ...

    @property
    def lost(self) -> int:
        """How many lines could not be written."""

    def record(self, event: LifecycleEvent) -> None: ...

    def for_thread(self) -> Callable[[ResponseCompleted], None]: ...

    def take_answers(self) -> TakeAnswer | None: ...

    def reopen(self) -> None: ...

    def close(self) -> None: ...


def open_request_log(settings: Log) -> RequestLog:
    """Open the access log that `settings` describe. Raises `ConfigError` and `OSError`."""
    by_logging = settings.access_log == "logging"
    opened: RequestLog = AccessLogger(settings) if by_logging else AccessLog.open(settings)
    return _Selected(opened, settings.access_skip) if settings.access_skip else opened


def check(settings: Log) -> None:
    """Raises `ConfigError` for settings that cannot be used."""
    compile_format(settings.format)
    parse_syslog(settings.access_log)
    for path in settings.access_skip:
        if not path.startswith("/"):
            raise ConfigError(f"access_log_skip: {path!r} is not a path; begin it with /")
    if settings.access_skip and not settings.access_log:
        raise ConfigError("access_log_skip: there is no access log; give access_log")


class _Selected:
    """A log without the answers for some paths."""

    event_types = (ResponseCompleted,)

    def __init__(self, log: RequestLog, skipped: tuple[str, ...]) -> None:
        self._log = log
        self._skipped = frozenset(skipped)
        self._below = tuple(path.rstrip("/") + "/" for path in skipped)
        self.reopen, self.close = log.reopen, log.close

    @property
    def lost(self) -> int:
        return self._log.lost

    def record(self, event: LifecycleEvent) -> None:
        if isinstance(event, ResponseCompleted) and not self._is_skipped(event):
            self._log.record(event)

    def for_thread(self) -> Callable[[ResponseCompleted], None]:
        take = self._log.for_thread()

        def take_selected(event: ResponseCompleted) -> None:
            if not self._is_skipped(event):
                take(event)

        return take_selected

    def take_answers(self) -> TakeAnswer | None:
        """See `lifecycle.take_answers`."""
        take = self._log.take_answers()
        if take is None:
            return None
        of_log = take

        def take_selected(
            conn: RecordedConnection, request: Request, response: Response, now: float
        ) -> None:
            if response.code >= _ERROR or not self._skips(request.head.path):
                of_log(conn, request, response, now)

        return take_selected

    def _is_skipped(self, event: ResponseCompleted) -> bool:
        if event.request is None or event.status >= _ERROR:
            return False
        return self._skips(event.request.path)

    def _skips(self, path: str) -> bool:
        return path in self._skipped or path.startswith(self._below)
