"""What happens to connections and requests, as typed events for whoever watches.

A `LifecycleCollector` is called on the thread where the event happens, in the middle of serving:
it must be quick, and is called from several threads at once. What it raises is logged. What nobody
looks at is not made: a collector may have `event_types`, the types that it looks at.
"""

from __future__ import annotations

import http
import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Protocol, get_args

from .messages import IS_SIMPLE, Address, FileBody, Request, RequestReceived, Response

# The codes of the usual answers with a body, however they are written: to read a number out of a
# text takes several times as long.
_WITH_BODY: dict[int | str, int] = {
    written: int(status)
    for status in http.HTTPStatus
    if status not in (204, 304)
    for written in (int(status), f"{int(status)} {status.phrase}")
}


log = logging.getLogger("threadwell")

_monotonic = time.monotonic


@dataclass(slots=True, frozen=True)
class ConnectionOpened:
    """A connection was accepted; `client` is its peer, whoever may speak through it."""

    client: Address


@dataclass(slots=True, frozen=True)
class ConnectionClosed:
    """A connection has ended. `reason` is a word or two, such as `keep-alive timeout`."""

    client: Address
    reason: str
    requests: int


@dataclass(slots=True, frozen=True)
class RequestStarted:
    """A request is wholly there and goes to the application."""

    request: Request


@dataclass(slots=True, frozen=True)
class RequestWaited:
    """A request has waited `seconds` for a thread, from the arrival of its last octets on.

    One request of `SAMPLED` is asked, for it costs a system call, and only where the `event_types`
    of a collector have it.
    """

    request: Request
    seconds: float


class ResponseCompleted:
    """The last byte of an answer went to the kernel, or the answer was given up (`complete`).

    `request` is None when what came was no request. `body_bytes` counts what the application
    sent, without framing, and of a WebSocket the frames. `seconds` is the time since the request
    was wholly there, or on an event loop its head. `received` counts the octets of its body.
    `client` is for whom the request came, `peer` who was at the other end of the connection.

    It is made when the request has come, at `started` of `time.monotonic`, and grows with its
    answer; it does not change any more when a collector is told.
    """

    # Without slots, because one is made for every request: it takes a third less.

    client: Address
    peer: Address
    seconds: float
    complete: bool

    def __init__(self, request: Request | None, started: float) -> None:
        self.request = request
        self.started = started
        self.status = 0
        self.body_bytes = 0
        self.received = 0
        self.request_id = ""

    def end(self, client: Address, peer: Address, complete: bool) -> ResponseCompleted:
        """Say how it has ended, now. The server calls it."""
        self.client = client
        self.peer = peer
        self.seconds = _monotonic() - self.started
        self.complete = complete
        return self


@dataclass(slots=True, frozen=True)
class Refused:
    """Something was refused before an application saw it, or could go on with it.

    `cause` is the status of the answer, such as `431`, `streams` for a long response that was one
    too many, `tls` for a handshake that failed, `proxy` where there must be a PROXY header, or
    `flood` for a client of HTTP/2 that has gone beyond what it may do.
    """

    client: Address
    cause: str


@dataclass(slots=True, frozen=True)
class StreamOpened:
    """A long response, or a hijacked socket, took a thread for itself."""

    request: Request


@dataclass(slots=True, frozen=True)
class StreamClosed:
    """A long response ended, whatever the way, and its thread is free."""

    request: Request


@dataclass(slots=True, frozen=True)
class ClientGone:
    """The client left, or stopped reading, before it had its whole answer."""

    request: Request


#: See `RequestWaited`.
SAMPLED = 16

LifecycleEvent = (
    ConnectionOpened
    | ConnectionClosed
    | RequestStarted
    | RequestWaited
    | ResponseCompleted
    | Refused
    | StreamOpened
    | StreamClosed
    | ClientGone
)


#: What a collector without `event_types` looks at: all that has happened anyway.
_EVENT_TYPES: frozenset[type] = frozenset(get_args(LifecycleEvent)) - {RequestWaited}


class LifecycleCollector(Protocol):
    """Anything with a `record` method; and with `event_types`, if it does not look at all of them.

    They are no promise: it may be told of others, which somebody else looks at. With a method
    `for_thread` it may have a quicker way for what comes with every request, see there.
    """

    def record(self, event: LifecycleEvent) -> None:
        """Take note of `event`."""


def event_types_of(collector: LifecycleCollector | None) -> Collection[type]:
    """The types of events that `collector` looks at."""
    return () if collector is None else getattr(collector, "event_types", _EVENT_TYPES)


def for_thread(collector: LifecycleCollector) -> Callable[[ResponseCompleted], None]:
    """What takes the answers that the calling thread gives, in the place of `record`.

    The `for_thread` of a collector gives it; the thread alone will call it, so that it may keep
    things of its own.
    """
    make: Callable[[], Callable[[ResponseCompleted], None]] | None
    make = getattr(collector, "for_thread", None)
    return collector.record if make is None else make()


def guarded(collector: LifecycleCollector | None) -> LifecycleCollector | None:
    """`collector` in such a way that what it raises costs nobody anything: it is logged."""
    if collector is None or isinstance(collector, _Guarded):
        return collector
    return _Guarded(collector)


class _Guarded:
    """See `guarded`."""

    def __init__(self, collector: LifecycleCollector) -> None:
        self._collector = collector
        self.event_types = event_types_of(collector)

    def record(self, event: LifecycleEvent) -> None:
        try:
            self._collector.record(event)
        except Exception as error:
            _complain(event, error)

    def for_thread(self) -> Callable[[ResponseCompleted], None]:
        """See `for_thread`."""
        told = for_thread(self._collector)

        def record(event: ResponseCompleted) -> None:
            try:
                told(event)
            except Exception as error:
                _complain(event, error)

        return record


def _complain(event: LifecycleEvent, error: Exception) -> None:
    log.error("A lifecycle collector failed on %s", type(event).__name__, exc_info=error)


class Collectors:
    """Several collectors as one."""

    def __init__(self, *collectors: LifecycleCollector) -> None:
        self._collectors = collectors
        self.event_types = frozenset[type]().union(*map(event_types_of, collectors))

    def record(self, event: LifecycleEvent) -> None:
        for collector in self._collectors:
            collector.record(event)

    def for_thread(self) -> Callable[[ResponseCompleted], None]:
        """See `for_thread`."""
        told = tuple(map(for_thread, self._collectors))

        def record(event: ResponseCompleted) -> None:
            for each in told:
                each(event)

        return record


class HasRecord(Protocol):
    """A connection, or a stream of HTTP/2, with the record of the answer that is under way."""

    record: ResponseCompleted | None


def note_answer(conn: HasRecord, head: RequestReceived | None, response: Response) -> None:
    """Remember for the collector what is being sent as the answer to `head`."""
    record = conn.record
    assert record is not None
    record.body_bytes = 0
    code = _WITH_BODY.get(response.status)
    if code is None:
        code = response.code
        if code in (204, 304):
            record.status = code
            return
    record.status = code
    if head is not None and not head[IS_SIMPLE] and head.method == "HEAD":
        return
    body = response.body
    if isinstance(body, bytes):
        record.body_bytes = len(body)
    elif isinstance(body, list):
        record.body_bytes = sum(map(len, body))
    elif isinstance(body, FileBody):
        record.body_bytes = body.count
