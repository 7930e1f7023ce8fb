"""What a worker may answer, for a supervisor that passes it on.

A worker may have been taken over by an attacker, and the supervisor may be root. So an answer is
input: it has exactly the fields that `report.ProcessReport` gives it, of the right type and within
bounds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..lifecycle import REQUEST_STATES
from .report import BOUNDS, LONGEST_STACK, LONGEST_TEXT, MOST_REQUESTS, MOST_STACKS

if TYPE_CHECKING:
    from collections.abc import Callable

# As large as no honest number of things, or of octets.
_MOST = 2**62
# In seconds: 30 years.
_OLDEST = 1e9
# Names of states of connections.
_MOST_NAMES = 64
_LONGEST_NAME = 40
_STATES = ("starting", "serving", "draining", "stopped")


def _count(value: Any) -> bool:
    return type(value) is int and 0 <= value < _MOST


def _age(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value <= _OLDEST


def _text(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_TEXT


def _stack(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= LONGEST_STACK


def _flag(value: Any) -> bool:
    return isinstance(value, bool)


def _state(value: Any) -> bool:
    return isinstance(value, str) and value in _STATES


def _request_state(value: Any) -> bool:
    return isinstance(value, str) and value in REQUEST_STATES


def _counts_by_name(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and len(value) <= _MOST_NAMES
        and all(name.isidentifier() and len(name) <= _LONGEST_NAME for name in value)
        and all(map(_count, value.values()))
    )


def _latencies(value: Any) -> bool:
    return isinstance(value, list) and len(value) == len(BOUNDS) + 1 and all(map(_count, value))


def _fields(**checks: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        return (
            isinstance(value, dict)
            and value.keys() == checks.keys()
            and all(check(value[name]) for name, check in checks.items())
        )

    return check


def _rows(most: int, row: Callable[[Any], bool]) -> Callable[[Any], bool]:
    def check(value: Any) -> bool:
        return isinstance(value, list) and len(value) <= most and all(map(row, value))

    return check


_THREADS = _fields(slots=_count, busy=_count, lent=_count, total=_count)
_REQUEST = _fields(
    id=_text,
    state=_request_state,
    method=_text,
    path=_text,
    client=_text,
    request_id=_text,
    age=_age,
    sent=_count,
    thread=_text,
    lent=_flag,
)
_STACK = _fields(thread=_text, id=_text, request=_text, stack=_stack)

#: By what was asked, whether an answer is as it should be.
ANSWERS: dict[str, Callable[[Any], bool]] = {
    "status": _fields(
        state=_state,
        age=_age,
        memory=_count,
        served=_count,
        threads=_THREADS,
        loops=_count,
        connections=_counts_by_name,
        waiting=_count,
        latencies=_latencies,
    ),
    "requests": _fields(requests=_rows(MOST_REQUESTS, _REQUEST), more=_count),
    "stack": _fields(stacks=_rows(MOST_STACKS, _STACK), more=_count),
}


def printable(value: Any) -> Any:
    """`value` with texts that cannot act on a terminal; stacks keep their lines."""
    if isinstance(value, str):
        return "".join(
            char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in value
        )
    if isinstance(value, list):
        return [printable(each) for each in value]
    if isinstance(value, dict):
        return {name: printable(each) for name, each in value.items()}
    return value
