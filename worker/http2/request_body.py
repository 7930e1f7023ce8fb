"""Request bodies: the frame that ends the stream ends them, whatever length was declared.

That they agree `Stream` sees to (RFC 9113, 8.1.1).
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from ..asgi.request_stream import BodyStream
from ..http1.request_body import BodyReceiver, too_large

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Future
    from collections.abc import Callable

    from ..config import ServerConfig
    from ..messages import RequestReceived

# A client may send a body octet by octet: below this they are put together, not kept one by one.
_SMALL = 4096


def _append(blocks: list[bytes], block: bytes) -> bool:
    """Put a small `block` behind another; whether that was possible."""
    if len(block) >= _SMALL:
        return False
    last = blocks[-1] if blocks else None
    if isinstance(last, bytearray) and len(last) < _SMALL:
        last += block
    else:
        blocks.append(bytearray(block))  # type: ignore[arg-type]
    return True


class SpooledBody(BodyReceiver):
    """`BodyReceiver` for a body whose end somebody else knows. What memory has no room for is
    written by a thread, since a loop must not wait for a disk."""

    __slots__ = ("_closed", "_waiting", "_writing")

    def __init__(self, head: RequestReceived, config: ServerConfig, now: float) -> None:
        super().__init__(head, config, now)
        self._waiting: list[bytes] = []
        self._writing = False
        self._closed = False

    @property
    def is_spooling(self) -> bool:
        """Whether something is to be written, or is being written."""
        return self._writing or bool(self._waiting)

    def feed(self, data: bytes) -> bool:
        """Take `data`. Raises `ProtocolError`."""
        self.size += len(data)
        if self.size > self._limit:
            raise too_large()
        if self.size <= self._memory:
            if not _append(self._blocks, data):
                self._blocks.append(data)
        else:
            self._waiting += [*self._blocks, data]
            self._blocks.clear()
        return False

    def spool(self, loop: AbstractEventLoop, done: Callable[[BaseException | None], None]) -> None:
        """Have a thread write what waits, if none is at it; `done` is told of an error, or None,
        unless the body is closed by then."""
        if self._waiting and not self._writing:
            blocks, self._waiting = self._waiting, []
            self._writing = True
            future = loop.run_in_executor(None, self._spool, blocks)
            future.add_done_callback(functools.partial(self._spooled, done))

    def _spooled(self, done: Callable[[BaseException | None], None], future: Future[None]) -> None:
        self._writing = False
        failure = None if future.cancelled() else future.exception()
        if self._closed:
            self.close()
        else:
            done(failure)

    def close(self) -> None:
        """Drop what came, once no thread is at it: its descriptor might be another's by then."""
        self._waiting.clear()
        if self._writing:
            self._closed = True
        else:
            super().close()


class StreamedBody(BodyStream):
    """`BodyStream` for one."""

    __slots__ = ()

    def feed(self, data: bytes) -> None:
        """Take `data`. Raises `ProtocolError`."""
        if self.size + len(data) <= self._limit and _append(self._blocks, data):
            self.size += len(data)
            self.buffered += len(data)
        else:
            self._keep(data)

    def end(self) -> None:
        """It is whole."""
        self.done = True

    def take(self) -> bytes:
        return bytes(super().take())
