"""Opening the sockets of a configuration, and why one cannot be opened, in words."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator, Sequence

from .worker import Bind, ConfigError, ServerConfig
from .worker.net.bind import BindAddress, open_socket, parse_bind
from .worker.system.systemd import inherited_sockets

# How many ports above a busy one are tried, to name one that is free.
_PORTS_TRIED = 20


def open_sockets(config: ServerConfig) -> list[socket.socket]:
    """A socket for every address, or those that a service manager has opened instead.

    Raises `ConfigError`, in words, for what the system refuses.
    """
    if inherited := inherited_sockets(config.bind.backlog):
        return inherited
    with contextlib.ExitStack() as opened:
        sockets = []
        for text in config.bind.addresses:
            sock = open_socket_for(text, config.bind)
            sockets.append(opened.enter_context(sock))
        opened.pop_all()
    return sockets


def open_socket_for(text: str, settings: Bind) -> socket.socket:
    """A socket for one address of `settings`. Raises as `open_sockets`."""
    address = parse_bind(text)
    try:
        return open_socket(address, settings.backlog, settings)
    except OSError as error:
        raise ConfigError(_bind_problem(text, address, error)) from None


@contextlib.contextmanager
def closed_in_the_end(sockets: Sequence[socket.socket]) -> Iterator[None]:
    """With them the files of unix sockets go; those that were closed already stay so."""
    try:
        yield
    finally:
        for sock in sockets:
            sock.close()


def _bind_problem(text: str, address: BindAddress, error: OSError) -> str:
    """What went wrong, and what to do about it."""
    unix = address.kind == "unix"
    place = address.host if unix else _spell(address.host, address.port)
    if address.kind == "fd":
        return f"bind: {text}: {error.strerror or error}; give a socket that can listen"
    match error.errno:
        case errno.EADDRINUSE if unix:
            return f"bind: another server listens on {place}; stop it, or give another path"
        case errno.EADDRINUSE:
            free = _free_port(address)
            return f"bind: {place} is in use; stop what listens there, or try --bind {free}"
        case errno.EACCES | errno.EPERM if unix:
            return (
                f"bind: {place} may not be created by this user; give a path in a folder of its own"
            )
        case errno.EACCES | errno.EPERM:
            higher = _spell(address.host, 8000 + address.port % 1000)
            return f"bind: this user may not listen on {place}; try --bind {higher}"
        case errno.EADDRNOTAVAIL:
            everywhere = _spell("0.0.0.0", address.port)
            return (
                f"bind: {address.host} is no address of this machine; try --bind {everywhere},"
                " which is all of them"
            )
        case errno.EAFNOSUPPORT:
            local = _spell("127.0.0.1", address.port)
            return f"bind: this machine has no addresses like {address.host}; try --bind {local}"
        case errno.ENOENT if unix:
            return f"bind: there is no folder for {place}; make it first"
        case _:
            return f"bind: cannot listen on {place}: {error.strerror or error}"


def _free_port(address: BindAddress) -> str:
    """The next port, free if one near it is; only a proposal, so nothing is held."""
    first = min(address.port + 1, 65535)
    for port in range(first, min(first + _PORTS_TRIED, 65536)):
        with contextlib.suppress(OSError), open_socket(BindAddress("tcp", address.host, port), 1):
            return _spell(address.host, port)
    return _spell(address.host, first)


def _spell(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
