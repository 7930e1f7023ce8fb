"""HPACK (RFC 7541) as hpack has it, with bounds for what a client may choose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import hpack

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

# RFC 7541, 4.2: what either side remembers at first. Here it is never more.
_CAPACITY = 4096
# The smallest size since the last head, and the last one.
_MOST_RESIZED = 2
# The first bits of a resize, and the largest integer behind them (RFC 7541, 6.3).
_RESIZE, _RESIZE_BITS, _RESIZE_MASK = 0x20, 0xE0, 0x1F
_GOES_ON = 0x80


class FieldDecoder(hpack.Decoder):
    """Takes heads apart. One octet of a head can ask for a resize, which costs as much as a field,
    and counts as none."""

    def decode(self, data: bytes, raw: bool = False) -> Iterable[hpack.HeaderTuple]:
        """As there. Raises `HPACKError`, or `IndexError` where `data` ends early."""
        if data and data[0] & _RESIZE_BITS == _RESIZE and _resizes(data) > _MOST_RESIZED:
            raise hpack.InvalidTableSizeError("the table was resized beyond what is allowed")
        return super().decode(data, raw)


class FieldEncoder(hpack.Encoder):
    """Makes heads. What it remembers is searched for each field."""

    @property
    def header_table_size(self) -> int:
        """How much is remembered: what the client allows, and no more than at first."""
        return self.header_table.maxsize

    @header_table_size.setter
    def header_table_size(self, size: int) -> None:
        size = min(size, _CAPACITY)
        if size != self.header_table.maxsize:
            self.header_table.maxsize = size
            # RFC 7541, 4.2: the smallest, and the last
            smallest = min([size, *self.table_size_changes])
            self.table_size_changes = [smallest] if smallest == size else [smallest, size]

    def encode(self, headers: Any, huffman: bool = False) -> bytes:
        """As there; not packed, for what comes again is sent as an index anyway."""
        return super().encode(headers, huffman)


def _resizes(data: bytes) -> int:
    """How many resizes `data` begins with; one too many is enough."""
    at = count = 0
    while at < len(data) and data[at] & _RESIZE_BITS == _RESIZE and count <= _MOST_RESIZED:
        count += 1
        goes_on = data[at] & _RESIZE_MASK == _RESIZE_MASK
        at += 1
        while goes_on and at < len(data):
            goes_on = bool(data[at] & _GOES_ON)
            at += 1
    return count
