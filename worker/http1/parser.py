"""The parser of HTTP/1.1 request heads, and the only module that imports h11.

    RequestParser.parse        a complete head: the strict fast path, else `_parse_with_h11`
    RequestParser.unfinished   rejects an incomplete head as early as possible

The fast path handles the requests that browsers, proxies and client libraries send: origin-form
target, HTTP/1.1 or 1.0, no repeated field, no Transfer-Encoding. It caches field lines, all lines
of a head together and each by itself, so the strict check runs once for each distinct line.
Every other head goes to h11, after checks for what h11 accepts (bare LF, control characters,
folded lines, an invalid Host). A test verifies that both paths give the same result.
"""

from __future__ import annotations

import re

import h11

from ..config.groups import Limits
from ..errors import ProtocolError
from ..http.grammar import (
    FIELD_CHECK,
    FIELD_VALUE,
    HOST,
    LONGEST_LENGTH,
    NEVER_CACHED,
    TARGET_CHECK,
    TOKEN,
)
from ..messages import RequestReceived, cgi_name, new_tuple

_SLASH = ord("/")
_METHODS = {
    method.encode(): method
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
}
_VERSIONS = {b"HTTP/1.1": "1.1", b"HTTP/1.0": "1.0"}

_ABSOLUTE_FORM = re.compile(r"https?://([^/?]+)(/[^?]*)?(?:\?(.*))?", re.IGNORECASE)

# RFC 9112, 2.2: at least one empty line before a request line should be ignored.
_MOST_EMPTY_LINES = 8

_LONGEST_CACHED_LINE = 256
_MOST_CACHED_LINES = 1024
_LONGEST_CACHED_BLOCK = 1024
_MOST_CACHED_BLOCKS = 128


# The fields that frame the message, or control the connection.
_CONNECTION_FIELDS = frozenset(
    (
        "HTTP_TRANSFER_ENCODING",
        "CONTENT_LENGTH",
        "HTTP_CONNECTION",
        "HTTP_UPGRADE",
        "HTTP_EXPECT",
    )
)


class _SlowPathError(Exception):
    """The fast path does not handle this head; h11 does."""


class _FieldCache:
    """Maps field lines to CGI variables, after checking them. Bounded; used by one thread.

    Field lines are cached one by one and all together: a client sends the same ones again and
    again. Lines that are secret or different each time are not cached (`NEVER_CACHED`).
    """

    def __init__(self, most_lines: int) -> None:
        self._most_lines = most_lines
        self._names: dict[bytes, str] = {}
        self._lines: dict[bytes, tuple[str, str]] = {}
        #: The version and the field lines as received, to their variables, the version, and
        #: whether that is 1.1 and no field affects the connection.
        self.blocks: dict[bytes, tuple[dict[str, str], str, bool]] = {}

    def parse(self, block: bytes) -> tuple[dict[str, str], str, bool]:
        """Return the entry of `blocks` for `block`. Raises `KeyError` and `_SlowPathError`."""
        raw_version, *lines = block.split(b"\r\n")
        version = _VERSIONS[raw_version]
        known = self._lines.get
        variables = dict([known(line) or self._line(line) for line in lines])
        if len(variables) != len(lines) or len(lines) > self._most_lines:
            raise _SlowPathError  # a field that comes twice, or too many
        entry = (variables, version, version == "1.1" and not _affects_connection(variables))
        if len(block) <= _LONGEST_CACHED_BLOCK and NEVER_CACHED.isdisjoint(variables):
            if len(self.blocks) >= _MOST_CACHED_BLOCKS:
                self.blocks.clear()
            self.blocks[block] = entry
        return entry

    def parse_from_cookie(self, tail: bytes, variables: dict[str, str]) -> bool:
        """Add the value of Cookie and the field lines after it to `variables`.

        Returns whether none of the fields affects the connection. Raises `_SlowPathError`.
        """
        lines = tail.split(b"\r\n")
        cookie = lines.pop(0)
        if cookie.translate(FIELD_CHECK) != cookie:
            raise _SlowPathError
        count = len(variables) + 1 + len(lines)
        variables["HTTP_COOKIE"] = cookie.strip(b" \t").decode("latin-1")
        is_simple = True
        known = self._lines.get
        for line in lines:
            variable, value = known(line) or self._line(line)
            variables[variable] = value
            if variable in _CONNECTION_FIELDS:
                is_simple = not _affects_connection({variable: value}) and is_simple
        if len(variables) != count or count > self._most_lines:
            raise _SlowPathError  # a field that comes twice, or too many
        return is_simple

    def _line(self, line: bytes) -> tuple[str, str]:
        raw_name, colon, raw_value = line.partition(b":")
        if not colon or raw_value.translate(FIELD_CHECK) != raw_value:
            raise _SlowPathError
        variable = self._names.get(raw_name) or self._name(raw_name)
        pair = (variable, raw_value.strip(b" \t").decode("latin-1"))
        if variable in NEVER_CACHED:
            return pair
        if variable == "HTTP_HOST" and HOST.fullmatch(pair[1]) is None:
            raise _SlowPathError
        if len(line) > _LONGEST_CACHED_LINE:
            return pair
        if len(self._lines) >= _MOST_CACHED_LINES:
            self._lines.clear()
        self._lines[line] = pair
        return pair

    def _name(self, raw_name: bytes) -> str:
        if not raw_name or raw_name.translate(None, TOKEN):
            raise _SlowPathError
        if b"_" in raw_name:
            raise _SlowPathError  # no variable: see `RequestReceived`
        variable = cgi_name(raw_name.decode("ascii"))
        if len(raw_name) <= _LONGEST_CACHED_LINE:
            if len(self._names) >= _MOST_CACHED_LINES:
                self._names.clear()
            self._names[raw_name] = variable
        return variable


