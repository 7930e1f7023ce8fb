"""Listening sockets that refuse new connections before they close.

When a listener closes, the kernel resets the connections that are still in its backlog. So the
listener refuses new connections first, then the backlog is accepted, and only then it closes.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import stat
import struct
import sys
import time
from array import array
from collections.abc import Iterable, Iterator
from typing import Any

# Seconds for TCP handshakes under way with other machines: somewhat more than a round trip.
_ROUND_TRIP = 0.02

# Not in the socket module; see socket(7) and Linux' asm-generic/socket.h.
_SO_ATTACH_FILTER, _SO_BINDTOIFINDEX = 26, 62
# An interface that does not exist. No SYN arrives through it, so the kernel finds no listener and
# refuses the SYN. Handshakes under way are found by their addresses, and complete.
_NO_INTERFACE = 2**31 - 1
# A classic BPF filter, see bpf(4): each instruction has a code, two jumps and an operand. It sees
# the segment from the TCP header on, whose flags are octet 13 (RFC 9293, 3.1). It drops a segment
# with SYN and without ACK, which the client sends again after a second, and passes what completes
# a handshake. It is needed with SO_REUSEPORT, where the kernel chooses a listener regardless of
# interfaces; the repeated SYN then goes to another listener.
_NO_SYN = (
    (0x30, 0, 0, 13),  # load the octet 13
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # is it SYN alone?
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # pass
)


def refuse_connections(sockets: Iterable[socket.socket]) -> None:
    """Make those of `sockets` that were bound here refuse new connections.

    The caller then accepts the backlog and closes them. Copies of them in other processes refuse
    new connections too. For TCP this works on Linux only.
    """
    distant = False
    for sock in sockets:
        if isinstance(sock, BoundSocket):
            distant = sock.refuse_connections() or distant
    if distant:
        time.sleep(_ROUND_TRIP)


class BoundSocket(socket.socket):
    """A TCP socket that this server has bound itself."""

    def refuse_connections(self) -> bool:
        """Refuse new connections.

        Returns whether handshakes may be under way whose connections are not in the backlog yet.
        """
        if sys.platform != "linux":
            return False
        try:
            host = str(self.getsockname()[0])
            self.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, _NO_INTERFACE)
            if self.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
                self._drop_syn()
        except OSError:
            # another loop has closed it; before Linux 5.7 this needs root; sandboxes forbid it
            return False
        return not (host.startswith("127.") or host == "::1")

    def _drop_syn(self) -> None:
        program = array("B", b"".join(struct.pack("HBBI", *each) for each in _NO_SYN))
        pointer = struct.pack("HP", len(_NO_SYN), program.buffer_info()[0])
        self.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, pointer)


class BoundUnixSocket(BoundSocket):
    """A unix socket bound by this server: `close` and `refuse_connections` remove its file.

    Others may be able to write to the folder, and this process may be root. So only the very file
    that `bind` has made is changed, never what has taken its place.
    """

    #: The file that `bind` has made; None without one, and once it was removed.
    _made: os.stat_result | None = None

    def bind(self, path: Any) -> None:
        """Bind to `path`. Raises `OSError`."""
        super().bind(path)
        self._made = os.lstat(path)

    def give_to(self, uid: int, gid: int) -> None:
        """Change the owner of the file. Raises `OSError`."""
        with self._file() as (name, follow):
            os.chown(name, uid, gid, follow_symlinks=follow)

    def set_mode(self, mode: int) -> None:
        """Change the permissions of the file, regardless of the umask. Raises `OSError`."""
        with self._file() as (name, follow):
            # Linux cannot change a mode without following links, and needs /proc for this
            followed = follow or os.chmod not in os.supports_follow_symlinks
            os.chmod(name, mode, follow_symlinks=followed)

    @contextlib.contextmanager
    def _file(self) -> Iterator[tuple[str, bool]]:
        """A name of the file, and whether it is one to be followed.

        fchown(2) and fchmod(2) do not reach the file of a socket. On Linux a descriptor of the file
        itself does, by its name in /proc; see open(2) on O_PATH.
        """
        path = self.getsockname()
        flags = getattr(os, "O_PATH", 0) | getattr(os, "O_NOFOLLOW", 0)
        fd = os.open(path, flags) if hasattr(os, "O_PATH") else -1
        try:
            found = os.fstat(fd) if fd >= 0 else os.lstat(path)
            if not (self._made and os.path.samestat(found, self._made) and _is_ours(found)):
                raise PermissionError(errno.EPERM, "it was replaced by something else", path)
            name = f"/proc/self/fd/{fd}"
            by_descriptor = fd >= 0 and os.path.exists(name)
            yield (name, True) if by_descriptor else (path, False)
        finally:
            if fd >= 0:
                os.close(fd)

    def refuse_connections(self) -> bool:
        made, self._made = self._made, None
        if made is not None:
            with contextlib.suppress(OSError):  # another loop has closed it, or it has no file
                path = self.getsockname()
                if os.path.samestat(os.lstat(path), made):
                    os.unlink(path)
        return False

    def close(self) -> None:
        self.refuse_connections()
        super().close()


class BoundAbstractSocket(BoundSocket):
    """A socket of Linux' abstract namespace: it has a name, and no file. See unix(7)."""

    def refuse_connections(self) -> bool:
        with contextlib.suppress(OSError):  # another loop has closed it
            # unix(7) does not say it, but Linux refuses connections then; the backlog stays
            self.shutdown(socket.SHUT_RD)
        return False


def _is_ours(status: os.stat_result) -> bool:
    """Whether a file can be a socket that this process has made.

    One with a second name may be a hard link to the socket of another server.
    """
    return stat.S_ISSOCK(status.st_mode) and status.st_nlink == 1 and status.st_uid == os.geteuid()
