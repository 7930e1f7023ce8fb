"""Parsers of the header fields that proxies set: X-Forwarded-... and Forwarded (RFC 7239).

Every function raises `ValueError` for malformed input.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

IPAddress = IPv4Address | IPv6Address

_TOKEN = r"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
# RFC 7239, 4: a pair, then the separator before the next one. Both may be missing. The possessive
# quantifiers prevent quadratic backtracking on a long run of blanks.
_PAIR = re.compile(rf"[ \t]*+(?:({_TOKEN})=(?:({_TOKEN})|\"((?:[^\"\\]|\\.)*)\"))?[ \t]*+([;,]|\Z)")
# RFC 7239, 6. The ipaddress module then validates the addresses.
_HIDDEN = r"_[A-Za-z0-9._-]+"
_NODE = re.compile(
    rf"(?:([0-9.]+)|\[([0-9A-Fa-f:.]+)\]|(?:[Uu][Nn][Kk][Nn][Oo][Ww][Nn]|{_HIDDEN}))"
    rf"(?::([0-9]{{1,5}}|{_HIDDEN}))?"
)
_BARE_IPV6 = re.compile(r"[0-9A-Fa-f:.]{2,45}")
# RFC 3986, 3.2.2, without percent-encoding and sub-delims, which no host of a web site has.
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9._~-]+))(?::([0-9]{1,5}))?")
#: What nginx writes into X-Forwarded-For for a client on a unix socket.
UNIX = "unix:"
# RFC 1035, 2.3.4: 255 octets; and a port.
_LONGEST_HOST = 261
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+;=:@-]+)*/?")
_SCHEMES = {"http": "http", "https": "https", "ws": "http", "wss": "https"}


class Node(NamedTuple):
    """A client or proxy that a field names. `address` is None for an unknown or hidden one."""

    address: IPAddress | None
    port: int


def items(text: str) -> list[str]:
    """Return the elements of a comma-separated list, without empty ones (RFC 9110, 5.6.1.2)."""
    return [item for part in text.split(",") if (item := part.strip(" \t"))]


def elements(text: str) -> list[dict[str, str]]:
    """Return the elements of a Forwarded field as dictionaries with lower-case names."""
    found: list[dict[str, str]] = []
    element: dict[str, str] = {}
    at, end = 0, ""
    while at < len(text) or end:
        match = _PAIR.match(text, at)
        if match is None:
            raise ValueError("this is not a parameter")
        name, token, quoted, end = match.groups()
        if name is not None:
            name = name.lower()
            if name in element:
                raise ValueError("a parameter comes twice")
            element[name] = re.sub(r"\\(.)", r"\1", quoted) if token is None else token
        if end != ";" and element:
            found.append(element)
            element = {}
        at = match.end()
    return found


def node(text: str, *, bare_ipv6: bool) -> Node:
    """Parse a node (RFC 7239, 6).

    `bare_ipv6` allows an IPv6 address without brackets, as in X-Forwarded-For.
    """
    if bare_ipv6 and text == UNIX:
        return Node(None, 0)
    if bare_ipv6 and text.count(":") > 1 and _BARE_IPV6.fullmatch(text):
        return Node(parse_address(text), 0)
    match = _NODE.fullmatch(text)
    if match is None:
        raise ValueError("it names no address")
    ipv4: str | None
    ipv6: str | None
    ipv4, ipv6, port = match.groups()
    number = int(port) if port and port.isdigit() else 0
    if number > 65535:
        raise ValueError("this is not a port")
    if ipv4 is not None:
        return Node(IPv4Address(ipv4), number)
    return Node(None, 0) if ipv6 is None else Node(parse_address(str(IPv6Address(ipv6))), number)


def parse_address(text: str) -> IPAddress:
    """Parse an address, without its zone; an IPv4-mapped IPv6 address becomes IPv4."""
    address = ip_address(text.partition("%")[0])
    return getattr(address, "ipv4_mapped", None) or address


def scheme(text: str) -> str:
    """Return `http` or `https`, also for `ws` and `wss`."""
    try:
        return _SCHEMES[text.lower()]
    except KeyError:
        raise ValueError("this scheme is not http or https") from None


def host(text: str) -> tuple[str, int]:
    """Return host (IPv6 without brackets) and port, which is 0 if there is none."""
    match = _HOST.fullmatch(text)
    if match is None or len(text) > _LONGEST_HOST:
        raise ValueError("this is not a host")
    ipv6, name, digits = match.groups()
    if ipv6 is not None:
        IPv6Address(ipv6)
    return ipv6 or name, port(digits) if digits else 0


def port(text: str) -> int:
    """Return a port, which is never 0."""
    if not re.fullmatch("[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise ValueError("this is not a port")
    return int(text)


def prefix(text: str) -> str:
    """Return a path prefix without a slash at its end: empty for `/`."""
    # "//host" would turn links into ones to another site; browsers resolve "." and ".."
    if not _PREFIX.fullmatch(text) or not {".", ".."}.isdisjoint(text.split("/")):
        raise ValueError("this is not a path")
    return text.rstrip("/")
