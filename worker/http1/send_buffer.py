"""The part of a response that the kernel has not accepted yet."""

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

# Octets that one flush sends before other connections get a turn.
_FLUSH_LIMIT = 4 * 1024 * 1024
_MOST_VIEWS = 64
# Octets of a file that are read at once where `os.sendfile` cannot be used, as with TLS.
_FILE_BLOCK = 256 * 1024
_MSG_MORE = getattr(socket, "MSG_MORE", 0)


class SendBuffer:
    """The rest of a response: blocks, then perhaps a file. Used by the owner of the connection.

    `persistent` says whether the connection stays open afterwards.
    """

    __slots__ = ("_deadline", "_file", "_min_rate", "_sent", "_views", "persistent")

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
        self._min_rate = timeouts.min_rate
        self.persistent = persistent

    @property
    def deadline(self) -> float:
        """Absolute, in the seconds of `time.monotonic`; what the client accepts extends it."""
        return self._deadline + self._sent / self._min_rate

    def append(self, data: bytes) -> None:
        """Add `data` after the blocks. Not allowed with a file."""
        self._views.append(memoryview(data))

    def flush(self, connection: Connection) -> bool:
        """Send what the kernel accepts; returns whether all is sent.

        If not, wait until the socket is writable. Raises `ClientDisconnected`.
        """
        limit = self._sent + _FLUSH_LIMIT
        while self._views or self._file is not None:
            if self._sent >= limit:
                return False
            sent = self._send_views(connection) if self._views else self._send_file(connection)
            if not sent:
                return not self._views and self._file is None
            self._sent += sent
        return True

    def close(self) -> None:
        """Discard the rest, and close the file."""
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
            size = min(file.count, _FLUSH_LIMIT)
            try:
                sent = _send_some(connection, file, size)
            except BlockingIOError:
                return 0
            except OSError as error:
                raise ClientDisconnected(str(error)) from error
            if not sent:
                # The file is shorter than its declared length: only cutting the connection
                # tells the client that the response is incomplete.
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
