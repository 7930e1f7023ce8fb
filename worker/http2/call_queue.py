"""Requests to an ASGI application that wait until their client takes what waits for it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..asgi.request_stream import MOST_DISCARDED
from .request_body import StreamedBody

if TYPE_CHECKING:
    from collections.abc import Callable

    from .send_budget import SendBudget
    from .stream import Stream


class CallQueue:
    """The requests of one connection that no call was begun for. Belongs to the loop.

    `start` begins the call for a stream with its body, or frees both if the stream is over.
    """

    __slots__ = ("_budget", "_start", "_waiting")

    def __init__(self, budget: SendBudget, start: Callable[[Stream, Any], None]) -> None:
        self._budget = budget
        self._start = start
        # by the numbers of the streams, in their order
        self._waiting: dict[int, tuple[Stream, Any]] = {}

    def begin(self, stream: Stream, body: Any) -> None:
        """Begin the call for `stream`, now or when the budget admits it."""
        if not self._waiting and self._budget.admits():
            self._start(stream, body)
            return
        self._waiting[stream.number] = stream, body
        self._budget.holds = True
        if isinstance(body, StreamedBody):  # its deadline does not run meanwhile
            body.pause()

    def resume(self) -> None:
        """Begin the calls that waited, as far as the budget admits them."""
        while self._waiting and self._budget.admits():
            self.release(next(iter(self._waiting)))

    def release(self, number: int) -> None:
        """Begin the call for stream `number`, if it waits; nothing is begun if it is over."""
        if number in self._waiting:
            stream, body = self._waiting.pop(number)
            if isinstance(body, StreamedBody) and body.buffered <= MOST_DISCARDED:
                body.resume()
            self._start(stream, body)
