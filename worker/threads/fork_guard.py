"""A process that the application forks off has a copy of each of the server's sockets.

While it lives no client would see its connection end, and the port would stay taken; and what the
application raises or returns there is no answer, for its parent gives one. So it loses the
sockets, and ends when the application comes back to the server.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import weakref
from typing import TYPE_CHECKING, NoReturn

from ..connection import State
from ..net.bound_socket import BoundSocket

if TYPE_CHECKING:
    from ..connection import Connection
    from ..polling.base import Poller
    from ..polling.listener import Listener

log = logging.getLogger("threadwell")

_pollers: weakref.WeakSet[Poller] = weakref.WeakSet()


def watch(poller: Poller) -> None:
    """Leave the sockets of `poller` to this process, whoever forks one off."""
    _pollers.add(poller)


def _let_go() -> None:
    for poller in list(_pollers):
        poller.forked = True
        for listener in poller.listeners.values():
            if listener.shared or isinstance(listener.sock, BoundSocket):  # else it is the caller's
                _lose(listener)
        for connection in poller.connections:
            if connection.state is not State.HIJACKED:  # that one is the application's
                _lose(connection)
                connection.fd = -1
        poller.listeners.clear()
        poller.connections.clear()


def _lose(owner: Listener | Connection) -> None:
    """Close the socket without a word: a file of that name, and TLS, are the parent's business."""
    sock = owner.sock if isinstance(owner.sock, socket.socket) else owner.sock.session
    with contextlib.suppress(OSError):
        os.close(sock.detach())


def leave(error: BaseException | None) -> NoReturn:
    """End a process that was forked off: the application is done with it, or has raised `error`."""
    code: object = 1
    try:
        if isinstance(error, SystemExit):
            code = error.code or 0
            if not isinstance(code, int):
                log.error("%s", code)
                code = 1
        else:
            log.error("The application left a process that it has forked off", exc_info=error)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(code & 0xFF if isinstance(code, int) else 1)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)
