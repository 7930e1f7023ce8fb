"""The reading of a request that is not whole in the first octets received.

Functions of the thread that owns the connection; `worker` is its `SyncWorker`. A `BlockingIOError`
says that the rest is not here yet: what came is kept in the connection.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, BinaryIO

from ..errors import ProtocolError
from ..http1.request_body import BodyReceiver
from . import finalize

if TYPE_CHECKING:
    from ..connection import Connection
    from ..messages import RequestReceived
    from ..sync_worker import SyncWorker

RECEIVED_AT_ONCE = 65536
# How many times a connection is received from before others get a turn.
_RECEIVES_A_TURN = 16


#: A request and its body; no request when it is not whole, or when the connection has ended.
_Received = tuple["RequestReceived | None", "bytes | BinaryIO"]


def recv_head(worker: SyncWorker, conn: Connection) -> _Received:
    """Go on with a head that did not come in one piece, or with empty lines before it."""
    pieces = conn.pieces
    assert pieces is not None
    while True:
        if pieces.startswith(b"\r\n"):
            empty = worker.parser.skip_empty_lines(pieces, conn.skipped)
            conn.skipped += empty
            del pieces[:empty]
            conn.scanned = 0
        end = pieces.find(b"\r\n\r\n", max(conn.scanned - 3, 0))
        if end > 0:
            break
        worker.parser.unfinished(pieces, conn.scanned)
        conn.scanned = len(pieces)
        data = conn.recv(RECEIVED_AT_ONCE)
        if not data:
            finalize.close(worker, conn, "closed by the client within a head")
            return None, b""
        pieces += data
    conn.scanned = conn.skipped = 0
    conn.head_deadline = 0.0
    conn.pieces = None
    conn.buffer = bytes(pieces[end + 4 :])
    return recv_behind(worker, conn, worker.parser.parse(bytes(pieces[:end])))


def recv_behind(worker: SyncWorker, conn: Connection, head: RequestReceived) -> _Received:
    """The body behind `head`, if there is one."""
    if not head.content_length and not head.chunked:
        return head, b""
    conn.head = head
    return recv_body(worker, conn)


def recv_body(worker: SyncWorker, conn: Connection) -> _Received:
    """Go on with a body: to a bound in memory, then on disk, and without a thread in between."""
    head = conn.head
    assert head is not None
    length = head.content_length or 0
    body = conn.body
    if body is None:
        limits = worker.config.limits
        if 0 < length <= min(len(conn.buffer), limits.memory_body, limits.body):
            data = conn.buffer
            conn.buffer = data[length:]
            conn.head = None
            return head, data[:length]
        body = conn.body = BodyReceiver(head, worker.config, time.monotonic())
    data, conn.buffer = conn.buffer, b""
    for _ in range(_RECEIVES_A_TURN):
        if not data:
            if not conn.continued and not body.size:
                _continue(worker, conn, head)
            data = conn.recv(RECEIVED_AT_ONCE)
            if not data:
                finalize.close(worker, conn, "closed by the client within a body")
                return None, b""
        if _feed(worker, body, data):
            conn.buffer = body.rest
            whole = body.finish()
            conn.head = conn.body = None
            conn.continued = False
            return head, whole
        data = b""
    return None, b""


def _feed(worker: SyncWorker, body: BodyReceiver, data: bytes) -> bool:
    """`BodyReceiver.feed`, where the disk may be full."""
    try:
        return body.feed(data)
    except OSError as error:
        body.close()  # the room is others'
        text = "A request was refused, for its body cannot be kept: %s"
        worker.throttled_log.say("body", logging.ERROR, text, error)
        raise ProtocolError(503, "There is no room for the request body") from error


def _continue(worker: SyncWorker, conn: Connection, head: RequestReceived) -> None:
    """Send 100 to a client that waits for it before it sends its body (RFC 9110, 10.1.1)."""
    conn.continued = True
    expected = head.field("expect").lower()
    if "100-continue" in expected and head.version == "1.1":
        worker.writer.interim(conn, 100, ())
