"""A request body while it arrives: counted, limited, in memory and then on disk."""

from __future__ import annotations

import io
from typing import BinaryIO

from ..config import ServerConfig
from ..errors import ProtocolError
from ..messages import RequestReceived
from .chunked import ChunkedDecoder


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
        "_limit",
        "_memory",
        "_remaining",
        "_min_rate",
        "rest",
        "size",
    )

    def __init__(self, head: RequestReceived, config: ServerConfig, now: float) -> None:
        self._limit = config.limits.body
        if (head.content_length or 0) > self._limit:
            raise too_large()
        self._chunked = ChunkedDecoder(config.limits) if head.chunked else None
        self._remaining = head.content_length or 0
        self._memory = config.limits.memory_body
        self._blocks: list[bytes] = []
        self._file: io.FileIO | None = None
        self._deadline = now + config.timeouts.body
        self._min_rate = config.timeouts.min_rate
        self.size = 0
        #: Once the body is complete: the octets after it.
        self.rest = b""

    @property
    def deadline(self) -> float:
        return self._deadline + self.size / self._min_rate

    def feed(self, data: bytes) -> bool:
        """Add `data`; returns whether the body is complete. Raises `ProtocolError`, `OSError`."""
        if self._chunked is not None:
            # joined, or each tiny chunk would cost an object or a system call
            self._keep(b"".join(self._chunked.feed(data)))
            self.rest = self._chunked.rest
            return self._chunked.done
        wanted = data[: self._remaining]
        self._remaining -= len(wanted)
        self._keep(wanted)
        self.rest = data[len(wanted) :]
        return not self._remaining

    def finish(self) -> bytes | BinaryIO:
        """Return the complete body: bytes, or a file at its start, which the caller closes."""
        if self._file is None:
            return b"".join(self._blocks)
        file, self._file = self._file, None
        file.seek(0)
        return SpooledBody(file)

    def close(self) -> None:
        """Discard the body. May be called more than once."""
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
        if self._file is None:
            # unbuffered, to avoid a second copy of each block
            import tempfile  # it brings compressors along, for a body that needs a file

            self._file = tempfile.TemporaryFile(buffering=0, prefix="threadwell-")  # noqa: SIM115
        for block in blocks:
            view = memoryview(block)
            while view:
                view = view[self._file.write(view) :]


def too_large() -> ProtocolError:
    """Return the error for a body above the limit."""
    return ProtocolError(413, "The request body is too large", "limit_body")
