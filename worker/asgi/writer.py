"""The response writer for ASGI messages: headers are pairs of bytes, and nothing blocks."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from ..errors import ClientDisconnected, InvalidBodyError, InvalidResponseError
from ..http.response_head import FieldLineCache, encode_header
from ..http1.request_id_writer import RequestIdWriter
from ..http1.send_buffer import SendBuffer
from ..http1.writer import ResponseWriter, StreamWriter
from ..messages import FileBody
from .states import Pushed

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..config import ServerConfig
    from ..config.groups import Timeouts
    from ..connection import Connection
    from ..messages import HeaderList, RequestReceived

_monotonic = time.monotonic

# A block that follows another within so many seconds waits for the blocks after it.
_BURST = 0.001
# How many octets may wait like that; and how large a block may be that waits first: a larger one is
# sent without a copy.
_MOST_HELD = 65536
_LARGE = 16384
# Up to which size of a chunk the line before it is kept.
_MOST_KNOWN_SIZES = 1024
# How often a stream sends what was pushed, and held, before other connections get a turn.
_SENDS_A_TURN = 4
# Fields that frame or route a message, or authenticate, cannot be trailers (RFC 9110, 6.5.1).
NO_TRAILERS = frozenset(
    (
        "content-length transfer-encoding host connection trailer te upgrade content-encoding"
        " content-type content-range cache-control expect authorization set-cookie"
    ).split()
)


def latin_text(value: Any) -> str:
    """The text of a value that may be bytes."""
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


def is_event_stream(headers: Iterable[Any]) -> bool:
    """Whether the `headers` of an ASGI message are those of a server-sent event stream."""
    return any(
        bytes(name).lower() == b"content-type" and bytes(value).startswith(b"text/event-stream")
        for name, value in headers
    )


def as_text(pair: Any) -> tuple[str, str]:
    """A header of an ASGI message as the pair of strings that `ResponseWriter` takes.

    Raises `InvalidResponseError`.
    """
    try:
        name, value = pair
    except (TypeError, ValueError):
        raise InvalidResponseError(
            f"the header {pair!r} is not a pair; headers are a list of pairs, and not a dict"
        ) from None
    if isinstance(name, str) and isinstance(value, str):
        return name, value  # a response of the server itself
    if not isinstance(name, bytes) or not isinstance(value, bytes):
        raise InvalidResponseError(f"the header {name!r}: {value!r} is not a pair of bytes")
    return name.decode("latin-1"), value.decode("latin-1")


class _LineCache(FieldLineCache):
    """A `FieldLineCache` for headers that are pairs of bytes."""

    def __missing__(self, pair: Any) -> bytes | None:
        text = as_text(pair)
        line = super().__missing__(text)
        if text in self:  # `FieldLineCache` has cached the line
            self[pair] = self.pop(text)
            if line is None:
                self.lengths[pair] = self.lengths.pop(text)
        return line


# The first lines of chunks, by their size. A list, whose items are looked up in a third of the time
# that those of a dict take.
_SIZE_LINES = [b"%x\r\n" % size for size in range(_MOST_KNOWN_SIZES)]
_PUSHED = Pushed.DONE


class LoopWriter(ResponseWriter):
    """A `ResponseWriter` for event loops. Belongs to one loop."""

    def __init__(self, config: ServerConfig) -> None:
        super().__init__(config)
        self._lines = _LineCache()

    def stream(
        self,
        connection: Connection,
        head: RequestReceived,
        status: int | str,
        headers: HeaderList,
        persistent: bool,
    ) -> LoopStream:
        """As `ResponseWriter.stream`. What the kernel does not take is left in
        `connection.send_buffer`."""
        lines, allowed, chunked, persistent = self._framed(head, status, headers, persistent)
        return LoopStream(
            connection, head, status, lines, allowed, chunked, persistent, self._timeouts
        )

    def switching(
        self, fields: Iterable[tuple[str, str]], headers: Iterable[tuple[str, str]]
    ) -> bytes:
        """The head of a 101 response for a WebSocket. Raises `InvalidResponseError`."""
        date = self.date_header()
        lines = [b"HTTP/1.1 101 Switching Protocols\r\n", date, self._own.server, *self._own.others]
        lines.append(b"Upgrade: websocket\r\nConnection: Upgrade\r\n")
        lines += [encode_header(name, value)[0] for name, value in fields]
        for name, value in headers:
            line, kind = encode_header(name, value)
            if not kind:
                lines.append(line)
        lines.append(b"\r\n")
        return b"".join(lines)

    def _render(
        self,
        head: RequestReceived | None,
        status: int | str,
        headers: HeaderList,
        length: int | None,
        persistent: bool,
    ) -> tuple[list[bytes], Any, bool]:
        headers = [as_text(pair) for pair in headers]
        return super()._render(head, status, headers, length, persistent)


class EchoingLoopWriter(RequestIdWriter, LoopWriter):  # type: ignore[misc]
    """A `LoopWriter` that adds the request's id to the headers."""


