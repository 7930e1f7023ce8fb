"""What the kernel has not taken of an answer yet."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from ..errors import ClientDisconnected
from ..http.response_body import read_some
from ..messages import FileBody

if TYPE_CHECKING:
    from ..config.groups import Timeouts
    from ..connection import Connection

# What one flush sends before it lets other connections have a turn.
_FLUSH_TURN = 4 * 1024 * 1024
_MOST_VIEWS = 64
# Octets of a file that are read at once where `os.sendfile` cannot be used, as with TLS.
_FILE_BLOCK = 256 * 1024
_MSG_MORE = getattr(socket, "MSG_MORE", 0)


class SendBuffer:
    """What the kernel has not taken of an answer. Belongs to its connection's owner.

    `persistent` says what becomes of the connection afterwards.
    """

    __slots__ = ("_deadline", "_file", "_rate", "_sent", "_views", "persistent")

    def __init__(
        self,
        views: Sequence[bytes | memoryview],
        file: FileBody | None,
        persistent: bool,
        timeouts: Timeouts,
    ) -> None:
        self._views = [memoryview(view) for view in views if len(view)]
        self._file = file
        self._sent = 0
        self._deadline = time.monotonic() + timeouts.write
        self._rate = timeouts.min_rate
        self.persistent = persistent

    @property
    def deadline(self) -> float:
        """Absolute, in the seconds of `time.monotonic`; moves by what the client has taken."""
        return self._deadline + self._sent / self._rate

    def append(self, data: bytes) -> None:
        """Send `data` too, behind what waits. Not behind a file."""
        self._views.append(memoryview(data))

    def flush(self, connection: Connection) -> bool:
        """Send on; whether all is out. False: wait for room. Raises `ClientDisconnected`."""
        turn = self._sent + _FLUSH_TURN
        while self._views or self._file is not None:
            if self._sent >= turn:
                return False
            sent = self._send_views(connection) if self._views else self._send_file(connection)
            if not sent:
                return not self._views and self._file is None
            self._sent += sent
        return True

    def close(self) -> None:
        """Let go of the rest."""
        self._views.clear()
        if self._file is not None:
            os.close(self._file.fd)
            self._file = None

    def _send_views(self, connection: Connection) -> int:
        views = self._views
        sendmsg = getattr(connection.sock, "sendmsg", None)
        try:
            if self._file is not None and len(views) == 1 and not connection.encrypted:
                sent = cast("socket.socket", connection.sock).send(views[0], _MSG_MORE)
            elif len(views) > 1 and sendmsg is not None:
                sent = sendmsg(views[:_MOST_VIEWS])
            else:
                sent = connection.send(views[0])
        except BlockingIOError:
            return 0
        except OSError as error:
            raise ClientDisconnected(str(error)) from error
        left = sent
        while views and left >= len(views[0]):
            left -= len(views.pop(0))
        if left:
            views[0] = views[0][left:]
        return int(sent)

    def _send_file(self, connection: Connection) -> int:
        file = self._file
        assert file is not None
        sent = 0
        if file.count:
            size = min(file.count, _FLUSH_TURN)
            try:
                sent = _send_some(connection, file, size)
            except BlockingIOError:
                return 0
            except OSError as error:
                raise ClientDisconnected(str(error)) from error
            if not sent:
                # shorter than it was: what is missing cannot be said, so the line is cut
                raise ClientDisconnected("the file ended early")
            file.offset += sent
            file.count -= sent
        if not file.count:
            self.close()
        return sent


def _send_some(connection: Connection, file: FileBody, size: int) -> int:
    if not connection.encrypted and hasattr(os, "sendfile"):
        return os.sendfile(connection.fd, file.fd, file.offset, size)
    block = read_some(file, min(size, _FILE_BLOCK))
    return connection.send(block) if block else 0
