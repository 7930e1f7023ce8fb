"""How a turn with a connection ends: it waits for something, it lingers, or it is closed.

Functions of the thread that owns the connection; `worker` is its `SyncWorker`. `Poller.park` is
the last thing that any of them does with a connection: from then on it is another's, and not even
its state may be looked at.
"""

from __future__ import annotations

import http
import logging
import socket
import time
from typing import TYPE_CHECKING, cast

from ..connection import Connection, State
from ..errors import ClientDisconnected, PlainRequest
from ..lifecycle import ClientGone, ConnectionClosed, ConnectionOpened, Refused, ResponseCompleted
from ..messages import FileBody, RequestReceived, Response
from ..proxies import proxy_header
from ..system.readiness import has_input
from ..tls.wrong_port import WITHOUT_TLS

if TYPE_CHECKING:
    from ..sync_worker import SyncWorker
    from ..tls.session import TLSSocket

log = logging.getLogger("threadwell")

# What is read of a lingering connection in one turn.
_RECEIVES_A_TURN = 16
_RECEIVED_AT_ONCE = 65536

# The codes of the usual answers with a body, however they are written: to read a number out of a
# text takes several times as long.
_WITH_BODY: dict[int | str, int] = {
    written: int(status)
    for status in http.HTTPStatus
    if status not in (204, 304)
    for written in (int(status), f"{int(status)} {status.phrase}")
}
# Where `RequestReceived.plain` is; HEAD is not.
_PLAIN = RequestReceived._fields.index("plain")


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


def resume(worker: SyncWorker, conn: Connection, before: State) -> bool:
    """Go on where `conn` waited; whether its input is to be read now.

    Raises `ClientDisconnected`.
    """
    if before is State.SERVING:
        _opened(worker, conn)
        if worker.config.proxies.protocol:
            return _read_preface(worker, conn)
        return not conn.encrypted or _shake_hands(worker, conn)
    if before is State.PREFACE:
        return _read_preface(worker, conn)
    if before is State.HANDSHAKE:
        return _shake_hands(worker, conn)
    if before is State.WRITING:
        outgoing = conn.outgoing
        assert outgoing is not None
        if not outgoing.flush(conn):
            _park_writing(worker, conn)
            return False
        conn.outgoing = None
        return finished(worker, conn)
    if before is State.LINGERING:
        _drain_input(worker, conn)
        return False
    return True


def _read_preface(worker: SyncWorker, conn: Connection) -> bool:
    """Go on with the PROXY header, and what comes behind it. It waits without a thread."""
    assert worker.forwarding is not None
    timeouts = worker.config.timeouts
    try:
        proxy_header.advance(conn, worker.forwarding)
    except BlockingIOError:
        now = time.monotonic()
        if now >= conn.deadline:
            _refused(worker, conn, "proxy")
            close(worker, conn, "no PROXY header came in time")
        else:
            conn.become(State.PREFACE)
            worker.poller.park(conn, now)
        return False
    except proxy_header.PrefaceError as error:
        proxy_header.complain(conn, worker.seldom, error)
        _refused(worker, conn, "proxy")
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
        _refused(worker, conn, "tls")
        if has_input(conn.fd):  # closing would reset away the alert that says why
            _linger(worker, conn)
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
        _refused(worker, conn, "tls")
        close(worker, conn, "TLS handshake timeout")
    else:
        conn.become(State.HANDSHAKE)
        worker.poller.park(conn, now)
    return done


def _refused(worker: SyncWorker, conn: Connection, cause: str) -> None:
    if worker.collector is not None:
        worker.collector.record(Refused(conn.client, cause))


def _hand_to_http2(worker: SyncWorker, conn: Connection) -> bool:
    """Give `conn` to the loops of HTTP/2. It stays in `Poller.connections`, for its requests are
    this server's: it is not drained before they are answered. False: it is read there."""
    pool = worker.http2_pool
    assert pool is not None
    worker.poller.release(conn)
    conn.become(State.ADOPTED)
    try:
        pool.adopt_http2(conn, worker.crew)
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


def _park_writing(worker: SyncWorker, conn: Connection) -> None:
    assert conn.outgoing is not None
    now = time.monotonic()
    # what the client sends until it has read all this would reset the rest away
    conn.linger = conn.linger or not conn.outgoing.persistent
    conn.deadline = conn.outgoing.deadline
    if now >= conn.deadline:
        raise ClientDisconnected("the client did not read its response in time")
    conn.become(State.WRITING)
    worker.poller.park(conn, now)


# ---- After an answer -----------------------------------------------------------------------


def after_answer(worker: SyncWorker, conn: Connection) -> bool:
    """An answer was given to the kernel, or a part of it. Whether `conn` can go on at once."""
    if conn.outgoing is not None:
        if not conn.blocking:
            _park_writing(worker, conn)
            return False
        while not conn.outgoing.flush(conn):
            pass
        conn.outgoing = None
    if conn.persistent and conn.record is None and not worker.lost_seat:
        return True
    return finished(worker, conn)


def finished(worker: SyncWorker, conn: Connection) -> bool:
    """An answer is out. Whether `conn` can go on at once; else it was parked or closed."""
    if conn.record is not None:
        completed(worker, conn, complete=True)
    if not conn.persistent:
        if conn.linger or conn.buffer or has_input(conn.fd):
            _linger(worker, conn)
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
        _refused(worker, conn, str(status))
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


def note_answer(conn: Connection, head: RequestReceived | None, response: Response) -> None:
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
    if head is not None and not head[_PLAIN] and head.method == "HEAD":
        return
    body = response.body
    if isinstance(body, bytes):
        record.body_bytes = len(body)
    elif isinstance(body, list):
        record.body_bytes = sum(map(len, body))
    elif isinstance(body, FileBody):
        record.body_bytes = body.count


def completed(worker: SyncWorker, conn: Connection, *, complete: bool) -> None:
    """Tell the collector that the answer under way is out, or given up."""
    record, conn.record = conn.record, None
    if record is not None and worker.collector is not None:
        worker.collector.record(record.end(conn.client, conn.peer, complete))


# ---- Closing -------------------------------------------------------------------------------


def _linger(worker: SyncWorker, conn: Connection) -> None:
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


def _drain_input(worker: SyncWorker, conn: Connection) -> None:
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
