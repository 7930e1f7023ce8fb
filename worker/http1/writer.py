"""The writer of HTTP/1.1 responses: everything that a connection sends passes through it.

    ResponseWriter.answer    a complete body: bytes, a list of bytes, or a file
    ResponseWriter.stream    a body that is still being produced: a `StreamWriter`
    ResponseWriter.interim   interim responses such as 100 and 103
    SendBuffer.flush         what the kernel did not accept at once

`_render` decides the framing of all of them (RFC 9112, 6.3): no body after HEAD, 204, 205 and 304;
else Content-Length if the length is known; else chunked for HTTP/1.1; else the closed connection.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..connection import Connection, ResponsePath
from ..errors import ClientDisconnected, InvalidBodyError, InvalidResponseError
from ..http.framing import length_of_body, log_long, log_short
from ..http.own_fields import own_fields
from ..http.response_head import (
    CONNECTION,
    CONTENT_LENGTH,
    DATE,
    DROPPED,
    SERVER,
    FieldLineCache,
    LengthLines,
    SlowPathError,
    StatusLines,
    declared_length,
    encode_header,
    encode_status,
    imf_fixdate,
)
from ..messages import Body, FileBody, HeaderList, RequestReceived, Response
from ..system.hang_up import HangUpWatch
from ..system.readiness import has_room
from .send_buffer import SendBuffer

if TYPE_CHECKING:
    from ..config import ServerConfig
    from ..config.groups import Timeouts

# Up to this size, copying a body after its head is cheaper than a second buffer in the system call.
_COPIED_BODY = 64 * 1024
_CHUNKED = b"Transfer-Encoding: chunked\r\n"
_CHUNKED_END = _CHUNKED + b"\r\n"
_CLOSE = b"Connection: close\r\n\r\n"
_monotonic = time.monotonic


class ResponseWriter:
    """Writes responses. Used by one thread, because of its caches and its clock."""

    def __init__(self, config: ServerConfig) -> None:
        self._timeouts = config.timeouts
        self._own = own_fields(config.responses)
        self._lines = FieldLineCache()
        self._status_lines = StatusLines()
        self._length_lines = LengthLines()
        self._date = b""
        self._stamp = b""
        self._date_ends = -math.inf
        #: The time of the last response, in the seconds of `time.monotonic`.
        self.now = 0.0

    def date_header(self) -> bytes:
        """Return the Date field line, made at most once a second (RFC 9110, 6.6.1)."""
        self.now = time.monotonic()
        if self.now >= self._date_ends:
            now = time.time()
            self._date_ends = self.now + 1 - now % 1
            self._date = f"Date: {imf_fixdate(now)}\r\n".encode("ascii")
            self._stamp = b"".join((self._date, self._own.server, *self._own.others))
        return self._date

    def answer(
        self,
        connection: Connection,
        head: RequestReceived | None,
        status: int | str,
        headers: HeaderList,
        body: Body,
        persistent: bool,
    ) -> bool:
        """Send a response with a complete body; returns whether the connection persists.

        What the kernel does not accept is left in `connection.send_buffer`. Raises
        `InvalidResponseError`, before anything is sent, and `ClientDisconnected`.
        """
        if type(body) is not bytes or len(body) > _COPIED_BODY:
            connection.response_path = ResponsePath.OTHER
            return self._answer_large(connection, head, status, headers, body, persistent)
        self.now = now = _monotonic()
        if now >= self._date_ends:
            self.date_header()
        parts = None
        if head is not None and head.version == "1.1" and head.method != "HEAD":
            # the fast path; whatever it cannot handle is left to `_render`
            try:
                lines = self._lines
                length_line = self._length_lines[len(body)]
                parts, is_declared = [self._status_lines[status], self._stamp], False
                for pair in headers:  # a comprehension would be a call on Python 3.11
                    line = lines[pair]
                    if line is None:
                        if is_declared or lines.lengths[pair] != len(body):
                            raise SlowPathError
                        line, is_declared = length_line, True
                    parts.append(line)
                if not is_declared:
                    parts.append(length_line)
                parts += (b"\r\n" if persistent else _CLOSE, body)
            except (SlowPathError, TypeError):
                parts = None
        if parts is None:
            parts, allowed, persistent = self._render(head, status, headers, len(body), persistent)
            parts.append(body[:allowed])
        data = b"".join(parts)
        try:
            sent = connection.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as error:
            raise ClientDisconnected(str(error)) from error
        if sent != len(data):
            rest = [memoryview(data)[sent:]]
            connection.response_path = ResponsePath.OTHER
            connection.send_buffer = SendBuffer(rest, None, persistent, self._timeouts)
        return persistent

    def _answer_large(
        self,
        connection: Connection,
        head: RequestReceived | None,
        status: int | str,
        headers: HeaderList,
        body: Body,
        persistent: bool,
    ) -> bool:
        if isinstance(body, FileBody):
            length = body.count
        elif isinstance(body, bytes):
            length = len(body)
        elif isinstance(body, list):
            length = sum(map(len, body))
        else:
            raise TypeError(f"{type(body).__name__} is not a complete body")
        try:
            parts, allowed, persistent = self._render(head, status, headers, length, persistent)
        except BaseException:
            if isinstance(body, FileBody):
                os.close(body.fd)
            raise
        allowed = int(allowed)
        views: list[bytes | memoryview] = [b"".join(parts)]
        file = None
        if isinstance(body, FileBody):
            if allowed:
                file = FileBody(body.fd, body.offset, allowed)
            else:
                os.close(body.fd)
        else:
            for block in [body] if isinstance(body, bytes) else body:
                views.append(memoryview(block)[:allowed])
                allowed -= min(len(block), allowed)
        send_buffer = SendBuffer(views, file, persistent, self._timeouts)
        connection.send_buffer = send_buffer
        if send_buffer.flush(connection):
            connection.send_buffer = None
        return persistent

    def stream(
        self,
        connection: Connection,
        head: RequestReceived,
        status: int | str,
        headers: HeaderList,
        persistent: bool,
    ) -> StreamWriter:
        """Begin a response whose body is still being produced.

        The head is sent with the first block of the body. Raises `InvalidResponseError`.
        """
        lines, allowed, chunked, persistent = self._framed(head, status, headers, persistent)
        return StreamWriter(
            connection, head, status, lines, allowed, chunked, persistent, self._timeouts
        )

    def _framed(
        self, head: RequestReceived, status: int | str, headers: HeaderList, persistent: bool
    ) -> tuple[bytes, float, bool, bool]:
        """Return the head of a stream, how much body may follow, whether that is chunked, and
        whether the connection persists."""
        if persistent and type(headers) is list and head.version == "1.1" and head.method != "HEAD":
            # the fast path; whatever it cannot handle is left to `_render`
            try:
                self.now = now = _monotonic()
                if now >= self._date_ends:
                    self.date_header()
                known, parts = self._lines, [self._status_lines[status], self._stamp]
                for pair in headers:
                    line = known[pair]
                    if line is None:  # a Content-Length
                        break
                    parts.append(line)
                else:
                    parts.append(_CHUNKED_END)
                    return b"".join(parts), math.inf, True, True
            except (SlowPathError, TypeError):
                pass
        parts, allowed, persistent = self._render(head, status, headers, None, persistent)
        chunked = allowed == math.inf and _understands_chunks(head)
        return b"".join(parts), allowed, chunked, persistent

    def interim(self, connection: Connection, status: int, headers: HeaderList) -> None:
        """Send an interim response (RFC 9110, 15.2).

        Raises `ClientDisconnected`, also if the kernel does not accept it at once: a client that
        does not read must not block a thread.
        """
        lines = [encode_header(name, value)[0] for name, value in headers]
        data = encode_status(status, 100)[1] + b"".join(lines) + b"\r\n"
        if connection.send_from(memoryview(data)) < len(data):
            connection.disconnect()
            raise ClientDisconnected("the client does not read")

    def _render(
        self,
        head: RequestReceived | None,
        status: int | str,
        headers: HeaderList,
        length: int | None,
        persistent: bool,
    ) -> tuple[list[bytes], Any, bool]:
        """Return the parts of the head, how much body may follow, and whether the connection
        persists.

        `length` is that of the body, None for a stream.
        """
        code, line = encode_status(status)
        fields, declared, closes = self._fields(headers)
        persistent = persistent and not closes
        framing, allowed, short = length_of_body(code, head, length, declared)
        persistent = persistent and not short
        if allowed == math.inf:
            if _understands_chunks(head):
                framing = _CHUNKED
            else:
                persistent = False
        parts = [line, *fields, framing]
        if not persistent:
            parts.append(_CLOSE)
        elif head is not None and head.version == "1.0":
            parts.append(b"Connection: keep-alive\r\n\r\n")
        else:
            parts.append(b"\r\n")
        return parts, allowed, persistent

    def _fields(self, headers: HeaderList) -> tuple[list[bytes], int, bool]:
        """Return the field lines, the server's before the application's; the declared length, or
        -1; and whether the application closes the connection."""
        if isinstance(headers, Iterator):
            # the fast path may have consumed it: its headers would be lost silently
            raise InvalidResponseError("the headers are an iterator, and not a list")
        lines: list[bytes] = []
        seen = 0
        declared = -1
        closes = False
        for name, value in headers:
            line, kind = encode_header(name, value)
            seen |= kind
            if kind == CONTENT_LENGTH:
                declared = declared_length(value, declared)
            elif kind == CONNECTION:
                closes = closes or "close" in value.lower()
            elif kind != DROPPED:
                lines.append(line)
        date = self.date_header()
        lines[:0] = self._own.others
        if not seen & SERVER and self._own.server:
            lines.insert(0, self._own.server)
        if not seen & DATE:
            lines.insert(0, date)
        return lines, declared, closes


def _understands_chunks(head: RequestReceived | None) -> bool:
    return head is not None and head.version == "1.1"


class StreamWriter:
    """A response whose body is still being produced. Used by the thread that runs the stream.

    `write` returns when the kernel has accepted the block, so the application waits for the client.
    """

    def __init__(
        self,
        connection: Connection,
        request: RequestReceived,
        status: int | str,
        head: bytes,
        allowed: float,
        chunked: bool,
        persistent: bool,
        timeouts: Timeouts,
    ) -> None:
        self._connection = connection
        self._request = request
        self._is_cut = False
        self._head = head
        #: How many more octets may follow; infinite if no length was declared.
        self.allowed: float | int = allowed
        self._chunked = chunked
        self._timeouts = timeouts
        self._watch: HangUpWatch | None = None
        self._status = status
        self.persistent = persistent
        #: Octets of the body sent so far.
        self.sent = 0

    @property
    def headers_sent(self) -> bool:
        """Whether the head was sent, so that no other response is possible."""
        return not self._head

    @property
    def status(self) -> int:
        """The status of the response."""
        return Response(self._status).code

    @property
    def is_close_delimited(self) -> bool:
        """Whether the body is close-delimited: it ends with the connection (RFC 9112, 6.3)."""
        return self.allowed == math.inf and not self._chunked

    def write(self, block: bytes) -> None:
        """Send `block`, cut to the declared length. Raises `ClientDisconnected`."""
        if not isinstance(block, bytes):
            raise InvalidBodyError(f"a body is made of bytes, not {type(block).__name__}")
        length = len(block)
        if self._chunked and length:  # none was declared
            self.sent += length
            data = b"%x\r\n%b\r\n" % (length, block)
            if self._head:
                self._send(data)
                return
            # as `_send`, whose call would be a tenth of a small block
            try:
                sent = self._connection.send(data)
            except OSError as error:
                sent = _nothing_sent(error)
            if sent < len(data):
                self._send_rest(data, sent)
            return
        size = min(length, self.allowed)
        if size < length:
            self._cut()
            block = block[: int(size)]
        if not size:
            if not block:
                self._check_client()
            return
        self.allowed -= size
        self.sent += len(block)
        self._send(block)

    def _check_client(self) -> None:
        """Check that the client is still connected: sending an empty block cannot fail."""
        watch = self._watch = self._watch or HangUpWatch()
        if watch.has_left(self._connection.fd):
            raise ClientDisconnected("the client left before it had the whole response")

    def finish_with(self, block: bytes) -> None:
        """Send `block`, which completes the declared length, without waiting for the client.

        What the kernel does not accept is left in `connection.send_buffer`. Raises
        `ClientDisconnected`.
        """
        size = int(self.allowed)
        if size < len(block):
            self._cut()
        self.sent += size
        self.allowed = 0
        views: list[bytes | memoryview] = [self._head, memoryview(block)[:size]]
        self._head = b""
        send_buffer = SendBuffer(views, None, self.persistent, self._timeouts)
        self._connection.send_buffer = send_buffer
        if send_buffer.flush(self._connection):
            self._connection.send_buffer = None

    def finish(self) -> None:
        """End the body. Raises `ClientDisconnected`."""
        if self._chunked:
            self._send(b"0\r\n\r\n")
        elif self._head:
            self._send(b"")
        if 0 < self.allowed < math.inf:
            log_short(self._request, self.allowed)
            self.persistent = False

    def _cut(self) -> None:
        """Warn, once, that the application gives more than the response may have."""
        if not self._is_cut:
            self._is_cut = True
            log_long(self._request, self.status)

    def _send(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        try:
            sent = self._connection.send(data)
        except OSError as error:
            sent = _nothing_sent(error)
        if sent < len(data):
            self._send_rest(data, sent)

    def _send_rest(self, data: bytes, sent: int) -> None:
        """Send what follows the first `sent` octets of `data`, and wait for the client."""
        timeouts = self._timeouts
        grace = len(data) / timeouts.min_rate
        send_all(self._connection, data[sent:], time.monotonic() + timeouts.write + grace)


def _nothing_sent(error: OSError) -> int:
    """Return 0 if the kernel has no room. Raises `ClientDisconnected` for any other error."""
    if isinstance(error, BlockingIOError):
        return 0
    raise ClientDisconnected(str(error)) from error


def send_all(connection: Connection, data: bytes, deadline: float) -> None:
    """Send `data`, and block while the send buffer of the kernel is full.

    Only a thread that runs a stream may call it. Raises `ClientDisconnected`, also if the client
    has not accepted everything by `deadline`.
    """
    view = memoryview(data)
    while view:
        sent = connection.send_from(view)
        if sent:
            view = view[sent:]
        elif not wait_for_room(connection, deadline):
            # The application may catch the error and continue: no more octets may follow an
            # incomplete block.
            connection.disconnect()
            raise ClientDisconnected("the client did not read its response in time")


def wait_for_room(connection: Connection, deadline: float) -> bool:
    """Block until `connection` is writable, or return False at `deadline`."""
    return has_room(connection.fd, deadline - time.monotonic())
