"""What happens to connections and requests, as typed events for a collector.

A `LifecycleCollector` is called on the thread where the event happens, while that thread serves: it
must be quick, and several threads call it at once. What it raises is logged. An event that no
collector wants is not made: a collector may list in `event_types` what it wants.
"""

from __future__ import annotations

import http
import logging
import os
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import BinaryIO, Protocol, get_args

from .http.framing import STATUSES_WITHOUT_BODY
from .messages import (
    Address,
    FileBody,
    Origin,
    Request,
    RequestReceived,
    Response,
)

# The codes of common final statuses that have a body, for each spelling: parsing the number takes
# several times as long.
CODES_WITH_BODY: dict[int | str, int] = {
    written: int(status)
    for status in http.HTTPStatus
    if status >= 200 and status not in STATUSES_WITHOUT_BODY
    for written in (int(status), f"{int(status)} {status.phrase}")
}


log = logging.getLogger("threadwell")

_monotonic = time.monotonic


@dataclass(slots=True, frozen=True)
class ConnectionOpened:
    """A connection was accepted. `client` is the address at its other end, a proxy's if any."""

    client: Address


@dataclass(slots=True, frozen=True)
class ConnectionClosed:
    """A connection has ended. `reason` is a word or two, such as `keep-alive timeout`."""

    client: Address
    reason: str
    requests: int


@dataclass(slots=True, frozen=True)
class RequestStarted:
    """A request has arrived in full and goes to the application."""

    request: Request


@dataclass(slots=True, frozen=True)
class RequestWaited:
    """A request has waited `seconds` for a thread since its last octets arrived.

    One request in `SAMPLED` is measured, for it costs a system call, and only for a collector that
    has this type in its `event_types`.
    """

    request: Request
    seconds: float


class ResponseCompleted:
    """The kernel has the last byte of an answer (`complete`), or the answer was given up.

    `request` is None if what arrived was not a request. `body_bytes` counts what the application
    sent: without framing, but for a WebSocket the frames. `seconds` is the time since the request
    had arrived in full, or its head on an event loop. `headers` are those of the answer, names and
    values as text or as bytes. `received` counts the octets of the request's
    body. `client` is for whom the request came, `peer` the other end of the connection.

    The server makes it when the request has arrived, at `started` of `time.monotonic`, and fills it
    in with the answer. It does not change after a collector has been told.
    """

    # Without slots, and what is seldom set is of the class: one is made for every request, and that
    # takes half the time.

    client: Address
    peer: Address
    seconds: float
    complete: bool
    status: int = 0
    body_bytes: int = 0
    received: int = 0
    request_id: str = ""
    headers: Sequence[tuple[str, str] | tuple[bytes, bytes]] = ()

    def __init__(self, request: Request | None, started: float) -> None:
        self.request = request
        self.started = started

    def note(self, head: RequestReceived | None, response: Response) -> None:
        """Note what is being sent as the answer to `head`. Only the server calls it."""
        self.body_bytes = 0
        self.headers = response.headers
        code = CODES_WITH_BODY.get(response.status)
        if code is None:
            code = response.code
            if code in STATUSES_WITHOUT_BODY:
                self.status = code
                return
        self.status = code
        if head is not None and not head.is_simple and head.method == "HEAD":
            return
        body = response.body
        if isinstance(body, bytes):
            self.body_bytes = len(body)
        elif isinstance(body, list):
            self.body_bytes = sum(map(len, body))
        elif isinstance(body, FileBody):
            self.body_bytes = body.count

    def end(self, client: Address, peer: Address, complete: bool) -> ResponseCompleted:
        """Note the end of the answer, which is now. Only the server calls it."""
        self.client = client
        self.peer = peer
        self.seconds = _monotonic() - self.started
        self.complete = complete
        return self


@dataclass(slots=True, frozen=True)
class Refused:
    """A request, a stream or a connection was refused.

    `cause` is the status of the answer, such as `431`; `streams` for a long response beyond
    `max_streams`; `tls` for a handshake that failed; `proxy` for a missing or wrong PROXY header;
    `flood` for an HTTP/2 client that exceeds its limits.
    """

    client: Address
    cause: str


@dataclass(slots=True, frozen=True)
class StreamOpened:
    """A thread was lent to a long response or a hijacked socket."""

    request: Request


