"""Listening sockets that refuse new connections before they close.

When a listener closes, the kernel resets the connections that are still in its backlog. So the
listener refuses new connections first, then the backlog is accepted, and only then it closes.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import time
from array import array
from collections.abc import Iterable

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
    """A unix socket bound by this server: `close` and `refuse_connections` remove its file."""

    _removed = False

    def refuse_connections(self) -> bool:
        with contextlib.suppress(OSError):  # another loop has closed it, or it has no file
            path = "" if self._removed else self.getsockname()
            # no other server takes over the path while this socket listens
            if path and isinstance(path, str):
                self._removed = True
                os.unlink(path)
        return False

    def close(self) -> None:
        self.refuse_connections()
        super().close()
