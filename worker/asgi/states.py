"""The states of the asyncio side, and the steps between them.

Rule: each machine is an Enum and a table here, which has the states that may follow each state. Its
owner changes its state by a method `become`, which calls `checked`. Where a step is taken for every
request and the state before is known, the owner assigns the state directly, and a comment says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum, IntEnum
from typing import TypeVar

from ..connection import IllegalTransition

StateT = TypeVar("StateT", bound=Enum)


def checked(
    transitions: Mapping[StateT, frozenset[StateT]], before: StateT, after: StateT
) -> StateT:
    """`after`. Raises `IllegalTransition` where `transitions` has no such step from `before`."""
    if after not in transitions[before]:
        raise IllegalTransition(f"{before.name} -> {after.name}")
    return after


# ---- A new connection -------------------------------------------------------------------------


class OpeningState(Enum):
    """What the next octets of a connection are. The values are the names that metrics show."""

    PROXY_HEADER = "proxy_header"
    HANDSHAKE = "handshake"
    LINGER = "lingering"  # discarded, for the connection is refused


OPENING_TRANSITIONS: dict[OpeningState, frozenset[OpeningState]] = {
    OpeningState.PROXY_HEADER: frozenset({OpeningState.HANDSHAKE}),
    OpeningState.HANDSHAKE: frozenset({OpeningState.LINGER}),
    OpeningState.LINGER: frozenset(),
}


# ---- What is read from an HTTP/1.1 connection ---------------------------------------------------


class ReadState(IntEnum):
    """What the next octets of a connection are."""

    READY = 0  # the next request, or a part of its head
    BUSY = 1  # pipelined requests, behind the one that is being answered
    BODY = 2  # the body of the request that is being answered
    SESSION = 3  # the frames of a WebSocket
    LINGER = 4  # discarded, for the last response is sent


READ_TRANSITIONS: dict[ReadState, frozenset[ReadState]] = {
    ReadState.READY: frozenset({ReadState.BUSY, ReadState.LINGER}),
    ReadState.BUSY: frozenset(
        {ReadState.READY, ReadState.BODY, ReadState.SESSION, ReadState.LINGER}
    ),
    ReadState.BODY: frozenset({ReadState.BUSY, ReadState.LINGER}),
    # a WebSocket that is denied is answered with HTTP
    ReadState.SESSION: frozenset({ReadState.BUSY, ReadState.LINGER}),
    ReadState.LINGER: frozenset(),
}


#: The names of the states, for metrics. READY has two, by whether a part of a head is here.
READ_STATE_NAMES = {
    ReadState.BUSY: "serving",
    ReadState.BODY: "body",
    ReadState.SESSION: "websocket",
    ReadState.LINGER: "lingering",
}


# ---- A response -------------------------------------------------------------------------------


class ResponseState(IntEnum):
    """How far the response is. The order counts: see `Cycle.headers_sent`."""

    NEW = 0
    STARTED = 1  # status and headers are known, and not sent
    STREAMING = 2  # the head is sent, and a part of the body
    TRAILERS = 3  # the body is complete
    DONE = 4


RESPONSE_TRANSITIONS: dict[ResponseState, frozenset[ResponseState]] = {
    ResponseState.NEW: frozenset({ResponseState.STARTED, ResponseState.DONE}),
    ResponseState.STARTED: frozenset(
        {ResponseState.STREAMING, ResponseState.TRAILERS, ResponseState.DONE}
    ),
    # each block of a client that has left, and each answer to HEAD, is a step of its own
    ResponseState.STREAMING: frozenset(
        {ResponseState.STREAMING, ResponseState.TRAILERS, ResponseState.DONE}
    ),
    ResponseState.TRAILERS: frozenset({ResponseState.TRAILERS, ResponseState.DONE}),
    ResponseState.DONE: frozenset(),
}


class Pushed(IntEnum):
    """What became of a block that was pushed to a response stream."""

    REFUSED = 0  # nothing was done: `write` takes it
    TURN_OVER = 1  # the same, and others should have a turn
    DONE = 2
    HELD = 3  # it waits, the first to do so: `flush` is to be called
    FULL = 4  # done, and the client should read before more is sent


# ---- A WebSocket ------------------------------------------------------------------------------


class SessionState(Enum):
    """How far a WebSocket is. The values are words of error messages."""

    CONNECTING = "not accepted yet"
    OPEN = "open"
    DENYING = "being denied"
    CLOSING = "closed by the application"  # a close frame was sent; the client's is to come
    CLOSED = "closed"


SESSION_TRANSITIONS: dict[SessionState, frozenset[SessionState]] = {
    SessionState.CONNECTING: frozenset(
        {SessionState.OPEN, SessionState.DENYING, SessionState.CLOSED}
    ),
    SessionState.OPEN: frozenset({SessionState.CLOSING, SessionState.CLOSED}),
    # back to CONNECTING where the head of the denial cannot go on the wire
    SessionState.DENYING: frozenset({SessionState.CONNECTING, SessionState.CLOSED}),
    SessionState.CLOSING: frozenset({SessionState.CLOSED}),
    SessionState.CLOSED: frozenset(),
}
