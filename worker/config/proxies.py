"""Settings of trusted proxies and of the headers that they set."""

from __future__ import annotations

from dataclasses import dataclass

from .option import option


@dataclass(frozen=True, slots=True)
class Proxies:
    """Which proxies are trusted, and which of their headers are used. By default no proxy is."""

    trusted: tuple[str, ...] = option(
        "trusted_proxies",
        (),
        "Addresses and networks of trusted proxies, such as 10.0.0.0/8; unix trusts peers of a"
        " unix socket, and * trusts every peer, for servers that only the proxy can reach. May be"
        " repeated. Empty trusts none.",
    )
    # The headers that nearly every proxy sets by default. A proxy passes on a client's header that
    # it does not know, so the others must be enabled explicitly.
    headers: tuple[str, ...] = option(
        "forwarded_header",
        ("x-forwarded-for", "x-forwarded-proto"),
        "Header that the trusted proxies set or overwrite in every request: X-Forwarded-For,"
        " X-Forwarded-Proto, X-Forwarded-Host, X-Forwarded-Port or X-Forwarded-Prefix, or"
        " Forwarded (RFC 7239) alone. May be repeated.",
    )
    hops: int = option(
        "proxy_hops",
        0,
        "Number of proxies in front of the server: the client is this entry from the right,"
        " whatever its address. 0 takes the first address from the right that is not trusted.",
        low=0,
    )
    protocol: bool = option(
        "proxy_protocol",
        False,
        "Expect a PROXY header (version 1 or 2) at the start of every connection, as HAProxy and"
        " load balancers send it. Only trusted_proxies may connect then.",
    )
    # The specification requires at least three seconds, to allow for a lost segment.
    timeout: float = option(
        "proxy_protocol_timeout",
        5.0,
        "Time for a complete PROXY header to arrive.",
        unit="seconds",
        low=0.1,
    )
