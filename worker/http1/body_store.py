"""Where request bodies are kept that are too large to be `bytes`: in memory while it is there, then
in a temporary file."""

from __future__ import annotations

import errno
import io
import os
import threading
from bisect import bisect_right
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..config.groups import Limits

#: A body up to this size is kept in memory whatever others have taken, if `memory_body` allows it.
SMALL_BODY = 256 * 1024
#: Octets of a block.
BLOCK = 256 * 1024
# Blocks that are kept for the next bodies: a new one is slower by the faults of its pages.
_KEPT_BLOCKS = 32


class BodyStore:
    """The memory for the large request bodies of a server. Any thread may call.

    What a client announces is not counted, only memory that is in use.
    """

    __slots__ = ("_blocks", "_free", "_lock", "largest")

    def __init__(self, limits: Limits) -> None:
        self._lock = threading.Lock()
        self._free = limits.memory_bodies
        self._blocks: list[bytearray] = []
        #: The largest body that may be in memory.
        self.largest = limits.memory_body

    def take(self, size: int, further: int = 0) -> bool:
        """Count `size` more octets. False, and nothing is counted, if there is no room for these
        and the `further` octets that are known to come."""
        with self._lock:
            if size + further > self._free:
                return False
            self._free -= size
            return True

    def take_block(self) -> bytearray | None:
        """A block of `BLOCK` octets, counted, with any content; None if there is no room."""
        if not self.take(BLOCK):
            return None
        try:
            return self._blocks.pop()
        except IndexError:
            return bytearray(BLOCK)

    def give_back(self, size: int, blocks: list[bytearray]) -> None:
        """Count `size` octets less. `blocks` are those of the body, which nothing refers to."""
        with self._lock:
            self._free += size
            self._blocks += blocks[: _KEPT_BLOCKS - len(self._blocks)]


class MemoryFile(io.RawIOBase):
    """A body in memory as a file to read. It gives its memory back to `store` when it is closed."""

    def __init__(
        self,
        pieces: Sequence[bytes | bytearray | memoryview],
        store: BodyStore,
        taken: int,
        blocks: list[bytearray],
    ) -> None:
        """`pieces` are the body. `taken` octets are counted for it, those of `blocks` too."""
        self._pieces = pieces
        self._ends = list(accumulate(map(len, pieces)))
        self._at = 0
        self._store = store
        self._taken = taken
        self._blocks = blocks

    def readinto(self, buffer: memoryview, /) -> int:  # type: ignore[override]
        self._check_open()
        at = self._at
        index = bisect_right(self._ends, at)
        view = memoryview(buffer).cast("B")
        room = len(view)
        while room and index < len(self._pieces):
            whole = self._pieces[index]
            begin = at - self._ends[index] + len(whole)
            piece = memoryview(whole)[begin : begin + room]
            filled = len(view) - room
            view[filled : filled + len(piece)] = piece
            at += len(piece)
            room -= len(piece)
            index += 1
        self._at = max(at, self._at)
        return len(view) - room

    def readall(self) -> bytes:
        self._check_open()
        at, self._at = self._at, max(self._at, self._ends[-1])
        index = bisect_right(self._ends, at)
        if index == len(self._pieces):
            return b""
        first = memoryview(self._pieces[index])
        begin = at - self._ends[index] + len(first)
        return b"".join([first[begin:], *self._pieces[index + 1 :]])

    def readable(self) -> bool:
        self._check_open()
        return True

    def seekable(self) -> bool:
        self._check_open()
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._check_open()
        if whence not in (os.SEEK_SET, os.SEEK_CUR, os.SEEK_END):
            raise ValueError(f"{whence} is no valid whence")
        position = offset + (0, self._at, self._ends[-1])[whence]
        if position < 0:
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))  # as a file on disk
        self._at = position
        return position

    def close(self) -> None:
        if not self.closed:
            self._pieces = ()
            self._store.give_back(self._taken, self._blocks)
        super().close()

    def _check_open(self) -> None:
        if self.closed:
            raise ValueError("I/O operation on closed file")
