"""A request body while it arrives: counted, limited, in memory and then on disk."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, BinaryIO

from ..config import ServerConfig
from ..errors import ProtocolError
from ..messages import RequestReceived
from .body_store import BLOCK, SMALL_BODY, BodyStore, MemoryFile
from .budgets import BODY_RECV_SIZE, RECV_SIZE
from .chunked import ChunkedDecoder

if TYPE_CHECKING:
    from collections.abc import Sequence

    Piece = bytes | bytearray | memoryview

# Smaller pieces are joined: a list of single octets would take many times their memory.
_SMALL = 4096
# The size up to which they are joined.
_JOINED = 64 * 1024
# Where a block has less room, another one is taken.
_LEAST_ROOM = 16 * 1024
# os.writev takes no more at once (IOV_MAX of Linux and macOS).
_MOST_PIECES = 1024


class SpooledBody(io.BufferedReader):
    """A body in a file. Reads as a body in memory does, a `BytesIO`: its `read1` takes None."""

    def read1(self, size: int | None = -1, /) -> bytes:
        return super().read1(-1 if size is None else size)


class BodyReceiver:
    """Collects the octets after a head until the body is complete.

    Used by the owner of the connection only. `deadline` is absolute, in the seconds of
    `time.monotonic`. Each `min_rate` octets received extend it by a second, as with Apache's
    RequestReadTimeout.
    """

    __slots__ = (
        "_blocks",
        "_chunked",
        "_deadline",
        "_file",
        "_in_bulk",
        "_limit",
        "_memory",
        "_min_rate",
        "_pieces",
        "_remaining",
        "_store",
        "_taken",
        "_used",
        "rest",
        "size",
    )

    def __init__(
        self,
        head: RequestReceived,
        config: ServerConfig,
        now: float,
        store: BodyStore | None = None,
    ) -> None:
        """`store` has the memory for a large body. Raises `ProtocolError`."""
        self._limit = config.limits.body
        if (head.content_length or 0) > self._limit:
            raise too_large()
        self._chunked = ChunkedDecoder(config.limits) if head.chunked else None
        self._remaining = head.content_length or 0
        self._memory = min(config.limits.memory_body, SMALL_BODY)
        self._store = store
        self._taken = 0  # octets that the store counts for this body
        self._blocks: list[bytearray] = []  # those of the store
        self._used = 0  # octets of the last block
        self._pieces: list[Piece] = []
        self._file: io.FileIO | None = None
        self._in_bulk = False
        self._deadline = now + config.timeouts.body
        self._min_rate = config.timeouts.min_rate
        self.size = 0
        #: Once the body is complete: the octets after it.
        self.rest = b""

    @property
    def deadline(self) -> float:
        return self._deadline + self.size / self._min_rate

    @property
    def wanted(self) -> int:
        """How many octets to receive next: more of a client that has sent many."""
        if not self._in_bulk:
            return RECV_SIZE
        if self._chunked is not None:
            return BODY_RECV_SIZE
        return max(min(self._remaining, BODY_RECV_SIZE), RECV_SIZE)

    @property
    def is_in_file(self) -> bool:
        """Whether `feed` copies to a file, and keeps no reference to what it takes."""
        return self._file is not None

    def room(self) -> memoryview | None:
        """Where the next octets are to be received, for `feed`; None if the body has no memory of
        its own, or no more."""
        if not self._taken or self._store is None:
            return None
        if not self._blocks or BLOCK - self._used < _LEAST_ROOM:
            block = self._store.take_block()
            if block is None:
                return None
            self._blocks.append(block)
            self._taken += BLOCK
            self._used = 0
        return memoryview(self._blocks[-1])[self._used :]

    def feed(self, data: bytes | memoryview) -> bool:
        """Add `data`; returns whether the body is complete. Raises `ProtocolError`, `OSError`.

        A view is the beginning of `room`, or of any memory if the body is in a file.
        """
        self._in_bulk = len(data) >= RECV_SIZE
        in_room = 0
        if isinstance(data, memoryview) and self._file is None:
            if len(data) < _SMALL:
                data = bytes(data)
            elif self._chunked is None or not self._chunked.is_holding:
                in_room = len(data)
        if self._chunked is not None:
            self._keep(_worth_keeping(self._chunked.feed(data), len(data)), in_room)
            self.rest = self._chunked.rest
            return self._chunked.done
        wanted = data[: self._remaining]
        self._remaining -= len(wanted)
        self._keep([wanted], in_room)
        self.rest = bytes(data[len(wanted) :])
        return not self._remaining

    def finish(self) -> bytes | BinaryIO:
        """Return the complete body: bytes, or a file at its start, which the caller closes."""
        if self._file is not None:
            file, self._file = self._file, None
            file.seek(0)
            return SpooledBody(file)
        pieces, self._pieces = self._pieces, []
        if self._store is None or not self._taken:
            return b"".join(pieces)
        taken, self._taken = self._taken, 0
        blocks, self._blocks = self._blocks, []
        return SpooledBody(MemoryFile(pieces, self._store, taken, blocks))

    def close(self) -> None:
        """Discard the body. May be called more than once."""
        self._empty()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _keep(self, pieces: Sequence[Piece], in_room: int = 0) -> None:
        """Keep `pieces`. Views are of the first `in_room` octets of `room`, if it is not 0."""
        size = sum(map(len, pieces))
        if not size:
            return
        self.size += size
        if self.size > self._limit:
            raise too_large()
        if self._file is not None:
            self._spool(pieces)
        elif self._fits(pieces, in_room):
            for piece in pieces:
                self._append(piece)
        else:
            self._spool([*self._pieces, *pieces])
            self._empty()

    def _fits(self, pieces: Sequence[Piece], in_room: int) -> bool:
        """Whether the body, which has grown by `pieces`, stays in memory."""
        if self.size <= self._memory:
            return True
        store = self._store
        if store is None or self.size + self._remaining > store.largest:
            return False
        more = self.size
        if self._taken:
            copied = [piece for piece in pieces if not in_room or type(piece) is not memoryview]
            more = sum(map(len, copied))
            if len(copied) < len(pieces):
                self._used += in_room
        if more and not store.take(more, self._remaining):
            return False
        self._taken += more
        return True

    def _append(self, piece: Piece) -> None:
        if len(piece) >= _SMALL:
            self._pieces.append(piece)
            return
        last = self._pieces[-1] if self._pieces else None
        if isinstance(last, bytearray) and len(last) < _JOINED:
            last += piece
        else:
            self._pieces.append(bytearray(piece))

    def _empty(self) -> None:
        """Keep nothing in memory."""
        self._pieces.clear()
        if self._store is not None and self._taken:
            self._store.give_back(self._taken, self._blocks)
            self._taken = 0
            self._blocks = []

    def _spool(self, pieces: Sequence[Piece]) -> None:
        if self._file is None:
            # unbuffered, to avoid a second copy of each block
            import tempfile  # it brings compressors along, for a body that needs a file

            self._file = tempfile.TemporaryFile(buffering=0, prefix="threadwell-")  # noqa: SIM115
        _write(self._file, pieces)


def _worth_keeping(pieces: list[bytes | memoryview], size: int) -> Sequence[Piece]:
    """`pieces`, or a copy if they are views of `size` octets, of which they are the lesser part.

    Tiny chunks are joined too: each would cost an object or more than its own size.
    """
    kept = sum(map(len, pieces))
    if 2 * kept > size and kept >= _SMALL * len(pieces):
        return pieces
    return [b"".join(pieces)]


def _write(file: io.FileIO, pieces: Sequence[Piece]) -> None:
    """Append `pieces` to `file`. Raises `OSError`."""
    for at in range(0, len(pieces), _MOST_PIECES):
        batch = pieces[at : at + _MOST_PIECES]
        written = os.writev(file.fileno(), batch) if hasattr(os, "writev") else 0
        for piece in batch:
            rest = memoryview(piece)[written:]
            written -= min(written, len(piece))
            while rest:
                rest = rest[file.write(rest) :]


def too_large() -> ProtocolError:
    """Return the error for a body above the limit."""
    return ProtocolError(413, "The request body is too large", "limit_body")
