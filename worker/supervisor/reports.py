"""What the processes of a server may report to their supervisor.

A worker may have been taken over by an attacker, and the supervisor may be root. So a report is
input: it has exactly the fields of its kind, of the right type and within bounds. A process that
sends anything else is killed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .answers import LONGEST_PART
from .pipe import LONGEST_TEXT, Message
from .statistics import CAUSES

# In seconds, for the time without a request: 30 years.
_LONGEST_IDLE = 1e9
# As large as any system's.
_MOST_PID = 2**31 - 1
# Reports of one process within a second. An honest one sends one or two; a fork server sends one
# for each worker. After a suspension come at most as many as a socket's buffer holds, some 300.
_MOST_A_SECOND = 1000


def _text(value: object) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_TEXT


def _number(value: object) -> bool:
    return type(value) in (int, float) and 0 <= value <= _LONGEST_IDLE  # type: ignore[operator]


def _ordinal(value: object) -> bool:
    return type(value) is int and 0 < value <= _MOST_PID


def _pid(value: object) -> bool:
    return type(value) is int and 1 < value <= _MOST_PID


def _status(value: object) -> bool:
    return type(value) is int and -256 < value < 256


def _flag(value: object) -> bool:
    return isinstance(value, bool)


def _true(value: object) -> bool:
    return value is True


def _cause(value: object) -> bool:
    return isinstance(value, str) and value in CAUSES


def _part(value: object) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_PART


_Fields = dict[str, Callable[[object], bool]]

_OF_BOTH: Final[list[_Fields]] = [{"failed": _text, "trace": _text}, {"starting": _true}]
_OF_WORKERS: Final[list[_Fields]] = [
    *_OF_BOTH,
    {"ready": _true, "name": _text, "kind": _text, "gil": _flag},
    {"heartbeat": _number},
    {"exiting": _true},
    {"replace": _text, "cause": _cause},
    {"answer": _ordinal, "part": _part, "last": _flag},
]
_OF_FORK_SERVERS: Final[list[_Fields]] = [
    *_OF_BOTH,
    {"loaded": _true},
    {"forked": _ordinal, "pid": _pid},
    {"fork_failed": _ordinal, "why": _text},
    {"exited": _pid, "status": _status},
]


class Reports:
    """Checks the reports of one process: those of a worker, or of a fork server."""

    def __init__(self, *, fork_server: bool = False) -> None:
        kinds = _OF_FORK_SERVERS if fork_server else _OF_WORKERS
        self._kinds = {frozenset(fields): fields for fields in kinds}
        self._since = 0.0
        self._count = 0

    def check(self, message: Message) -> Message | None:
        """`message` with texts that can be printed; None if it is no report of this process."""
        fields = self._kinds.get(frozenset(message))
        if fields is None or not all(check(message[name]) for name, check in fields.items()):
            return None
        return {
            name: printable(value) if isinstance(value, str) else value
            for name, value in message.items()
        }

    def are_too_many(self, number: int, now: float) -> bool:
        """Whether `number` more reports, at `now`, are a flood."""
        if now - self._since >= 1:
            self._since, self._count = now, 0
        self._count += number
        return self._count > _MOST_A_SECOND


def printable(text: str) -> str:
    """`text` without what could act on a terminal; a traceback keeps its lines."""
    return "".join(
        char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text
    )
