"""Request bodies: the frame that ends the stream ends them, whatever length was declared.

That they agree `Stream` sees to (RFC 9113, 8.1.1).
"""

from __future__ import annotations

from ..asgi.body import BodyStream
from ..body import BodyReceiver

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
    """`BodyReceiver` for a body whose end somebody else knows."""

    __slots__ = ()

    def feed(self, data: bytes) -> bool:
        """Take `data`. Raises `ProtocolError` and `OSError`."""
        size = self.size + len(data)
        fits = self._file is None and size <= min(self._memory, self._limit)
        if fits and _append(self._blocks, data):
            self.size = size
            return False
        self._keep(data)
        return False


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
