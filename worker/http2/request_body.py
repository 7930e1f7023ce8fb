"""Request bodies of HTTP/2. The end of the stream ends a body, whatever length was declared.

`Stream` checks that the two agree (RFC 9113, 8.1.1).
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING

from ..asgi.request_stream import BodyStream
from ..http1.request_body import BodyReceiver, too_large
from ..request_id import named

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Callable

    from ..config import ServerConfig
    from ..http1.body_store import BodyStore
    from ..http1.request_body import Piece
    from ..messages import RequestReceived

log = logging.getLogger("threadwell")

# Smaller blocks are joined: a client may send a body octet by octet, and a list of single octets
# would take many times the memory.
_SMALL = 4096


def _append(blocks: list[bytes], block: bytes) -> bool:
    """Add a small `block` to the last of `blocks`; False if `block` is not small."""
    if len(block) >= _SMALL:
        return False
    last = blocks[-1] if blocks else None
    if isinstance(last, bytearray) and len(last) < _SMALL:
        last += block
    else:
        blocks.append(bytearray(block))  # type: ignore[arg-type]
    return True


class SpoolingReceiver(BodyReceiver):
    """A `BodyReceiver` whose end the stream knows. A thread writes what is not kept in memory to
    disk, because a loop must not wait for a disk."""

    __slots__ = ("_closed", "_for_file", "_head", "_waiting", "_writing")

    def __init__(
        self, head: RequestReceived, config: ServerConfig, now: float, store: BodyStore
    ) -> None:
        super().__init__(head, config, now, store)
        self._head = head
        self._for_file = False
        self._waiting: list[Piece] = []
        self._writing = False
        self._closed = False

    @property
    def is_spooling(self) -> bool:
        """Whether something is to be written, or is being written."""
        return self._writing or bool(self._waiting)

    def feed(self, data: bytes | memoryview) -> bool:
        """Take `data`. Raises `ProtocolError`."""
        self.size += len(data)
        if self.size > self._limit:
            raise too_large()
        self._remaining = max(self._remaining - len(data), 0)
        if not self._for_file and self._fits([data], 0):
            self._append(data)
        else:
            self._for_file = True
            self._waiting += [*self._pieces, data]
            self._pieces.clear()
        return False

    def spool(self, loop: AbstractEventLoop, done: Callable[[BaseException | None], None]) -> None:
        """Have a thread write what waits, if no thread is writing. Then `done` is called with the
        error or None, unless the body was closed."""
        if self._waiting and not self._writing:
            blocks, self._waiting = self._waiting, []
            self._writing = True
            future = loop.run_in_executor(None, self._spool, blocks)
            future.add_done_callback(functools.partial(self._spooled, done))

    def _spooled(self, done: Callable[[BaseException | None], None], future: Future[None]) -> None:
        self._writing = False
        if not self._waiting:
            self._empty()  # what the store has counted for this body is in the file
        failure = None if future.cancelled() else future.exception()
        if failure is not None:
            log.error("The body of %s could not be stored", named(self._head), exc_info=failure)
        if self._closed:
            self.close()
        else:
            done(failure)

    def close(self) -> None:
        """Drop the body, once no thread writes it: a closed descriptor may be reused."""
        self._waiting.clear()
        if self._writing:
            self._closed = True
        else:
            super().close()


class StreamedBody(BodyStream):
    """A `BodyStream` whose end the stream knows."""

    __slots__ = ()

    def pause(self) -> None:
        """Stop the clock, if it runs."""
        if not self._paused_at:
            super().pause()

    def resume(self) -> None:
        """Start the clock again, if it is stopped."""
        if self._paused_at:
            super().resume()

    def feed(self, data: bytes) -> None:
        """Take `data`. Raises `ProtocolError`."""
        if self.size + len(data) <= self._limit and _append(self._blocks, data):
            self.size += len(data)
            self.buffered += len(data)
        else:
            self._keep(data)

    def end(self) -> None:
        """The body is complete."""
        self.done = True

    def take(self) -> bytes:
        return bytes(super().take())
