"""Which proxies stand before a server, and what they are believed."""

from __future__ import annotations

from dataclasses import dataclass

from .option import option


@dataclass(frozen=True, slots=True)
class Proxies:
    """Which proxies are believed, and how they say for whom they speak. By default none is."""

    trusted: tuple[str, ...] = option(
        "trusted_proxies",
        (),
        "Addresses and networks of the proxies that are believed, such as 10.0.0.0/8; unix for"
        " whoever connects to a unix socket; * for everybody, where nobody but the proxy can"
        " connect. May be repeated. Nobody is believed if empty.",
    )
    # What nearly every proxy sets by itself. One that does not know a header passes on what the
    # client has sent, so the others must be asked for.
    headers: tuple[str, ...] = option(
        "forwarded_header",
        ("x-forwarded-for", "x-forwarded-proto"),
        "A header that the trusted proxies set, or overwrite, in every request, by its full name:"
        " of the X-Forwarded ones For, Proto, Host, Port and Prefix, or Forwarded (RFC 7239) alone."
        " May be repeated.",
    )
    hops: int = option(
        "proxy_hops",
        0,
        "How many proxies there are in a row: the client is the entry that many from the right,"
        " whatever the addresses between. 0 goes from the right past all trusted addresses.",
        low=0,
    )
    protocol: bool = option(
        "proxy_protocol",
        False,
        "Every connection begins with a PROXY header, version 1 or 2, as HAProxy and load balancers"
        " send it. Only trusted_proxies may connect then.",
    )
    # The specification asks for three seconds at least: a segment may be lost.
    timeout: float = option(
        "proxy_protocol_timeout", 5.0, "For a whole PROXY header.", unit="seconds", low=0.1
    )
