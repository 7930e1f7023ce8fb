"""A request body on its way to an application that reads it while it comes."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from ..http1.chunked import ChunkedDecoder
from ..http1.request_body import too_large

if TYPE_CHECKING:
    from ..config import ServerConfig
    from ..messages import RequestReceived

#: How much of a body that the application left is read for the sake of the connection.
MOST_DISCARDED = 65536


class BodyStream:
    """Takes the octets behind a head, and gives them out as they come. Belongs to one loop.

    The deadline is that of `BodyReceiver`; time in which the application was what was waited for
    does not count.
    """

    __slots__ = (
        "_blocks",
        "_chunked",
        "_deadline",
        "_limit",
        "_missing",
        "_paused_at",
        "_rate",
        "buffered",
        "done",
        "rest",
        "size",
    )

    def __init__(self, head: RequestReceived, config: ServerConfig) -> None:
        self._limit = config.limits.body
        if (head.content_length or 0) > self._limit:
            raise too_large()
        self._chunked = ChunkedDecoder(config.limits) if head.chunked else None
        self._missing = head.content_length or 0
        self._blocks: list[bytes] = []
        self._deadline = time.monotonic() + config.timeouts.body
        self._rate = config.timeouts.min_rate
        self._paused_at = 0.0
        self.size = 0
        #: Octets that the application has not taken yet.
        self.buffered = 0
        self.done = False
        #: Once the body is whole: the octets behind it.
        self.rest = b""

    @property
    def deadline(self) -> float:
        """Absolute, in the seconds of `time.monotonic`; infinite while nobody reads."""
        return math.inf if self._paused_at else self._deadline + self.size / self._rate

    @property
    def missing(self) -> float:
        """How many octets are still to come; infinite where that is not known."""
        if self.done:
            return 0
        return math.inf if self._chunked is not None else self._missing

    def pause(self) -> None:
        """The application has more than enough: from now on it is the one that takes its time."""
        self._paused_at = time.monotonic()

    def resume(self) -> None:
        """The client is waited for again."""
        self._deadline += time.monotonic() - self._paused_at
        self._paused_at = 0.0

    def feed(self, data: bytes) -> None:
        """Take `data`. Raises `ProtocolError`."""
        if self._chunked is not None:
            self._keep(b"".join(self._chunked.feed(data)))
            self.done = self._chunked.done
            self.rest = self._chunked.rest
            return
        wanted = data[: self._missing]
        self._missing -= len(wanted)
        self._keep(wanted)
        self.done = not self._missing
        self.rest = data[len(wanted) :]

    def _keep(self, block: bytes) -> None:
        if not block:
            return
        self.size += len(block)
        if self.size > self._limit:
            raise too_large()
        self._blocks.append(block)
        self.buffered += len(block)

    def take(self) -> bytes:
        """What came since the last time."""
        blocks, self._blocks = self._blocks, []
        self.buffered = 0
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)
