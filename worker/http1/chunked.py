"""The chunked transfer coding, decoded (RFC 9112, 7.1)."""

from __future__ import annotations

import re

from ..config.groups import Limits
from ..errors import ProtocolError
from ..http.grammar import FIELD_VALUE, LARGEST_SIZE, TOKEN

# RFC 9110, 5.6.4: the text between quotes, with any visible octet behind a backslash.
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t \x21-\x7e\x80-\xff])*+"'
_NAME = b"[" + re.escape(TOKEN) + b"]++"
# RFC 9112, 7.1.1. Parsers that disagree about the end of an extension disagree about the body, so
# nothing but the grammar is taken. A recipient must accept the blanks (BWS). The quantifiers are
# possessive, so no line takes more than linear time.
_EXTENSION = (
    rb"[ \t]*+;[ \t]*+" + _NAME + rb"(?:[ \t]*+=[ \t]*+(?:" + _NAME + rb"|" + _QUOTED + rb"))?+"
)
# 1*HEXDIG (16 digits exceed 2**63 already), then extensions.
_CHUNK_LINE = re.compile(rb"([0-9A-Fa-f]{1,16})((?:" + _EXTENSION + rb")*+)")
# What most clients send between the data of two chunks. Fewer digits than `LARGEST_SIZE` has.
_NEXT_CHUNK = re.compile(rb"\r\n(0*+[1-9A-Fa-f][0-9A-Fa-f]{0,14})\r\n")

# A smaller piece is copied: a view takes about 200 octets of its own.
_LEAST_VIEW = 4096


class ChunkedDecoder:
    """Decodes a chunked body that arrives in any pieces, strictly by RFC 9112, 7.1.

    h11 decodes chunks too, but accepts any text as an extension, whitespace after a size and bare
    LF in trailers, limits none of them, and refuses whitespace before an extension. A test compares
    the results with h11's. At the end of the body `done` becomes True, and `rest` has the octets
    after it.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._held = b""  # the beginning of an incomplete line
        self._in_chunk = 0  # octets of the current chunk still to come
        self._chunk_end = False  # the CRLF after the data of a chunk comes next
        self._in_trailers = False
        self._extensions = 0
        self._trailers = 0
        self.done = False
        self.rest = b""

    @property
    def is_holding(self) -> bool:
        """Whether the beginning of a line is kept, and will be joined with what comes next."""
        return bool(self._held)

    def feed(self, data: bytes | memoryview) -> list[bytes | memoryview]:
        """Return the octets of the body in `data`. Raises `ProtocolError`.

        Large pieces are views of `data`, and not copies.
        """
        if self._held:
            data = self._held + data
            self._held = b""
        view = memoryview(data)
        end = len(view)
        blocks: list[bytes | memoryview] = []
        at = 0
        while not self.done:
            if self._in_chunk:
                stop = min(at + self._in_chunk, end)
                if stop > at:
                    piece = view[at:stop]
                    blocks.append(piece if stop - at >= _LEAST_VIEW else bytes(piece))
                    self._in_chunk -= stop - at
                    at = stop
                if self._in_chunk:
                    return blocks
                self._chunk_end = True
            # 16 digits: any limit of a chunk's line has room for them
            if self._chunk_end and (known := _NEXT_CHUNK.match(data, at, at + 2 + 16 + 2)):
                self._in_chunk = int(known[1], 16)
                self._chunk_end = False
                at = known.end()
                continue
            line = self._next_line(view[at:])
            if line is None:
                self._held = bytes(view[at:])
                return blocks
            self._line(line)
            at += len(line) + 2
        self.rest = bytes(view[at:])
        return blocks

    def _next_line(self, data: memoryview) -> bytes | None:
        """The line at the beginning of `data`, without its end; None if its end is not there."""
        if self._chunk_end:
            longest = 0
        elif self._in_trailers:
            longest = max(self._limits.trailers - self._trailers, 0)
        else:
            longest = self._limits.chunk_line
        started = bytes(data[: longest + 2])
        end = started.find(b"\r\n")
        if end >= 0:
            return started[:end]
        if self._chunk_end and started not in (b"", b"\r"):
            raise ProtocolError(400, "The data of a chunk does not match its size")
        if b"\n" in started:
            raise ProtocolError(400, "A line in the body does not end with CRLF")
        if len(started) > longest + 1:
            if self._in_trailers:
                raise ProtocolError(431, "The trailers are too large", "limit_trailers")
            raise ProtocolError(400, "A chunk line is too long", "limit_chunk_line")
        return None

    def _line(self, line: bytes) -> None:
        if self._chunk_end:
            self._chunk_end = False
        elif self._in_trailers:
            self._trailer(line)
        else:
            self._size(line)

    def _size(self, line: bytes) -> None:
        match = _CHUNK_LINE.fullmatch(line)
        if match is None:
            raise ProtocolError(400, "The size of a chunk is not valid")
        self._extensions += len(match[2])
        if self._extensions > self._limits.chunk_extensions:
            raise ProtocolError(
                400, "There are too many chunk extensions", "limit_chunk_extensions"
            )
        self._in_chunk = int(match[1], 16)
        if self._in_chunk > LARGEST_SIZE:
            raise ProtocolError(413, "A chunk is too large")
        self._in_trailers = not self._in_chunk

    def _trailer(self, line: bytes) -> None:
        """Check a trailer field and drop it: merged into the headers it could forge one."""
        if not line:
            self.done = True
            return
        self._trailers += len(line) + 2
        name, colon, value = line.partition(b":")
        if not name or not colon or name.translate(None, TOKEN):
            raise ProtocolError(400, "A trailer is not valid")
        if value.translate(None, FIELD_VALUE):
            raise ProtocolError(400, "A trailer has a control character")
