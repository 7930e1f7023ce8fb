"""A connection whose socket the application has taken over."""

from __future__ import annotations

import socket
import threading
from typing import Any

from .system.hang_up import has_hung_up
from .system.readiness import has_room

# Close frames with 1000, 1001 and 1011 (RFC 6455, 5.5.1 and 7.4.1).
_NORMAL = b"\x88\x02\x03\xe8"
_GOING_AWAY = b"\x88\x02\x03\xe9"
_INTERNAL_ERROR = b"\x88\x02\x03\xf3"
# How long, in seconds, an application that has returned may still send its close frame.
_PATIENCE = 0.1
_CLOSE = 8
# A 16 bit and a 64 bit length behind the first two octets of a frame (RFC 6455, 5.2).
_LONGER_LENGTHS = {126: 2, 127: 8}
# A longer answer to the handshake is not followed.
_LONGEST_HANDSHAKE = 65536
# Methods of a socket that write to it, or give it away, bypassing `HijackedWebSocket`.
_BYPASSES = frozenset(
    ("dup", "makefile", "sendfile", "sendmsg", "sendmsg_afalg", "sendto", "share")
)


class HijackedSocket:
    """The socket of a hijacked connection: blocking, without the server's deadlines.

    It behaves as a `socket.socket`: attributes that are not here are the socket's own. `recv`
    returns the octets first that the client had sent behind its request. The server closes the
    socket when the application returns, unless `detach` took it. Calls are as thread-safe as a
    socket's.
    """

    def __init__(self, sock: socket.socket, received: bytes) -> None:
        self._sock = sock
        self._received = received
        self._detached = False
        #: The application has raised an exception.
        self.failed = False

    @property
    def upgraded(self) -> bool:
        """Whether the application has answered a WebSocket handshake with 101, as far as the server
        could follow."""
        return False

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
        """The plain socket, which the caller must close, and the octets received behind the
        request."""
        self._detached = True
        received, self._received = self._received, b""
        return self._sock, received

    def release(self) -> bool:
        """Close the socket. The server calls it when the application has returned.

        True: the socket was detached, and stays open.
        """
        if self._detached:
            return True
        try:
            # a thread that reads the socket wakes up with an end of input
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._sock.close()
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)