class LoopStream(StreamWriter):
    """A response whose body is still being made, on an event loop.

    `write` and `finish` do not wait: what the kernel did not take is in `connection.send_buffer`,
    and the caller checks it.

    A system call costs more than all else about a small block. So blocks that an application sends
    without a break are sent together. A single block is sent at once.
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
        # not by `super`, which is slow on Python 3.11
        StreamWriter.__init__(
            self, connection, request, status, head, allowed, chunked, persistent, timeouts
        )
        # chunks that wait for others, in pieces; how many more octets may wait; and until when
        self._held: list[bytes] = []
        self._room = _MOST_HELD
        self._burst_ends = 0.0
        # how long the first block may be that waits; none does until the head is sent
        self._longest = -1
        # how often pushed blocks were sent since others had a turn
        self._sends = 0

    @property
    def holds(self) -> bool:
        """Whether `flush` has something to do."""
        return bool(self._held)

    def open(self) -> None:
        """Send the head without a block. Raises `ClientDisconnected`."""
        if self._head:
            self._send(b"")

    def write(self, block: bytes) -> None:
        """Send `block`, cut to the declared length. Raises `ClientDisconnected`."""
        if self._chunked and block:
            # not as threads do it, who wait for the client
            self.sent += len(block)
            self._send(_size_line(len(block)), block, b"\r\n")
        else:
            super().write(block)

    def push(self, block: bytes) -> Pushed:
        """The fast way of `write`, for a small block of a chunked body while nothing waits.

        Raises `ClientDisconnected`.
        """
        held = self._held
        if held:  # so the client had room, and nothing was sent since
            size = len(block)
            room = self._room - size
            if room > 0 and _monotonic() < self._burst_ends:
                line = _SIZE_LINES[size] if size < _MOST_KNOWN_SIZES else _size_line(size)
                held += (line, block, b"\r\n")
                self._room = room
                return _PUSHED
        return self._push_first(block)

    def _push_first(self, block: bytes) -> Pushed:
        """`push` for a block that waits for those after it, or that none waits with."""
        size = len(block)
        if size > self._longest or self._connection.send_buffer is not None:
            return Pushed.REFUSED
        if not self._held and _monotonic() < self._burst_ends:
            self._held += (_size_line(size), block, b"\r\n")
            self._room -= size
            return Pushed.HELD
        self._sends += 1
        if self._sends >= _SENDS_A_TURN:
            self._sends = 0
            return Pushed.TURN_OVER
        self.sent += size
        self._send(_size_line(size), block, b"\r\n")
        return _PUSHED if self._connection.send_buffer is None else Pushed.FULL

    def flush(self) -> None:
        """Send what is held. Raises `ClientDisconnected`."""
        if self._held:
            self._send(b"")

    def finish_with_last(self, block: bytes) -> None:
        """Send `block`, and end the body. Raises `ClientDisconnected`."""
        if self._chunked and len(block) <= _LARGE:
            if block:
                self.sent += len(block)
                self._send(_size_line(len(block)), block, b"\r\n0\r\n\r\n")
            else:
                self._send(b"0\r\n\r\n")
        else:
            self.write(block)
            self.finish()

    def finish_with_trailers(self, headers: Iterable[Any]) -> None:
        """End the body, and send trailers if the body is chunked.

        Raises `InvalidResponseError` and `ClientDisconnected`.
        """
        lines = []
        for name, value in map(as_text, headers):
            if name.lower() in NO_TRAILERS:
                raise InvalidResponseError(f"{name} cannot be a trailer")
            lines.append(encode_header(name, value)[0])
        if self._chunked:
            self._send(b"0\r\n" + b"".join(lines) + b"\r\n")
        else:
            self.finish()

    def _send(self, *pieces: bytes) -> None:
        held = self._held
        if held:
            held += pieces
            data = b"".join(held)
            held.clear()
            self.sent += _MOST_HELD - self._room
            self._room = _MOST_HELD
        elif self._head:
            data, self._head = b"".join((self._head, *pieces)), b""
            if self._chunked:
                self._longest = _LARGE
        else:
            data = b"".join(pieces)
        self._burst_ends = _monotonic() + _BURST
        send_or_keep(self._connection, data, self._timeouts)


def _size_line(size: int) -> bytes:
    """The first line of a chunk."""
    return _SIZE_LINES[size] if size < _MOST_KNOWN_SIZES else b"%x\r\n" % size


def send_or_keep(conn: Connection, data: bytes, timeouts: Timeouts) -> None:
    """Send `data`, behind what is waiting. What the kernel does not take is in `conn.send_buffer`.

    Raises `ClientDisconnected`.
    """
    if conn.send_buffer is not None:
        conn.send_buffer.append(data)
        return
    try:
        sent = conn.send(data)
    except BlockingIOError:
        sent = 0
    except OSError as error:
        raise ClientDisconnected(str(error)) from error
    if sent != len(data):
        conn.send_buffer = SendBuffer([memoryview(data)[sent:]], None, True, timeouts)


def as_bytes(body: Any) -> bytes:
    """A body as bytes. Raises `InvalidBodyError`."""
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    raise InvalidBodyError(f"a body is made of bytes, not {type(body).__name__}")


def file_body(path: str | os.PathLike[str]) -> FileBody:
    """The file at `path`. Raises `OSError`."""
    fd = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
    return FileBody(fd, 0, os.fstat(fd).st_size)
