"""The head of a response: status lines, field lines and dates, checked and encoded.

Whatever an application returns is checked before it is sent: CR, LF or NUL from untrusted input
would let a client split the response (RFC 9110, 5.5).
"""

from __future__ import annotations

import http
import time

from ..errors import InvalidResponseError
from .framing import STATUSES_WITHOUT_BODY
from .grammar import TOKEN

#: The Content-Type of the server's own short answers.
TEXT_PLAIN = ("Content-Type", "text/plain; charset=utf-8")

_TOKEN = frozenset(TOKEN.decode("ascii"))
_CONTROLS = frozenset(map(chr, [*range(0x09), *range(0x0A, 0x20), 0x7F]))

# The kinds of fields that concern the framing or are the server's own; 0 is any other field.
CONTENT_LENGTH, CONNECTION, DATE, SERVER, DROPPED = 1, 2, 4, 8, 16
_KINDS = {
    "content-length": CONTENT_LENGTH,
    "connection": CONNECTION,
    "date": DATE,
    "server": SERVER,
    # Hop-by-hop (RFC 9110, 7.6.1): the server frames the message, so these are dropped.
    "transfer-encoding": DROPPED,
    "keep-alive": DROPPED,
    "proxy-connection": DROPPED,
    "te": DROPPED,
    "trailer": DROPPED,
    "upgrade": DROPPED,
}

_NEVER_CACHED = frozenset(("set-cookie", "etag", "last-modified", "x-request-id"))
_LONGEST_CACHED_VALUE = 128
_MOST_CACHED_LINES = 512

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
#: Names of the months in English, whatever the locale.
MONTHS = "Jan Feb Mar Apr May Jun Jul Aug Sep Oct Nov Dec".split()


def imf_fixdate(seconds: float) -> str:
    """Format `seconds` since the epoch as RFC 9110, 5.6.7 requires; `strftime` is localized."""
    year, month, day, hour, minute, second, weekday, _, _ = time.gmtime(seconds)
    return (
        f"{_DAYS[weekday]}, {day:02} {MONTHS[month - 1]} {year:04}"
        f" {hour:02}:{minute:02}:{second:02} GMT"
    )


class SlowPathError(Exception):
    """The fast path of `ResponseWriter.answer` cannot handle this header or status."""


class FieldLineCache(dict[tuple[str, str], "bytes | None"]):
    """Maps headers to checked and encoded field lines. Bounded; used by one thread.

    It has only fields that do not concern the framing, and None for a Content-Length, whose number
    is in `lengths`. Raises `SlowPathError` for other fields.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lengths: dict[tuple[str, str], int] = {}

    def __missing__(self, pair: tuple[str, str]) -> bytes | None:
        name, value = pair
        line, kind = None, CONTENT_LENGTH
        if name != "Content-Length" or type(value) is not str:  # which is often another one
            line, kind = encode_header(name, value)
        if kind and kind != CONTENT_LENGTH:
            raise SlowPathError
        length = declared_length(value, -1) if kind else 0
        if len(value) <= _LONGEST_CACHED_VALUE and name.lower() not in _NEVER_CACHED:
            if len(self) >= _MOST_CACHED_LINES:
                self.clear()
                self.lengths.clear()
            if kind:
                line, self.lengths[pair] = None, length  # the number is short, and so always cached
            self[pair] = line
        return line


def encode_header(name: str, value: str) -> tuple[bytes, int]:
    """Return the field line of a header, and its kind. Raises `InvalidResponseError`."""
    if not isinstance(name, str) or not isinstance(value, str):
        raise InvalidResponseError(f"the header {name!r}: {value!r} is not a pair of str")
    if not name or not _TOKEN.issuperset(name):
        raise InvalidResponseError(f"the header name {name!r} is not a token")
    # what is printable has no control character, which is found out in a quarter of the time
    if not value.isprintable() and not _CONTROLS.isdisjoint(value):
        raise InvalidResponseError(f"the header {name} has a control character: {value!r}")
    try:
        # `join` uses the checked characters; formatting would call __format__ of a str Enum
        line = "".join((name, ": ", value.strip(), "\r\n")).encode("latin-1")
    except UnicodeEncodeError as error:
        raise InvalidResponseError(f"the header {name} is not Latin-1: {value!r}") from error
    return line, _KINDS.get(name.lower(), 0)


class StatusLines(dict["int | str", bytes]):
    """Maps the status of a response with a body to its status line. Bounded; used by one thread."""

    def __missing__(self, status: int | str) -> bytes:
        code, line = encode_status(status)
        if code in STATUSES_WITHOUT_BODY:
            raise SlowPathError
        if len(self) < _MOST_CACHED_LINES:
            self[status] = line
        return line


class LengthLines(dict[int, bytes]):
    """Maps lengths to Content-Length field lines. Bounded; used by one thread."""

    def __missing__(self, length: int) -> bytes:
        line = b"Content-Length: %d\r\n" % length
        if len(self) < _MOST_CACHED_LINES:
            self[length] = line
        return line


def encode_status(status: int | str, lowest: int = 200) -> tuple[int, bytes]:
    """Return the status as a number, and its status line, always with HTTP/1.1 (RFC 9112, 2.3).

    Raises `InvalidResponseError`, also for a status below `lowest`.
    """
    text = str(status)
    digits, _, reason = text.partition(" ")
    if len(digits) != 3 or not digits.isascii() or not digits.isdigit() or int(digits) < lowest:
        raise InvalidResponseError(f"{status!r} is not the status of a final response")
    if not reason:
        try:
            reason = http.HTTPStatus(int(digits)).phrase
        except ValueError:
            reason = "Status"
    if not _CONTROLS.isdisjoint(reason):
        raise InvalidResponseError(f"the status text has a control character: {reason!r}")
    try:
        return int(digits), f"HTTP/1.1 {digits} {reason}\r\n".encode("latin-1")
    except UnicodeEncodeError as error:
        raise InvalidResponseError(f"the status text is not Latin-1: {reason!r}") from error


def declared_length(value: str, before: int) -> int:
    """Parse a Content-Length; `before` is that of an earlier field, or -1.

    Raises `InvalidResponseError` if it is invalid, or differs from `before`.
    """
    if not value.isascii() or not value.isdigit() or len(value) > 18:
        raise InvalidResponseError(f"the Content-Length {value!r} is not a number of bytes")
    length = int(value)
    if before >= 0 and before != length:
        raise InvalidResponseError(f"two lengths were declared, {before} and {length}")
    return length
