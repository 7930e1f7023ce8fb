"""The PROXY protocol, versions 1 and 2: a header that a proxy sends before the client's octets.

https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt

`ProxyHeaderParser` parses octets as they arrive, and consumes none after the header: a TLS
handshake or a request follows. It does no I/O, and accepts any sender; `trust.TrustedPeers` decides
whose headers are read.
"""

from __future__ import annotations

import functools
import re
import socket
from typing import NamedTuple

from ..messages import Address
from .forwarded import IPAddress, parse_address

_SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
_LONGEST_LINE = 107  # "the longest possible line", with its CRLF
_LINE = re.compile(
    rb"PROXY (?:(TCP4) ([0-9.]{7,15}) ([0-9.]{7,15})|(TCP6) ([0-9A-Fa-f:.]{2,39})"
    rb" ([0-9A-Fa-f:.]{2,39})) (0|[1-9][0-9]{0,4}) (0|[1-9][0-9]{0,4})\r\n"
)
_UNKNOWN_LINE = re.compile(rb"PROXY UNKNOWN(?: [^\r\n]*)?\r\n")

# Signature, version and command, family and transport, length.
_FIXED = 16
# Type-length-values are short: the name of a certificate, an identifier.
_LONGEST = _FIXED + 4096

_LOCAL, _PROXY = 0x20, 0x21
_UNSPECIFIED, _TCP4, _TCP6, _UNIX = 0x00, 0x11, 0x21, 0x31
# Octets of both addresses and both ports.
_SIZES = {_UNSPECIFIED: 0, _TCP4: 12, _TCP6: 36, _UNIX: 216}

_TYPE_CRC32C, _TYPE_SSL = 0x03, 0x20
_CLIENT_SSL = 0x01


class ProxyHeaderError(ValueError):
    """The octets are not a valid PROXY header."""


class Announced(NamedTuple):
    """The content of a PROXY header.

    An address is None if the header has none; then the address of the socket holds.
    `local` means that the proxy connects on its own behalf, such as for a health check, and not for
    a client (the command LOCAL); `encrypted`, that the client used TLS with the proxy.
    """

    client: Address | None = None
    server: Address | None = None
    local: bool = False
    encrypted: bool = False


class ProxyHeaderParser:
    """Parses a header that arrives in any pieces."""

    def __init__(self) -> None:
        self._held = b""
        #: The content, once the header is complete.
        self.announced: Announced | None = None

    def feed(self, data: bytes) -> int:
        """Parse `data`; returns how many of its octets belong to the header.

        Raises `ProxyHeaderError`.
        """
        held = self._held + data
        size = _size(held)
        if size is None:
            self._held = held
            return len(data)
        taken = size - len(self._held)
        self._held = held = held[:size]
        self.announced = _version_2(held) if held.startswith(_SIGNATURE) else _version_1(held)
        return taken


def _size(held: bytes) -> int | None:
    """Return the size of the header at the start of `held`; None while it is incomplete."""
    if held[:12] == _SIGNATURE[: len(held)]:
        if len(held) < _FIXED:
            return None
        size = _FIXED + int.from_bytes(held[14:16])
        if size > _LONGEST:
            raise ProxyHeaderError("it is too long")
        return size if size <= len(held) else None
    if held[:6] != b"PROXY "[: len(held)]:
        raise ProxyHeaderError("there is none")
    end = held.find(b"\r\n", 0, _LONGEST_LINE)
    if end >= 0:
        return end + 2
    if len(held) >= _LONGEST_LINE:
        raise ProxyHeaderError("the line is too long")
    return None


def _version_1(line: bytes) -> Announced:
    match = _LINE.fullmatch(line)
    if match is None:
        if _UNKNOWN_LINE.fullmatch(line):
            return Announced()
        raise ProxyHeaderError("the line is malformed")
    _, client4, server4, _, client6, server6, *ports = match.groups()
    version = 4 if client4 else 6
    client = _parsed(client4 or client6, version)
    server = _parsed(server4 or server6, version)
    numbers = [int(port) for port in ports]
    if max(numbers) > 65535:
        raise ProxyHeaderError("a port is at most 65535")
    return Announced((client, numbers[0]), (server, numbers[1]))


def _parsed(text: bytes, version: int) -> str:
    decoded = text.decode("ascii")
    try:
        address = parse_address(decoded)
    except ValueError:
        raise ProxyHeaderError("an address is malformed") from None
    if ("." in decoded and ":" not in decoded) != (version == 4):
        raise ProxyHeaderError("an address is of another family")
    return str(address)


def _version_2(header: bytes) -> Announced:
    command, family = header[12], header[13]
    if command not in (_LOCAL, _PROXY):
        raise ProxyHeaderError("the version or the command is not known")
    if command == _LOCAL:
        # the specification says to skip the addresses
        return Announced(local=True)
    size = _SIZES.get(family)
    if size is None:
        raise ProxyHeaderError("the family or the transport is none that HTTP comes by")
    addresses = header[_FIXED : _FIXED + size]
    if len(addresses) < size:
        raise ProxyHeaderError("it is too short for its addresses")
    if family == _UNSPECIFIED:
        # addresses of unknown length may come first, so the rest cannot be parsed
        return Announced()
    encrypted = _values(header, _FIXED + size)
    if family == _UNIX:
        return Announced(("", 0), None, encrypted=encrypted)
    length = 4 if family == _TCP4 else 16
    client, server = addresses[:length], addresses[length : 2 * length]
    ports = addresses[2 * length :]
    return Announced(
        (_packed(client), int.from_bytes(ports[:2])),
        (_packed(server), int.from_bytes(ports[2:])),
        encrypted=encrypted,
    )


def _packed(octets: bytes) -> str:
    family = socket.AF_INET if len(octets) == 4 else socket.AF_INET6
    address: IPAddress = parse_address(socket.inet_ntop(family, octets))
    return str(address)


def _values(header: bytes, at: int) -> bool:
    """Parse the type-length-values from `at` on; returns whether the client used TLS."""
    encrypted = False
    while at < len(header):
        kind, length = header[at], int.from_bytes(header[at + 1 : at + 3])
        value = header[at + 3 : at + 3 + length]
        if at + 3 > len(header) or len(value) < length:
            raise ProxyHeaderError("a value is longer than the header")
        if kind == _TYPE_CRC32C:
            _check_sum(header, at + 3, value)
        elif kind == _TYPE_SSL:
            if length < 5:
                raise ProxyHeaderError("its TLS part is too short")
            encrypted = bool(value[0] & _CLIENT_SSL)
        at += 3 + length
    return encrypted


def _check_sum(header: bytes, at: int, value: bytes) -> None:
    if len(value) != 4:
        raise ProxyHeaderError("the checksum is malformed")
    # it is computed with zeros in the place of the checksum itself
    if crc32c(header[:at] + bytes(4) + header[at + 4 :]) != int.from_bytes(value):
        raise ProxyHeaderError("the checksum is wrong")


@functools.cache
def _table() -> list[int]:
    table = []
    for octet in range(256):
        for _ in range(8):
            octet = octet >> 1 ^ (0x82F63B78 if octet & 1 else 0)  # noqa: PLW2901
        table.append(octet)
    return table


def crc32c(data: bytes) -> int:
    """Return the CRC32c checksum of `data` (RFC 9260, appendix A)."""
    table, sum_ = _table(), 0xFFFFFFFF
    for octet in data:
        sum_ = table[(sum_ ^ octet) & 0xFF] ^ sum_ >> 8
    return sum_ ^ 0xFFFFFFFF
