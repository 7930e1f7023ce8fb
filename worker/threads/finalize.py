"""How a turn with a connection ends: it waits for something, it lingers, or it is closed.

Functions of the thread that owns the connection; `worker` is its `SyncWorker`. `Poller.park` is
the last thing that any of them does with a connection: from then on it is another's, and not even
its state may be looked at.
"""

from __future__ import annotations

import logging
import socket
import time
from typing import TYPE_CHECKING, cast

from ..connection import Connection, State
from ..errors import ClientDisconnected
from ..lifecycle import (
    ClientGone,
    ConnectionClosed,
    Refused,
    ResponseCompleted,
    note_answer,
)
from ..messages import Response
from ..system.readiness import has_input

if TYPE_CHECKING:
    from ..sync_worker import SyncWorker
    from ..tls.session import TLSSocket

log = logging.getLogger("threadwell")

# What is read of a lingering connection in one turn.
_RECEIVES_A_TURN = 16
_RECEIVED_AT_ONCE = 65536


# ---- Waiting -------------------------------------------------------------------------------


def park(worker: SyncWorker, conn: Connection, state: State, seconds: float) -> None:
    """Give `conn` to the poller, for `seconds` at most."""
    now = time.monotonic()
    conn.become(state)
    conn.deadline = now + seconds
    worker.poller.park(conn, now)


def park_unfinished(worker: SyncWorker, conn: Connection) -> None:
    """A request is not whole: wait for the rest of it, unless its time is up."""
    now = time.monotonic()
    if conn.head is not None:
        state = State.BODY
        assert conn.body is not None
        conn.deadline = conn.body.deadline
    elif conn.pieces:
        state = State.HEAD
        if not conn.head_deadline:
            conn.head_deadline = now + worker.config.timeouts.head
        conn.deadline = conn.head_deadline
    else:
        state = State.IDLE
    if state is State.IDLE:
        if _is_over(worker, conn, now):
            return
    elif now >= conn.deadline:
        refuse(worker, conn, 408, "The request did not arrive in time")
        return
    if conn.encrypted:
        conn.wants_write = cast("TLSSocket", conn.sock).wants_write
    conn.become(state)
    worker.poller.park(conn, now)


def _is_over(worker: SyncWorker, conn: Connection, now: float) -> bool:
    """Close a connection whose time is up before a request has begun to come; whether it was."""
    stops = worker.poller.draining and now >= worker.poller.idle_until
    if not stops and now < conn.deadline:
        return False
    if has_input(conn.fd):
        return False  # the last look was before the time was up: what has come since is answered
    if stops:
        close(worker, conn, "the server stops")
    else:
        close(worker, conn, "keep-alive timeout" if conn.requests else "no request came")
    return True


def refused(worker: SyncWorker, conn: Connection, cause: str) -> None:
    if worker.collector is not None:
        worker.collector.record(Refused(conn.client, cause))


def park_writing(worker: SyncWorker, conn: Connection) -> None:
    assert conn.send_buffer is not None
    now = time.monotonic()
    # what the client sends until it has read all this would reset the rest away
    conn.linger = conn.linger or not conn.send_buffer.persistent
    conn.deadline = conn.send_buffer.deadline
    if now >= conn.deadline:
        raise ClientDisconnected("the client did not read its response in time")
    conn.become(State.WRITING)
    worker.poller.park(conn, now)


# ---- After an answer -----------------------------------------------------------------------


def after_answer(worker: SyncWorker, conn: Connection) -> bool:
    """An answer was given to the kernel, or a part of it. Whether `conn` can go on at once."""
    if conn.send_buffer is not None:
        if not conn.blocking:
            park_writing(worker, conn)
            return False
        while not conn.send_buffer.flush(conn):
            pass
        conn.send_buffer = None
    if conn.persistent and conn.record is None and not worker.lost_seat:
        return True
    return finished(worker, conn)


