"""Trusted proxies: whose headers are trusted, and which client they name.

    Forwarding.amend                 a request as the client sent it to the outermost trusted proxy
    Forwarding.apply_proxy_header    a connection after its PROXY header
    TrustedPeers                     the trusted addresses

Rule: nothing that a client could have written itself is trusted. So the fields are read from the
right, where the nearest proxy appends, and only as far as the addresses are trusted. Fields that
are not trusted are removed from the request, because the framework might trust them.
"""

from __future__ import annotations

import logging
import re
import socket
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, NamedTuple

from ..config import changed
from ..errors import ConfigError, ProtocolError
from ..messages import Address, Origin, RequestReceived, cgi_name
from . import forwarded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..config.groups import Proxies
    from ..connection import RequestSource
    from ..system.throttled_log import ThrottledLog
    from .forwarded import IPAddress, Node
    from .proxy_protocol import Announced

_FOR, _PROTO, _HOST, _PORT, _PREFIX = _X_FORWARDED = (
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PORT",
    "HTTP_X_FORWARDED_PREFIX",
)
_FORWARDED = "HTTP_FORWARDED"

# The fields that this module reads. From a trusted proxy only these are removed, if not enabled.
_SUPPORTED_FIELDS = frozenset((*_X_FORWARDED, _FORWARDED))
# Also the fields that frameworks and middleware read; only trusted proxies may send them.
_FORWARDING_FIELDS = _SUPPORTED_FIELDS | {
    cgi_name(name)
    for name in (
        "x-forwarded-by x-forwarded-protocol x-forwarded-scheme x-forwarded-server"
        " x-forwarded-ssl x-forwarded-uri x-original-host x-real-ip x-scheme x-script-name"
        " x-url-scheme"
    ).split()
}
# A name with an underscore: h11 parses such heads, and converts names to lower case.
_UNDERSCORE = re.compile(rb"\r\n[a-z0-9-]*_[a-z0-9_-]*:")

_MOST_REMEMBERED = 1024
_LONGEST = 256
# Characters of a field that are logged.
_SHOWN = 200


# ---- Trusted peers ---------------------------------------------------------------------------


class TrustedPeers:
    """The trusted addresses, from the option `trusted_proxies`. Raises `ConfigError`."""

    def __init__(self, texts: Sequence[str]) -> None:
        #: Every peer is trusted: `*`, or a network of prefix length 0.
        self.trusts_everyone = False
        self.unix = False
        self._networks: list[IPv4Network | IPv6Network] = []
        for text in texts:
            for word in text.replace(",", " ").split():
                self._add(word)

    def _add(self, word: str) -> None:
        if word == "*":
            self.trusts_everyone = True
        elif word == "unix":
            self.unix = True
        else:
            network = _network(word)
            if network.prefixlen:
                self._networks.append(network)
            else:
                self.trusts_everyone = True

    def __bool__(self) -> bool:
        return self.trusts_everyone or self.unix or bool(self._networks)

    def __contains__(self, address: IPAddress | None) -> bool:
        """Whether `address` is in one of the networks; `*` does not count here."""
        return address is not None and any(address in network for network in self._networks)

    def may_connect(self, conn: RequestSource) -> bool:
        """Whether the peer of `conn`, by the address of its socket, is trusted."""
        if self.trusts_everyone:
            return True
        if conn.sock.family == getattr(socket, "AF_UNIX", None):
            return self.unix
        try:
            return forwarded.parse_address(conn.peer[0]) in self
        except ValueError:  # a socket without an address, from another process
            return False


