"""One request, one answer.

    exchange
      sync_app(request)                     once
      ResponseWriter.answer                 a body that is there
      HTTP1Runner.respond                   a body that is being made, or follows what was pushed
      HTTP1Runner.recover_or_leave          whatever is raised
      _hand_off                             the request is for a loop
      finalize.finished                     where the answer was one send, and the last
      finalize.after_answer                 where it was more than one send, or is recorded

These functions run on the thread that owns the connection.
"""

from __future__ import annotations

import contextlib
import os
import time
from enum import Enum
from typing import TYPE_CHECKING, BinaryIO

from ..connection import Connection, ResponsePath, State
from ..errors import NeedsAsyncError, ProtocolError
from ..http.error_response import ASYNCHRONOUS_BODY, RETURNED_NONE
from ..http.request_meta import what_is_asked
from ..http.response_body import close_body, close_response
from ..lifecycle import (
    SAMPLED,
    RequestStarted,
    start_record,
    tell_wait,
)
from ..messages import FileBody, Request, RequestReceived, Response
from ..polling import fork_guard
from ..request_id import enter
from . import finalize
from .streaming import HTTP1Runner, release

if TYPE_CHECKING:
    from .thread_state import ThreadState


class Outcome(Enum):
    """The state of a connection after an exchange."""

    NEXT = "next"  # its next request can be read at once
    ENDED = "ended"  # it was parked or closed, or its application has its socket
    HANDED_OFF = "handed off"  # the asyncio side has it


# Global names are found more quickly than members of an Enum.
_NEXT, _ENDED, _HANDED_OFF = Outcome.NEXT, Outcome.ENDED, Outcome.HANDED_OFF
_DIRECT, _RECORDED, _OTHER = ResponsePath
_monotonic = time.monotonic


def exchange(
    worker: ThreadState, conn: Connection, head: RequestReceived, body: bytes | BinaryIO
) -> Outcome:
    """Run the application once, and answer. Raises `ClientDisconnected`."""
    conn.requests += 1
    worker.served += 1
    conn.response_path = _DIRECT
    conn.worker = worker
    conn.notes = worker.notes
    request = Request(head, body, conn)
    conn.persistent = persistent = worker.persistent
    if not head.stays_open:
        keeps_open, websocket = what_is_asked(head)
        conn.persistent = persistent = persistent and keeps_open
        if websocket and worker.async_pool is not None:
            return _hand_off(worker, conn, request)
    for_loop = False
    close = response = None
    try:
        if worker.is_watched:
            conn.response_path = _RECORDED
            conn.started = _monotonic()
            if worker.served >= worker.watched_from or type(body) is not bytes:
                request = _watch(worker, conn, request, body)
            worker.request = request
        response = worker.sync_app(request)
        if worker.poller.draining:
            conn.persistent = persistent = False
        if response is None:
            for_loop = _answers_nothing(worker, conn, request)
        else:
            content, close = response.body, response.close
            if type(content) is bytes and conn.response_path is not _OTHER:
                conn.persistent = persistent = worker.writer.answer(
                    conn, head, response.status, response.headers, content, persistent
                )
            else:
                close = close or getattr(content, "close", None)
                for_loop = _respond(worker, conn, request, response)
    except BaseException as error:
        # an exception of any kind, even SystemExit, fails one request and not the thread
        for_loop = _recover_or_leave(worker, conn, request, response, error)
    finally:
        conn.worker = None
        if close is not None and not for_loop:
            close_response(close, head)
        if type(body) is not bytes and not for_loop:
            close_body(body)
    path = conn.response_path
    if path is _DIRECT:
        return _NEXT if persistent or finalize.finished(worker, conn) else _ENDED
    if path is _RECORDED:
        assert response is not None
        worker.take_answer(conn, request, response, worker.writer.now)
        conn.started = 0.0
        worker.request = None
        if persistent:
            return _NEXT
    return _settle(worker, conn, request, response, for_loop=for_loop)


def exchange_forwarded(
    worker: ThreadState, conn: Connection, head: RequestReceived, body: bytes | BinaryIO
) -> Outcome:
    """`exchange`, for requests that come through trusted proxies."""
    assert worker.forwarding is not None
    try:
        head = worker.forwarding.amend(conn, head)
    except ProtocolError as error:
        close_body(body)
        finalize.refuse(worker, conn, error.status, error.message, error.limit)
        return _ENDED
    return exchange(worker, conn, head, body)


