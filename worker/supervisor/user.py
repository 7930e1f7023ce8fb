"""As whom the processes run that serve: a user and a group of the system. POSIX."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from ..config.groups import Processes
from ..errors import ConfigError
from ..net.bound_socket import BoundUnixSocket

# The number with which system calls say "leave it": nobody has it.
_NOBODY_S = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Identity:
    """A user and a group. `name` and `home` are empty for a number that is no known user."""

    uid: int
    gid: int
    name: str = ""
    home: str = ""

    def assume(self) -> None:
        """Become this user for good. Before there are threads: they would keep what they have.

        The groups first, since afterwards it is not allowed any more. Raises `ConfigError`.
        """
        if not self._is_ours():
            try:
                if self.name:
                    os.initgroups(self.name, self.gid)
                else:
                    os.setgroups([self.gid])
                os.setgid(self.gid)
                os.setuid(self.uid)
            except OSError as error:
                raise ConfigError(f"user: the system refuses: {error.strerror}") from None
            if self.uid:
                self._make_sure()
        if self.home:
            os.environ.update(HOME=self.home, USER=self.name, LOGNAME=self.name)

    def _make_sure(self) -> None:
        with contextlib.suppress(OSError):
            os.setuid(0)
            raise ConfigError("user: the system lets it become root again; do not serve like that")

    def _is_ours(self) -> bool:
        same = (os.getuid(), os.geteuid()) == (self.uid, self.uid)
        return same and (os.getgid(), os.getegid()) == (self.gid, self.gid)

    def require_means(self) -> None:
        """Raises `ConfigError` where this process cannot become this user."""
        if os.geteuid() != 0 and not self._is_ours():
            raise ConfigError(
                "user: only root may become another user or group; start as root, or leave it out"
            )

    def give(self, sockets: Sequence[socket.socket]) -> None:
        """Make this the owner of the unix sockets that were bound here. Raises `ConfigError`."""
        for sock in sockets:
            if isinstance(sock, BoundUnixSocket) and not self._is_ours():
                path = sock.getsockname()
                try:
                    os.chown(path, self.uid, self.gid)
                except OSError as error:
                    raise ConfigError(
                        f"user: {path} cannot be given away: {error.strerror}"
                    ) from None


def find_identity(settings: Processes) -> Identity | None:
    """The user and the group that `settings` name; None without. Raises `ConfigError`."""
    if not settings.user and not settings.group:
        return None
    try:
        import grp  # noqa: F401 - where there is one there is the other
        import pwd
    except ImportError:
        option = "user" if settings.user else "group"
        raise ConfigError(f"{option}: this system has no such; leave it out") from None
    gid = _group(settings.group) if settings.group else -1
    if not settings.user:
        return Identity(os.getuid(), gid)
    number = _number(settings.user)
    try:
        entry = pwd.getpwnam(settings.user) if number < 0 else pwd.getpwuid(number)
    except (KeyError, ValueError):  # ValueError for a NUL, which no name has
        if number < 0:
            raise ConfigError(
                f"user: there is no user {settings.user}; see getent passwd"
            ) from None
        if gid < 0:
            raise ConfigError(
                f"group: nobody knows the user {number}, nor a group of its; give --group too"
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
    """The number that `text` is, if a user or a group can have it; else -1."""
    number = int(text) if text.isdecimal() and len(text) <= 10 else -1
    return number if number < _NOBODY_S else -1
