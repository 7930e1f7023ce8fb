"""Reading a request that is not whole in the first octets received.

These functions run on the thread that owns the connection. A `BlockingIOError` means that the rest
has not arrived yet: what has come is kept in the connection.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, BinaryIO

from ..errors import ProtocolError
from ..http1.budgets import (
    BODY_RECV_SIZE,
    LONGEST_REPEATED_HEAD,
    OCTETS_PER_TURN,
    RECV_SIZE,
    RECVS_PER_TURN,
)
from ..http1.head_buffer import HeadBuffer
from ..http1.request_body import BodyReceiver
from ..request_id import named
from . import finalize

if TYPE_CHECKING:
    from ..connection import Connection
    from ..messages import RequestReceived
    from .thread_state import ThreadState

log = logging.getLogger("threadwell")

#: A request and its body. The request is None when it is not whole, or the connection has ended.
Received = tuple["RequestReceived | None", "bytes | BinaryIO"]


def recv_rest(worker: ThreadState, conn: Connection) -> Received:
    """Go on with a request that has begun to arrive."""
    return recv_head(worker, conn) if conn.head is None else recv_body(worker, conn)


def recv_head(worker: ThreadState, conn: Connection) -> Received:
    """Go on with a head that did not come in one piece, or with empty lines before it."""
    pieces = conn.head_buffer
    assert isinstance(pieces, HeadBuffer)
    while (whole := pieces.take(worker.parser)) is None:
        data = conn.recv(RECV_SIZE)
        if not data:
            finalize.close(worker, conn, "closed by the client within a head")
            return None, b""
        pieces.append(data)
    raw_head, conn.buffer = whole
    conn.head_buffer = None
    conn.head_deadline = 0.0
    return recv_behind(worker, conn, worker.parser.parse(raw_head))


def split(worker: ThreadState, conn: Connection, data: bytes) -> Received:
    """Begin with `data`, which is not one whole head and nothing else.

    A client that sends small bodies to one address often sends the same head each time.
    """
    if not data:
        finalize.close(worker, conn, "closed by the client")
        return None, b""
    raw_head, end, conn.buffer = data.partition(b"\r\n\r\n")
    if not end or not raw_head:
        conn.buffer = b""
        conn.head_buffer = HeadBuffer(data)
        return recv_head(worker, conn)
    head = conn.known_head
    if head is None or raw_head != conn.known_raw_head:
        head = worker.parser.parse(raw_head)
        if len(raw_head) <= LONGEST_REPEATED_HEAD:
            conn.known_raw_head = raw_head
            conn.known_head = head
    if head.is_simple:
        return head, b""
    return recv_behind(worker, conn, head)


def recv_behind(worker: ThreadState, conn: Connection, head: RequestReceived) -> Received:
    """Receive the body behind `head`, if there is one."""
    length = head.content_length
    if length:
        data = conn.buffer
        if length <= len(data) and length <= worker.largest_direct_body:
            if length == len(data):  # the usual case, without copies
                conn.buffer = b""
                return head, data
            conn.buffer = data[length:]
            return head, data[:length]
    elif not head.chunked:
        return head, b""
    conn.head = head
    return recv_body(worker, conn)


def recv_body(worker: ThreadState, conn: Connection) -> Received:
    """Go on with a body: up to a bound in memory, then on disk, and without a thread in between."""
    head = conn.head
    assert head is not None
    body = conn.body
    if body is None:
        store = worker.pool.body_store
        body = conn.body = BodyReceiver(head, worker.config, time.monotonic(), store)
    assert isinstance(body, BodyReceiver)
    data: bytes | memoryview
    data, conn.buffer = conn.buffer, b""
    enough = body.size + OCTETS_PER_TURN
    for _ in range(RECVS_PER_TURN):
        if not data:
            if not conn.continued and not body.size:
                _continue(worker, conn, head)
            data = _receive(worker, conn, body)
            if not data:
                log.debug("%s: the client left within the body", named(head))
                finalize.close(worker, conn, "closed by the client within a body")
                return None, b""
        if _feed(worker, conn, body, data):
            conn.buffer = body.rest
            whole = body.finish()
            conn.head = conn.body = None
            conn.continued = False
            return head, whole
        if body.size >= enough:
            break
        data = b""
    return None, b""


def _receive(worker: ThreadState, conn: Connection, body: BodyReceiver) -> bytes | memoryview:
    """Receive once, for `body.feed`: a view is good until the next call. Raises `OSError`."""
    if body.is_in_file:
        room = worker.body_buffer
        if room is None:
            room = worker.body_buffer = memoryview(bytearray(BODY_RECV_SIZE))
    else:
        room = body.room()
        if room is None:
            return conn.recv(body.wanted)
    return room[: conn.sock.recv_into(room)]


def _feed(
    worker: ThreadState, conn: Connection, body: BodyReceiver, data: bytes | memoryview
) -> bool:
    """Give `data` to the body; whether that is whole now. The disk may be full."""
    try:
        return body.feed(data)
    except OSError as error:
        body.close()  # free the space for other requests
        assert conn.head is not None
        text = "%s was refused, for its body cannot be kept: %s"
        worker.throttled_log.log("body", logging.ERROR, text, named(conn.head), error)
        raise ProtocolError(503, "There is no room for the request body") from error


def _continue(worker: ThreadState, conn: Connection, head: RequestReceived) -> None:
    """Send 100 to a client that waits for it before it sends its body (RFC 9110, 10.1.1)."""
    conn.continued = True
    expected = head.field("expect").lower()
    if "100-continue" in expected and head.version == "1.1":
        worker.writer.interim(conn, 100, ())
