"""What becomes of a request when something is raised.

Functions of the thread that owns the connection; `worker` is its `SyncWorker`.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from .connection import Connection, State
from .errors import ClientDisconnected, NeedsAsyncError, StreamLimitError
from .messages import Request, Response
from .request_id import named
from .threads import finalize, fork_guard, streaming

if TYPE_CHECKING:
    from .sync_worker import SyncWorker

log = logging.getLogger("threadwell")

_TEXT = ("Content-Type", "text/plain; charset=utf-8")


def trouble(worker: SyncWorker, conn: Connection, request: Request, error: BaseException) -> None:
    """Something was raised while a request was answered: answer that, if it is possible."""
    if worker.poller.forked:
        fork_guard.leave(error)
    try:
        _mend(worker, conn, request, error)
    except BaseException:
        # the seat is not the price, whatever it was
        if worker.lent:
            streaming.give_back(worker, conn, request)
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
            _log_failure(request, error)
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
        finalize.note_answer(conn, request.head, answer)


def failed(request: Request, error: BaseException) -> Response:
    """The answer for an application that raised: no word of why, but in the log."""
    if isinstance(error, StreamLimitError):
        log.warning("%s was refused: %s", named(request.head), error)
        return Response(503, [("Retry-After", "5"), _TEXT], b"Too many streams are open\n")
    _log_failure(request, error)
    return Response(500, [_TEXT], b"Internal Server Error\n")


def _log_failure(request: Request, error: BaseException) -> None:
    log.error("The application failed on %s", named(request.head), exc_info=error)


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
