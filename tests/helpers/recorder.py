"""A lifecycle collector that remembers."""

from __future__ import annotations

import threading
from typing import Any

from threadwell import Request
from threadwell.worker.lifecycle import ConnectionClosed, LifecycleEvent, ResponseCompleted
from threadwell.worker.messages import Address


class Recorder:
    """Remembers the events, and lets a test wait for the end of connections."""

    def __init__(self) -> None:
        self.events: list[LifecycleEvent] = []
        self._changed = threading.Condition()

    def record(self, event: LifecycleEvent) -> None:
        with self._changed:
            self.events.append(event)
            self._changed.notify_all()

    def until_closed(self, number: int = 1) -> list[LifecycleEvent]:
        """The events, once `number` connections have ended."""
        return self.until(ConnectionClosed, number)

    def until(self, kind: type, number: int = 1) -> list[LifecycleEvent]:
        """The events, once `number` of `kind` are among them."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.of(kind)) >= number, 6)
            return list(self.events)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.events if type(event) is kind]

    @property
    def kinds(self) -> list[type]:
        return [type(event) for event in self.events]


def completed(
    status: int = 200,
    *,
    request: Request | None = None,
    size: int = 0,
    seconds: float = 0.0,
    complete: bool = True,
    client: Address = ("192.0.2.1", 1234),
    peer: Address = ("192.0.2.7", 80),
) -> ResponseCompleted:
    """What a collector is told of an answer."""
    event = ResponseCompleted(request, 0.0)
    event.status, event.body_bytes = status, size
    event.end(client, peer, complete)
    event.seconds = seconds
    return event
