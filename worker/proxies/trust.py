"""Proxies that are trusted, and for whom their requests come.

    Forwarding.amend        a request as it was sent to the outermost trusted proxy
    Forwarding.announced    a connection for which a proxy has sent a PROXY header
    TrustedPeers            who is believed

Rule: nothing that a client can write itself is believed. So the fields are read from the right,
where the nearest proxy has written, and no further than addresses are trusted. What is not believed
the application does not get to see, for its framework might believe it.
"""

from __future__ import annotations

import logging
import re
import socket
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import TYPE_CHECKING, NamedTuple

from ..config import changed
from ..errors import ConfigError, ProtocolError
from ..messages import Address, Origin, RequestReceived, cgi_name, new_tuple
from . import forwarded

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..config.groups import Proxies
    from ..connection import Connection
    from ..system.throttled_log import ThrottledLog
    from .forwarded import IPAddress, Node
    from .proxy_protocol import Announced

_FOR, _PROTO, _HOST, _PORT, _PREFIX = _EXTENDED = (
    "HTTP_X_FORWARDED_FOR",
    "HTTP_X_FORWARDED_PROTO",
    "HTTP_X_FORWARDED_HOST",
    "HTTP_X_FORWARDED_PORT",
    "HTTP_X_FORWARDED_PREFIX",
)
_STANDARD = "HTTP_FORWARDED"

# What is understood here; of a trusted proxy only these are taken away where they are not believed.
_UNDERSTOOD = frozenset((*_EXTENDED, _STANDARD))
# What frameworks and middleware are told by proxies, too; nobody else is to say it.
_TELLING = _UNDERSTOOD | {
    cgi_name(name)
    for name in (
        "x-forwarded-by x-forwarded-protocol x-forwarded-scheme x-forwarded-server"
        " x-forwarded-ssl x-forwarded-uri x-original-host x-real-ip x-scheme x-script-name"
        " x-url-scheme"
    ).split()
}
# A name with an underscore; h11, which such heads go through, makes names lower-case.
_UNDERSCORE = re.compile(rb"\r\n[a-z0-9-]*_[a-z0-9_-]*:")

_MOST_REMEMBERED = 1024
_LONGEST = 256
# How much of a field is logged.
_SHOWN = 200


# ---- Who is trusted --------------------------------------------------------------------------


class TrustedPeers:
    """The addresses that are trusted, from `trusted_proxies`. Raises `ConfigError`."""

    def __init__(self, texts: Sequence[str]) -> None:
        #: Whoever connects.
        self.everybody = False
        self.unix = False
        self._networks: list[IPv4Network | IPv6Network] = []
        for text in texts:
            for word in text.replace(",", " ").split():
                self._add(word)

    def _add(self, word: str) -> None:
        if word == "*":
            self.everybody = True
        elif word == "unix":
            self.unix = True
        else:
            network = _network(word)
            if network.prefixlen:
                self._networks.append(network)
            else:
                self.everybody = True

    def __bool__(self) -> bool:
        return self.everybody or self.unix or bool(self._networks)

    def __contains__(self, address: IPAddress | None) -> bool:
        """Whether `address` is in one of the networks: what * says of others is not asked."""
        return address is not None and any(address in network for network in self._networks)

    def may_connect(self, conn: Connection) -> bool:
        """Whether the peer of `conn`, by its socket, is trusted."""
        if self.everybody:
            return True
        if conn.sock.family == getattr(socket, "AF_UNIX", None):
            return self.unix
        try:
            return forwarded.plain_address(conn.peer[0]) in self
        except ValueError:  # a socket that somebody has handed over, without an address
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
        raise ConfigError(f"trusted_proxies: {word} is no network; {network} is the one around it")
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        ipv4 = network.network_address.ipv4_mapped
        if ipv4 is not None:  # as addresses are compared
            return IPv4Network((ipv4, network.prefixlen - 96))
    return network


