"""HTTP to a port with TLS, or TLS to a port without: what the client and the log are told.

The client gets a 400, which a browser does not show for https. So the log says it too, at most
once a minute: on a public address it happens all the time.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..messages import Address
    from ..system.throttled_log import ThrottledLog

WITHOUT_TLS = "This port speaks https, and the request came without TLS"
WITH_TLS = "This port speaks http, and the client began a TLS handshake"


class WrongPort:
    """Logs such requests, at most once a minute. Any thread may call."""

    def __init__(self, throttled_log: ThrottledLog) -> None:
        self._log = throttled_log

    def without_tls(self, peer: Address, server: Address) -> None:
        """Log a request without TLS on a port with TLS."""
        self._say("http", "https", "use https:// there", peer, server)

    def with_tls(self, peer: Address, server: Address) -> None:
        """Log a TLS handshake on a port without TLS."""
        hint = "use http:// there, or give the server a certificate"
        self._say("https", "http", hint, peer, server)

    def _say(self, asked: str, spoken: str, hint: str, peer: Address, server: Address) -> None:
        self._log.log(
            asked,
            logging.INFO,
            f"%s asked for {asked} at %s, which speaks {spoken}; {hint}",
            peer[0] or "A client",
            _display(server),
        )


def began_handshake(received: bytes | bytearray) -> bool:
    """Whether `received` begins as the record of a TLS handshake (RFC 8446, 5.1)."""
    return received.startswith(b"\x16\x03") or received == b"\x16"


def _display(address: Address) -> str:
    host, port = address
    if not port:
        return host  # a unix socket
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