@dataclass(slots=True, frozen=True)
class StreamClosed:
    """A long response has ended, in whatever way, and its thread is free."""

    request: Request


@dataclass(slots=True, frozen=True)
class ClientGone:
    """The client left, or stopped reading, before it had its whole answer."""

    request: Request


@dataclass(slots=True, frozen=True)
class RunningRequest:
    """A request under way, at one moment, as another thread sees it.

    `key` tells it from all other requests of its process. `state` is one of `REQUEST_STATES`.
    `age` is the time in seconds since the application was called, or since the last octets of the
    request came. `ran` is how many seconds the application has run at least; 0 if that is not
    known. `sent` counts the octets of the
    response's body so far. `thread` is the name and `ident` the id of the thread that runs it, or
    of the loop's thread. `lent` says whether that thread has given its slot up. `call` is the
    application's call, if a loop runs it.
    """

    key: str
    state: str
    method: str
    path: str
    client: Address
    request_id: str
    age: float
    sent: int
    thread: str
    ident: int
    lent: bool = False
    ran: float = 0.0
    call: object = None


#: What a running request does: nothing of its response has left yet; its response is under way; it
#: has its connection for itself; it is a WebSocket; its whole response has left.
REQUEST_STATES = ("running", "streaming", "hijacked", "websocket", "answered")

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


#: What a collector without `event_types` gets: the events that cost nothing to measure.
_EVENT_TYPES: frozenset[type] = frozenset(get_args(LifecycleEvent)) - {RequestWaited}


class LifecycleCollector(Protocol):
    """An object with a `record` method, and optionally `event_types`, `for_thread`, `take_answers`
    and `take_waits`.

    `event_types` are the types of events that it wants. It may still be told of others, which
    another collector wants. The other methods are quicker ways to take what happens often: see the
    functions `for_thread` and `take_answers`, and `ThreadState`.
    """

    def record(self, event: LifecycleEvent) -> None:
        """Take note of `event`. Several threads may call it at once."""


class RecordedConnection(Protocol):
    """What is read here of a connection on which a request was answered."""

    origin: Origin
    peer: Address
    #: The id of the request, where requests have ids.
    request_id: str
    #: When the request had arrived, in the seconds of `time.monotonic`; 0 if nobody is to be told,
    #: or a `ResponseCompleted` was made already.
    started: float


#: Takes the answers of one thread that have left in one send; the bodies of request and response
#: are bytes. It raises no `Exception`. The last argument is the time of the response in the seconds
#: of `time.monotonic`.
TakeAnswer = Callable[[RecordedConnection, Request, Response, float], None]


def event_types_of(collector: LifecycleCollector | None) -> Collection[type]:
    """The types of events that `collector` wants."""
    return () if collector is None else getattr(collector, "event_types", _EVENT_TYPES)


def for_thread(collector: LifecycleCollector) -> Callable[[ResponseCompleted], None]:
    """The function to call instead of `collector.record` for the answers of the calling thread.

    A collector's own `for_thread` returns it. Only the calling thread uses it, so it may keep state
    without a lock.
    """
    make: Callable[[], Callable[[ResponseCompleted], None]] | None
    make = getattr(collector, "for_thread", None)
    return collector.record if make is None else make()


def start_record(conn: RecordedConnection, request: Request) -> ResponseCompleted:
    """Make what a collector will be told of the answer to `request`."""
    record = ResponseCompleted(request, conn.started)
    body = request.body
    if body:
        record.received = len(body) if isinstance(body, bytes) else _size_of(body)
    if conn.request_id:
        record.request_id = conn.request_id
    return record


def _size_of(body: BinaryIO) -> int:
    at = body.tell()
    size = body.seek(0, os.SEEK_END)
    body.seek(at)
    return size


def completed_at(
    conn: RecordedConnection, request: Request, response: Response, now: float
) -> ResponseCompleted:
    """What a collector is told of `response`, which the kernel has taken at once at `now`."""
    record = start_record(conn, request)
    record.note(request.head, response)
    record.client = conn.origin.client
    record.peer = conn.peer
    record.complete = True
    record.seconds = now - record.started
    return record


def answer_taker(collector: LifecycleCollector) -> TakeAnswer:
    """What tells `collector` of answers, on any thread, in the context of the request.

    What one of several collectors raises is logged, and costs no other anything.
    """
    return _taker([(None, each.record) for each in _parts_of(collector)])