def check(settings: Proxies) -> None:
    """Raise `ConfigError` for `settings` that cannot be used together."""
    trusted = TrustedPeers(settings.trusted)
    believed_fields(settings.headers)
    others = [name for name in changed(settings) if name != "trusted_proxies"]
    if others and not trusted:
        raise ConfigError(f"{others[0]}: nobody is trusted; name your proxies with trusted_proxies")
    if trusted.everybody and not (settings.hops or settings.protocol):
        raise ConfigError(
            "trusted_proxies: where everybody is trusted, say with proxy_hops how many proxies"
            " there are; else each client could choose its own address"
        )


def believed_fields(texts: Sequence[str]) -> frozenset[str]:
    """The CGI names of the fields in `forwarded_header`. Raises `ConfigError`."""
    names = [name for text in texts for name in text.lower().replace(",", " ").split()]
    chosen = {cgi_name(name.replace("_", "-")) for name in names}
    for name in names:
        if cgi_name(name.replace("_", "-")) not in _UNDERSTOOD:
            raise ConfigError(
                f"forwarded_header: {name!r} is none of x-forwarded-for, x-forwarded-proto,"
                " x-forwarded-host, x-forwarded-port, x-forwarded-prefix, forwarded"
            )
    if _STANDARD in chosen and len(chosen) > 1:
        raise ConfigError(
            "forwarded_header: forwarded says all that the others say; choose the ones that your"
            " proxies set"
        )
    return frozenset(chosen)


# ---- For whom a request comes ----------------------------------------------------------------


