"""What comes before the first request of a connection: the PROXY header and the TLS handshake."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, cast

from ..connection import Connection, State
from ..errors import PlainRequest
from ..lifecycle import ConnectionOpened
from ..proxies import proxy_header
from ..system.readiness import has_input
from ..tls.wrong_port import WITHOUT_TLS
from .finalize import (
    close,
    drain_input,
    finished,
    linger,
    park_writing,
    refuse,
    refused,
)

if TYPE_CHECKING:
    from ..sync_worker import SyncWorker
    from ..tls.session import TLSSocket

log = logging.getLogger("threadwell")


def resume(worker: SyncWorker, conn: Connection, before: State) -> bool:
    """Go on where `conn` waited; whether its input is to be read now.

    Raises `ClientDisconnected`.
    """
    if before is State.SERVING:
        _opened(worker, conn)
        if worker.config.proxies.protocol:
            return _read_proxy_header(worker, conn)
        return not conn.encrypted or _shake_hands(worker, conn)
    if before is State.PROXY_HEADER:
        return _read_proxy_header(worker, conn)
    if before is State.HANDSHAKE:
        return _shake_hands(worker, conn)
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


def _read_proxy_header(worker: SyncWorker, conn: Connection) -> bool:
    """Go on with the PROXY header, and what comes behind it. It waits without a thread."""
    assert worker.forwarding is not None
    timeouts = worker.config.timeouts
    try:
        proxy_header.advance(conn, worker.forwarding)
    except BlockingIOError:
        now = time.monotonic()
        if now >= conn.deadline:
            refused(worker, conn, "proxy")
            close(worker, conn, "no PROXY header came in time")
        else:
            conn.become(State.PROXY_HEADER)
            worker.poller.park(conn, now)
        return False
    except proxy_header.ProxyHeaderRejected as error:
        proxy_header.complain(conn, worker.throttled_log, error)
        refused(worker, conn, "proxy")
        close(worker, conn, str(error))
        return False
    except OSError as error:
        close(worker, conn, f"lost: {error}")
        return False
    if conn.encrypted:
        conn.deadline = time.monotonic() + timeouts.handshake
        return _shake_hands(worker, conn)
    conn.deadline = time.monotonic() + timeouts.head
    return True


def _shake_hands(worker: SyncWorker, conn: Connection) -> bool:
    """Go on with the TLS handshake; whether it is done. It waits without a thread."""
    sock = cast("TLSSocket", conn.sock)
    try:
        done = sock.handshake()
    except PlainRequest:
        _answer_plainly(worker, conn, sock)
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
    now = time.monotonic()
    conn.wants_write = sock.wants_write
    if done:
        conn.deadline = now + worker.config.timeouts.head
        if sock.protocol == "h2" and worker.http2_pool is not None:
            return _hand_to_http2(worker, conn)
        worker.poller.linger(now)
    elif now >= conn.deadline:
        refused(worker, conn, "tls")
        close(worker, conn, "TLS handshake timeout")
    else:
        conn.become(State.HANDSHAKE)
        worker.poller.park(conn, now)
    return done


def _hand_to_http2(worker: SyncWorker, conn: Connection) -> bool:
    """Give `conn` to the loops of HTTP/2. It stays in `Poller.connections`, for its requests are
    this server's: it is not drained before they are answered. False: it is read there."""
    pool = worker.http2_pool
    assert pool is not None
    worker.poller.release(conn)
    conn.become(State.ADOPTED)
    try:
        pool.adopt_http2(conn, worker.pool)
    except RuntimeError as error:
        close(worker, conn, str(error))
    return False


def _answer_plainly(worker: SyncWorker, conn: Connection, sock: TLSSocket) -> None:
    """A request without TLS, on a port with it: the client can read the answer without, too."""
    plain = sock.without_tls()
    conn.sock, conn.recv, conn.send = plain, plain.recv, plain.send
    conn.scheme, conn.encrypted = "http", False
    worker.wrong_port.without_tls(conn)
    refuse(worker, conn, 400, WITHOUT_TLS)


def _opened(worker: SyncWorker, conn: Connection) -> None:
    """A new connection. Until its first octet it is idle, but not for as long as a known one."""
    timeouts, proxies = worker.config.timeouts, worker.config.proxies
    if proxies.protocol:
        seconds = proxies.timeout
    else:
        seconds = timeouts.handshake if conn.encrypted else timeouts.head
    conn.deadline = time.monotonic() + seconds
    if worker.collector is not None:
        worker.collector.record(ConnectionOpened(conn.peer))