def finished(worker: SyncWorker, conn: Connection) -> bool:
    """An answer is out. Whether `conn` can go on at once; else it was parked or closed."""
    if conn.record is not None:
        completed(worker, conn, complete=True)
    if not conn.persistent:
        if conn.linger or conn.buffer or has_input(conn.fd):
            linger(worker, conn)
        else:
            close(worker, conn, "answered the last request")
        return False
    if worker.lost_seat:
        # other threads have all the seats: whoever polls next goes on with this connection
        worker.lost_seat = False
        timeouts = worker.config.timeouts
        if conn.buffer:
            park(worker, conn, State.YIELDED, timeouts.head)
        else:
            park(worker, conn, State.IDLE, timeouts.keep_alive)
        return False
    conn.deadline = time.monotonic() + worker.config.timeouts.keep_alive
    return True


def refuse(worker: SyncWorker, conn: Connection, status: int, message: str) -> None:
    """Answer `status` and end the connection; nothing more of it is executed (RFC 9112, 2.2)."""
    answer_refusal(worker, conn, status, message)
    if conn.state is not State.SERVING:
        return
    try:
        after_answer(worker, conn)
    except ClientDisconnected as error:
        close(worker, conn, str(error))


def answer_refusal(worker: SyncWorker, conn: Connection, status: int, message: str) -> None:
    """The first half of `refuse`: `conn` is still the caller's, or closed.

    `conn.linger` tells that it was refused, and that `after_answer` is due.
    """
    conn.represent_itself()
    if worker.collector is not None:
        conn.record = ResponseCompleted(None, time.monotonic())
        refused(worker, conn, str(status))
    headers = [("Content-Type", "text/plain; charset=utf-8")]
    response = Response(status, headers, message.encode("latin-1", "replace") + b"\n")
    conn.buffer = b""
    conn.pieces = None
    conn.linger = True
    try:
        conn.persistent = worker.writer.answer(conn, None, response, False)
        if conn.record is not None:
            note_answer(conn, None, response)
    except ClientDisconnected as error:
        close(worker, conn, str(error))


def completed(worker: SyncWorker, conn: Connection, *, complete: bool) -> None:
    """Tell the collector that the answer under way is out, or given up."""
    record, conn.record = conn.record, None
    if record is not None and worker.collector is not None:
        worker.collector.record(record.end(conn.client, conn.peer, complete))


# ---- Closing -------------------------------------------------------------------------------


def linger(worker: SyncWorker, conn: Connection) -> None:
    """Say that this was all, and read on for a while: closing now would reset the answer away.

    RFC 9112, 9.6.
    """
    conn.buffer = b""
    if not worker.config.timeouts.linger:
        close(worker, conn, "refused")
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


def _read_to_the_end(worker: SyncWorker, conn: Connection) -> None:
    """Linger on a blocking socket, which no poller has."""
    deadline = time.monotonic() + worker.config.timeouts.linger
    try:
        while has_input(conn.fd, deadline - time.monotonic()) and conn.recv(_RECEIVED_AT_ONCE):
            pass
    except OSError:
        pass
    close(worker, conn, "refused")


def drain_input(worker: SyncWorker, conn: Connection) -> None:
    try:
        for _ in range(_RECEIVES_A_TURN):
            if not conn.recv(_RECEIVED_AT_ONCE):
                close(worker, conn, "refused")
                return
    except BlockingIOError:
        pass
    except OSError:
        close(worker, conn, "refused")
        return
    now = time.monotonic()
    if now >= conn.deadline:
        close(worker, conn, "refused")
        return
    conn.become(State.LINGERING)
    worker.poller.park(conn, now)


def client_gone(worker: SyncWorker, conn: Connection, why: str) -> None:
    """The client left before it had its answer."""
    try:
        if worker.collector is not None and conn.record is not None and conn.record.request:
            worker.collector.record(ClientGone(conn.record.request))
    finally:
        close(worker, conn, f"client gone: {why}")


def close(worker: SyncWorker, conn: Connection, reason: str) -> None:
    """End the connection."""
    try:
        if conn.record is not None:
            completed(worker, conn, complete=False)
    finally:
        conn.close()
        worker.poller.forget(conn)
    if worker.collector is not None:
        worker.collector.record(ConnectionClosed(conn.peer, reason, conn.requests))