class Forwarding:
    """Says for whom requests come. Belongs to one thread, for what it remembers."""

    def __init__(self, settings: Proxies, throttled_log: ThrottledLog) -> None:
        self.peers = TrustedPeers(settings.trusted)
        self._believed = believed_fields(settings.headers)
        self._standard = _STANDARD in self._believed
        self._hops = settings.hops
        self._unwanted = _UNDERSTOOD - self._believed
        self._seldom = throttled_log
        self._without_any = _Without(_TELLING)
        self._without_understood = _Without(_UNDERSTOOD)
        self._without_unwanted = _Without(self._unwanted)
        self._fields = sorted(self._believed)
        #: What was understood before of an origin, a Host, and those fields.
        self._known: dict[tuple[object, ...], tuple[Origin | None, str]] = {}
        self._nodes: dict[str, tuple[Address, bool]] = {}
        self._servers: dict[tuple[str, int, str, str], Address] = {}

    def amend(self, conn: Connection, head: RequestReceived) -> RequestReceived:
        """`head`, for the application; whom it comes for is set in `conn`.

        Raises `ProtocolError` where a trusted proxy says what cannot be understood.
        """
        direct = conn.direct
        if direct is None:
            direct = conn.direct = self._direct(conn)
        origin, head = self.read(conn, direct, head)
        conn.represent(origin)
        return head

    def _direct(self, conn: Connection) -> Origin:
        """What holds for `conn` itself."""
        trusted = self.peers.may_connect(conn)
        return Origin(conn.client, conn.client_port, conn.server, conn.scheme, "", trusted)

    def read(
        self, conn: Connection, direct: Origin, head: RequestReceived
    ) -> tuple[Origin, RequestReceived]:
        """For whom `head` comes on `conn`, whose own origin is `direct`, and the head for the
        application. Raises `ProtocolError`."""
        block, variables = head[5:7]  # quicker than by their names
        # as many as there are lines: no name has an underscore, for which there is no variable
        spoofed = block.count(b"\r\n") != len(variables) and bool(_UNDERSCORE.search(block))
        if not spoofed and _TELLING.isdisjoint(variables):
            return direct, head
        if not direct.trusted:
            return direct, self._without_any(head)
        get = variables.get
        key = (direct, get("HTTP_HOST", ""), *[get(name) for name in self._fields])
        known = self._known.get(key)
        if known is None:
            known = self._understood(conn, direct, variables)
            if not _asks_certificates(conn) and sum(map(len, filter(None, key[1:]))) <= _LONGEST:
                if len(self._known) >= _MOST_REMEMBERED:
                    self._known.clear()
                self._known[key] = known
        origin, host = known
        if origin is None:
            return direct, self._without_understood(head)
        if host or spoofed or not self._unwanted.isdisjoint(variables):
            head = self._without_unwanted(head, host)
        return origin, head

    def _understood(
        self, conn: Connection, direct: Origin, variables: dict[str, str]
    ) -> tuple[Origin | None, str]:
        """What a trusted proxy says, and the Host that it changes. None if what is said is not to
        be believed. Raises `ProtocolError`."""
        try:
            said = self._standardized(variables) if self._standard else self._extended(variables)
            if said is None:
                return None, ""
            return self._origin(conn, direct, said, variables.get("HTTP_HOST", ""))
        except ValueError as error:
            fields = [
                (name, variables[name][:_SHOWN]) for name in self._fields if name in variables
            ]
            self._seldom.say(
                "forwarded",
                logging.WARNING,
                "A request of %s was refused: what it says of its way is malformed (%s)",
                conn.peer[0] or "a unix socket",
                ", ".join(f"{name}: {value!r}" for name, value in fields),
            )
            message = "What a proxy says of the way of this request is malformed"
            raise ProtocolError(400, message) from error

    def _extended(self, variables: dict[str, str]) -> _Said | None:
        """What the X-Forwarded-... fields say; None where it is not to be believed."""

        def field(name: str) -> list[str]:
            return forwarded.items(variables.get(name, "")) if name in self._believed else []

        def chosen(name: str) -> str:
            # from the same proxy, as far as each has added its own; one that overwrites leaves one
            found = field(name)
            return found[-min(depth, len(found))] if found else ""

        address, depth = None, self._hops or 1
        if _FOR in self._believed:
            nodes = field(_FOR)
            if len(nodes) < self._hops:
                return None  # it has not come through all the proxies
            if nodes:
                address, depth = self._walk(nodes)
        proto, host = chosen(_PROTO), chosen(_HOST)
        port, prefix = chosen(_PORT), chosen(_PREFIX)
        return _Said(
            address,
            proto and forwarded.scheme(proto),
            host,
            forwarded.port(port) if port else 0,
            prefix and forwarded.prefix(prefix),
        )

    def _standardized(self, variables: dict[str, str]) -> _Said | None:
        """What the Forwarded field says; None where it is not to be believed."""
        elements = forwarded.elements(variables.get(_STANDARD, ""))
        if len(elements) < self._hops:
            return None
        if not elements:
            return _Said()
        nodes = [element.get("for") for element in elements]
        address, depth = self._walk(nodes)
        chosen = elements[-depth]
        proto = chosen.get("proto", "")
        return _Said(address, proto and forwarded.scheme(proto), chosen.get("host", ""))

    def _walk(self, nodes: Sequence[str | None]) -> tuple[Address | None, int]:
        """Who the client is, and how many entries from the right. None says nothing of it."""
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
        """Whom `text` names, and whether it is trusted to say who came before."""
        known = self._nodes.get(text)
        if known is None:
            node = forwarded.node(text, bare_ipv6=not self._standard)
            trusted = self.peers.unix if text == forwarded.UNIX else node.address in self.peers
            known = _spelled(node), trusted
            if len(text) <= _LONGEST:
                if len(self._nodes) >= _MOST_REMEMBERED:
                    self._nodes.clear()
                self._nodes[text] = known
        return known

    def _origin(
        self, conn: Connection, direct: Origin, said: _Said, asked: str
    ) -> tuple[Origin, str]:
        """The origin that was `said`, and the Host that takes the place of `asked`, if another."""
        client, port = direct.client, direct.client_port
        if said.client is not None:
            client, port = said.client, str(said.client[1])
        scheme = said.scheme or direct.scheme
        server, host = direct.server, ""
        if said.host or said.port:
            server, host = _authority(said, direct, scheme, asked)
            host = "" if host == asked else host
        if server != direct.server or scheme != direct.scheme or said.prefix:
            server = self._shared(conn, server, scheme, said.prefix)
        return Origin(client, port, server, scheme, said.prefix), host

    def _shared(self, conn: Connection, server: Address, scheme: str, prefix: str) -> Address:
        """`server` as an object that stands for all that is the same: see `Channel.server`."""
        if _asks_certificates(conn):
            return (server[0], server[1])
        key = (*server, scheme, prefix)
        known = self._servers.get(key)
        if known is None:
            if len(self._servers) >= _MOST_REMEMBERED:
                self._servers.clear()
            # a new object, also where there is an equal one with another scheme
            known = self._servers[key] = (server[0], server[1])
        return known

    # ---- The PROXY protocol -------------------------------------------------------------------

    def announced(self, conn: Connection, said: Announced) -> None:
        """A trusted peer has said for whom `conn` is."""
        scheme = "https" if said.encrypted else conn.scheme
        client, server = said.client or conn.client, said.server or conn.server
        # The proxy's own connection is the proxy's; anybody's octets come through the others, so
        # the fields of HTTP are believed by the address alone, and not by everybody's.
        trusted = said.own
        if said.client is not None:
            trusted = bool(client[0]) and forwarded.plain_address(client[0]) in self.peers
        if said.server is not None or said.encrypted:
            server = self._shared(conn, server, scheme, "")
        conn.direct = Origin(client, str(client[1]), server, scheme, "", trusted)
        conn.represent(conn.direct)


