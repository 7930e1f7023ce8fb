"""Long responses: a body that is still being made, a body that is pushed, a hijacked socket.

Each lends its thread: `LeaderFollower.lend` gives the slot to another thread, which goes on
serving. The application's iterator is called, iterated and closed on the thread that ran the
application.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ..connection import Connection, State
from ..errors import ClientDisconnected, StreamLimitError
from ..hijack import HijackedSocket, HijackedWebSocket
from ..http.error_response import failed
from ..http.response_body import (
    blocks_of,
    declares_length,
    has_no_body,
    is_event_stream,
    with_first_block,
)
from ..http1.writer import StreamWriter
from ..lifecycle import Refused, StreamClosed, StreamOpened, note_answer
from ..messages import FileBody, Request, Response
from ..request_id import named
from . import finalize

if TYPE_CHECKING:
    from ..sync_worker import SyncWorker

log = logging.getLogger("threadwell")


def _lend(worker: SyncWorker, conn: Connection, request: Request, state: State) -> None:
    if conn.state is not State.SERVING:
        raise RuntimeError("the request has begun a long response already")
    if not worker.leader_follower.lend(worker):
        if worker.collector is not None:
            worker.collector.record(Refused(conn.client, "streams"))
        raise StreamLimitError("as many are open as max_streams allows")
    worker.lent = True
    conn.usual = False
    if worker.collector is not None:
        worker.collector.record(StreamOpened(request))
    conn.become(state)


def release_slot(worker: SyncWorker, conn: Connection, request: Request) -> None:
    """The long response is over; the thread has its seat again, or has lost it."""
    worker.lent = False
    conn.unbounded = False
    worker.lost_seat = not worker.leader_follower.release_slot(worker)
    if conn.state is State.STREAMING:
        conn.become(State.SERVING)
    if worker.collector is not None:
        worker.collector.record(StreamClosed(request))


def stream_body(worker: SyncWorker, conn: Connection, request: Request, response: Response) -> None:
    """Send a body that is being made, block by block. Raises `ClientDisconnected`.

    A body whose declared length the first block fills needs no thread, and lends none.
    """
    try:
        if conn.stream_writer is not None:
            _send_rest(worker, conn, conn.stream_writer, blocks_of(response))
        elif has_no_body(request, response):
            conn.stream_writer = _begin(worker, conn, request, response)
            conn.stream_writer.finish_with(b"")
        else:
            _send_blocks(worker, conn, request, response)
        if conn.stream_writer is not None:
            conn.persistent = conn.stream_writer.persistent
    except ClientDisconnected:
        raise
    except BaseException as error:
        _broken(worker, conn, request, error)
    finally:
        if isinstance(response.body, FileBody):
            os.close(response.body.fd)
        writer, conn.stream_writer = conn.stream_writer, None
        if conn.record is not None and writer is not None and writer.headers_sent:
            conn.record.status = writer.status
            conn.record.body_bytes = writer.sent


def _begin(
    worker: SyncWorker, conn: Connection, request: Request, response: Response
) -> StreamWriter:
    return worker.writer.stream(conn, request.head, response, conn.persistent)


def _send_blocks(
    worker: SyncWorker, conn: Connection, request: Request, response: Response
) -> None:
    declared = declares_length(response)
    if not declared:
        _lend(worker, conn, request, State.STREAMING)
    blocks = blocks_of(response)
    response, first = with_first_block(response, blocks)
    if not first:
        empty = Response(response.status, response.headers, b"")
        conn.persistent = worker.writer.answer(conn, request.head, empty, conn.persistent)
        if conn.record is not None:
            note_answer(conn, request.head, empty)
        return
    writer = _begin(worker, conn, request, response)
    if declared:
        if isinstance(first, bytes) and len(first) >= writer.allowed:
            conn.stream_writer = writer
            writer.finish_with(first)
            return
        _lend(worker, conn, request, State.STREAMING)
    conn.stream_writer = writer
    writer.write(first)
    conn.unbounded = is_event_stream(response)
    _send_rest(worker, conn, writer, blocks)


def _send_rest(
    worker: SyncWorker, conn: Connection, writer: StreamWriter, blocks: Iterator[bytes]
) -> None:
    while writer.allowed:
        if conn.unbounded and worker.poller.draining:
            break  # its client comes back for the next events
        block = next(blocks, None)
        if block is None:
            break
        writer.write(block)
    writer.finish()


def _broken(
    worker: SyncWorker,
    conn: Connection,
    request: Request,
    error: BaseException,
) -> None:
    """The application failed while its body was made: a 500 if nothing is out, else cut it."""
    if conn.stream_writer is not None and conn.stream_writer.headers_sent:
        _cut(worker, conn, request, conn.stream_writer, error)
        return
    conn.stream_writer = None
    answer = failed(request, error)
    conn.persistent = worker.writer.answer(conn, request.head, answer, conn.persistent)
    if conn.record is not None:
        note_answer(conn, request.head, answer)


def _cut(
    worker: SyncWorker,
    conn: Connection,
    request: Request,
    writer: StreamWriter,
    error: BaseException,
) -> None:
    log.error(
        "The application failed in the middle of its answer to %s",
        named(request.head),
        exc_info=error,
    )
    if writer.ends_with_the_connection:
        # nothing else tells an HTTP/1.0 client that there should have been more
        conn.abort_with_reset()
    finalize.close(worker, conn, "the application failed in the middle of its answer")


def open_stream(
    worker: SyncWorker, conn: Connection, request: Request, response: Response
) -> StreamWriter:
    """See `Request.stream`."""
    writer = worker.writer.stream(conn, request.head, response, conn.persistent)
    _lend(worker, conn, request, State.STREAMING)
    conn.stream_writer = writer
    conn.unbounded = is_event_stream(response)
    return writer


def abort(worker: SyncWorker, conn: Connection, request: Request, error: BaseException) -> bool:
    """The application raised. Whether an answer that it had pushed was cut, so that none is due."""
    writer = conn.stream_writer
    if writer is None:
        return False
    if not writer.headers_sent:
        conn.stream_writer = None
        release_slot(worker, conn, request)
        return False
    conn.stream_writer = None
    if conn.record is not None:
        conn.record.status, conn.record.body_bytes = writer.status, writer.sent
    if isinstance(error, ClientDisconnected):
        finalize.client_gone(worker, conn, str(error))
        return True
    _cut(worker, conn, request, writer, error)
    return True


def hijack(worker: SyncWorker, conn: Connection, request: Request) -> HijackedSocket:
    """See `Request.hijack`."""
    if conn.hijacked is not None:
        return conn.hijacked
    _lend(worker, conn, request, State.HIJACKED)
    sock = conn.sock if isinstance(conn.sock, socket.socket) else conn.sock.plain()
    if request.header("upgrade").lower() == "websocket":
        conn.unbounded = True
        conn.hijacked = HijackedWebSocket(sock, conn.buffer)
        if worker.poller.draining:  # it was too late for the farewell to all
            conn.hijacked.close_with_1001()
    else:
        conn.hijacked = HijackedSocket(sock, conn.buffer)
    conn.buffer = b""
    worker.poller.release(conn)
    sock.setblocking(True)
    return conn.hijacked


def end_hijack(worker: SyncWorker, conn: Connection) -> None:
    """The application has returned: its socket is closed, unless it took it for good."""
    hijacked, conn.hijacked = conn.hijacked, None
    assert hijacked is not None
    if hijacked.release():
        conn.abandon()
    if conn.record is not None and hijacked.upgraded:
        conn.record.status = 101
        finalize.completed(worker, conn, complete=True)
    conn.record = None  # any other answer was the application's
    finalize.close(worker, conn, "hijacked")
