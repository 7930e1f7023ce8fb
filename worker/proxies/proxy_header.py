"""The PROXY header of a connection: read before its first octet, on the threads and on the loops.

No more is taken from the kernel than the header has, for a TLS handshake may stand behind it.
"""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING

from ..errors import ClientDisconnected
from .proxy_protocol import Header, ProxyHeaderError

if TYPE_CHECKING:
    from ..connection import Connection
    from ..system.throttled_log import ThrottledLog
    from .trust import Forwarding

# What is looked at in one turn: a header with addresses and a few values.
_PEEKED_AT_ONCE = 536


class ProxyHeaderRejected(OSError):
    """The connection must be closed: its peer is not trusted, or has sent no PROXY header."""


def advance(conn: Connection, forwarding: Forwarding) -> None:
    """Read the header, and amend `conn` by it.

    Raises `BlockingIOError` while the rest is not there, `ProxyHeaderRejected`, and `OSError`.
    """
    header = conn.proxy_header
    if not isinstance(header, Header):
        if not forwarding.peers.may_connect(conn):
            raise ProxyHeaderRejected("its address is not one of trusted_proxies")
        header = conn.proxy_header = Header()
    sock = conn.sock if isinstance(conn.sock, socket.socket) else conn.sock.plain()
    while header.announced is None:
        # not the methods of a TLS session, which has not begun
        data = socket.socket.recv(sock, _PEEKED_AT_ONCE, socket.MSG_PEEK)
        if not data:
            # load balancers look in this way whether somebody is there
            raise ClientDisconnected("closed before a whole PROXY header")
        try:
            taken = header.feed(data)
        except ProxyHeaderError as error:
            raise ProxyHeaderRejected(f"its PROXY header cannot be used: {error}") from error
        socket.socket.recv(sock, taken)
    forwarding.announced(conn, header.announced)
    conn.proxy_header = None


def complain(conn: Connection, throttled_log: ThrottledLog, error: ProxyHeaderRejected) -> None:
    """Log why `conn` is closed."""
    throttled_log.say(
        str(error),
        logging.WARNING,
        "The connection of %s was closed: %s",
        conn.peer[0] or "a unix socket",
        error,
    )