def _asks_certificates(conn: Connection) -> bool:
    """Whether something of `conn` is its own that adapters know by its server."""
    return not isinstance(conn.sock, socket.socket) and conn.sock.asks


class _Said(NamedTuple):
    """What a proxy says; what is empty or None it does not say."""

    client: Address | None = None
    scheme: str = ""
    host: str = ""
    port: int = 0
    prefix: str = ""


def _spelled(node: Node) -> Address:
    return (str(node.address), node.port) if node.address is not None else ("", 0)


def _authority(said: _Said, direct: Origin, scheme: str, asked: str) -> tuple[Address, str]:
    """Server and Host of what was `said`, to a server that was `asked` as its Host says.

    Raises `ValueError`.
    """
    usual = 443 if scheme == "https" else 80
    if not said.host:
        server = (direct.server[0], said.port)
        if not asked:
            return server, ""
        name, _ = forwarded.host(asked)
    else:
        name, own = forwarded.host(said.host)
        server = (name, said.port or own or usual)
        if not said.port:
            return server, said.host
    bracketed = f"[{name}]" if ":" in name else name
    return server, bracketed if said.port == usual else f"{bracketed}:{said.port}"


class _Without:
    """Heads without the `unwanted` fields. Belongs to one thread, for what it remembers.

    Lines whose name has an underscore where one of the fields that tell has a dash go, too: in an
    environ made of them later they would pass for it.
    """

    def __init__(self, unwanted: frozenset[str]) -> None:
        self._unwanted = unwanted
        self._stays: dict[bytes, bool] = {}

    def __call__(self, head: RequestReceived, host: str = "") -> RequestReceived:
        """`head` without them, and for `host`, if that is given."""
        block, variables = head[5:7]
        version, *lines = block.split(b"\r\n")
        kept = [version]
        known = self._stays.get
        for line in lines:
            name = line.partition(b":")[0]
            stays = known(name)
            if stays or (stays is None and self._look_at(name)):
                kept.append(line)
        variables = variables.copy()
        for variable in self._unwanted.intersection(variables):
            del variables[variable]
        if host:
            variables["HTTP_HOST"] = host
            kept = [line for line in kept if line[:5].lower() != b"host:"]
            kept.insert(1, b"Host: " + host.encode("latin-1"))
        block = b"\r\n".join(kept)
        return new_tuple(RequestReceived, (*head[:5], block, variables, *head[7:]))

    def _look_at(self, name: bytes) -> bool:
        """Whether lines of that name stay."""
        variable = cgi_name(name.decode("latin-1"))
        stays = variable not in (_TELLING if b"_" in name else self._unwanted)
        if len(name) <= _LONGEST:
            if len(self._stays) >= _MOST_REMEMBERED:
                self._stays.clear()
            self._stays[name] = stays
        return stays
