"""Connections that the kernel has accepted and the server has not."""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

_TCP_INFO = getattr(socket, "TCP_INFO", None)
# Of a listening socket, Linux puts the length and the size of its queue where a connection has its
# unacknowledged and its selectively acknowledged segments: see tcp_get_info in net/ipv4/tcp.c. In
# `struct tcp_info` (linux/tcp.h) they follow eight octets and four numbers.
_QUEUE = struct.Struct("8x 4I II")


class AcceptQueue(NamedTuple):
    """How many connections wait to be accepted at a host and port, and how many may."""

    address: tuple[str, int]
    length: int
    size: int


def accept_queue(sock: socket.socket) -> AcceptQueue | None:
    """The queue of a listener; None if it is not known. It is known for TCP on Linux."""
    try:
        name = sock.getsockname()
        if _TCP_INFO is None or not isinstance(name, tuple):
            return None
        info = sock.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, _QUEUE.size)
        *_, length, size = _QUEUE.unpack(info)
    except (OSError, struct.error):  # closed meanwhile, or another system
        return None
    return AcceptQueue(name[:2], length, size)
