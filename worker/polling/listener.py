"""A listening socket, and the connections that it accepts."""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import sys
from typing import TYPE_CHECKING

from ..config import ServerConfig
from ..connection import Connection
from ..deadlines import first_wait
from ..messages import Address
from ..net.bind import SharedSocket, address_of
from ..system.readiness import has_input

if TYPE_CHECKING:
    import ssl

# How many new connections are served in a row while others are ready: a bound on what a flood of
# them costs those that are connected.
_MOST_A_TURN = 64
# How many each of several processes may accept in a row. With less, a burst would end one by one,
# and each of the last ones would wait for another turn.
_LEAST_SHARE = 4
# A burst of so many is accepted when each process has had one turn: a later process finds only what
# the earlier ones have left, and a share of that would leave some for a second turn.
_SMALL_BURST = 16

# `tcpi_unacked` of `struct tcp_info`, which for a listening socket is the length of its backlog:
# see tcp_get_info in Linux' net/ipv4/tcp.c. Eight octets and four numbers precede it.
_TCP_INFO = getattr(socket, "TCP_INFO", None) if sys.platform == "linux" else None
_TCP, _BACKLOG_SIZE = socket.IPPROTO_TCP, 28
_NO_BACKLOG = bytes(4)
_backlog_of = struct.Struct("24xI").unpack


class Listener:
    """A listening socket, made ready for accepting. Any thread may accept."""

    def __init__(
        self,
        sock: socket.socket,
        config: ServerConfig,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.sock = sock
        #: For the handshakes to come. `Poller.use_context` may replace it at any time.
        self.ssl_context = ssl_context
        #: Other processes have the socket, and accept what waits in its backlog.
        self.shared = isinstance(sock, SharedSocket)
        #: What a new connection waits for first, and how many seconds it may take.
        self.first_state, self.first_timeout = first_wait(config, encrypted=ssl_context is not None)
        self._family, self._type, self._proto = int(sock.family), int(sock.type), sock.proto
        self._is_ipv4 = sock.family == socket.AF_INET
        self.is_unix = sock.family == getattr(socket, "AF_UNIX", None)
        sock.setblocking(False)
        if not self.is_unix:
            # accepted connections inherit it; an answer is one segment, and must not wait
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.address = address_of(sock.getsockname())

    def fileno(self) -> int:
        return self.sock.fileno()

    def accept(self) -> Connection | None:
        """A new connection, non-blocking and SERVING; None if none is waiting.

        Raises `OSError` when the process has no means for one: no descriptor, no memory.
        """
        try:
            # `accept` around it takes three times as long: it looks the names of the constants up
            fd, peer = self.sock._accept()  # type: ignore[attr-defined]
        except (BlockingIOError, ConnectionAbortedError, InterruptedError):
            return None
        except OSError as error:
            if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                raise
            return None  # the client's doing: see accept(2) on pending network errors
        sock = socket.socket(self._family, self._type, self._proto, fd)
        client = peer if self._is_ipv4 else ("", 0) if self.is_unix else peer[:2]
        try:
            if self.ssl_context is None:
                sock.setblocking(False)  # as `connect`, whose call can be saved
                return Connection(sock, client, self.address)
            return connect(sock, client, self.address, self.ssl_context)
        except OSError:  # TLS on a connection that was reset meanwhile
            sock.close()
            return None

    def rest_of_turn(self, sharers: int) -> int:
        """How many more connections to accept after one, before other connections go first.

        That is what waits in the backlog, up to a bound. A process accepts its share of it where
        `sharers` processes have this socket.
        """
        try:
            if _TCP_INFO is not None and not self.is_unix:
                info = self.sock.getsockopt(_TCP, _TCP_INFO, _BACKLOG_SIZE)
                if info.endswith(_NO_BACKLOG):  # as a rule: `unpack` takes three times as long
                    return 0
                waiting: int = _backlog_of(info)[0]
            elif has_input(self.fileno()):
                waiting = _MOST_A_TURN  # the system only says that it has some
            else:
                return 0
        except (OSError, ValueError):  # closed meanwhile
            return 0
        turn = min(1 + waiting, _MOST_A_TURN)
        share = max(-(-turn // sharers), -(-_SMALL_BURST // sharers), _LEAST_SHARE)
        return min(share, turn) - 1

    def detach(self) -> int:
        """The descriptor, which the caller now owns; the file of a unix socket stays."""
        return self.sock.detach()

    def close(self) -> None:
        """Stop listening."""
        self.sock.close()


def connect(
    sock: socket.socket, client: Address, server: Address, ssl_context: ssl.SSLContext | None
) -> Connection:
    """A connection on an accepted socket, which is made non-blocking."""
    sock.setblocking(False)
    if ssl_context is None:
        return Connection(sock, client, server)
    from ..tls.session import TLSSocket

    if ssl_context.verify_mode:
        # what adapters keep for an address, they keep for this object: see `Channel.server`
        server = (server[0], server[1])
    return Connection(TLSSocket(sock, ssl_context), client, server, scheme="https")
