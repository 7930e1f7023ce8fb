"""Answers of workers to the supervisor: in parts, since a pipe takes small messages only."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from ..control.checks import ANSWERS, printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..control.report import ProcessReport
    from .pipe import Message

#: Characters of a part, which JSON may double.
LONGEST_PART = 4096
#: Parts of an answer.
MOST_PARTS = 256
_LONGEST = LONGEST_PART * MOST_PARTS
# The lists of an answer, of which the first rows matter most.
_ROWS = ("requests", "stacks")


def answer(report: ProcessReport, question: Message) -> Iterator[Message]:
    """The messages that answer the `question` of the supervisor."""
    what = question["what"]
    if what == "status":
        result = report.status()
    elif what == "requests":
        result = report.requests()
    else:
        result = report.stacks(question["wanted"])
    text = json.dumps(result)
    while len(text) > _LONGEST:
        text = json.dumps(_shortened(result))
    for start in range(0, len(text), LONGEST_PART):
        part = text[start : start + LONGEST_PART]
        last = start + LONGEST_PART >= len(text)
        yield {"answer": question["ask"], "part": part, "last": last}


def _shortened(result: dict[str, Any]) -> dict[str, Any]:
    """`result` itself, with half of its rows."""
    for name in _ROWS:
        rows = result.get(name, [])
        left = len(rows) // 2
        if rows:
            result["more"] += len(rows) - left
            del rows[left:]
    return result


class Question:
    """What a worker was asked, on the supervisor's side: puts its answer together."""

    def __init__(self, what: str, asked_at: float) -> None:
        self._what = what
        self._parts: list[str] = []
        self.asked_at = asked_at
        #: The answer, once it is complete and right.
        self.result: dict[str, Any] | None = None

    def take(self, report: Message) -> bool:
        """Take a part of the answer. False if no honest worker would have sent it."""
        self._parts.append(report["part"])
        if not report["last"]:
            return len(self._parts) < MOST_PARTS
        try:
            result = json.loads("".join(self._parts))
        except (ValueError, RecursionError):  # of brackets: the parser is recursive
            return False
        if not ANSWERS[self._what](result):
            return False
        self.result = printable(result)
        return True
