"""Where a timeout is enforced: what each waiting state waits for, how long, and what follows.

One table for threads and loops. A connection has one absolute `deadline`, which is set when a
wait begins and does not move with the octets that trickle in. The poller, or a loop once a second,
hands an overdue connection to the code that serves its state, which asks `is_overdue` and does
what the table says.

The deadlines of a body and of an answer grow by what `min_rate` grants for the octets that have
come or gone (`http1.request_body`, `http1.send_buffer`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from .connection import State

if TYPE_CHECKING:
    from .config import ServerConfig
    from .connection import Connection


class Expiry(NamedTuple):
    """What follows when a wait has lasted too long."""

    #: The option that gives the seconds.
    option: str
    #: Why the connection ends, for the log and the lifecycle collector.
    reason: str
    #: The status of the answer that is given first; 0: the connection ends without one.
    status: int = 0
    #: The cause that a lifecycle collector is told (see `lifecycle.Refused`); empty: none.
    refused: str = ""


#: For each state in which a connection waits for its client or its proxy.
EXPIRIES: dict[State, Expiry] = {
    State.PROXY_HEADER: Expiry(
        "proxy_protocol_timeout", "no PROXY header came in time", refused="proxy"
    ),
    State.HANDSHAKE: Expiry("handshake_timeout", "TLS handshake timeout", refused="tls"),
    # the first request of a connection has `head_timeout`: see `first_wait` and `idle_reason`
    State.IDLE: Expiry("keep_alive", "keep-alive timeout"),
    State.HEAD: Expiry("head_timeout", "The request did not arrive in time", status=408),
    State.BODY: Expiry("body_timeout", "The request did not arrive in time", status=408),
    State.WRITING: Expiry("write_timeout", "the client did not read its response in time"),
    State.LINGERING: Expiry("linger_timeout", "answered the last request"),
}


def is_overdue(conn: Connection, now: float) -> bool:
    """Whether the wait of `conn` has lasted too long at `now`, in the seconds of
    `time.monotonic`."""
    return now >= conn.deadline


def first_wait(config: ServerConfig, *, encrypted: bool) -> tuple[State, float]:
    """What a new connection waits for first, and how many seconds it may take."""
    if config.proxies.protocol:
        return State.PROXY_HEADER, config.proxies.timeout
    if encrypted:
        return State.HANDSHAKE, config.timeouts.handshake
    return State.IDLE, config.timeouts.head


def idle_reason(conn: Connection) -> str:
    """Why an idle connection is closed when its time is up."""
    return EXPIRIES[State.IDLE].reason if conn.requests else "no request came"
