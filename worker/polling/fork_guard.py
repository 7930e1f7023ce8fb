"""Processes that the application forks off: they must not keep the server's sockets.

Such a process has a copy of each. While it lives, no client would see its connection end, and the
port would stay taken. What the application raises or returns there is no answer, for the parent
gives one. So the process loses the sockets, and ends when the application returns to the server.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import weakref
from typing import TYPE_CHECKING, NoReturn, Protocol

from ..connection import State
from ..net.bound_socket import BoundSocket

if TYPE_CHECKING:
    from ..connection import Connection
    from .listener import Listener

log = logging.getLogger("threadwell")


class SocketOwner(Protocol):
    """A `Poller`, as far as a fork is concerned."""

    forked: bool
    listeners: dict[int, Listener]
    connections: set[Connection]


_owners: weakref.WeakSet[SocketOwner] = weakref.WeakSet()


def watch(owner: SocketOwner) -> None:
    """Keep the sockets of `owner` out of the processes that the application forks off."""
    _owners.add(owner)


def _lose_sockets() -> None:
    for poller in list(_owners):
        poller.forked = True
        for listener in poller.listeners.values():
            if listener.shared or isinstance(
                listener.sock, BoundSocket
            ):  # others are the embedder's
                _lose(listener)
        for connection in poller.connections:
            if connection.state is not State.HIJACKED:  # that one is the application's
                _lose(connection)
                connection.fd = -1
        poller.listeners.clear()
        poller.connections.clear()


def _lose(owner: Listener | Connection) -> None:
    """Close the descriptor only: a unix socket's file and a TLS session are the parent's."""
    sock = owner.sock if isinstance(owner.sock, socket.socket) else owner.sock.session
    with contextlib.suppress(OSError):
        os.close(sock.detach())


def leave(error: BaseException | None) -> NoReturn:
    """End a process that was forked off, after the application has returned or raised `error`."""
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
    os.register_at_fork(after_in_child=_lose_sockets)
