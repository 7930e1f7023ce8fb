"""The parser of HTTP/1.1 request heads, and the only module that imports h11.

    RequestParser.parse        a complete head: the strict fast path, else `_parse_with_h11`
    RequestParser.unfinished   rejects an incomplete head as early as possible

The fast path handles the requests that browsers, proxies and client libraries send: origin-form
target, HTTP/1.1 or 1.0, no repeated field, no Transfer-Encoding. `FieldCache` remembers the field
lines, so the strict check runs once for each distinct line.
Every other head goes to h11, after checks for what h11 accepts (bare LF, control characters,
folded lines, an invalid Host). A test verifies that both paths give the same result.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..config.groups import Limits
from ..errors import ProtocolError
from ..http.grammar import FIELD_VALUE, HOST, LONGEST_LENGTH, TARGET_CHECK
from ..messages import RequestReceived, cgi_name
from .field_cache import FieldCache, SlowPathError, affects_connection

if TYPE_CHECKING:
    import h11

_SLASH = ord("/")
_METHODS = {
    method.encode(): method
    for method in ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
}

_ABSOLUTE_FORM = re.compile(r"https?://([^/?]+)(/[^?]*)?(?:\?(.*))?", re.IGNORECASE)

# RFC 9112, 2.2: at least one empty line before a request line should be ignored.
_MOST_EMPTY_LINES = 8


class EmptyLineError(ProtocolError):
    """There is an empty line in what was to be one head, or nothing else."""

    def __init__(self) -> None:
        super().__init__(400, "There is an empty line in the request head")


class RequestParser:
    """Parses request heads. Used by one thread, because of its caches.

    For any input the only exception is `ProtocolError`.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._fields = FieldCache(limits.field_count)
        # in a head up to this size no line can be too long
        self._longest_fast_head = min(limits.field_size, limits.request_line, limits.head)

    def parse(self, head: bytes) -> RequestReceived:
        """Return the request of `head`, which is without the empty line at its end.

        Raises `EmptyLineError`, a `ProtocolError`, if it is more than that: no octet of what the
        fast path accepts can be part of an empty line.
        """
        try:
            raw_method, raw_target, block = head.split(b" ", 2)
            if (
                raw_target.translate(TARGET_CHECK) != raw_target
                or raw_target[0] != _SLASH
                or len(head) > self._longest_fast_head
            ):
                return self._parse_with_h11(head)
            variables, common, version, stays_open = self._fields.parse(block)
            target = path = raw_target.decode()
            query = ""
            if "?" in target:  # which is found out five times as fast as `partition` takes
                path, _, query = target.partition("?")
            method = _METHODS[raw_method]
            length = None
            if "CONTENT_LENGTH" in variables:  # which is never in `common`
                declared = variables["CONTENT_LENGTH"]
                # in Latin-1 only the digits of ASCII are decimal
                if len(declared) > LONGEST_LENGTH or not declared.isdecimal():
                    raise SlowPathError
                length = int(declared)
        except (LookupError, ValueError, SlowPathError):
            return self._parse_with_h11(head)
        is_simple = stays_open and length is None and method != "HEAD"
        # no keywords: a call with them is slower
        return RequestReceived(
            method,
            target,
            path,
            query,
            version,
            block,
            variables,
            length,
            False,
            is_simple,
            stays_open,
            common,
        )

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
        # with the empty line that was behind it, a line break at its end is one, too
        if not head or head.endswith(b"\r\n") or head.find(b"\r\n\r\n") >= 0:
            raise EmptyLineError
        self._check_sizes(head)
        _check_octets(head)
        try:
            import h11  # many servers never need it, and it would be a twentieth of their start
        except OSError as error:  # the application holds all descriptors
            raise ProtocolError(503, "The server has no file descriptor left") from error

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
        if connection.trailing_data[0]:
            raise EmptyLineError
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
            raise ProtocolError(400, "The request head has a control character")
        if line.startswith((b" ", b"\t")):
            raise ProtocolError(400, "A header line begins with a blank")


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
        raise ProtocolError(505, "Only HTTP/1.1 and HTTP/1.0 are supported")
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
        raise ProtocolError(400, "Transfer-Encoding is not allowed here")
    if length is not None and len(length) > LONGEST_LENGTH:
        raise ProtocolError(413, "The request body is too large", "limit_body")
    block = "\r\n".join([f"HTTP/{version}", *(f"{name}: {value}" for name, value in headers)])
    stays_open = version == "1.1" and not affects_connection(variables)
    return RequestReceived(
        method,
        target,
        path,
        query,
        version,
        block.encode("latin-1"),
        variables,
        content_length=None if length is None else int(length),
        chunked=chunked,
        is_simple=stays_open and length is None and method != "HEAD",
        stays_open=stays_open,
    )


def _split_target(method: str, target: str) -> tuple[str, str, str]:
    """Return authority (of the absolute form only), path and query (RFC 9112, 3.2)."""
    if method == "CONNECT":
        raise ProtocolError(501, "This is not a proxy")
    if "#" in target:
        raise ProtocolError(400, "The request target has a fragment")
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
