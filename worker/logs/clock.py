"""The times of log lines, formatted once a second."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..http.response_head import MONTHS

if TYPE_CHECKING:
    from collections.abc import Callable


class Clock:
    """Formats seconds since the epoch with `render`, once a second."""

    def __init__(self, render: Callable[[int], str]) -> None:
        self._render = render
        self._last = (-1, "")

    def __call__(self, seconds: float) -> str:
        second = int(seconds)
        known, text = self._last
        if known != second:
            text = self._render(second)
            self._last = (second, text)
        return text

    def second_of(self, moment: float) -> tuple[float, float, str]:
        """The second of the day in which `moment` of `time.monotonic` lies: when it begins and ends
        on that clock, and its text."""
        offset = time.time() - time.monotonic()
        second = int(moment + offset)
        return second - offset, second - offset + 1, self(second)


def apache_time(second: int) -> str:
    """The local time as Apache writes it, with its brackets."""
    now = time.localtime(second)
    hours, minutes = divmod(abs(now.tm_gmtoff) // 60, 60)
    zone = f"{'-' if now.tm_gmtoff < 0 else '+'}{hours:02}{minutes:02}"
    return (
        f"[{now.tm_mday:02}/{MONTHS[now.tm_mon - 1]}/{now.tm_year:04}:{now.tm_hour:02}"
        f":{now.tm_min:02}:{now.tm_sec:02} {zone}]"
    )


def iso_second(second: int) -> str:
    """The time in UTC without a zone (RFC 3339)."""
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(second))
