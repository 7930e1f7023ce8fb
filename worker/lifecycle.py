"""What happens to connections and requests, as typed events for whoever watches.

A `LifecycleCollector` is called on the thread where the event happens, in the middle of serving:
it must be quick, must not raise, and is called from several threads at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, Protocol

from .messages import Address, Request


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


class ResponseCompleted(NamedTuple):
    """The last byte of an answer went to the kernel, or the answer was given up (`complete`).

    `request` is None when what came was no request. `body_bytes` counts what the application
    sent, without framing, and of a WebSocket the frames. `seconds` is the time since the request
    was wholly there, or on an event loop its head. `received` counts the octets of its body.
    `client` is for whom the request came, `peer` who was at the other end of the connection.
    """

    # A named tuple, because one is made for every request.

    request: Request | None
    client: Address
    status: int
    body_bytes: int
    seconds: float
    complete: bool
    received: int = 0
    request_id: str = ""
    peer: Address = ("", 0)


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


LifecycleEvent = (
    ConnectionOpened
    | ConnectionClosed
    | RequestStarted
    | ResponseCompleted
    | Refused
    | StreamOpened
    | StreamClosed
    | ClientGone
)


class LifecycleCollector(Protocol):
    """Anything with a `record` method."""

    def record(self, event: LifecycleEvent) -> None:
        """Take note of `event`."""


class Collectors:
    """Several collectors as one."""

    def __init__(self, *collectors: LifecycleCollector) -> None:
        self._collectors = collectors

    def record(self, event: LifecycleEvent) -> None:
        for collector in self._collectors:
            collector.record(event)