def _settle(
    worker: ThreadState,
    conn: Connection,
    request: Request,
    response: Response | None,
    *,
    for_loop: bool,
) -> Outcome:
    """The end of an exchange whose answer was more than one send, or the last and recorded."""
    if worker.poller.forked:
        fork_guard.leave(None)
    worker.request = None
    if conn.started and response is not None:
        # it was to leave in one send, and could not
        conn.record = conn.record or start_record(conn, request)
        conn.record.note(request.head, response)
        conn.started = 0.0
    if for_loop:
        return _hand_off(worker, conn, request, response)
    try:
        if conn.hijacked is not None:
            HTTP1Runner(worker, conn, request).end_hijack()
    finally:
        release(worker, conn, request)
    if conn.state is not State.SERVING:
        return _ENDED
    return _NEXT if finalize.after_answer(worker, conn) else _ENDED


def _hand_off(
    worker: ThreadState, conn: Connection, request: Request, response: Response | None = None
) -> Outcome:
    """Give the connection to the asyncio side, which answers `request`.

    `response` is the application's, where its body is asynchronous.
    """
    assert worker.async_pool is not None
    if conn.blocking:  # a loop must not be held up, nor the poller that it may come back to
        conn.sock.setblocking(False)
        conn.blocking = False
    conn.become(State.ADOPTED)
    conn.worker = worker  # the way back
    answer = () if response is None else (response,)
    worker.poller.begin_handoff(conn)
    try:
        worker.async_pool.adopt(conn, request, worker.lifespan_state, *answer)
    except BaseException:
        close_body(request.body)
        if response is not None and response.close is not None:
            close_response(response.close, request.head)
        raise
    finally:
        worker.poller.end_handoff()
    return _HANDED_OFF


def _answers_nothing(worker: ThreadState, conn: Connection, request: Request) -> bool:
    """The application has returned None. Whether a loop is to answer."""
    if conn.hijacked is not None:
        return False
    why = NeedsAsyncError(RETURNED_NONE)
    return HTTP1Runner(worker, conn, request).leave_to_loop(why)


def _recover_or_leave(
    worker: ThreadState,
    conn: Connection,
    request: Request,
    response: Response | None,
    error: BaseException,
) -> bool:
    """See `HTTP1Runner.recover_or_leave`. `response` is what was being sent, if anything was."""
    in_one_send = conn.started and response is not None
    runner = HTTP1Runner(worker, conn, request)
    if in_one_send and conn.record is not None:
        with contextlib.suppress(AttributeError, TypeError, ValueError):  # what is wrong is told
            conn.record.note(request.head, response)  # type: ignore[arg-type]
    return runner.recover_or_leave(error, response)


def _respond(worker: ThreadState, conn: Connection, request: Request, response: Response) -> bool:
    """Send a body that is not plain bytes, or follows what was pushed. Whether it is for a loop:
    one that is asynchronous, unless it is iterable too and there is no loop."""
    body = response.body
    runner = HTTP1Runner(worker, conn, request)
    if conn.hijacked is not None:
        if isinstance(body, FileBody):
            os.close(body.fd)
        # what frameworks make of an exception
        conn.hijacked.failed = response.code >= 500
        return False
    asynchronous = hasattr(body, "__aiter__") and conn.state is State.SERVING
    if asynchronous and (worker.async_pool is not None or not hasattr(body, "__iter__")):
        return runner.leave_to_loop(NeedsAsyncError(ASYNCHRONOUS_BODY))
    runner.respond(response)
    return False


def _watch(
    worker: ThreadState, conn: Connection, request: Request, body: bytes | BinaryIO
) -> Request:
    """Give the request its id, and tell the collector of it; the request with its id."""
    if worker.request_ids is not None:
        ids = worker.request_ids
        conn.request_id, head = ids.give(request.head, trusted=conn.is_trusted)
        request = Request(head, body, conn)
        enter(conn.request_id)
    collector = worker.collector
    if collector is None:
        conn.response_path = _DIRECT
        conn.started = 0.0
        return request
    if worker.announces_requests:
        collector.record(RequestStarted(request))
    if worker.watched_from:  # nothing but the sample is to be taken here
        is_sampled = worker.served >= worker.watched_from
    else:
        is_sampled = worker.samples_waits and worker.served % SAMPLED == 1
    if is_sampled:
        if worker.watched_from:
            worker.watched_from = worker.served + SAMPLED
        tell_wait(collector, worker.take_wait, request, conn.waited())
    if not isinstance(body, bytes):
        # while its size can be told: the application may close the file
        conn.response_path = _OTHER
        conn.record = start_record(conn, request)
        conn.started = 0.0
    return request