def take_answers(collector: LifecycleCollector) -> TakeAnswer:
    """The same for the calling thread alone, and quicker.

    A collector may have a `take_answers` of its own, without an argument, which returns a
    `TakeAnswer` that needs no `ResponseCompleted`, or None.
    """
    takers = []
    for each in _parts_of(collector):
        make: Callable[[], TakeAnswer | None] | None = getattr(each, "take_answers", None)
        takers.append((None if make is None else make(), for_thread(each)))
    own = takers[0][0]
    return own if own is not None and len(takers) == 1 else _taker(takers)


def _taker(
    takers: Sequence[tuple[TakeAnswer | None, Callable[[ResponseCompleted], None]]],
) -> TakeAnswer:
    def take(conn: RecordedConnection, request: Request, response: Response, now: float) -> None:
        record = None
        for own, told in takers:
            try:
                if own is not None:
                    own(conn, request, response, now)
                else:
                    record = record or completed_at(conn, request, response, now)
                    told(record)
            except Exception as error:
                complain(ResponseCompleted, error)

    return take


def take_waits(collector: LifecycleCollector) -> Callable[[float], None] | None:
    """What takes the seconds that a request of the calling thread has waited, in the place of
    `RequestWaited`; None if `collector` wants the event.

    A collector may have a `take_waits` of its own, without an argument.
    """
    parts = [each for each in _parts_of(collector) if RequestWaited in event_types_of(each)]
    own: Callable[[], Callable[[float], None] | None] | None
    own = getattr(parts[0], "take_waits", None) if len(parts) == 1 else None
    return None if own is None else own()


def tell_wait(
    collector: LifecycleCollector,
    take_wait: Callable[[float], None] | None,
    request: Request,
    waited: float | None,
) -> None:
    """Tell `collector` how many seconds `request` has `waited`; None if that is not known.

    `take_wait` is what `take_waits` has returned to the calling thread.
    """
    if waited is None:
        return
    if take_wait is not None:
        take_wait(waited)
    else:
        collector.record(RequestWaited(request, waited))


def _parts_of(collector: LifecycleCollector) -> tuple[LifecycleCollector, ...]:
    """The collectors of which `collector` is made."""
    if isinstance(collector, _Guarded):
        return _parts_of(collector.collector)
    if isinstance(collector, Collectors):
        return tuple(part for each in collector.collectors for part in _parts_of(each))
    return (collector,)


def guarded(collector: LifecycleCollector | None) -> LifecycleCollector | None:
    """Wrap `collector` so that an exception in it is logged and goes no further.

    Each of several collectors is wrapped for itself, so that the others are told all the same.
    """
    if collector is None or isinstance(collector, _Guarded):
        return collector
    if isinstance(collector, Collectors):
        return Collectors(*filter(None, map(guarded, collector.collectors)))
    return _Guarded(collector)


class _Guarded:
    """See `guarded`."""

    def __init__(self, collector: LifecycleCollector) -> None:
        self.collector = collector
        self.event_types = event_types_of(collector)

    def record(self, event: LifecycleEvent) -> None:
        try:
            self.collector.record(event)
        except Exception as error:
            complain(type(event), error)

    def for_thread(self) -> Callable[[ResponseCompleted], None]:
        """See `for_thread`."""
        told = for_thread(self.collector)

        def record(event: ResponseCompleted) -> None:
            try:
                told(event)
            except Exception as error:
                complain(type(event), error)

        return record


def complain(kind: type, error: Exception) -> None:
    """Log what a collector has raised at an event of the type `kind`."""
    log.error("A lifecycle collector failed on %s", kind.__name__, exc_info=error)


class Collectors:
    """Several collectors as one."""

    def __init__(self, *collectors: LifecycleCollector) -> None:
        self.collectors = collectors
        self.event_types = frozenset[type]().union(*map(event_types_of, collectors))

    def record(self, event: LifecycleEvent) -> None:
        for collector in self.collectors:
            collector.record(event)

    def for_thread(self) -> Callable[[ResponseCompleted], None]:
        """See `for_thread`."""
        told = tuple(map(for_thread, self.collectors))

        def record(event: ResponseCompleted) -> None:
            for each in told:
                each(event)

        return record
