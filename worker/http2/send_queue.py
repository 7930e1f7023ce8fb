"""The part of an answer's body that waits for the client's windows."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import TYPE_CHECKING

from ..errors import ClientDisconnected
from ..http.response_body import read_some

if TYPE_CHECKING:
    from ..messages import FileBody

# What a stream may have waiting before whoever makes it is made to wait.
_MOST_WAITING = 128 * 1024


class SendQueue:
    """Filled by the application's side, on a thread or on the loop; emptied on the loop.

    `_changed` guards all of it.
    """

    __slots__ = ("_blocks", "_changed", "_file", "_told", "broken", "closed", "ended", "size")

    def __init__(self) -> None:
        self._blocks: deque[memoryview] = deque()
        self._file: FileBody | None = None
        self._changed = threading.Condition(threading.Lock())
        self._told = False
        #: Octets that wait.
        self.size = 0
        #: Nothing more will be put in; and that was less than it should have been.
        self.ended = self.broken = False
        #: Nothing more will be taken out.
        self.closed = False

    @property
    def full(self) -> bool:
        """Whether whoever fills it should wait."""
        return self.size > _MOST_WAITING

    def put(self, block: bytes) -> bool:
        """Add `block`; whether the loop has to be told. Raises `ClientDisconnected`."""
        with self._changed:
            if self.closed:
                raise ClientDisconnected("the client left before it had the whole answer")
            self._blocks.append(memoryview(block))
            self.size += len(block)
            told, self._told = self._told, True
            return not told

    def put_file(self, file: FileBody) -> None:
        """Add what is in `file`, whose descriptor is this object's now."""
        with self._changed:
            if not self.closed:
                self._file = file
                self.size += file.count
                return
        os.close(file.fd)

    def wait(self) -> None:
        """Block until there is room. Raises `ClientDisconnected`. Never called on a loop."""
        with self._changed:
            while self.full and not self.closed:
                self._changed.wait()
            if self.closed:
                raise ClientDisconnected("the client left before it had the whole answer")

    def end(self, *, broken: bool = False) -> None:
        """That was all; `broken`: it should have been more."""
        with self._changed:
            self.ended = True
            self.broken = self.broken or broken

    def take(self, most: int) -> memoryview | bytes:
        """The next octets, `most` of them; a file that has become shorter breaks the answer."""
        with self._changed:
            self._told = False
            data: memoryview | bytes = b""
            if self._blocks:
                block = self._blocks[0]
                data = block[:most]
                if len(data) == len(block):
                    self._blocks.popleft()
                else:
                    self._blocks[0] = block[most:]
            elif self._file is not None:
                data = self._read(self._file, most)
            self.size -= len(data)
            if not self.full:
                self._changed.notify_all()
            return data

    def _read(self, file: FileBody, most: int) -> bytes:
        data = read_some(file, min(most, file.count))
        file.offset += len(data)
        file.count -= len(data)
        if not data:
            self.broken = True
            self.size -= file.count
            file.count = 0
        if not file.count:
            os.close(file.fd)
            self._file = None
        return data

    def close(self) -> None:
        """Throw away what waits: nobody reads it. Whoever waits for room is told."""
        with self._changed:
            self.closed = True
            self._blocks.clear()
            self.size = 0
            if self._file is not None:
                os.close(self._file.fd)
                self._file = None
            self._changed.notify_all()
