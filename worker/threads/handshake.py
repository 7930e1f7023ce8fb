"""What comes before a request: the PROXY header, the TLS handshake, and other waits that end.

These functions run on the thread that owns the connection. None of the waits holds a thread.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from ..connection import Connection, State
from ..deadlines import is_overdue
from ..errors import CleartextRequest
from ..lifecycle import ConnectionOpened
from ..system.readiness import has_input, has_octets
from ..tls.wrong_port import WITHOUT_TLS
from . import finalize
from .finalize import close, drain_input, expire, finished, linger, park_writing, refuse, refused

if TYPE_CHECKING:
    from ..tls.session import TLSSocket
    from .thread_state import ThreadState

log = logging.getLogger("threadwell")

# Global names are found more quickly than members of an Enum, or of a module.
_SERVING, _IDLE = State.SERVING, State.IDLE
_monotonic = time.monotonic


def resume(worker: ThreadState, conn: Connection, before: State) -> bool:
    """Go on where `conn`, which is SERVING now, waited; whether its input is to be read now.

    Raises `ClientDisconnected`.
    """
    if before is _SERVING:
        first, seconds = worker.first_waits[conn.encrypted]
        conn.deadline = _monotonic() + seconds
        if worker.collector is not None:
            worker.collector.record(ConnectionOpened(conn.peer))
        return _has_come(worker, conn) if first is _IDLE else resume(worker, conn, first)
    if before is State.PROXY_HEADER:
        return _read_proxy_header(worker, conn)
    if before is State.HANDSHAKE:
        return _advance_handshake(worker, conn)
    if before is State.WRITING:
        send_buffer = conn.send_buffer
        assert send_buffer is not None
        if not send_buffer.flush(conn):
            park_writing(worker, conn)
            return False
        conn.send_buffer = None
        return finished(worker, conn)
    if before is State.LINGERING:
        drain_input(worker, conn)
        return False
    return True


def _wait(worker: ThreadState, conn: Connection, state: State) -> None:
    """Wait on in `state`, unless the time is up."""
    now = time.monotonic()
    if is_overdue(conn, now):
        expire(worker, conn, state)
    else:
        conn.become(state)
        worker.poller.park(conn, now)


def _read_proxy_header(worker: ThreadState, conn: Connection) -> bool:
    """Continue with the PROXY header, and with what follows it."""
    from ..proxies import proxy_header  # which only servers behind such a proxy need

    assert worker.forwarding is not None
    try:
        proxy_header.advance(conn, worker.forwarding)
    except BlockingIOError:
        _wait(worker, conn, State.PROXY_HEADER)
        return False
    except proxy_header.ProxyHeaderRejected as error:
        proxy_header.log_rejection(conn, worker.throttled_log, error)
        refused(worker, conn, "proxy")
        close(worker, conn, str(error))
        return False
    except OSError as error:
        close(worker, conn, f"lost: {error}")
        return False
    timeouts = worker.config.timeouts
    if conn.encrypted:
        conn.deadline = time.monotonic() + timeouts.handshake
        return _advance_handshake(worker, conn)
    conn.deadline = time.monotonic() + timeouts.head
    return bool(conn.buffer) or _has_come(worker, conn)


def _has_come(worker: ThreadState, conn: Connection) -> bool:
    """Whether octets of the first request have come; else the connection is parked.

    A `recv` that fails would take longer.
    """
    if conn.blocking or has_octets(conn.fd, worker.octets):
        return True
    finalize.park_unfinished(worker, conn)
    return False


def _advance_handshake(worker: ThreadState, conn: Connection) -> bool:
    """Go on with the TLS handshake; whether it is complete and input is to be read here."""
    sock = cast("TLSSocket", conn.sock)
    try:
        done = sock.handshake()
    except CleartextRequest:
        _answer_without_tls(worker, conn, sock)
        return False
    except OSError as error:
        log.debug("The TLS handshake of %s failed: %s", conn.client[0], error)
        conn.wants_write = False
        refused(worker, conn, "tls")
        if has_input(conn.fd):  # closing would reset away the alert that says why
            linger(worker, conn)
        else:
            close(worker, conn, f"TLS handshake failed: {error}")
        return False
    conn.wants_write = sock.wants_write
    if not done:
        _wait(worker, conn, State.HANDSHAKE)
        return False
    now = time.monotonic()
    conn.deadline = now + worker.config.timeouts.head
    if sock.protocol == "h2" and worker.pool.http2 is not None:
        _hand_to_http2(worker, conn)
        return False
    worker.poller.linger(now)
    return True


def _hand_to_http2(worker: ThreadState, conn: Connection) -> None:
    """Give `conn` to the loops of HTTP/2.

    It stays in `Poller.connections`: its requests are this pool's, so the pool is not drained
    before they are answered.
    """
    loops = worker.pool.http2
    assert loops is not None
    worker.poller.release(conn)
    conn.become(State.ADOPTED)
    try:
        loops.adopt_http2(conn, worker.pool)
    except RuntimeError as error:
        close(worker, conn, str(error))


def _answer_without_tls(worker: ThreadState, conn: Connection, sock: TLSSocket) -> None:
    """Refuse a request without TLS on a port with it; the client can read an answer without it."""
    plain = sock.without_tls()
    conn.sock, conn.recv, conn.send = plain, plain.recv, plain.send
    conn.origin, conn.encrypted = replace(conn.origin, scheme="http"), False
    worker.wrong_port.without_tls(conn.peer, conn.server)
    refuse(worker, conn, 400, WITHOUT_TLS)