def _network(word: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(word, strict=False)
        if "%" in word:
            raise ValueError("a zone says nothing of a peer")
    except ValueError:
        raise ConfigError(
            f"trusted_proxies: {word!r} is neither an address nor a network; 10.0.0.7, 10.0.0.0/8,"
            " fd00::/8, unix and * are understood"
        ) from None
    if ip_address(word.partition("/")[0]) != network.network_address:
        raise ConfigError(
            f"trusted_proxies: {word} is not a network; {network} is the one around it"
        )
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        ipv4 = network.network_address.ipv4_mapped
        if ipv4 is not None:  # addresses are compared as IPv4 too
            return IPv4Network((ipv4, network.prefixlen - 96))
    return network


def check(settings: Proxies) -> None:
    """Check that `settings` are valid and fit each other. Raises `ConfigError`."""
    trusted = TrustedPeers(settings.trusted)
    trusted_fields(settings.headers)
    others = [name for name in changed(settings) if name != "trusted_proxies"]
    if others and not trusted:
        raise ConfigError(
            f"{others[0]}: no proxy is trusted; name your proxies with trusted_proxies"
        )
    if trusted.trusts_everyone and not (settings.hops or settings.protocol):
        raise ConfigError(
            "trusted_proxies: with * as a proxy, set proxy_hops to the number of proxies; otherwise"
            " clients could choose their own address"
        )


def trusted_fields(texts: Sequence[str]) -> frozenset[str]:
    """Return the CGI names of the fields in `forwarded_header`. Raises `ConfigError`."""
    names = [name for text in texts for name in text.lower().replace(",", " ").split()]
    chosen = {cgi_name(name.replace("_", "-")) for name in names}
    for name in names:
        if cgi_name(name.replace("_", "-")) not in _SUPPORTED_FIELDS:
            raise ConfigError(
                f"forwarded_header: {name!r} is none of x-forwarded-for, x-forwarded-proto,"
                " x-forwarded-host, x-forwarded-port, x-forwarded-prefix, forwarded"
            )
    if _FORWARDED in chosen and len(chosen) > 1:
        raise ConfigError(
            "forwarded_header: forwarded says all that the others say; choose the ones that your"
            " proxies set"
        )
    return frozenset(chosen)


# ---- The client of a request -----------------------------------------------------------------


class Forwarding:
    """Determines the client of each request. Used by one thread, because of its caches."""

    def __init__(self, settings: Proxies, throttled_log: ThrottledLog) -> None:
        self.peers = TrustedPeers(settings.trusted)
        self._trusted_fields = trusted_fields(settings.headers)
        self._uses_forwarded = _FORWARDED in self._trusted_fields
        self._hops = settings.hops
        self._removed_fields = _SUPPORTED_FIELDS - self._trusted_fields
        self._throttled_log = throttled_log
        self._strip_all = _FieldFilter(_FORWARDING_FIELDS)
        self._strip_supported = _FieldFilter(_SUPPORTED_FIELDS)
        self._strip_untrusted = _FieldFilter(self._removed_fields)
        self._fields = sorted(self._trusted_fields)
        #: Cache: a connection's origin, Host and the trusted fields, to the request's origin.
        self._origins: dict[tuple[object, ...], tuple[Origin | None, str]] = {}
        self._nodes: dict[str, tuple[Address, bool]] = {}
        self._servers: dict[tuple[str, int, str, str], Address] = {}

    def amend(self, conn: RequestSource, head: RequestReceived) -> RequestReceived:
        """Set the client of the request in `conn`, and return `head` for the application.

        Raises `ProtocolError` if a trusted proxy sent a malformed field.
        """
        direct = conn.direct
        if direct is None:
            direct = conn.direct = self._direct(conn)
        origin, head = self.read(conn, direct, head)
        conn.origin = origin
        return head

    def _direct(self, conn: RequestSource) -> Origin:
        trusted = self.peers.may_connect(conn)
        return replace(conn.origin, trusted=trusted)

    def read(
        self, conn: RequestSource, direct: Origin, head: RequestReceived
    ) -> tuple[Origin, RequestReceived]:
        """Return the origin of the request `head`, and the head for the application.

        `direct` is the origin of `conn` itself. Raises `ProtocolError`.
        """
        block, variables = head.block, head.variables
        # If there is a variable for each field line, no name has an underscore: see
        # `RequestReceived`.
        spoofed = block.count(b"\r\n") != len(variables) and bool(_UNDERSCORE.search(block))
        if not spoofed and _FORWARDING_FIELDS.isdisjoint(variables):
            return direct, head
        if not direct.trusted:
            return direct, self._strip_all(head)
        get = variables.get
        told = [get(name) for name in self._fields]
        key = (direct.client, direct.server, direct.scheme, get("HTTP_HOST", ""), *told)
        known = self._origins.get(key)
        if known is None:
            known = self._interpret(conn, direct, variables)
            if (
                not _requests_certificates(conn)
                and sum(map(len, filter(None, key[3:]))) <= _LONGEST
            ):
                if len(self._origins) >= _MOST_REMEMBERED:
                    self._origins.clear()
                self._origins[key] = known
        origin, host = known
        if origin is None:
            return direct, self._strip_supported(head)
        if host or spoofed or not self._removed_fields.isdisjoint(variables):
            head = self._strip_untrusted(head, host)
        return origin, head

    def _interpret(
        self, conn: RequestSource, direct: Origin, variables: dict[str, str]
    ) -> tuple[Origin | None, str]:
        """Return the origin that a trusted proxy reports, and the Host if that differs.

        The origin is None if the fields are not to be trusted. Raises `ProtocolError`.
        """
        try:
            info = (
                self._read_forwarded(variables)
                if self._uses_forwarded
                else self._read_x_forwarded(variables)
            )
            if info is None:
                return None, ""
            return self._origin(conn, direct, info, variables.get("HTTP_HOST", ""))
        except ValueError as error:
            fields = [
                (name, variables[name][:_SHOWN]) for name in self._fields if name in variables
            ]
            self._throttled_log.log(
                "forwarded",
                logging.WARNING,
                "A request of %s was refused: its forwarding fields are malformed (%s)",
                conn.peer[0] or "a unix socket",
                ", ".join(f"{name}: {value!r}" for name, value in fields),
            )
            message = "The forwarding fields of this request are malformed"
            raise ProtocolError(400, message) from error

    def _read_x_forwarded(self, variables: dict[str, str]) -> _ForwardedInfo | None:
        """Read the X-Forwarded-... fields; None if they are not to be trusted."""

        def field(name: str) -> list[str]:
            return forwarded.items(variables.get(name, "")) if name in self._trusted_fields else []

        def chosen(name: str) -> str:
            # The entry of the same proxy, if each proxy appends one. A proxy that overwrites the
            # field leaves a single entry.
            found = field(name)
            return found[-min(depth, len(found))] if found else ""

        address, depth = None, self._hops or 1
        if _FOR in self._trusted_fields:
            nodes = field(_FOR)
            if len(nodes) < self._hops:
                return None  # the request did not pass through all proxies
            if nodes:
                address, depth = self._find_client(nodes)
        proto, host = chosen(_PROTO), chosen(_HOST)
        port, prefix = chosen(_PORT), chosen(_PREFIX)
        return _ForwardedInfo(
            address,
            proto and forwarded.scheme(proto),
            host,
            forwarded.port(port) if port else 0,
            prefix and forwarded.prefix(prefix),
        )

    def _read_forwarded(self, variables: dict[str, str]) -> _ForwardedInfo | None:
        """Read the Forwarded field; None if it is not to be trusted."""
        elements = forwarded.elements(variables.get(_FORWARDED, ""))
        if len(elements) < self._hops:
            return None
        if not elements:
            return _ForwardedInfo()
        nodes = [element.get("for") for element in elements]
        address, depth = self._find_client(nodes)
        chosen = elements[-depth]
        proto = chosen.get("proto", "")
        return _ForwardedInfo(address, proto and forwarded.scheme(proto), chosen.get("host", ""))

    def _find_client(self, nodes: Sequence[str | None]) -> tuple[Address | None, int]:
        """Return the client's address, or None if unknown, and its position from the right."""
        if self._hops:
            text = nodes[-self._hops]
            return None if text is None else self._node(text)[0], self._hops
        address: Address | None = None
        depth = 0
        for text in reversed(nodes):
            depth += 1
            if text is None:
                break
            address, trusted = self._node(text)
            if not trusted:
                break
        return address, depth

    def _node(self, text: str) -> tuple[Address, bool]:
        """Return the address of the node `text`, and whether it is a trusted proxy."""
        known = self._nodes.get(text)
        if known is None:
            node = forwarded.node(text, bare_ipv6=not self._uses_forwarded)
            trusted = self.peers.unix if text == forwarded.UNIX else node.address in self.peers
            known = _address(node), trusted
            if len(text) <= _LONGEST:
                if len(self._nodes) >= _MOST_REMEMBERED:
                    self._nodes.clear()
                self._nodes[text] = known
        return known

    def _origin(
        self, conn: RequestSource, direct: Origin, info: _ForwardedInfo, asked: str
    ) -> tuple[Origin, str]:
        """Return the origin that `info` describes, and a Host to replace `asked` with, or ''."""
        client, port = direct.client, direct.client_port
        if info.client is not None:
            client, port = info.client, str(info.client[1])
        scheme = info.scheme or direct.scheme
        server, host = direct.server, ""
        if info.host or info.port:
            server, host = _authority(info, direct, scheme, asked)
            host = "" if host == asked else host
        if server != direct.server or scheme != direct.scheme or info.prefix:
            server = self._shared_server(conn, server, scheme, info.prefix)
        return Origin(client, port, server, scheme, info.prefix), host

    def _shared_server(
        self, conn: RequestSource, server: Address, scheme: str, prefix: str
    ) -> Address:
        """Return one object for equal server, scheme and prefix: see `Channel.server`."""
        if _requests_certificates(conn):
            return (server[0], server[1])
        key = (*server, scheme, prefix)
        known = self._servers.get(key)
        if known is None:
            if len(self._servers) >= _MOST_REMEMBERED:
                self._servers.clear()
            # a new tuple: an equal one may stand for another scheme
            known = self._servers[key] = (server[0], server[1])
        return known

    # ---- The PROXY protocol -------------------------------------------------------------------

    def apply_proxy_header(self, conn: RequestSource, info: Announced) -> None:
        """Set the client of `conn` from the PROXY header of a trusted peer."""
        own = conn.origin
        scheme = "https" if info.encrypted else own.scheme
        client, server = info.client or own.client, info.server or own.server
        # A connection of the proxy itself (LOCAL) is trusted. Others carry any client's octets:
        # HTTP fields are trusted only if the announced client address is in a trusted network.
        trusted = info.local
        if info.client is not None:
            trusted = bool(client[0]) and forwarded.parse_address(client[0]) in self.peers
        if info.server is not None or info.encrypted:
            server = self._shared_server(conn, server, scheme, "")
        conn.direct = conn.origin = Origin(client, str(client[1]), server, scheme, "", trusted)


def _requests_certificates(conn: RequestSource) -> bool:
    """Whether `conn` may have a client certificate: then its server tuple is its own.

    See `Channel.server`.
    """
    return not isinstance(conn.sock, socket.socket) and conn.sock.requests_certificates


class _ForwardedInfo(NamedTuple):
    """The content of the forwarding fields; empty or None where a field is missing."""

    client: Address | None = None
    scheme: str = ""
    host: str = ""
    port: int = 0
    prefix: str = ""


def _address(node: Node) -> Address:
    return (str(node.address), node.port) if node.address is not None else ("", 0)


def _authority(
    info: _ForwardedInfo, direct: Origin, scheme: str, asked: str
) -> tuple[Address, str]:
    """Return the server address and Host that the client used.

    `asked` is the Host that the request has. Raises `ValueError`.
    """
    default = 443 if scheme == "https" else 80
    if not info.host:
        server = (direct.server[0], info.port)
        if not asked:
            return server, ""
        name, _ = forwarded.host(asked)
    else:
        name, own_port = forwarded.host(info.host)
        server = (name, info.port or own_port or default)
        if not info.port:
            return server, info.host
    bracketed = f"[{name}]" if ":" in name else name
    return server, bracketed if info.port == default else f"{bracketed}:{info.port}"


class _FieldFilter:
    """Removes fields from request heads. Used by one thread, because of its cache.

    Field lines whose name has underscores in place of the dashes of a forwarding field are removed
    too: a WSGI environ would not tell them apart.
    """

    def __init__(self, removed_fields: frozenset[str]) -> None:
        self._removed_fields = removed_fields
        self._is_kept: dict[bytes, bool] = {}

    def __call__(self, head: RequestReceived, host: str = "") -> RequestReceived:
        """Return `head` without the fields, and with the Host `host` if given."""
        block, variables = head.block, head.variables
        version, *lines = block.split(b"\r\n")
        kept = [version]
        known = self._is_kept.get
        for line in lines:
            name = line.partition(b":")[0]
            keep = known(name)
            if keep or (keep is None and self._decide(name)):
                kept.append(line)
        variables = variables.copy()
        for variable in self._removed_fields.intersection(variables):
            del variables[variable]
        if host:
            variables["HTTP_HOST"] = host
            kept = [line for line in kept if line[:5].lower() != b"host:"]
            kept.insert(1, b"Host: " + host.encode("latin-1"))
        block = b"\r\n".join(kept)
        return head.with_fields(block, variables)

    def _decide(self, name: bytes) -> bool:
        """Whether field lines with `name` are kept."""
        variable = cgi_name(name.decode("latin-1"))
        kept = variable not in (_FORWARDING_FIELDS if b"_" in name else self._removed_fields)
        if len(name) <= _LONGEST:
            if len(self._is_kept) >= _MOST_REMEMBERED:
                self._is_kept.clear()
            self._is_kept[name] = kept
        return kept
