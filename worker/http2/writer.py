"""The response writer for HTTP/2: the rules of HTTP/1.1 for status, headers and length.

HTTP2Writer.render    the head of a response as fields; every thread has a writer of its own
HTTP2Writer.answer    as `LoopWriter.answer`, on the loop
AnswerStream          as `LoopStream`, on the loop
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

from hpack import NeverIndexedHeaderTuple

from ..asgi.states import Pushed
from ..asgi.writer import NO_TRAILERS, as_text
from ..errors import InvalidResponseError
from ..http.framing import length_of_body, log_long, log_short
from ..http.response_head import (
    CONNECTION,
    CONTENT_LENGTH,
    DROPPED,
    declared_length,
    encode_header,
    encode_status,
)
from ..http1.writer import ResponseWriter
from ..lifecycle import CODES_WITH_BODY
from ..messages import FileBody, HeaderList, Response
from .interfaces import Rendered

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..config import ServerConfig
    from ..messages import RequestReceived
    from .interfaces import AnswerSink, Fields

_LONGEST_CACHED = 256
_MOST_CACHED = 512
# Secrets, which are never indexed: an attacker who can add fields to the same connection could
# guess what the table contains (RFC 7541, 7.1.3).
_SECRET = frozenset((b"set-cookie",))
_NEVER_CACHED = _SECRET | {b"date", b"etag", b"last-modified", b"x-request-id", b"content-length"}


class HTTP2Writer(ResponseWriter):
    """Renders heads for HTTP/2, and sends responses on a loop.

    Belongs to one thread, because of its caches.
    """

    def __init__(self, config: ServerConfig) -> None:
        super().__init__(config)
        #: The field of each header line that was seen before. Bounded.
        self._fields_of_lines: dict[bytes, tuple[bytes, bytes]] = {}
        #: The field of each header that was seen before, and is not the server's. Bounded.
        self._fields_of_headers: dict[Any, tuple[bytes, bytes]] = {}
        # the server's own fields, and the Date line that is among them
        self._own_fields: Fields = []
        self._own_date = b""

    def render(
        self, head: RequestReceived | None, response: Response, length: int | None
    ) -> Rendered:
        """The head of `response`, whose body has `length`, or is still being made (None).

        Raises `InvalidResponseError`.
        """
        if length is not None and head is not None and head.method != "HEAD":
            try:
                code = CODES_WITH_BODY.get(response.status, 0)
                fields = self._common_fields(code, response.headers, length) if code else None
            except TypeError:  # something cannot be looked up
                fields = None
            if fields is not None:
                return Rendered(code, fields, length, False)
        status, _ = encode_status(response.status)
        lines, declared, _ = self._fields(response.headers)
        line, allowed, short = length_of_body(status, head, length, declared)
        if line:
            lines.append(line)
        fields = [(b":status", b"%d" % status), *map(self._field_of, lines)]
        return Rendered(status, fields, allowed, short)

    def _common_fields(self, code: int, headers: HeaderList, length: int) -> Fields | None:
        """The fields of a response with a body of `length`; None if `headers` has anything but
        ordinary fields and that length."""
        date = self.date_header()
        if date is not self._own_date:
            lines = [date, self._own.server, *self._own.others]
            self._own_date, self._own_fields = date, [_field(line) for line in lines if line]
        known = self._fields_of_headers
        fields = [(b":status", b"%d" % code), *self._own_fields]
        if not isinstance(headers, list):
            return None
        for pair in headers:
            if type(pair) is not tuple:
                return None
            field = known.get(pair)
            if field is None:
                line, kind = encode_header(*pair)
                if kind == CONTENT_LENGTH and declared_length(pair[1], -1) == length:
                    continue
                if kind:
                    return None
                field = _field(line)
                if len(line) <= _LONGEST_CACHED and field[0] not in _NEVER_CACHED:
                    if len(known) >= _MOST_CACHED:
                        known.clear()
                    known[pair] = field
            fields.append(field)
        fields.append((b"content-length", b"%d" % length))
        return fields

    def interim_fields(self, status: int, headers: HeaderList) -> Fields:
        """The head of an interim response. Raises `InvalidResponseError`."""
        code, _ = encode_status(status, 100)
        lines = [encode_header(name, value) for name, value in headers]
        return [
            (b":status", b"%d" % code),
            *(_field(line) for line, kind in lines if kind not in (CONNECTION, DROPPED)),
        ]

    def _field_of(self, line: bytes) -> tuple[bytes, bytes]:
        known = self._fields_of_lines
        pair = known.get(line)
        if pair is None:
            pair = _field(line)
            if len(line) <= _LONGEST_CACHED and pair[0] not in _NEVER_CACHED:
                if len(known) >= _MOST_CACHED:
                    known.clear()
                known[line] = pair
        return pair

    # ---- On the loop, for `asgi.cycle` ----------------------------------------------------

    def answer(  # type: ignore[override]
        self,
        stream: AnswerSink,
        head: RequestReceived | None,
        status: int | str,
        headers: HeaderList,
        body: Any,
        persistent: bool,
    ) -> bool:
        """Send a complete response, bytes or a file. Raises `InvalidResponseError`."""
        try:
            response = Response(status, [as_text(pair) for pair in headers], body)
            length = body.count if isinstance(body, FileBody) else len(body)
            rendered = self.render(head, response, length)
        except BaseException:
            if isinstance(body, FileBody):
                os.close(body.fd)
            raise
        stream.answer(rendered, [body])
        return persistent

    def stream(  # type: ignore[override]
        self,
        stream: AnswerSink,
        head: RequestReceived,
        status: int | str,
        headers: HeaderList,
        persistent: bool,
    ) -> AnswerStream:
        """Begin a response whose body is still being made. Raises `InvalidResponseError`."""
        del persistent
        response = Response(status, [as_text(pair) for pair in headers])
        return AnswerStream(stream, head, self.render(head, response, None))

    def interim(self, stream: AnswerSink, status: int, headers: HeaderList) -> None:  # type: ignore[override]
        """Send an interim response."""
        stream.interim(self.interim_fields(status, headers))


def _field(line: bytes) -> tuple[bytes, bytes]:
    """The field of a checked header line. Names are in lower case (RFC 9113, 8.2.1)."""
    name, _, value = line.partition(b":")
    name, value = name.lower(), value.strip()
    if name in _SECRET:
        return NeverIndexedHeaderTuple(name, value)
    return name, value


def trailer_fields(headers: Iterable[Any]) -> Fields:
    """Trailers as fields. Raises `InvalidResponseError`."""
    fields = []
    for name, value in map(as_text, headers):
        if name.lower() in NO_TRAILERS:
            raise InvalidResponseError(f"{name} cannot be a trailer")
        fields.append(_field(encode_header(name, value)[0]))
    return fields


class AnswerStream:
    """A response whose body is still being made, on the loop: see `asgi.writer.LoopStream`."""

    __slots__ = ("_allowed", "_is_cut", "_rendered", "_request", "_status", "_stream", "sent")

    #: The end of a response never ends the connection.
    persistent = True

    def __init__(self, stream: AnswerSink, request: RequestReceived, rendered: Rendered) -> None:
        self._stream = stream
        self._request = request
        self._status = rendered.status
        self._is_cut = False
        self._rendered: Rendered | None = rendered
        self._allowed = rendered.allowed
        #: How many octets of the body were taken.
        self.sent = 0

    @property
    def allowed(self) -> float:
        """How many more octets may follow; infinite when no length was declared."""
        return self._allowed

    def open(self) -> None:
        """Send the head without a block."""
        self._begin()
        self._stream.flush()

    #: Nothing is held here: the connection itself sends together what is sent at once.
    holds = False

    def flush(self) -> None:
        """Nothing to do: see `holds`."""

    def push(self, block: bytes) -> Pushed:  # noqa: ARG002
        """`write` is the only way."""
        return Pushed.REFUSED

    def write(self, block: bytes) -> None:
        """Send `block`, cut to the declared length. Raises `ClientDisconnected`."""
        self._begin()
        if len(block) > self._allowed:
            if not self._is_cut:
                self._is_cut = True
                log_long(self._request, self._status)
            block = block[: int(self._allowed)]
        if block:
            self._allowed -= len(block)
            self.sent += len(block)
            self._stream.send_queue.put(block)
            self._stream.has_more()

    def finish(self) -> None:
        """End the body."""
        self._begin()
        self._end()

    def finish_with_last(self, block: bytes) -> None:
        """Send `block`, and end the body. Raises `ClientDisconnected`."""
        self.write(block)
        self.finish()

    def finish_with_trailers(self, headers: Iterable[Any]) -> None:
        """End the body, and send trailers. Raises `InvalidResponseError`."""
        fields = trailer_fields(headers)
        self._begin()
        self._stream.trailers = fields or None
        self._end()

    def _end(self) -> None:
        short = 0 < self._allowed < math.inf
        if short:
            log_short(self._request, self._allowed)
        self._stream.end(broken=short)

    def _begin(self) -> None:
        rendered, self._rendered = self._rendered, None
        if rendered is not None:
            self._stream.begin(rendered)
