"""How many connections wait in the kernel until they are accepted. Linux, TCP."""

from __future__ import annotations

import socket
from collections.abc import Iterable

from ..net.backlog import accept_queue
from ..net.bind import url_of
from .prometheus import Metric, gauge, labels


def backlog_metrics(sockets: Iterable[socket.socket]) -> list[Metric]:
    """The backlogs of listening sockets; nothing where the system does not tell them."""
    waiting: dict[str, float] = {}
    sizes: dict[str, float] = {}
    for sock in sockets:
        queue = accept_queue(sock)
        if queue is not None:
            address = labels(address=url_of("tcp", queue.address))
            waiting[address], sizes[address] = queue.length, queue.size
    if not waiting:
        return []
    return [
        gauge("threadwell_backlog", "Connections that wait to be accepted, by address.", waiting),
        gauge("threadwell_backlog_size", "Most connections that may wait, by address.", sizes),
    ]
