"""The protocols of systemd: socket activation and service notification.

See sd_listen_fds(3) and sd_notify(3). Without a service manager these functions do nothing.
"""

from __future__ import annotations

import os
import socket
import time

from ..errors import ConfigError

_FIRST_DESCRIPTOR = 3


def inherited_sockets(backlog: int) -> list[socket.socket]:
    """Return the listening sockets that a service manager passed to this process.

    A second call returns none. Raises `ConfigError` for a descriptor that is not such a socket.
    """
    owner, count = os.environ.get("LISTEN_PID"), os.environ.get("LISTEN_FDS", "")
    if owner != str(os.getpid()) or not count.isdecimal():
        return []
    for name in ("LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"):
        os.environ.pop(name, None)  # child processes must not take the sockets as theirs
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
    except OSError as error:  # it is a connection: the socket unit has Accept=yes
        sock.detach()
        why = f"LISTEN_FDS: file descriptor {fd} cannot listen: {error.strerror}"
        raise ConfigError(f"{why}; give a socket that can") from None
    return sock


class Notifier:
    """Reports the state of the service to the service manager. Any thread may call."""

    def __init__(self) -> None:
        self._address = os.environ.get("NOTIFY_SOCKET", "")
        watched = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        period = os.environ.get("WATCHDOG_USEC", "") if self._address else ""
        #: Seconds between two watchdog messages, half of the allowed time; 0 if none is expected.
        self.interval = int(period) / 2e6 if watched and period.isdecimal() else 0.0
        self._next = 0.0

    def ready(self, status: str) -> None:
        """Report that the service accepts requests."""
        self._send("READY=1", f"STATUS={status}", f"MAINPID={os.getpid()}")

    def reloading(self) -> None:
        """Report that a reload has begun; `ready` ends it."""
        now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000 if self._address else 0
        self._send("RELOADING=1", f"MONOTONIC_USEC={now}", "STATUS=reloading")

    def stopping(self) -> None:
        """Report that the service is stopping."""
        self._send("STOPPING=1", "STATUS=stopping")

    def alive(self) -> None:
        """Send a watchdog message if one is due."""
        now = time.monotonic()
        if self.interval and now >= self._next:
            self._next = now + self.interval
            self._send("WATCHDOG=1")

    def _send(self, *fields: str) -> None:
        if not self._address:
            return
        path = self._address
        address = "\0" + path[1:] if path.startswith("@") else path
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.connect(address)
                sock.sendall("\n".join(fields).encode())
        except OSError:
            pass  # the service also works without its manager
