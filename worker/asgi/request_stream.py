"""A request body that the application reads while it arrives."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from ..http1.chunked import ChunkedDecoder
from ..http1.request_body import too_large

if TYPE_CHECKING:
    from ..config import ServerConfig
    from ..messages import RequestReceived

#: How much of a body that the application did not read is discarded to keep the connection.
MOST_DISCARDED = 65536


class BodyStream:
    """Takes the octets behind a head, and gives them out as they arrive. Belongs to one loop.

    The deadline is that of `BodyReceiver`, without the time in which the body was paused.
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
        #: How many octets the application has not taken yet.
        self.buffered = 0
        self.done = False
        #: Once the body is complete: the octets behind it.
        self.rest = b""

    @property
    def deadline(self) -> float:
        """When the body must be complete, in the seconds of `time.monotonic`; infinite while it is
        paused."""
        return math.inf if self._paused_at else self._deadline + self.size / self._rate

    @property
    def missing(self) -> float:
        """How many octets are still to come; infinite where that is unknown."""
        if self.done:
            return 0
        return math.inf if self._chunked is not None else self._missing

    def pause(self) -> None:
        """Stop the clock: nothing is received until the application has taken what is here."""
        self._paused_at = time.monotonic()

    def resume(self) -> None:
        """Start the clock again: more is received from the client."""
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
        """The octets that came since the last call."""
        blocks, self._blocks = self._blocks, []
        self.buffered = 0
        return blocks[0] if len(blocks) == 1 else b"".join(blocks)
