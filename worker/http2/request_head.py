"""The head of an HTTP/2 request, checked as strictly as one of HTTP/1.1 (RFC 9113, 8.2 and 8.3).

A head that passes has the same meaning as HTTP/1.1. Other heads are used to smuggle requests
through proxies that translate between the versions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..config.groups import Limits
from ..errors import ProtocolError
from ..http.grammar import (
    FIELD_CHECK,
    HOST,
    LONGEST_LENGTH,
    NEVER_CACHED,
    TARGET_CHECK,
    TOKEN,
)
from ..messages import RequestReceived, cgi_name

FieldList = Sequence[tuple[bytes, bytes]]

_PSEUDO = frozenset((b":method", b":scheme", b":authority", b":path"))
_CONNECTION_SPECIFIC = frozenset(
    (b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade")
)
_NAME = bytes(octet for octet in TOKEN if not ord("A") <= octet <= ord("Z"))
_SLASH = ord("/")
# What each field adds to the size of a field list, beside its octets (RFC 9113, 6.5.2).
FIELD_OVERHEAD = 32

_LONGEST_CACHED = 256
_MOST_CACHED = 1024


class MalformedError(Exception):
    """A request is malformed: its stream is reset (RFC 9113, 8.1.1)."""


class HeadReader:
    """Makes heads of field lists. Belongs to one loop, because of its cache of fields."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        #: The CGI variable, the value and the line of each field that was seen before. A name with
        #: an underscore has no variable.
        self._fields: dict[tuple[bytes, bytes], tuple[str, str, bytes]] = {}

    def read(self, fields: FieldList, *, ended: bool) -> RequestReceived:
        """The request whose head is `fields`. `ended`: no body follows.

        Raises `MalformedError`, and `ProtocolError` with the status to answer.
        """
        pseudo: dict[bytes, bytes] = {}
        for name, value in fields:
            if not name.startswith(b":"):
                break
            if name in pseudo or name not in _PSEUDO:
                raise MalformedError(f"the pseudo header {name!r}")
            pseudo[name] = value
        method, target = self._request_line(pseudo)
        regular = fields[len(pseudo) :]
        variables, lines = self._regular(regular)
        self._check_sizes(target, lines)
        self._settle_host(pseudo.get(b":authority"), variables, lines)
        path, _, query = target.partition("?")
        length = variables.get("CONTENT_LENGTH")
        if length is not None and not (length.isascii() and length.isdigit()):
            raise MalformedError("the content-length")
        if length is not None and len(length) > LONGEST_LENGTH:
            raise ProtocolError(413, "The request body is too large", "limit_body")
        size = None if length is None else int(length)
        if ended and size:
            raise MalformedError("a length, and no body")
        block = b"\r\n".join((b"HTTP/2", *lines))
        return RequestReceived(method, target, path, query, "2", block, variables, size)

    def _request_line(self, pseudo: dict[bytes, bytes]) -> tuple[str, str]:
        method = pseudo.get(b":method", b"")
        if not method or method.translate(None, TOKEN):
            raise MalformedError("the method")
        if method == b"CONNECT":
            raise ProtocolError(501, "This is not a proxy")
        if pseudo.get(b":scheme", b"").lower() not in (b"https", b"http"):
            raise MalformedError("the scheme")
        path = pseudo.get(b":path", b"")
        if not path or path.translate(TARGET_CHECK) != path:
            raise MalformedError("the path")
        if path[0] != _SLASH and (path != b"*" or method != b"OPTIONS"):
            raise MalformedError("the path")
        return method.decode("ascii"), path.decode("ascii")

    def _regular(self, fields: FieldList) -> tuple[dict[str, str], list[bytes]]:
        cached = self._fields.get
        variables: dict[str, str] = {}
        lines = []
        crumbs = []
        for pair in fields:
            variable, value, line = cached(pair) or self._field(*pair)
            if variable not in variables:
                if variable:
                    variables[variable] = value
            elif variable == "HTTP_COOKIE":
                crumbs.append(value)
                continue
            else:
                variables[variable] += ", " + value
            lines.append(line)
        if crumbs:
            _join_cookie(crumbs, variables, lines)
        return variables, lines

    def _field(self, name: bytes, value: bytes) -> tuple[str, str, bytes]:
        check_field(name, value)
        line = b"%b: %b" % (name, value)
        variable = "" if b"_" in name else cgi_name(name.decode("ascii"))
        entry = (variable, value.decode("latin-1"), line)
        if len(line) <= _LONGEST_CACHED and variable and variable not in NEVER_CACHED:
            if len(self._fields) >= _MOST_CACHED:
                self._fields.clear()
            self._fields[name, value] = entry
        return entry

    def _check_sizes(self, target: str, lines: list[bytes]) -> None:
        limits = self._limits
        if len(target) > limits.request_line:
            raise ProtocolError(414, "The request target is too long", "limit_request_line")
        if len(lines) > limits.field_count:
            raise ProtocolError(431, "There are too many header fields", "limit_fields")
        sizes = [*map(len, lines), 0]
        if max(sizes) > limits.field_size:
            raise ProtocolError(431, "A header field is too long", "limit_field_size")
        if sum(sizes) + len(target) > limits.head:
            raise ProtocolError(431, "The request head is too large", "limit_head")

    def _settle_host(
        self, authority: bytes | None, variables: dict[str, str], lines: list[bytes]
    ) -> None:
        """Set Host by :authority, which must not contradict it (RFC 9113, 8.3.1)."""
        host = variables.get("HTTP_HOST")
        if authority is not None:
            name = authority.decode("latin-1")
            if host is not None and host.lower() != name.lower():
                raise MalformedError("two hosts")
            if host is None:
                lines.insert(0, b"host: " + authority)
            variables["HTTP_HOST"] = host = name
        if not host or HOST.fullmatch(host) is None:
            raise ProtocolError(400, "The Host is not valid")


def _join_cookie(crumbs: list[str], variables: dict[str, str], lines: list[bytes]) -> None:
    """Make one Cookie field of the first one and `crumbs`, its other parts (RFC 9113, 8.2.3).

    Browsers split it so that HPACK can index the parts. The limits are those of one field.
    """
    cookie = "; ".join((variables["HTTP_COOKIE"], *crumbs))
    variables["HTTP_COOKIE"] = cookie
    at = next(at for at, line in enumerate(lines) if line.startswith(b"cookie: "))
    lines[at] = b"cookie: " + cookie.encode("latin-1")


def check_field(name: bytes, value: bytes) -> None:
    """Raises `MalformedError` for a field that HTTP/2 does not allow (RFC 9113, 8.2)."""
    if not name or name.translate(None, _NAME):
        raise MalformedError(f"the field name {name!r}")
    if value.translate(FIELD_CHECK) != value or value != value.strip(b" \t"):
        raise MalformedError(f"the value of {name!r}")
    if name in _CONNECTION_SPECIFIC or (name == b"te" and value.lower() != b"trailers"):
        raise MalformedError(f"the connection-specific field {name!r}")


def check_trailers(fields: Iterable[tuple[bytes, bytes]], *, ended: bool) -> None:
    """Raises `MalformedError`. Valid trailers are dropped: merged with headers they could smuggle
    some."""
    if not ended:
        raise MalformedError("something follows the trailers")
    for name, value in fields:
        check_field(name, value)


def with_length(head: RequestReceived, size: int) -> RequestReceived:
    """`head` with the length of its body, without which most frameworks read no body."""
    variables = {**head.variables, "CONTENT_LENGTH": str(size)}
    return head._replace(content_length=size, variables=variables)
