"""A request body on its way in: counted, bounded, in memory and then on disk."""

from __future__ import annotations

import io
import tempfile
from typing import BinaryIO

from ..config import ServerConfig
from ..errors import ProtocolError
from ..messages import RequestReceived
from .chunked import ChunkedDecoder


class BodyReceiver:
    """Takes the octets behind a head until the body is whole. Belongs to its connection's owner.

    `deadline` is absolute, in the seconds of `time.monotonic`; it moves only by what `min_rate`
    grants for the octets that came (as Apache's RequestReadTimeout has it).
    """

    __slots__ = (
        "_blocks",
        "_chunked",
        "_deadline",
        "_file",
        "_limit",
        "_memory",
        "_missing",
        "_rate",
        "rest",
        "size",
    )

    def __init__(self, head: RequestReceived, config: ServerConfig, now: float) -> None:
        self._limit = config.limits.body
        if (head.content_length or 0) > self._limit:
            raise too_large()
        self._chunked = ChunkedDecoder(config.limits) if head.chunked else None
        self._missing = head.content_length or 0
        self._memory = config.limits.memory_body
        self._blocks: list[bytes] = []
        self._file: io.FileIO | None = None
        self._deadline = now + config.timeouts.body
        self._rate = config.timeouts.min_rate
        self.size = 0
        #: Once the body is whole: the octets behind it.
        self.rest = b""

    @property
    def deadline(self) -> float:
        return self._deadline + self.size / self._rate

    def feed(self, data: bytes) -> bool:
        """Take `data`; whether the body is whole now. Raises `ProtocolError` and `OSError`."""
        if self._chunked is not None:
            # joined, or a chunk of a few bytes would cost an object or a system call each
            self._keep(b"".join(self._chunked.feed(data)))
            self.rest = self._chunked.rest
            return self._chunked.done
        wanted = data[: self._missing]
        self._missing -= len(wanted)
        self._keep(wanted)
        self.rest = data[len(wanted) :]
        return not self._missing

    def finish(self) -> bytes | BinaryIO:
        """The whole body: in memory, or as a file at its start that the caller closes."""
        if self._file is None:
            return b"".join(self._blocks)
        file, self._file = self._file, None
        file.seek(0)
        return io.BufferedReader(file)

    def close(self) -> None:
        """Drop what came. May be called more than once."""
        self._blocks.clear()
        if self._file is not None:
            self._file.close()
            self._file = None

    def _keep(self, block: bytes) -> None:
        if not block:
            return
        self.size += len(block)
        if self.size > self._limit:
            raise too_large()
        if self._file is None and self.size <= self._memory:
            self._blocks.append(block)
        else:
            self._spool([*self._blocks, block])
            self._blocks.clear()

    def _spool(self, blocks: list[bytes]) -> None:
        """Write `blocks` into a file."""
        if self._file is None:
            # unbuffered: a second copy of every block would be made for nothing
            self._file = tempfile.TemporaryFile(buffering=0, prefix="threadwell-")  # noqa: SIM115
        for block in blocks:
            view = memoryview(block)
            while view:
                view = view[self._file.write(view) :]


def too_large() -> ProtocolError:
    """What a body over the limit is answered with."""
    return ProtocolError(413, "The request body is too large")
