"""One request, one answer.

    exchange
      sync_app(request)               once
      ResponseWriter.answer           a body that is there
      streaming.stream_body           one that is being made, or follows what was pushed
      trouble                         whatever is raised, by whom ever
      endings.after_answer            where the answer was not the usual one

Functions of the thread that owns the connection; `worker` is its `SyncWorker`.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from typing import TYPE_CHECKING, BinaryIO

from ..connection import Connection, State
from ..errors import ClientDisconnected, NeedsAsyncError, ProtocolError
from ..http.error_response import failed, log_failure
from ..http.request_meta import _classify_request
from ..http.response_body import close_body, close_response
from ..lifecycle import SAMPLED, RequestStarted, RequestWaited, ResponseCompleted, note_answer
from ..messages import IS_SIMPLE, FileBody, Request, RequestReceived, Response
from ..request_id import enter, named
from . import finalize, fork_guard, streaming

if TYPE_CHECKING:
    from ..sync_worker import SyncWorker

log = logging.getLogger("threadwell")

# The constructor of a named tuple, without the Python function around it.
_new = tuple.__new__
_monotonic = time.monotonic


def exchange(
    worker: SyncWorker, conn: Connection, head: RequestReceived, body: bytes | BinaryIO
) -> bool:
    """Run the application once, and answer. Whether the connection can go on at once.

    If not it is parked, closed, hijacked or handed off. Raises `ClientDisconnected`.
    """
    conn.requests += 1
    worker.served += 1
    conn.usual = True
    conn.worker = worker
    conn.notes = worker.notes
    request = _new(Request, (head, body, conn))
    close = response = None
    try:
        conn.persistent = persistent = worker.persistent
        if not head[IS_SIMPLE]:
            conn.persistent = persistent = _steer(worker, head) and persistent
        if worker.watched:
            request = _watch(worker, conn, request, body)
        response = worker.sync_app(request)
        if worker.poller.draining:
            conn.persistent = persistent = False
        if response is None:
            _no_response(conn)
        else:
            content, close = response[2:4]  # unpacks faster than the named tuple
            if type(content) is bytes and conn.usual:
                conn.persistent = persistent = worker.writer.answer(
                    conn, head, response, persistent
                )
            elif type(content) is bytes and conn.usual is None:
                note_answer(conn, head, response)
                conn.persistent = persistent = worker.writer.answer(
                    conn, head, response, persistent
                )
            else:
                close = close or getattr(content, "close", None)
                if _is_for_a_loop(worker, conn, content):
                    raise NeedsAsyncError("its answer is asynchronous")
                _respond(worker, conn, request, response)
    except BaseException as error:
        # an exception of any kind, SystemExit too, costs a request and not a thread
        handle_exception(worker, conn, request, error)
    finally:
        conn.worker = None
        if close is not None and conn.state is not State.ADOPTED:
            close_response(close)
        if type(body) is not bytes and conn.state is not State.ADOPTED:
            close_body(body)
    return (conn.usual and persistent) or _settled(worker, conn, request, response)


def exchange_forwarded(
    worker: SyncWorker, conn: Connection, head: RequestReceived, body: bytes | BinaryIO
) -> bool:
    """`exchange`, for requests that come through proxies which are trusted."""
    assert worker.forwarding is not None
    try:
        head = worker.forwarding.amend(conn, head)
    except ProtocolError as error:
        close_body(body)
        finalize.refuse(worker, conn, error.status, error.message)
        return False
    return exchange(worker, conn, head, body)


def _settled(
    worker: SyncWorker, conn: Connection, request: Request, response: Response | None
) -> bool:
    """The end of an exchange that is not the usual one. Whether `conn` can go on at once."""
    if worker.poller.forked:
        fork_guard.leave(None)
    if conn.usual is None:
        # the short way, where somebody is to be told
        record, conn.record = conn.record, None
        assert record is not None
        worker.completed(record.end(conn.client, conn.peer, True))
        if conn.persistent:
            return True
    if conn.state is State.ADOPTED:
        _adopted(worker, conn, request, response)
        return False
    try:
        if conn.hijacked is not None:
            streaming.end_hijack(worker, conn)
    finally:
        if worker.lent:
            streaming.release_slot(worker, conn, request)
    if conn.state is not State.SERVING:
        return False
    return finalize.after_answer(worker, conn)


def _adopted(
    worker: SyncWorker, conn: Connection, request: Request, response: Response | None
) -> None:
    assert worker.async_pool is not None
    conn.worker = worker  # the way back
    answer = () if response is None else (response,)
    worker.poller.begin_handoff(conn)
    try:
        worker.async_pool.adopt(conn, request, worker.lifespan_state, *answer)
    except BaseException:
        close_body(request.body)
        if response is not None and response.close is not None:
            close_response(response.close)
        raise
    finally:
        worker.poller.end_handoff()
    worker.handed_off = True


def _steer(worker: SyncWorker, head: RequestReceived) -> bool:
    """Whether the client leaves the connection open. Raises `NeedsAsyncError`."""
    meta = _classify_request(head)
    if meta.websocket and worker.async_pool is not None:
        raise NeedsAsyncError("a WebSocket")
    return not meta.close


def _no_response(conn: Connection) -> None:
    if conn.hijacked is None:
        raise NeedsAsyncError("the application has no answer without an event loop")


def _is_for_a_loop(worker: SyncWorker, conn: Connection, content: object) -> bool:
    """Whether a loop has to send it, or the one that may be asked for it either way is there."""
    if not hasattr(content, "__aiter__") or conn.state is not State.SERVING:
        return False
    return worker.async_pool is not None or not hasattr(content, "__iter__")


def _respond(worker: SyncWorker, conn: Connection, request: Request, response: Response) -> None:
    """Send a body that is not plain bytes, or follows what was pushed."""
    conn.usual = False
    if conn.record is not None:
        with contextlib.suppress(ValueError, TypeError):  # the writer says what is wrong with it
            note_answer(conn, request.head, response)
    if conn.hijacked is not None:
        if isinstance(response.body, FileBody):
            os.close(response.body.fd)
    elif conn.stream_writer is None and isinstance(response.body, (bytes, list, FileBody)):
        conn.persistent = worker.writer.answer(conn, request.head, response, conn.persistent)
    else:
        streaming.stream_body(worker, conn, request, response)


def _watch(
    worker: SyncWorker, conn: Connection, request: Request, body: bytes | BinaryIO
) -> Request:
    """Give the request its id, and tell the collector of it; the request with its id."""
    if worker.request_ids is not None:
        head = worker.request_ids.give(conn, request.head)
        request = _new(Request, (head, body, conn))
        enter(conn.request_id)
    collector = worker.collector
    if collector is None:
        return request
    conn.usual = None
    conn.record = record = ResponseCompleted(request, _monotonic())
    if body:
        record.received = len(body) if isinstance(body, bytes) else _size(body)
    if conn.request_id:
        record.request_id = conn.request_id
    if worker.announcing:
        collector.record(RequestStarted(request))
    if worker.sampling and worker.served % SAMPLED == 1:
        waited = conn.waited()
        if waited is not None:
            collector.record(RequestWaited(request, waited))
    return request


def _size(body: BinaryIO) -> int:
    return os.fstat(body.fileno()).st_size


def handle_exception(
    worker: SyncWorker, conn: Connection, request: Request, error: BaseException
) -> None:
    """Something was raised while a request was answered: answer that, if it is possible."""
    if worker.poller.forked:
        fork_guard.leave(error)
    try:
        _mend(worker, conn, request, error)
    except BaseException:
        # the seat is not the price, whatever it was
        if worker.lent:
            streaming.release_slot(worker, conn, request)
        raise


def _mend(worker: SyncWorker, conn: Connection, request: Request, error: BaseException) -> None:
    conn.usual = False
    if isinstance(error, KeyboardInterrupt) and _in_main_thread():
        worker.shutdown_event.set()
    elif conn.state is State.CLOSED:  # so it is no failure of the application's
        raise error
    if conn.hijacked is not None:
        # how Werkzeug's server is told that the socket was used up, by Flask-SocketIO for one
        if not isinstance(error, (ClientDisconnected, ConnectionError)):
            log_failure(request, error)
    elif streaming.abort(worker, conn, request, error):
        pass
    elif isinstance(error, NeedsAsyncError):
        _hand_off(worker, conn, request, str(error))
    elif isinstance(error, ClientDisconnected):
        finalize.client_gone(worker, conn, str(error))
    else:
        _answer_failure(worker, conn, request, error)


def _answer_failure(
    worker: SyncWorker, conn: Connection, request: Request, error: BaseException
) -> None:
    answer = failed(request, error)
    try:
        conn.persistent = worker.writer.answer(conn, request.head, answer, conn.persistent)
    except ClientDisconnected as gone:
        finalize.client_gone(worker, conn, str(gone))
        return
    if conn.record is not None:
        note_answer(conn, request.head, answer)


def _hand_off(worker: SyncWorker, conn: Connection, request: Request, why: str) -> None:
    """Let the asyncio side adopt the connection; without one, say that there is none."""
    if worker.async_pool is None:
        log.error("%s needs the asyncio side: %s", named(request.head), why)
        finalize.answer_refusal(worker, conn, 501, "Not Implemented")
        return
    if conn.blocking:  # a loop must not be held up, nor the poller that it may come back to
        conn.sock.setblocking(False)
        conn.blocking = False
    conn.become(State.ADOPTED)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
