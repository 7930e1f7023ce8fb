"""Sockets that were bound here, and can turn newcomers away before they are closed.

What the kernel accepts after the last look at the backlog is reset when the listener closes. So
first nothing new may come, then what waits is accepted, and only then the listener is closed.
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

# Seconds for handshakes with other machines that have begun: somewhat more than a round trip.
_ROUND_TRIP = 0.02

# Not in the socket module; see socket(7) and Linux' asm-generic/socket.h.
_SO_ATTACH_FILTER, _SO_BINDTOIFINDEX = 26, 62
# An interface that nobody has: through it nobody comes, so the kernel finds no listener for a SYN
# and refuses it. Handshakes that have begun are found by their addresses, and go on.
_NO_INTERFACE = 2**31 - 1
# A filter in the instructions of bpf(4), each with its code, two jumps and an operand. It begins
# at the TCP header, whose flags are octet 13 (RFC 9293, 3.1). A segment with SYN and without ACK
# is dropped, and comes again after a second; what completes a handshake passes. For SO_REUSEPORT:
# there the kernel chooses a listener without asking for interfaces, and then it is another's turn.
_NO_SYN = (
    (0x30, 0, 0, 13),  # load the octet 13
    (0x54, 0, 0, 0x12),  # keep SYN and ACK
    (0x15, 0, 1, 0x02),  # is it SYN alone?
    (0x06, 0, 0, 0),  # drop
    (0x06, 0, 0, 0xFFFFFFFF),  # pass
)


def turn_away(sockets: Iterable[socket.socket]) -> None:
    """Let nothing new come to those of `sockets` that were bound here; to be emptied, and closed.

    Whoever else has a copy of one gets nothing from it any more. Elsewhere than on Linux nothing
    can be done for TCP.
    """
    distant = False
    for sock in sockets:
        if isinstance(sock, BoundSocket):
            distant = sock.turn_away() or distant
    if distant:
        time.sleep(_ROUND_TRIP)


class BoundSocket(socket.socket):
    """A TCP socket that was bound here."""

    def turn_away(self) -> bool:
        """Let no connection begin. Whether some may have begun and not be in the backlog yet."""
        if sys.platform != "linux":
            return False
        try:
            host = str(self.getsockname()[0])
            self.setsockopt(socket.SOL_SOCKET, _SO_BINDTOIFINDEX, _NO_INTERFACE)
            if self.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT):
                self._drop_newcomers()
        except OSError:
            # closed, by another loop just now; before Linux 5.7 only root may; and in sandboxes
            return False
        return not (host.startswith("127.") or host == "::1")

    def _drop_newcomers(self) -> None:
        program = array("B", b"".join(struct.pack("HBBI", *each) for each in _NO_SYN))
        pointer = struct.pack("HP", len(_NO_SYN), program.buffer_info()[0])
        self.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, pointer)


class BoundUnixSocket(BoundSocket):
    """A unix socket that was bound here: its file goes when it is closed, or turns away."""

    _removed = False

    def turn_away(self) -> bool:
        with contextlib.suppress(OSError):  # closed, by another loop just now; or it has no file
            path = "" if self._removed else self.getsockname()
            # while it listens nobody else takes the path
            if path and isinstance(path, str):
                self._removed = True
                os.unlink(path)
        return False

    def close(self) -> None:
        self.turn_away()
        super().close()