class HijackedWebSocket(HijackedSocket):
    """The socket of a connection that asked for a WebSocket: it ends with a close frame.

    The server follows what the application sends, so that its own close frame stands between two
    frames. The frame is sent at once, or by the thread that is in the middle of another. Whatever
    the application sends after it is dropped: nothing may follow a close frame (RFC 6455, 5.5.1).
    The application can still read, and so receives the client's answer. If the application returns
    or fails without a close frame, the server sends one with 1000 or 1011. An application that
    detaches the socket, or sends by other methods than `send` and `sendall`, closes its WebSocket
    itself.
    """

    def __init__(self, sock: socket.socket, received: bytes) -> None:
        super().__init__(sock, received)
        self._frames = _Frames()
        self._lock = threading.Lock()  # held while something is sent
        self._closed = threading.Event()  # the application has sent a close frame
        self._leaving = False
        #: Nothing more of the application's is sent; and the client has the close frame.
        self._left = self._said = False

    @property
    def upgraded(self) -> bool:
        return self._frames.upgraded

    def send(self, data: Any, flags: int = 0) -> int:
        """As `socket.send`."""
        with self._lock:
            if self._left:
                return memoryview(data).nbytes
            sent = self._sock.send(data, flags)
            self._follow(memoryview(data).cast("B")[:sent])
        if self._leaving:
            self.close_with_1001()
        return sent

    def sendall(self, data: Any, flags: int = 0) -> None:
        """As `socket.sendall`."""
        with self._lock:
            if self._left:
                return
            self._sock.sendall(data, flags)
            self._follow(memoryview(data).cast("B"))
        if self._leaving:
            self.close_with_1001()

    def close_with_1001(self) -> bool:
        """Close the WebSocket with 1001: the server stops. Any thread may call.

        Whether the frame was sent. If not, the thread that is in the middle of a frame sends it, or
        the client has not read, and another call is needed.
        """
        self._leaving = True
        # otherwise a thread is sending, and looks at `_leaving` after it has released the lock
        if self._lock.acquire(blocking=False):
            try:
                self._leave_between_frames(_GOING_AWAY)
            finally:
                self._lock.release()
        return self._said

    def release(self) -> bool:
        """As `HijackedSocket.release`, but the client gets a close frame first."""
        if self._is_open() and not has_hung_up(self._sock.fileno()):
            self._close_where_the_application_has_not()
        return super().release()

    def _close_where_the_application_has_not(self) -> None:
        """RFC 6455, 5.5.1: the client's close frame must be answered.

        Libraries that read on a thread tell the application of that frame before they answer it: so
        they have a moment, and the client gets its own code back.
        """
        if not self.failed:
            self._closed.wait(_PATIENCE)
        # a thread of the application may hold the lock for as long as its client does not read
        if self._lock.acquire(timeout=_PATIENCE):
            try:
                if self._is_open():
                    self._leave_between_frames(_INTERNAL_ERROR if self.failed else _NORMAL)
            finally:
                self._lock.release()

    def _is_open(self) -> bool:
        """Whether a close frame is missing, and can be sent."""
        frames = self._frames
        out_of_reach = frames.closed or frames.lost or self._left or self._sock.fileno() < 0
        return frames.upgraded and not out_of_reach

    def _follow(self, data: memoryview) -> None:
        self._frames.follow(data)
        if self._frames.closed:
            self._closed.set()

    def _leave_between_frames(self, frame: bytes) -> None:
        if self._said or not self._frames.at_boundary:
            return
        self._left = True
        try:
            if not self._frames.closed:
                self._send_at_once(frame)
        except BlockingIOError:
            return
        except (OSError, ValueError):  # the client has left, or the application has closed it
            pass
        self._said = True

    def _send_at_once(self, data: bytes) -> None:
        """Send a few octets, or raise `BlockingIOError` if the kernel has no room."""
        if hasattr(socket, "MSG_DONTWAIT") and not hasattr(self._sock, "unwrap"):
            self._sock.send(data, socket.MSG_DONTWAIT)
        elif has_room(self._sock.fileno()):
            self._sock.send(data)  # TLS takes no flags
        else:
            raise BlockingIOError

    def __getattr__(self, name: str) -> Any:
        if name in _BYPASSES:
            self._frames.lose()
        return super().__getattr__(name)

    def detach(self) -> tuple[socket.socket, bytes]:
        """As `HijackedSocket.detach`."""
        self._frames.lose()
        return super().detach()


class _Frames:
    """Follows the frames that the application sends after its answer to the handshake."""

    def __init__(self) -> None:
        self._handshake: bytes | None = b""
        self._header = b""
        self._payload = 0
        #: It is not known what the application sends.
        self.lost = False
        #: The handshake was answered with 101.
        self.upgraded = False
        #: The application has sent a close frame itself.
        self.closed = False

    @property
    def at_boundary(self) -> bool:
        """Whether a frame may begin here."""
        return self._handshake is None and not (self._header or self._payload or self.lost)

    def lose(self) -> None:
        """Follow no more: the application sends in a way that is not seen here."""
        self.lost = True

    def follow(self, data: memoryview) -> None:
        """Take note of `data`, which was sent."""
        while data and not self.lost:
            if self._handshake is not None:
                data = self._follow_handshake(data)
            elif self._payload:
                step = min(self._payload, len(data))
                self._payload -= step
                data = data[step:]
            else:
                data = self._follow_header(data)

    def _follow_handshake(self, data: memoryview) -> memoryview:
        assert self._handshake is not None
        before = len(self._handshake)
        head, end, _ = (self._handshake + bytes(data)).partition(b"\r\n\r\n")
        if end:
            self._handshake = None
            self.upgraded = head[9:12] == b"101"
            self.lost = not self.upgraded
            return data[len(head) + len(end) - before :]
        self._handshake = head
        self.lost = len(head) > _LONGEST_HANDSHAKE
        return data[len(data) :]

    def _follow_header(self, data: memoryview) -> memoryview:
        """RFC 6455, 5.2."""
        self._header += bytes(data[:1])
        if len(self._header) > 1:
            first, second = self._header[:2]
            length = second & 127
            longer = _LONGER_LENGTHS.get(length, 0)
            mask = 4 if second & 128 else 0
            if len(self._header) == 2 + longer + mask:
                if longer:
                    length = int.from_bytes(self._header[2 : 2 + longer], "big")
                self._payload, self._header = length, b""
                if first & 15 == _CLOSE:
                    self.closed = True
        return data[1:]
