"""What precedes the first request of a connection on a loop: a PROXY header, a TLS handshake."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from ..connection import State
from ..deadlines import EXPIRIES, first_wait
from ..errors import CleartextRequest
from ..proxies import proxy_header
from ..system.readiness import has_input
from ..tls.wrong_port import WITHOUT_TLS
from .last_response import RefusingConnection
from .states import OPENING_TRANSITIONS, OpeningState, checked

if TYPE_CHECKING:
    from ..connection import Connection
    from ..tls.session import TLSSocket
    from .interfaces import LoopContext

log = logging.getLogger("threadwell")


class OpeningConnection(RefusingConnection):
    """A new connection, until its PROXY header is read and its TLS handshake is done.

    Then `LoopContext.begin_protocol` has a connection of the right protocol take its place.
    """

    __slots__ = ("state",)

    def __init__(self, worker: LoopContext, conn: Connection) -> None:
        super().__init__(worker, conn)
        #: Changed by `become` only.
        self.state = (
            OpeningState.PROXY_HEADER if worker.config.proxies.protocol else OpeningState.HANDSHAKE
        )

    def become(self, state: OpeningState) -> None:
        """Move to `state`. Raises `IllegalTransition` where the table has no such step."""
        self.state = checked(OPENING_TRANSITIONS, self.state, state)

    def start(self) -> None:
        """Wait for what the client, or a proxy before it, sends first."""
        config = self.worker.config
        if self.state is OpeningState.PROXY_HEADER:
            _, seconds = first_wait(config, encrypted=self.conn.encrypted)
        else:
            seconds = config.timeouts.handshake
        self.deadline = time.monotonic() + seconds
        self.on_readable()

    def on_readable(self) -> None:
        if self.state is OpeningState.PROXY_HEADER:
            self._read_proxy_header()
        elif self.state is OpeningState.HANDSHAKE:
            self._shake_hands()
        else:
            self.discard_input()

    def on_flushed(self) -> None:
        """Nothing is sent here but by TLS itself."""

    # ---- The PROXY header -----------------------------------------------------------------

    def _read_proxy_header(self) -> None:
        assert self.worker.forwarding is not None
        try:
            proxy_header.advance(self.conn, self.worker.forwarding)
        except BlockingIOError:
            self.resume_reading()
        except proxy_header.ProxyHeaderRejected as error:
            proxy_header.log_rejection(self.conn, self.worker.throttled_log, error)
            self.record_refusal("proxy")
            self.close(str(error))
        except OSError as error:
            self.close(f"lost: {error}")
        else:
            if self.conn.encrypted:
                self.become(OpeningState.HANDSHAKE)
                self.start()
            else:
                self._finish(None)

    def _finish(self, protocol: str | None) -> None:
        self.pause_reading()
        self.closed = True  # this object: another one has the connection
        self.worker.begin_protocol(self, protocol)

    # ---- The TLS handshake ----------------------------------------------------------------

    def _shake_hands(self) -> None:
        sock = cast("TLSSocket", self.conn.sock)
        try:
            done = sock.handshake()
        except CleartextRequest:
            self._refuse_without_tls()
            return
        except OSError as error:
            log.debug("The TLS handshake of %s failed: %s", self.conn.client[0], error)
            self.record_refusal("tls")
            self.stop_writing()
            self._fail_handshake()
            return
        if sock.wants_write:
            self.wait_for_room()
        else:
            self.stop_writing()
        if done:
            self._finish(sock.protocol)
        else:
            self.resume_reading()

    def _refuse_without_tls(self) -> None:
        """The client sends HTTP without TLS to a port with TLS. The answer is without TLS, too."""
        self.pause_reading()
        sock = cast("TLSSocket", self.conn.sock).without_tls()
        self.conn.sock, self.conn.recv, self.conn.send = sock, sock.recv, sock.send
        conn = self.conn
        conn.origin, conn.encrypted = replace(conn.origin, scheme="http"), False
        self.worker.wrong_port.without_tls(conn.peer, conn.server)
        self.refuse(400, WITHOUT_TLS)

    def _fail_handshake(self) -> None:
        """Close, or linger while the client sends: a close would cost it the alert."""
        self.pause_reading()
        if has_input(self.conn.fd):
            self.linger()
        else:
            self.close("TLS handshake failed")

    def linger(self) -> None:
        self.become(OpeningState.LINGER)
        super().linger()

    # ---- What the loop asks -----------------------------------------------------------------

    def watches_input(self) -> bool:
        return self.reading and self.state is OpeningState.LINGER

    def check_deadline(self, now: float) -> None:
        if now < self.deadline:
            return
        expiry = EXPIRIES[State(self.state.value)]
        if expiry.refused:
            self.record_refusal(expiry.refused)
        self.close(expiry.reason)

    def state_name(self) -> str:
        return self.state.value

    def is_busy(self) -> bool:
        return False

    def idle_since(self) -> float | None:
        return None

    def drain(self, idle_until: float) -> None:
        """The opening goes on: a request may follow that was sent before the server stopped."""
