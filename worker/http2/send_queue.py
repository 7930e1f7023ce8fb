"""The part of a response's body that waits for the client's windows."""

from __future__ import annotations

import os
import threading
from collections import deque
from typing import TYPE_CHECKING

from ..errors import ClientDisconnected
from ..http.response_body import read_some

if TYPE_CHECKING:
    from ..messages import FileBody
    from .send_budget import SendBudget

# How many octets may wait before the application has to wait, too.
_MOST_WAITING = 128 * 1024
# What Python needs for a block beside its octets, for the object and its view.
_OVERHEAD = 256


class SendQueue:
    """Filled by the application, on a thread or on the loop; emptied on the loop.

    `_lock` guards all attributes, so any thread may call.
    """

    __slots__ = (
        "_blocks",
        "_budget",
        "_changed",
        "_file",
        "_is_loop_notified",
        "_lock",
        "_taken",
        "broken",
        "closed",
        "ended",
        "memory",
        "size",
    )

    def __init__(self, budget: SendBudget) -> None:
        """Of a connection with `budget`, which counts what is in memory."""
        self._budget = budget
        self._blocks: deque[memoryview] = deque()
        # how much of the first block was taken
        self._taken = 0
        self._file: FileBody | None = None
        self._lock = threading.Lock()
        # of `_lock`, made by the first thread that waits for room: few responses need one
        self._changed: threading.Condition | None = None
        self._is_loop_notified = False
        #: How many octets wait.
        self.size = 0
        #: How much memory that takes. A block is in memory until its last octet is taken.
        self.memory = 0
        #: Nothing more will be put in; and it was less than the head declares.
        self.ended = self.broken = False
        #: The client has left: nothing more will be taken out.
        self.closed = False

    @property
    def full(self) -> bool:
        """Whether the application should wait before it puts in more."""
        return self.size + _OVERHEAD * len(self._blocks) > _MOST_WAITING

    def put(self, block: bytes) -> bool:
        """Add `block`; whether the caller has to notify the loop. Raises `ClientDisconnected`."""
        with self._lock:
            if self.closed:
                raise ClientDisconnected("the client left before it had the whole answer")
            self._blocks.append(memoryview(block))
            self.size += len(block)
            self._count(len(block) + _OVERHEAD)
            was_notified, self._is_loop_notified = self._is_loop_notified, True
            return not was_notified

    def _count(self, size: int) -> None:
        self.memory += size
        self._budget.count(size)

    def put_file(self, file: FileBody) -> None:
        """Add the octets of `file`, whose descriptor belongs to the queue now."""
        with self._lock:
            if not self.closed:
                self._file = file
                self.size += file.count
                return
        os.close(file.fd)

    def wait(self) -> None:
        """Block until there is room. Raises `ClientDisconnected`. Not for a loop's thread."""
        with self._lock:
            while self.full and not self.closed:
                if self._changed is None:
                    self._changed = threading.Condition(self._lock)
                self._changed.wait()
            if self.closed:
                raise ClientDisconnected("the client left before it had the whole answer")

    def end(self, *, broken: bool = False) -> None:
        """Nothing more will be put in; `broken`: there should have been more."""
        with self._lock:
            self.ended = True
            self.broken = self.broken or broken

    def take(self, limit: int) -> memoryview | bytes:
        """The next octets, at most `limit`. A file that has become shorter breaks the response."""
        with self._lock:
            self._is_loop_notified = False
            data: memoryview | bytes = b""
            if self._blocks:
                block = self._blocks[0]
                data = block[:limit]
                self._taken += len(data)
                if len(data) == len(block):
                    self._blocks.popleft()
                    self._count(-self._taken - _OVERHEAD)
                    self._taken = 0
                else:
                    self._blocks[0] = block[limit:]
            elif self._file is not None:
                data = self._read(self._file, limit)
            self.size -= len(data)
            if self._changed is not None and not self.full:
                self._changed.notify_all()
            return data

    def _read(self, file: FileBody, limit: int) -> bytes:
        data = read_some(file, min(limit, file.count))
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
        """Drop what waits, for the client has left. Wakes the thread that waits for room."""
        with self._lock:
            self.closed = True
            self._blocks.clear()
            self.size = self._taken = 0
            self._count(-self.memory)
            if self._file is not None:
                os.close(self._file.fd)
                self._file = None
            if self._changed is not None:
                self._changed.notify_all()
