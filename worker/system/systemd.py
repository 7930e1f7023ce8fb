"""The two protocols of a service manager: sockets that it hands over, and how the service is.

See sd_listen_fds(3) and sd_notify(3). Without a service manager nothing here does anything.
"""

from __future__ import annotations

import os
import socket
import time

from ..errors import ConfigError

_FIRST_DESCRIPTOR = 3


def inherited_sockets(backlog: int) -> list[socket.socket]:
    """The listening sockets that a service manager opened for this process; taken once.

    Raises `ConfigError` for a descriptor that is none.
    """
    owner, count = os.environ.get("LISTEN_PID"), os.environ.get("LISTEN_FDS", "")
    if owner != str(os.getpid()) or not count.isdecimal():
        return []
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)  # what this process starts must not take them for its own
    return [_adopt(fd, backlog) for fd in range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + int(count))]


def _adopt(fd: int, backlog: int) -> socket.socket:
    try:
        os.set_inheritable(fd, False)
        sock = socket.socket(fileno=fd)
    except OSError:
        raise ConfigError(f"LISTEN_FDS: file descriptor {fd} is not an open socket") from None
    if sock.type != socket.SOCK_STREAM:
        sock.detach()
        raise ConfigError(f"LISTEN_FDS: file descriptor {fd} is not a stream socket")
    try:
        sock.listen(backlog)
    except OSError as error:  # a connection: the socket unit says Accept=yes
        sock.detach()
        why = f"LISTEN_FDS: file descriptor {fd} cannot listen: {error.strerror}"
        raise ConfigError(f"{why}; give a socket that can") from None
    return sock


class Notifier:
    """Tells the service manager how the service is. May be used from any thread."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        watched = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        period = os.environ.get("WATCHDOG_USEC", "") if self._address else ""
        #: Seconds between two signs of life, half of what is allowed; 0 when none is wanted.
        self.interval = int(period) / 2e6 if watched and period.isdecimal() else 0.0
        self._next = 0.0

    def ready(self, status: str) -> None:
        """Requests are taken."""
        self._tell("READY=1", f"STATUS={status}", f"MAINPID={os.getpid()}")

    def reloading(self) -> None:
        """New code is being loaded; `ready` says that it is over."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000 if self._address else 0
        self._tell("RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=reloading")

    def stopping(self) -> None:
        """The end has begun."""
        self._tell("STOPPING=1", "STATUS=stopping")

    def alive(self) -> None:
        """A sign of life, if it is time for one."""
        now = time.monotonic()
        if self.interval and now >= self._next:
            self._next = now + self.interval
            self._tell("WATCHDOG=1")

    def _tell(self, *facts: str) -> None:
        if not self._address:
            return
        path = self._address
        address = "\0" + path[1:] if path.startswith("@") else path
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.connect(address)
                sock.sendall("\n".join(facts).encode())
        except OSError:
            pass  # the service goes on without its manager
