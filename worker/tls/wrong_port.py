"""Clients that speak HTTP to a port with TLS, or TLS to one without, and what is said of it.

The client gets 400, which a browser cannot show for https. So the log says it too, but seldom:
on a public address it happens all the time.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..connection import Connection
    from ..messages import Address
    from ..system.throttled_log import ThrottledLog

WITHOUT_TLS = "This port speaks https, and the request came without TLS"
WITH_TLS = "This port speaks http, and the client began a TLS handshake"


class WrongPort:
    """Says it at most once a minute. Any thread may call."""

    def __init__(self, throttled_log: ThrottledLog) -> None:
        self._seldom = throttled_log

    def without_tls(self, conn: Connection) -> None:
        """A plain request has come where TLS is spoken."""
        self._say("http", "https", "use https:// there", conn)

    def with_tls(self, conn: Connection) -> None:
        """A handshake has begun where there is no TLS."""
        self._say("https", "http", "use http:// there, or give the server a certificate", conn)

    def _say(self, asked: str, spoken: str, hint: str, conn: Connection) -> None:
        self._seldom.say(
            asked,
            logging.INFO,
            f"%s asked for {asked} at %s, which speaks {spoken}; {hint}",
            conn.peer[0] or "A client",
            _spelled(conn.server),
        )


def began_handshake(received: bytes | bytearray) -> bool:
    """Whether `received` begins as the record of a TLS handshake (RFC 8446, 5.1)."""
    return received.startswith(b"\x16\x03") or received == b"\x16"


def _spelled(address: Address) -> str:
    host, port = address
    if not port:
        return host  # of a unix socket
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
