"""How a thread's turn with a connection ends: it is parked, it lingers, or it is closed.

These functions run on the thread that owns the connection. `Poller.park` is the last thing that any
of them does with a connection. From then on another thread may own it, and not even its state may
be looked at.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING, cast

from ..connection import Connection, State
from ..deadlines import EXPIRIES, idle_reason, is_overdue
from ..errors import ClientDisconnected
from ..http.error_response import log_limit, refusal
from ..http1.budgets import RECV_SIZE, RECVS_PER_TURN
from ..lifecycle import ClientGone, ConnectionClosed, Refused, ResponseCompleted
from ..system.readiness import has_input, has_octets

if TYPE_CHECKING:
    from ..tls.session import TLSSocket
    from .thread_state import ThreadState

_IDLE = State.IDLE
_monotonic = time.monotonic
_LAST_ANSWER = EXPIRIES[State.LINGERING].reason


# ---- Waiting -------------------------------------------------------------------------------


def park(worker: ThreadState, conn: Connection, state: State, seconds: float) -> None:
    """Give `conn` to the poller, for `seconds` at most."""
    now = time.monotonic()
    conn.become(state)
    conn.deadline = now + seconds
    worker.poller.park(conn, now)


def park_unfinished(worker: ThreadState, conn: Connection) -> None:
    """Wait for the rest of a request that is not whole, unless its time is up."""
    now = _monotonic()
    if conn.head is not None:
        state = State.BODY
        assert conn.body is not None
        conn.deadline = conn.body.deadline
    elif conn.head_buffer:
        state = State.HEAD
        if not conn.head_deadline:
            conn.head_deadline = now + worker.config.timeouts.head
        conn.deadline = conn.head_deadline
    else:
        state = _IDLE
    if state is _IDLE:
        if (worker.poller.draining or now >= conn.deadline) and _close_overdue_idle(
            worker, conn, now
        ):
            return
    elif is_overdue(conn, now):
        expiry = EXPIRIES[state]
        refuse(worker, conn, expiry.status, expiry.reason)
        return
    if conn.encrypted:
        conn.wants_write = cast("TLSSocket", conn.sock).wants_write
    conn.state = state  # from SERVING: the call of `become` can be saved
    worker.poller.park(conn, now)


def _close_overdue_idle(worker: ThreadState, conn: Connection, now: float) -> bool:
    """Close a connection whose time is up before a request has begun to come; whether it was."""
    stops = worker.poller.draining and now >= worker.poller.idle_until
    if not stops and not is_overdue(conn, now):
        return False
    if has_input(conn.fd):
        # it has come since the last look, which was before the time was up: it is answered
        return False
    close(worker, conn, "the server stops" if stops else idle_reason(conn))
    return True


def expire(worker: ThreadState, conn: Connection, state: State) -> None:
    """End a connection that has waited too long in `state`, as `deadlines.EXPIRIES` has it."""
    expiry = EXPIRIES[state]
    if expiry.refused:
        refused(worker, conn, expiry.refused)
    close(worker, conn, expiry.reason)


def refused(worker: ThreadState, conn: Connection, cause: str) -> None:
    """Tell the collector of a refusal; see `lifecycle.Refused`."""
    if worker.collector is not None:
        worker.collector.record(Refused(conn.client, cause))


def park_writing(worker: ThreadState, conn: Connection) -> None:
    """Wait for the client to read. Raises `ClientDisconnected` when it had its time."""
    assert conn.send_buffer is not None
    now = time.monotonic()
    # octets that the client sends before it has read everything would make `close` reset the rest
    conn.linger = conn.linger or not conn.send_buffer.persistent
    conn.deadline = conn.send_buffer.deadline
    if is_overdue(conn, now):
        raise ClientDisconnected(EXPIRIES[State.WRITING].reason)
    conn.become(State.WRITING)
    worker.poller.park(conn, now)


# ---- After an answer -----------------------------------------------------------------------


def after_answer(worker: ThreadState, conn: Connection) -> bool:
    """The kernel has an answer, or a part of it. Whether `conn` can go on at once."""
    if conn.send_buffer is not None:
        if not conn.blocking:
            park_writing(worker, conn)
            return False
        while not conn.send_buffer.flush(conn):
            pass
        conn.send_buffer = None
    if conn.persistent and conn.record is None and not worker.slot.lost:
        return True
    return finished(worker, conn)


def finished(worker: ThreadState, conn: Connection) -> bool:
    """An answer is out. Whether `conn` can go on at once; else it was parked or closed."""
    if conn.record is not None:
        completed(worker, conn, complete=True)
    if not conn.persistent:
        if conn.linger or conn.buffer or has_octets(conn.fd, worker.octets):
            linger(worker, conn)
        else:
            close(worker, conn, _LAST_ANSWER)
        return False
    if worker.slot.lost:
        # other threads have all the slots: the next that polls goes on with this connection
        worker.slot.lost = False
        timeouts = worker.config.timeouts
        if conn.buffer:
            park(worker, conn, State.YIELDED, timeouts.head)
        else:
            park(worker, conn, State.IDLE, timeouts.keep_alive)
        return False
    conn.deadline = time.monotonic() + worker.config.timeouts.keep_alive
    return True


def refuse(
    worker: ThreadState, conn: Connection, status: int, message: str, limit: str = ""
) -> None:
    """Answer `status` and end the connection; nothing more of it is executed (RFC 9112, 2.2).

    `limit` is the option that the request exceeds, if it is one.
    """
    answer_refusal(worker, conn, status, message, limit)
    if conn.state is not State.SERVING:
        return
    try:
        after_answer(worker, conn)
    except ClientDisconnected as error:
        close(worker, conn, str(error))


def answer_refusal(
    worker: ThreadState, conn: Connection, status: int, message: str, limit: str = ""
) -> None:
    """The first half of `refuse`. `conn` is still the caller's, or closed.

    `conn.linger` says that a request was refused, and that `after_answer` is due.
    """
    log_limit(worker.throttled_log, conn.client, status, limit)
    conn.reset_origin()
    if worker.collector is not None:
        conn.record = ResponseCompleted(None, time.monotonic())
        refused(worker, conn, str(status))
    response = refusal(status, message)
    conn.buffer = b""
    conn.head_buffer = None
    conn.linger = True
    try:
        conn.persistent = worker.writer.answer(
            conn, None, response.status, response.headers, response.body, False
        )
        if conn.record is not None:
            conn.record.note(None, response)
    except ClientDisconnected as error:
        close(worker, conn, str(error))


def completed(worker: ThreadState, conn: Connection, *, complete: bool) -> None:
    """Tell the collector that the answer under way is out, or given up."""
    record, conn.record = conn.record, None
    if record is not None and worker.collector is not None:
        worker.collector.record(record.end(conn.client, conn.peer, complete))


# ---- Closing -------------------------------------------------------------------------------


def linger(worker: ThreadState, conn: Connection) -> None:
    """Send an end of output, and read on for a while (RFC 9112, 9.6).

    Closing at once would reset the connection, and with it the answer that is on its way.
    """
    conn.buffer = b""
    if not worker.config.timeouts.linger:
        close(worker, conn, _LAST_ANSWER)
        return
    try:
        conn.sock.shutdown(socket.SHUT_WR)
    except OSError:
        close(worker, conn, "reset by the client")
        return
    if conn.blocking:
        _read_to_the_end(worker, conn)
        return
    park(worker, conn, State.LINGERING, worker.config.timeouts.linger)


def _read_to_the_end(worker: ThreadState, conn: Connection) -> None:
    """Linger on a blocking socket, which no poller has."""
    deadline = time.monotonic() + worker.config.timeouts.linger
    try:
        while has_input(conn.fd, deadline - time.monotonic()) and conn.recv(RECV_SIZE):
            pass
    except OSError:
        pass
    close(worker, conn, _LAST_ANSWER)


def drain_input(worker: ThreadState, conn: Connection) -> None:
    """Discard what a lingering connection has received, until the client has closed too."""
    try:
        for _ in range(RECVS_PER_TURN):
            if not conn.recv(RECV_SIZE):
                close(worker, conn, _LAST_ANSWER)
                return
    except BlockingIOError:
        pass
    except OSError:
        close(worker, conn, _LAST_ANSWER)
        return
    now = time.monotonic()
    if is_overdue(conn, now):
        close(worker, conn, _LAST_ANSWER)
        return
    conn.become(State.LINGERING)
    worker.poller.park(conn, now)


def client_gone(worker: ThreadState, conn: Connection, why: str) -> None:
    """Close a connection whose client left before it had its answer."""
    try:
        if worker.collector is not None and conn.record is not None and conn.record.request:
            worker.collector.record(ClientGone(conn.record.request))
    finally:
        close(worker, conn, f"client gone: {why}")


def close(worker: ThreadState, conn: Connection, reason: str) -> None:
    """End the connection. `reason` is for the lifecycle collector."""
    try:
        if conn.record is not None:
            completed(worker, conn, complete=False)
    finally:
        conn.close()
        worker.poller.forget(conn)
    if worker.collector is not None:
        worker.collector.record(ConnectionClosed(conn.peer, reason, conn.requests))
