"""Requests that take too long: logged, counted, and given up."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ..system.stacks import stack_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..config import ServerConfig
    from ..lifecycle import RunningRequest
    from .report import ProcessReport

log = logging.getLogger("threadwell")

# Seconds for a call that was cancelled to end.
_TIME_TO_CANCEL = 5.0


class SlowRequests:
    """One thread calls `look`, about once a second. A request whose response has begun is not slow.

    `cancel` cancels the call of a request that a loop runs.
    """

    def __init__(
        self, config: ServerConfig, report: ProcessReport, cancel: Callable[[object], None]
    ) -> None:
        self._slow = config.log.slow_request
        self._timeout = config.processes.request_timeout
        self._report = report
        self._cancel = cancel
        #: How many requests were slow, and how many were given up.
        self.slow = 0
        self.timed_out = 0
        # the keys of those under way that were logged, and given up
        self._logged: set[str] = set()
        self._given_up: set[str] = set()
        #: The requests that hold a thread, or a loop, beyond their time.
        self.overdue: list[RunningRequest] = []

    def look(self, running: list[RunningRequest]) -> None:
        """Look at the requests under way."""
        keys = {request.key for request in running}
        self._logged &= keys
        self._given_up &= keys
        begun = [request for request in running if request.state == "running"]
        if self._slow:
            new = [
                each for each in begun if each.ran >= self._slow and each.key not in self._logged
            ]
            self.slow += self._log(new, logging.WARNING, "Slow request", self._logged)
        if self._timeout:
            self._give_up([each for each in begun if each.ran >= self._timeout])

    def _give_up(self, late: list[RunningRequest]) -> None:
        new = [each for each in late if each.key not in self._given_up]
        self.timed_out += self._log(new, logging.ERROR, "Request timeout", self._given_up)
        for request in new:
            if request.call is not None:
                self._cancel(request.call)
        self.overdue = [
            each
            for each in late
            if each.call is None or each.ran >= self._timeout + _TIME_TO_CANCEL
        ]

    def _log(self, requests: list[RunningRequest], level: int, title: str, done: set[str]) -> int:
        """Log `requests` with their stacks, and add them to `done`; return how many these are."""
        if not requests:
            return 0
        stacks = self._stacks(requests)
        # those that have ended meanwhile have no stack any more
        left = {each.key for each in self._report.running()}
        requests = [each for each in requests if each.key in left]
        for request in requests:
            done.add(request.key)
            stack = stacks.get(request.key, "")
            log.log(level, "%s: %s; its stack:\n%s", title, described(request), stack.rstrip())
        return len(requests)

    def _stacks(self, requests: Iterable[RunningRequest]) -> dict[str, str]:
        of_calls = self._report.stacks_of_calls(requests)
        return {each.key: of_calls.get(id(each.call)) or stack_of(each.ident) for each in requests}


def described(request: RunningRequest) -> str:
    """The description of a slow request in a log message."""
    known = f" [{request.request_id}]" if request.request_id else ""
    return (
        f"{request.method} {request.path}{known} of {request.client[0] or 'a unix socket'} has run"
        f" for {request.ran:.1f} seconds on {request.thread}"
    )
