"""TLS on a non-blocking socket, with the surface that a connection needs.

The `ssl` module raises errors of its own where a plain socket raises `BlockingIOError`; here they
become one, and `wants_write` says when the poller must look for room to send.
"""

from __future__ import annotations

import socket
import ssl
from typing import Any

from ..errors import PlainRequest


class TLSSocket:
    """One client's TLS session. Belongs to the connection's owner."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._ssl = context.wrap_socket(
            sock, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
        )
        self.wants_write = False
        #: What was agreed on for the application layer (RFC 7301); known after the handshake.
        self.protocol: str | None = None
        #: The answer was cut: no close_notify must say that it was whole.
        self.truncated = False
        self._begun = False
        self._facts: dict[str, str] | None = None
        #: What ASGI applications are told of it, once that is known.
        self.extension: dict[str, Any] | None = None

    def handshake(self) -> bool:
        """Go on with the handshake; whether it is done.

        Raises `OSError` when it failed, and `PlainRequest` before anything is read.
        """
        try:
            if not self._begun:
                # afterwards OpenSSL has eaten it. A record begins with an octet below 0x20
                first = socket.socket.recv(self._ssl, 1, socket.MSG_PEEK)
                if first.isalpha():
                    raise PlainRequest("a request without TLS")
                self._begun = True
            self._ssl.do_handshake()
        except (ssl.SSLWantReadError, BlockingIOError):
            self.wants_write = False
            return False
        except ssl.SSLWantWriteError:
            self.wants_write = True
            return False
        self.wants_write = False
        self.protocol = self._ssl.selected_alpn_protocol()
        return True

    def recv(self, size: int) -> bytes:
        """As `socket.recv`; takes along what is decrypted already, which no poller could see."""
        self.wants_write = False
        try:
            data = self._ssl.recv(size)
            while data and (pending := self._ssl.pending()):
                data += self._ssl.recv(pending)
        except ssl.SSLWantReadError:
            raise BlockingIOError from None
        except ssl.SSLWantWriteError:
            self.wants_write = True
            raise BlockingIOError from None
        return data

    def send(self, data: bytes | memoryview) -> int:
        """As `socket.send`."""
        try:
            return self._ssl.send(data)
        except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
            raise BlockingIOError from None

    @property
    def family(self) -> int:
        return self._ssl.family

    @property
    def asks(self) -> bool:
        """Whether clients are asked for certificates."""
        return self._ssl.context.verify_mode is not ssl.CERT_NONE

    def fileno(self) -> int:
        return self._ssl.fileno()

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        return self._ssl.getsockopt(level, option, size)

    def setblocking(self, flag: bool) -> None:
        self._ssl.setblocking(flag)

    def shutdown(self, how: int) -> None:
        """As `socket.shutdown`. With SHUT_RDWR any thread may cut the line, and nothing is said."""
        if how == socket.SHUT_WR:
            self._notify()
            self._ssl.shutdown(how)
        else:
            socket.socket.shutdown(self._ssl, how)

    def close(self) -> None:
        """Say that this was all (RFC 9112, 9.8), and close."""
        self._notify()
        self._ssl.close()

    def _notify(self) -> None:
        if self.truncated:
            return
        self.truncated = True  # once is enough
        try:
            self._ssl.unwrap()
        except (OSError, ValueError):
            pass  # said, and the client's own is not waited for; or there is nobody to say it to

    def facts(self) -> dict[str, str]:
        """See `peer.variables`; looked at once."""
        if self._facts is None:
            from . import client_certificate

            self._facts = client_certificate.variables(self._ssl)
        return self._facts

    @property
    def session(self) -> ssl.SSLSocket:
        """For who wants to look at it."""
        return self._ssl

    def without_tls(self) -> socket.socket:
        """The socket under the session, which has not begun."""
        return socket.socket(fileno=self._ssl.detach())

    def plain(self) -> ssl.SSLSocket:
        """The session as a socket, for an application that hijacks it."""
        return self._ssl
