"""TLS on a non-blocking socket, with the socket methods that a connection uses.

The `ssl` module raises its own errors where a socket raises `BlockingIOError`. They are converted
to that, and `wants_write` tells the poller to wait until the socket is writable.
"""

from __future__ import annotations

import socket
import ssl
from typing import Any

from ..errors import CleartextRequest

# The most that a record has (RFC 8446, 5.1). One call of OpenSSL decrypts one record.
_RECORD = 16 * 1024


class TLSSocket:
    """The TLS session of one client. Used by the owner of the connection only."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self._ssl = context.wrap_socket(
            sock, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=True
        )
        self.wants_write = False
        #: The protocol selected by ALPN (RFC 7301); known after the handshake.
        self.protocol: str | None = None
        #: The response was cut: close_notify must not be sent, for it would mark it as complete.
        self.truncated = False
        self._handshake_started = False
        self._variables: dict[str, str] | None = None
        #: The `tls` extension of the ASGI scope, once it has been made.
        self.extension: dict[str, Any] | None = None

    def handshake(self) -> bool:
        """Continue the handshake; returns whether it is done.

        Raises `OSError` if it failed, and `CleartextRequest` if the client sends HTTP without TLS;
        nothing has been read then.
        """
        try:
            if not self._handshake_started:
                # Peek, because OpenSSL would consume it. A TLS record begins with an octet below
                # 0x20 (RFC 8446, 5.1), a request with a letter.
                first = socket.socket.recv(self._ssl, 1, socket.MSG_PEEK)
                if first.isalpha():
                    raise CleartextRequest("a request without TLS")
                self._handshake_started = True
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
        """As `socket.recv`, with all data that is decrypted already: a poller cannot see that."""
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

    def recv_into(self, buffer: memoryview) -> int:
        """As `socket.recv_into`, for 16 KiB at least: no data stays that is decrypted already."""
        self.wants_write = False
        count = 0
        try:
            while len(buffer) - count >= _RECORD:
                more = self._ssl.recv_into(buffer[count:])
                if not more:
                    break
                count += more
        except ssl.SSLWantReadError:
            if not count:
                raise BlockingIOError from None
        except ssl.SSLWantWriteError:
            self.wants_write = True
            if not count:
                raise BlockingIOError from None
        return count

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
    def requests_certificates(self) -> bool:
        """Whether the server requests client certificates."""
        return self._ssl.context.verify_mode is not ssl.CERT_NONE

    def fileno(self) -> int:
        return self._ssl.fileno()

    def getsockopt(self, level: int, option: int, size: int) -> bytes:
        return self._ssl.getsockopt(level, option, size)

    def setblocking(self, flag: bool) -> None:
        self._ssl.setblocking(flag)

    def shutdown(self, how: int) -> None:
        """As `socket.shutdown`. Any thread may call it with SHUT_RDWR, which sends no alert."""
        if how == socket.SHUT_WR:
            self._notify()
            self._ssl.shutdown(how)
        else:
            socket.socket.shutdown(self._ssl, how)

    def close(self) -> None:
        """Send close_notify (RFC 9112, 9.8), and close."""
        self._notify()
        self._ssl.close()

    def _notify(self) -> None:
        if self.truncated:
            return
        self.truncated = True  # send it only once
        try:
            self._ssl.unwrap()
        except (OSError, ValueError):
            pass  # the client's close_notify is not waited for; or the client has left

    def variables(self) -> dict[str, str]:
        """Return the variables of `client_certificate.variables`, which are computed once."""
        if self._variables is None:
            from . import client_certificate

            self._variables = client_certificate.variables(self._ssl)
        return self._variables

    @property
    def session(self) -> ssl.SSLSocket:
        """The `ssl.SSLSocket`, to read the properties of the session."""
        return self._ssl

    def without_tls(self) -> socket.socket:
        """Detach the TCP socket, before the handshake has started."""
        return socket.socket(fileno=self._ssl.detach())

    def as_socket(self) -> ssl.SSLSocket:
        """Return the session as a socket, for an application that hijacks the connection."""
        return self._ssl