def _affects_connection(variables: dict[str, str]) -> bool:
    """Whether one of `variables` frames the message, or controls the connection."""
    steering = _CONNECTION_FIELDS.intersection(variables)
    if steering == {"HTTP_CONNECTION"}:
        # browsers send it, and it is the default of HTTP/1.1
        return variables["HTTP_CONNECTION"].lower() != "keep-alive"
    return bool(steering)


class RequestParser:
    """Parses request heads. Used by one thread, because of its caches.

    For any input the only exception is `ProtocolError`.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._fields = _FieldCache(limits.field_count)
        self._cached_block = self._fields.blocks.get
        # in a head up to this size no line can be too long
        self._longest_fast_head = min(limits.field_size, limits.request_line, limits.head)

    def parse(self, head: bytes) -> RequestReceived:
        """Return the request of `head`, which is without the empty line at its end."""
        try:
            raw_method, raw_target, rest = head.split(b" ", 2)
            if raw_target.translate(TARGET_CHECK) != raw_target or raw_target[0] != _SLASH:
                return self._parse_with_h11(head)
            before, cookie, after = rest.partition(b"\r\nCookie: ")
            known, version, is_simple = self._cached_block(before) or self._fields.parse(before)
            variables = known.copy()
            if cookie:
                is_simple = self._fields.parse_from_cookie(after, variables) and is_simple
            if "HTTP_HOST" not in variables or len(head) > self._longest_fast_head:
                return self._parse_with_h11(head)
            target = raw_target.decode()
            path, _, query = target.partition("?")
            method = _METHODS[raw_method]
            if is_simple and method != "HEAD":
                return new_tuple(
                    RequestReceived,
                    (method, target, path, query, version, rest, variables, None, False, True),
                )
        except (LookupError, ValueError, _SlowPathError):
            return self._parse_with_h11(head)
        length = variables.get("CONTENT_LENGTH")
        if "HTTP_TRANSFER_ENCODING" in variables or (
            length is not None
            and not (length.isascii() and length.isdigit() and len(length) <= LONGEST_LENGTH)
        ):
            return self._parse_with_h11(head)
        size = None if length is None else int(length)
        return RequestReceived(method, target, path, query, version, rest, variables, size)

    def skip_empty_lines(self, buffer: bytes | bytearray, skipped: int) -> int:
        """Return how many octets of empty lines precede the request line (RFC 9112, 2.2).

        `skipped` is how many were skipped earlier for this request. Raises `ProtocolError` if
        there are too many.
        """
        at = 0
        while buffer.startswith(b"\r\n", at):
            at += 2
        if skipped + at > 2 * _MOST_EMPTY_LINES:
            raise ProtocolError(400, "Too many empty lines before the request line")
        return at

    def unfinished(self, buffer: bytes | bytearray, scanned: int) -> None:
        """Reject an incomplete head that cannot become valid; `buffer` has no empty line yet.

        Octets up to `scanned` were checked before. Raises `ProtocolError`.
        """
        limits = self._limits
        if buffer and not 0x20 < buffer[0] < 0x7F and buffer[0] != 0x0D:
            raise ProtocolError(400, "This is not HTTP")
        if buffer.find(b"\r\n", 0, limits.request_line + 2) < 0 and (
            len(buffer) > limits.request_line + 1
        ):
            raise ProtocolError(414, "The request line is too long", "limit_request_line")
        if len(buffer) > limits.head + 3:  # the buffer may end with a part of the empty line
            raise ProtocolError(431, "The request head is too large", "limit_head")
        start = max(scanned - 1, 0)
        if buffer[start : start + 1] == b"\n" and buffer[start - 1 : start] == b"\r":
            start += 1  # this LF belongs to a CRLF
        if buffer.count(b"\n", start) != buffer.count(b"\r\n", start):
            raise ProtocolError(400, "A line does not end with CRLF")

    # ---- The slow path -------------------------------------------------------------------

    def _parse_with_h11(self, head: bytes) -> RequestReceived:
        if head.startswith(b"\r\n"):
            return self.parse(head[self.skip_empty_lines(head, 0) :])
        self._check_sizes(head)
        _check_octets(head)
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=len(head) + 4)
        try:
            connection.receive_data(head + b"\r\n\r\n")
            event = connection.next_event()
        except h11.RemoteProtocolError as error:
            status = error.error_status_hint
            # h11 gives 501 for any coding but a single chunked; a misuse of chunked is a 400
            # (RFC 9112, 6.1 and 6.3)
            if status == 501 and _wrongly_chunked(head):
                status = 400
            raise ProtocolError(status, str(error).partition(":")[0].capitalize()) from error
        if not isinstance(event, h11.Request):
            raise ProtocolError(400, "This is not a request")
        return _from_h11(event)

    def _check_sizes(self, head: bytes) -> None:
        limits = self._limits
        lines = head.split(b"\r\n")
        if len(lines[0]) > limits.request_line:
            raise ProtocolError(414, "The request line is too long", "limit_request_line")
        if len(lines) - 1 > limits.field_count:
            raise ProtocolError(431, "There are too many header lines", "limit_fields")
        if max(map(len, lines[1:]), default=0) > limits.field_size:
            raise ProtocolError(431, "A header line is too long", "limit_field_size")
        if len(head) > limits.head:
            raise ProtocolError(431, "The request head is too large", "limit_head")


def _check_octets(head: bytes) -> None:
    """Reject what h11 would repair or accept, because it allows request smuggling.

    That is bare CR and LF, other control characters, and folded lines (RFC 9112, 2.2 and 5.2).
    """
    for line in head.split(b"\r\n"):
        if line.translate(None, FIELD_VALUE):
            raise ProtocolError(400, "A control character in the request head")
        if line.startswith((b" ", b"\t")):
            raise ProtocolError(400, "A line that begins with a blank")


def _wrongly_chunked(head: bytes) -> bool:
    codings = [
        coding.strip().lower()
        for line in head.split(b"\r\n")[1:]
        if line.lower().startswith(b"transfer-encoding:")
        for coding in line.partition(b":")[2].split(b",")
    ]
    return codings[-1:] != [b"chunked"] or codings.count(b"chunked") > 1


def _from_h11(event: h11.Request) -> RequestReceived:
    """Convert `event`, after the checks that h11 leaves to its user."""
    method = event.method.decode("ascii")
    target = event.target.decode("ascii")
    major, _, minor = event.http_version.decode("ascii").partition(".")
    if major != "1":
        raise ProtocolError(505, "Only HTTP/1.1 and HTTP/1.0 are spoken here")
    version = "1.0" if minor == "0" else "1.1"
    headers = [(name.decode("ascii"), value.decode("latin-1")) for name, value in event.headers]
    authority, path, query = _split_target(method, target)
    if authority:
        # RFC 9112, 3.2.2: an absolute-form target replaces Host
        headers = [("host", authority), *(pair for pair in headers if pair[0] != "host")]
    variables = _join_fields(headers)
    if HOST.fullmatch(variables.get("HTTP_HOST", "")) is None:
        raise ProtocolError(400, "The Host is not valid")
    chunked = "HTTP_TRANSFER_ENCODING" in variables
    length = variables.get("CONTENT_LENGTH")
    if chunked and (length is not None or version == "1.0"):
        # RFC 9112, 6.1 and 6.3: faulty framing, or an attempt to smuggle a request
        raise ProtocolError(400, "Transfer-Encoding where it must not be")
    if length is not None and len(length) > LONGEST_LENGTH:
        raise ProtocolError(413, "The request body is too large", "limit_body")
    return RequestReceived(
        method,
        target,
        path,
        query,
        version,
        "\r\n".join([f"HTTP/{version}", *(f"{name}: {value}" for name, value in headers)]).encode(
            "latin-1"
        ),
        variables,
        None if length is None else int(length),
        chunked,
        version == "1.1" and method != "HEAD" and not _affects_connection(variables),
    )


def _split_target(method: str, target: str) -> tuple[str, str, str]:
    """Return authority (of the absolute form only), path and query (RFC 9112, 3.2)."""
    if method == "CONNECT":
        raise ProtocolError(501, "This is not a proxy")
    if "#" in target:
        raise ProtocolError(400, "A fragment in the request target")
    if target.startswith("/"):
        path, _, query = target.partition("?")
        return "", path, query
    if target == "*" and method == "OPTIONS":
        return "", target, ""
    match = _ABSOLUTE_FORM.fullmatch(target)
    if match is None:
        raise ProtocolError(400, "The request target is not valid")
    return match[1], match[2] or "/", match[3] or ""


def _join_fields(headers: list[tuple[str, str]]) -> dict[str, str]:
    variables: dict[str, str] = {}
    for name, value in headers:
        if "_" in name:
            continue
        variable = cgi_name(name)
        if variable in variables:
            # RFC 9110, 5.3; for cookies RFC 6265, 5.4 and RFC 9113, 8.2.3
            separator = "; " if variable == "HTTP_COOKIE" else ", "
            variables[variable] += separator + value
        else:
            variables[variable] = value
    return variables
