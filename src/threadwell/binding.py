"""Opens the sockets of a configuration, and explains why one cannot be opened."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator, Sequence

from .worker import Bind, ConfigError, ServerConfig, format_address
from .worker.net.bind import BindAddress, SharedSocket, open_socket, parse_bind
from .worker.system.systemd import inherited_sockets

# The number of ports above a busy one that are tried, to suggest a free one.
_PORTS_TRIED = 20


def open_sockets(config: ServerConfig) -> list[socket.socket]:
    """A socket for every address, or the sockets that a service manager has opened instead.

    Raises `ConfigError` with an explanation if the system refuses one.
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
    """A listening socket for the address `text` of `settings`. Raises as `open_sockets` does."""
    address = parse_bind(text)
    try:
        return open_socket(address, settings.backlog, settings)
    except OSError as error:
        raise ConfigError(_explain(text, address, error)) from None


def adopt_socket(descriptor: int) -> socket.socket:
    """The listening socket with this number, which another process keeps open too.

    Programs that the application starts do not inherit it.
    """
    sock = SharedSocket(fileno=descriptor)
    sock.set_inheritable(False)
    return sock


def is_same_address(one: str, other: str) -> bool:
    """Whether two values of `bind` mean the same address. Raises `ConfigError`."""
    return parse_bind(one) == parse_bind(other)


@contextlib.contextmanager
def closing_all(sockets: Sequence[socket.socket]) -> Iterator[None]:
    """Close `sockets` at the end; this removes the files of unix sockets.

    A socket that is closed already stays as it is.
    """
    try:
        yield
    finally:
        for sock in sockets:
            sock.close()


def _explain(text: str, address: BindAddress, error: OSError) -> str:
    """Why `address` cannot be bound, and what to do about it."""
    unix = address.kind == "unix"
    place = address.host if unix else format_address(address.host, address.port)
    if address.kind == "fd":
        return f"bind: {text}: {error.strerror or error}; give a socket that can listen"
    match error.errno:
        case errno.EADDRINUSE if unix:
            return f"bind: another server listens on {place}; stop it, or give another path"
        case errno.EADDRINUSE:
            free = _free_port(address)
            return f"bind: {place} is in use; stop what listens there, or try --bind {free}"
        case errno.EACCES | errno.EPERM if unix:
            return f"bind: this user may not create {place}; give a path in a folder of its own"
        case errno.EACCES | errno.EPERM:
            higher = format_address(address.host, 8000 + address.port % 1000)
            return f"bind: this user may not listen on {place}; try --bind {higher}"
        case errno.EADDRNOTAVAIL:
            everywhere = format_address("0.0.0.0", address.port)
            return (
                f"bind: {address.host} is not an address of this machine; try --bind {everywhere},"
                " which is all of them"
            )
        case errno.EAFNOSUPPORT:
            local = format_address("127.0.0.1", address.port)
            return f"bind: this machine has no addresses like {address.host}; try --bind {local}"
        case errno.ENOENT if unix:
            return f"bind: there is no folder for {place}; create it"
        case _:
            return f"bind: cannot listen on {place}: {error.strerror or error}"


def _free_port(address: BindAddress) -> str:
    """A free port above that of `address`, or else the next one.

    It is a suggestion only: the port is not kept.
    """
    first = min(address.port + 1, 65535)
    for port in range(first, min(first + _PORTS_TRIED, 65536)):
        with contextlib.suppress(OSError), open_socket(BindAddress("tcp", address.host, port), 1):
            return format_address(address.host, port)
    return format_address(address.host, first)
