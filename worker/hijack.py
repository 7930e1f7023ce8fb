"""A connection in the hands of the application."""

from __future__ import annotations

import socket
from typing import Any


class HijackedSocket:
    """The socket of a hijacked connection: blocking, without the server's deadlines.

    It is a `socket.socket` in all but type: what is not here is the socket's own. Octets that the
    client had sent behind its request come out of `recv` first. The server closes it when the
    application returns, unless `detach` took it. Calls are as thread-safe as a socket's.
    """

    def __init__(self, sock: socket.socket, received: bytes) -> None:
        self._sock = sock
        self._received = received
        self._detached = False

    def recv(self, size: int, flags: int = 0) -> bytes:
        """Up to `size` octets; empty at the end of input."""
        if self._received and not flags:
            data, self._received = self._received[:size], self._received[size:]
            return data
        return self._sock.recv(size, flags)

    def recv_into(self, buffer: Any, size: int = 0, flags: int = 0) -> int:
        """As `socket.recv_into`."""
        if self._received and not flags:
            view = memoryview(buffer).cast("B")
            data = self.recv(size or len(view))
            view[: len(data)] = data
            return len(data)
        return self._sock.recv_into(buffer, size, flags)

    def detach(self) -> tuple[socket.socket, bytes]:
        """The plain socket, now wholly the caller's, and what was received beyond the request."""
        self._detached = True
        received, self._received = self._received, b""
        return self._sock, received

    def release(self) -> bool:
        """For the server, when the application has returned: close the socket.

        True: it was detached, and stays open.
        """
        if self._detached:
            return True
        try:
            # a reader on another thread wakes up with an end of input
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._sock.close()
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)
