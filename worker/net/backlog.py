"""Connections that the kernel has accepted and the server has not."""

from __future__ import annotations

import socket
import struct

# `struct tcp_info` of Linux: for a listener its fifth number is the length of its queue.
_TCP_INFO = 28
_UNACKED = 24


def accept_queue(sock: socket.socket) -> int:
    """How many connections wait to be accepted from `sock`, a listener; 0 if it is not known.

    It is known for TCP on Linux.
    """
    info = getattr(socket, "TCP_INFO", None)
    if info is None:
        return 0
    try:
        data = sock.getsockopt(socket.IPPROTO_TCP, info, _TCP_INFO)
        return int(struct.unpack_from("I", data, _UNACKED)[0])
    except (OSError, struct.error):  # not of TCP, or closed meanwhile
        return 0
