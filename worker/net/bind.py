"""Listening sockets: addresses as users write them, and the sockets for them."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import stat
import sys
from collections.abc import Sequence
from typing import NamedTuple

from ..config import ServerConfig
from ..config.groups import Bind, Metrics
from ..errors import ConfigError
from ..messages import Address
from .bound_socket import BoundAbstractSocket, BoundSocket, BoundUnixSocket

_ACCEPTED_FORMS = "PORT, HOST:PORT, [IPV6]:PORT, unix:/PATH, unix:@NAME and fd://N are understood"


_MOST_BACKLOG = 2**31 - 1
_PORT = re.compile(r"(?P<port>[0-9]{1,9})")
_IPV6 = re.compile(r"\[(?P<host>[0-9A-Fa-f:.%\w]+)\]:(?P<port>[0-9]{1,9})")
# Other words without a port are more likely a mistake.
_HOST_ALONE = re.compile(r"localhost|[0-9]+(?:\.[0-9]+){3}|\[[0-9A-Fa-f:.%]*:[0-9A-Fa-f:.%]*\]")
_DEFAULT_PORT = 8000
_HOST = re.compile(r"(?P<host>[^\[\]:/\s]*):(?P<port>[0-9]{1,9})")


class BindAddress(NamedTuple):
    """One `bind` in parts.

    `host` is a path for a unix socket, or `@` and a name for an abstract one; for a descriptor it
    is a number. `port` is -1 for both.
    """

    kind: str  # "tcp", "unix" or "fd"
    host: str
    port: int = -1
    #: `http` or `https` if given, else empty: then TLS is used if there is a certificate.
    scheme: str = ""


def parse_bind(text: str) -> BindAddress:
    """Parse an address to listen on. Raises `ConfigError`.

    Accepted are `8000`, `:8000`, `0:8000` (all IPv4), `host:8000`, `[::]:8000`, `unix:/path`,
    `unix:///path`, `unix:@name` and `fd://3`, each also with `http://` or `https://` before it.
    `localhost`, `127.0.0.1` and `[::1]` alone mean port 8000.
    """
    rest, scheme = text.strip(), ""
    if match := re.fullmatch(r"(https?)://(.*?)/?", rest):
        scheme, rest = match.groups()
    if match := re.fullmatch(r"unix:(?://)?(/?.+)", rest):
        return BindAddress("unix", match[1], scheme=scheme)
    if match := re.fullmatch(r"fd:(?://)?([0-9]+)", rest):
        return BindAddress("fd", match[1], scheme=scheme)
    if _HOST_ALONE.fullmatch(rest):
        rest += f":{_DEFAULT_PORT}"
    match = _PORT.fullmatch(rest) or _IPV6.fullmatch(rest) or _HOST.fullmatch(rest)
    if match is None:
        raise ConfigError(f"bind: {text!r} is not an address; {_ACCEPTED_FORMS}")
    host, port = match.groupdict().get("host"), match["port"]
    if host is None:
        host = "127.0.0.1"
    if int(port) > 65535:
        raise ConfigError(f"bind: {text!r}: a port is at most 65535")
    host = {"": "0.0.0.0", "0": "0.0.0.0", "*": "::"}.get(host, host)
    return BindAddress("tcp", host, int(port), scheme)


def hosts_of(config: ServerConfig) -> list[str]:
    """Return the hosts of the TCP addresses that `config` binds. Raises `ConfigError`."""
    addresses = map(parse_bind, config.bind.addresses)
    return [address.host for address in addresses if address.kind == "tcp"]


def check_metrics_addresses(settings: Metrics) -> None:
    """Check the addresses of `metrics_bind` without binding them. Raises `ConfigError`."""
    for text in settings.bind:
        try:
            address = parse_bind(text)
        except ConfigError as error:
            raise ConfigError(f"metrics_{error}") from None
        if address.scheme == "https":
            raise ConfigError(f"metrics_bind: {text}: there is no TLS; give it without https://")


def parse_control(text: str) -> BindAddress:
    """The address of `control`. Raises `ConfigError`."""
    if not text.startswith("unix:") or text.startswith("unix:@"):
        raise ConfigError(
            f"control: {text!r} is not the path of a unix socket, and other users could reach any"
            " other; give unix:/PATH"
        )
    try:
        return parse_bind(text)
    except ConfigError as error:
        raise ConfigError(str(error).replace("bind:", "control:", 1)) from None


def check_addresses(config: ServerConfig) -> None:
    """Check that no address of `bind`, `metrics_bind` and `control` is given twice.

    Raises `ConfigError` for one that is, and for a `control` that is no unix socket.

    Nothing is bound or looked up.
    """
    control = config.control.socket
    if control:
        parse_control(control)
    seen: list[tuple[str, BindAddress]] = []
    for option, texts in (
        ("bind", config.bind.addresses),
        ("metrics_bind", config.metrics.bind),
        ("control", (control,) if control else ()),
    ):
        for text in texts:
            address = _comparable(parse_bind(text))
            for other, earlier in seen:
                if _overlap(address, earlier):
                    raise ConfigError(
                        f"{option}: {text} is an address of {other} already; give another"
                    )
            seen.append((option, address))


def _comparable(address: BindAddress) -> BindAddress:
    host = address.host
    if address.kind == "unix" and not host.startswith("@"):
        host = os.path.abspath(host)
    elif host == "localhost":
        host = "127.0.0.1"
    return BindAddress(address.kind, host, address.port)


def _overlap(one: BindAddress, other: BindAddress) -> bool:
    """Whether two sockets cannot listen on both. `[::]` leaves IPv4 to `0.0.0.0` if both exist."""
    if (one.kind, one.port) != (other.kind, other.port) or one.port == 0:
        return False
    if one.host == other.host:
        return True
    families = {":" in one.host, ":" in other.host}
    return (
        one.kind == "tcp"
        and len(families) == 1
        and bool({one.host, other.host} & {"0.0.0.0", "::"})
    )


def open_socket(address: BindAddress, backlog: int, settings: Bind | None = None) -> socket.socket:
    """Open a listening socket at `address`, with the options in `settings`.

    Raises `OSError` if the system refuses, and `ConfigError` for an invalid setting.
    """
    settings = settings or Bind()
    if backlog > _MOST_BACKLOG:
        raise ConfigError(f"backlog: {backlog} is more than any system allows")
    if address.kind == "unix" and address.host.startswith("@"):
        return _open_abstract(address.host, backlog, settings)
    if address.kind == "unix":
        return _open_unix(address.host, backlog, _permissions(settings))
    if address.kind == "fd":
        return _open_inherited(int(address.host), backlog)
    family = _family(address)
    sock = BoundSocket(family, socket.SOCK_STREAM)
    try:
        if os.name != "nt":  # on Windows it would let two servers bind one port
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if settings.reuse_port:
            _share_port(sock)
        if family == socket.AF_INET6 and address.host == "::":
            # accept IPv4 too, unless IPv4 has a socket of its own on this port
            alone = BindAddress("tcp", "0.0.0.0", address.port) not in _without_scheme(settings)
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(not alone))
        sock.bind((address.host, address.port))
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def open_sockets(settings: Bind) -> list[socket.socket]:
    """Open the sockets of all addresses. If one fails the others are closed: see `open_socket`."""
    with contextlib.ExitStack() as opened:
        sockets = [
            opened.enter_context(open_socket(parse_bind(text), settings.backlog, settings))
            for text in settings.addresses
        ]
        opened.pop_all()
    return sockets


def sockets_without_tls(texts: Sequence[str], count: int, *, encrypted: bool) -> list[bool]:
    """For each of `count` sockets, whether it speaks plain HTTP. Raises `ConfigError`.

    `texts` are the addresses that were configured; `encrypted` says whether there is a certificate.
    """
    schemes = [parse_bind(text).scheme for text in texts]
    if len(texts) != count:  # the sockets are not those of the configuration
        return [not encrypted] * count
    for text, scheme in zip(texts, schemes, strict=True):
        if scheme == "https" and not encrypted:
            raise ConfigError(f"bind: {text} needs a certificate; give certfile, or adhoc as cert")
    return [not encrypted or scheme == "http" for scheme in schemes]


def _family(address: BindAddress) -> socket.AddressFamily:
    try:
        # octets where that is the same: a text loads the tables of international names
        host = address.host.encode() if address.host.isascii() else address.host
        found = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ConfigError(f"bind: no address is known for the host {address.host!r}") from error
    families = [entry[0] for entry in found]
    # most users expect localhost to be IPv4
    return socket.AF_INET if socket.AF_INET in families else families[0]


def _without_scheme(settings: Bind) -> list[BindAddress]:
    return [parse_bind(text)._replace(scheme="") for text in settings.addresses]


def _share_port(sock: socket.socket) -> None:
    option = getattr(socket, "SO_REUSEPORT", None)
    if option is None:
        raise ConfigError("reuse_port: this system cannot share a port; leave it out")
    sock.setsockopt(socket.SOL_SOCKET, option, 1)


def _permissions(settings: Bind) -> int | None:
    text = settings.unix_permissions
    if text and not re.fullmatch(r"(0o?)?[0-7]{3}", text):
        raise ConfigError(f"unix_permissions: {text!r} is not an octal mode, such as 660")
    return int(text.removeprefix("0o"), 8) if text else None


def _open_unix(path: str, backlog: int, permissions: int | None) -> socket.socket:
    if not hasattr(socket, "AF_UNIX"):
        raise ConfigError("bind: this system has no unix sockets; bind a port")
    sock = BoundUnixSocket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(path)
        if permissions is not None:
            with contextlib.suppress(OSError):  # on Linux it then never has wider permissions
                os.fchmod(sock.fileno(), permissions)
        sock.bind(path)
        if permissions is not None:
            sock.set_mode(permissions)
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


def _open_abstract(name: str, backlog: int, settings: Bind) -> socket.socket:
    if sys.platform != "linux":
        raise ConfigError(f"bind: {name}: only Linux has abstract sockets; give a path")
    if settings.unix_permissions:
        raise ConfigError(f"unix_permissions: {name} has none, because it has no file; give a path")
    sock = BoundAbstractSocket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.bind("\0" + name[1:])
        sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    return sock


class SharedSocket(socket.socket):
    """A listening socket that another process holds too: closing it does not lose the backlog."""


def _remove_stale(path: str) -> None:
    """Remove a socket file that a dead server left behind.

    Raises `OSError` if a server answers there, or if the path is not a socket.
    """
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise OSError(errno.EEXIST, "the path exists and is not a socket", path)
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # connecting to a full backlog would block
        try:
            probe.connect(path)
        except (ConnectionRefusedError, FileNotFoundError):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            return
        except BlockingIOError:
            pass
    raise OSError(errno.EADDRINUSE, "another server listens there", path)


def _open_inherited(fd: int, backlog: int) -> socket.socket:
    copy = -1
    try:
        copy = os.dup(fd)
        sock = socket.socket(fileno=copy)
    except OSError as error:
        if copy >= 0:
            os.close(copy)
        raise ConfigError(f"bind: file descriptor {fd} is not an open socket") from error
    if sock.type != socket.SOCK_STREAM:
        sock.close()
        raise ConfigError(f"bind: file descriptor {fd} is not a stream socket")
    try:
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    return sock


def address_of(name: object) -> Address:
    """Convert a name from the socket module, such as that of `getpeername`, to an address."""
    if isinstance(name, tuple):
        return str(name[0]), int(name[1])
    if isinstance(name, bytes):  # an abstract socket of Linux: see unix(7)
        name = name.replace(b"\0", b"@", 1).decode(errors="replace")
    return str(name or ""), 0


def url_of(scheme: str, name: object) -> str:
    """Return the URL of a socket whose `getsockname` is `name`."""
    if not isinstance(name, tuple):
        return f"unix:{address_of(name)[0]}"
    host, port = str(name[0]), name[1]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host) or host
    return f"{scheme}://[{host}]:{port}" if ":" in host else f"{scheme}://{host}:{port}"


def format_address(host: str, port: int | str) -> str:
    """`host:port` as `parse_bind` reads it: an IPv6 address stands in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
