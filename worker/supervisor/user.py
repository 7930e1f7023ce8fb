"""The user and group that worker processes run as. POSIX only."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from ..config.groups import Processes
from ..errors import ConfigError
from ..net.bound_socket import BoundUnixSocket

# -1 as an unsigned number: to setreuid(2) and chown(2) it means "do not change", and is no id.
_NO_ID = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Identity:
    """A user and a group. `name` and `home` are empty if the system has no such user."""

    uid: int
    gid: int
    name: str = ""
    home: str = ""

    def assume(self) -> None:
        """Become this user, irrevocably. Raises `ConfigError`.

        Call it before threads are started: on Linux they may keep the old ids, see setuid(2).
        """
        if not self._is_current():
            try:
                # the groups first: an ordinary user may not change them
                if self.name:
                    os.initgroups(self.name, self.gid)
                else:
                    os.setgroups([self.gid])
                os.setgid(self.gid)
                os.setuid(self.uid)
            except OSError as error:
                raise ConfigError(f"user: the system refuses: {error.strerror}") from None
            if self.uid:
                self._check_irrevocable()
        if self.home:
            os.environ.update(HOME=self.home, USER=self.name, LOGNAME=self.name)

    def _check_irrevocable(self) -> None:
        with contextlib.suppress(OSError):
            os.setuid(0)
            raise ConfigError("user: the system lets the process become root again")

    def _is_current(self) -> bool:
        same = (os.getuid(), os.geteuid()) == (self.uid, self.uid)
        return same and (os.getgid(), os.getegid()) == (self.gid, self.gid)

    def require_permission(self) -> None:
        """Raises `ConfigError` if this process may not become this user."""
        if os.geteuid() != 0 and not self._is_current():
            raise ConfigError(
                "user: only root may become another user or group; start as root, or leave it out"
            )

    def own(self, sockets: Sequence[socket.socket]) -> None:
        """Make this user the owner of the unix sockets bound here. Raises `ConfigError`."""
        for sock in sockets:
            if isinstance(sock, BoundUnixSocket) and not self._is_current():
                try:
                    sock.give_to(self.uid, self.gid)
                except OSError as error:
                    path = sock.getsockname()
                    raise ConfigError(
                        f"user: {path} cannot get another owner: {error.strerror}"
                    ) from None


def find_identity(settings: Processes) -> Identity | None:
    """The user and group that `settings` name; None if they name none. Raises `ConfigError`."""
    if not settings.user and not settings.group:
        return None
    try:
        import grp  # noqa: F401 - both exist on POSIX, neither on Windows
        import pwd
    except ImportError:
        option = "user" if settings.user else "group"
        raise ConfigError(f"{option}: this system does not support it; leave it out") from None
    gid = _group(settings.group) if settings.group else -1
    if not settings.user:
        return Identity(os.getuid(), gid)
    number = _number(settings.user)
    try:
        entry = pwd.getpwnam(settings.user) if number < 0 else pwd.getpwuid(number)
    except (KeyError, ValueError):  # ValueError for a NUL in the name
        if number < 0:
            raise ConfigError(
                f"user: there is no user {settings.user}; see getent passwd"
            ) from None
        if gid < 0:
            raise ConfigError(
                f"group: no user has the number {number}, so give --group too"
            ) from None
        return Identity(number, gid)
    return Identity(entry.pw_uid, entry.pw_gid if gid < 0 else gid, entry.pw_name, entry.pw_dir)


def _group(text: str) -> int:
    import grp

    number = _number(text)
    try:
        return grp.getgrnam(text).gr_gid if number < 0 else number
    except (KeyError, ValueError):
        raise ConfigError(f"group: there is no group {text}; see getent group") from None


def _number(text: str) -> int:
    """`text` as a user or group id; -1 if it is none."""
    number = int(text) if text.isdecimal() and len(text) <= 10 else -1
    return number if number < _NO_ID else -1
