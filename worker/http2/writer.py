"""The one writer, for HTTP/2: the same rules for status, headers and length, and other framing.

HTTP2Writer.render    an answer's head as fields; on any side, each with a writer of its own
HTTP2Writer.answer    as `LoopWriter.answer`, on the loop
AnswerStream          as `LoopStream`, on the loop
"""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any, NamedTuple

from hpack import NeverIndexedHeaderTuple

from ..asgi.writer import NO_TRAILERS, as_text
from ..errors import InvalidResponseError
from ..http.framing import length_of_body
from ..http.response_head import CONNECTION, DROPPED, encode_header, encode_status
from ..http1.writer import ResponseWriter
from ..messages import FileBody, HeaderList, Response

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..config.groups import Timeouts
    from ..messages import RequestReceived
    from .stream import Stream

Fields = list[tuple[bytes, bytes]]

_LONGEST_CACHED = 256
_MOST_CACHED = 512
# Secrets: no table must remember them that an attacker's guesses go through (RFC 7541, 7.1.3).
_SECRET = frozenset((b"set-cookie",))
_NEVER_CACHED = frozenset((b"date", b"etag", b"last-modified", b"x-request-id", b"content-length"))


class Rendered(NamedTuple):
    """The head of an answer. `allowed` octets may follow; `short`: that is less than it says."""

    status: int
    fields: Fields
    allowed: float
    short: bool


class HTTP2Writer(ResponseWriter):
    """Heads for HTTP/2, and answers from a loop. Belongs to one thread, for its caches."""

    def __init__(self, timeouts: Timeouts) -> None:
        super().__init__(timeouts)
        #: Header lines to fields. Bounded.
        self._pairs: dict[bytes, tuple[bytes, bytes]] = {}

    def render(
        self, head: RequestReceived | None, response: Response, length: int | None
    ) -> Rendered:
        """The head of `response`, whose body has `length`, or is still being made (None).

        Raises `InvalidResponseError`.
        """
        status, _ = encode_status(response.status)
        lines, declared, _ = self._fields(response.headers)
        line, allowed, short = length_of_body(status, head, length, declared)
        if line:
            lines.append(line)
        fields = [(b":status", b"%d" % status), *map(self._pair, lines)]
        return Rendered(status, fields, allowed, short)

    def interim_fields(self, status: int, headers: HeaderList) -> Fields:
        """The head of an interim response. Raises `InvalidResponseError`."""
        code, _ = encode_status(status, 100)
        lines = [encode_header(name, value) for name, value in headers]
        return [
            (b":status", b"%d" % code),
            *(_split(line) for line, kind in lines if kind not in (CONNECTION, DROPPED)),
        ]

    def _pair(self, line: bytes) -> tuple[bytes, bytes]:
        known = self._pairs
        pair = known.get(line)
        if pair is None:
            pair = _split(line)
            if len(line) <= _LONGEST_CACHED and pair[0] not in _NEVER_CACHED | _SECRET:
                if len(known) >= _MOST_CACHED:
                    known.clear()
                known[line] = pair
        return pair

    # ---- On the loop, for `asgi.cycle` ----------------------------------------------------

    def answer(  # type: ignore[override]
        self, stream: Stream, head: RequestReceived | None, response: Response, persistent: bool
    ) -> bool:
        """Send a response whose body is there: bytes, or a file. Raises `InvalidResponseError`."""
        body: Any = response.body
        try:
            response = response._replace(headers=[as_text(pair) for pair in response.headers])
            length = body.count if isinstance(body, FileBody) else len(body)
            rendered = self.render(head, response, length)
        except BaseException:
            if isinstance(body, FileBody):
                os.close(body.fd)
            raise
        stream.answer(rendered, [body])
        return persistent

    def stream(  # type: ignore[override]
        self, stream: Stream, head: RequestReceived, response: Response, persistent: bool
    ) -> AnswerStream:
        """Begin a response whose body is still being made. Raises `InvalidResponseError`."""
        del persistent
        response = response._replace(headers=[as_text(pair) for pair in response.headers])
        return AnswerStream(stream, self.render(head, response, None))

    def interim(self, stream: Stream, status: int, headers: HeaderList) -> None:  # type: ignore[override]
        """Send an interim response."""
        stream.interim(self.interim_fields(status, headers))


def _split(line: bytes) -> tuple[bytes, bytes]:
    """A checked header line as a field; HTTP/2 has no upper case in names (RFC 9113, 8.2.1)."""
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
        fields.append(_split(encode_header(name, value)[0]))
    return fields


class AnswerStream:
    """A response whose body is still being made, on the loop: see `asgi.writer.LoopStream`."""

    __slots__ = ("_allowed", "_rendered", "_stream", "sent")

    #: The connection is nobody's answer's alone.
    persistent = True

    def __init__(self, stream: Stream, rendered: Rendered) -> None:
        self._stream = stream
        self._rendered: Rendered | None = rendered
        self._allowed = rendered.allowed
        #: Octets of the body that were taken.
        self.sent = 0

    @property
    def allowed(self) -> float:
        """How many more octets may follow; infinite when no length was declared."""
        return self._allowed

    def open(self) -> None:
        """Let the head go without a block."""
        self._begin()
        self._stream.connection.flush()

    #: Nothing is ever held here; the connection gathers what leaves together.
    holds = False

    def push(self, block: bytes) -> bool:  # noqa: ARG002
        """There is no shorter way than `write`."""
        return False

    def write(self, block: bytes) -> None:
        """Send `block`, or what of it may go. Raises `ClientDisconnected`."""
        self._begin()
        if len(block) > self._allowed:
            block = block[: int(self._allowed)]
        if block:
            self._allowed -= len(block)
            self.sent += len(block)
            self._stream.send_queue.put(block)
            self._stream.has_more()

    def finish(self) -> None:
        """End the body."""
        self._begin()
        self._stream.end(broken=0 < self._allowed < math.inf)

    def finish_with_last(self, block: bytes) -> None:
        """Send `block`, and end the body. Raises `ClientDisconnected`."""
        self.write(block)
        self.finish()

    def finish_with_trailers(self, headers: Iterable[Any]) -> None:
        """End the body, and send `headers` behind it. Raises `InvalidResponseError`."""
        fields = trailer_fields(headers)
        self._begin()
        self._stream.trailers = fields or None
        self._stream.end(broken=0 < self._allowed < math.inf)

    def _begin(self) -> None:
        rendered, self._rendered = self._rendered, None
        if rendered is not None:
            self._stream.begin(rendered)
