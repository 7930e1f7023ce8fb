"""Reads the PROXY header at the start of a connection, for threads and event loops.

It consumes no octet after the header, for a TLS handshake may follow.
"""

from __future__ import annotations

import logging
import socket
from typing import TYPE_CHECKING

from ..errors import ClientDisconnected
from .proxy_protocol import ProxyHeaderError, ProxyHeaderParser

if TYPE_CHECKING:
    from ..connection import Connection
    from ..system.throttled_log import ThrottledLog
    from .trust import Forwarding

# Octets that are peeked at once: a header with addresses and a few values.
_PEEKED_AT_ONCE = 536


class ProxyHeaderRejected(OSError):
    """The connection must close: its peer is not trusted, or sent no valid PROXY header."""


def advance(conn: Connection, forwarding: Forwarding) -> None:
    """Read the header, and apply it to `conn`.

    Raises `BlockingIOError` while the header is incomplete, `ProxyHeaderRejected`, and `OSError`.
    """
    header = conn.proxy_header
    if not isinstance(header, ProxyHeaderParser):
        if not forwarding.peers.may_connect(conn):
            raise ProxyHeaderRejected("its address is not one of trusted_proxies")
        header = conn.proxy_header = ProxyHeaderParser()
    sock = conn.sock if isinstance(conn.sock, socket.socket) else conn.sock.as_socket()
    while header.announced is None:
        # the methods of `socket`: those of a TLS session would start its handshake
        data = socket.socket.recv(sock, _PEEKED_AT_ONCE, socket.MSG_PEEK)
        if not data:
            # health checks of load balancers connect and close in this way
            raise ClientDisconnected("closed before a whole PROXY header")
        try:
            taken = header.feed(data)
        except ProxyHeaderError as error:
            raise ProxyHeaderRejected(f"its PROXY header cannot be used: {error}") from error
        socket.socket.recv(sock, taken)
    forwarding.apply_proxy_header(conn, header.announced)
    conn.proxy_header = None


def log_rejection(
    conn: Connection, throttled_log: ThrottledLog, error: ProxyHeaderRejected
) -> None:
    """Log why `conn` is closed."""
    throttled_log.log(
        str(error),
        logging.WARNING,
        "The connection of %s was closed: %s",
        conn.peer[0] or "a unix socket",
        error,
    )
