"""HPACK (RFC 7541) of the library hpack, with limits for what a client may choose."""

from __future__ import annotations

from typing import TYPE_CHECKING

import hpack

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

# The initial size of the dynamic table of either side (RFC 7541, 4.2), and here the largest.
_CAPACITY = 4096
# RFC 7541, 4.2: at most two updates, the smallest size since the last head and the last size.
_MOST_UPDATES = 2
# The first bits of a size update, and the largest integer in the same octet (RFC 7541, 6.3).
_UPDATE, _UPDATE_BITS, _UPDATE_MASK = 0x20, 0xE0, 0x1F
_CONTINUES = 0x80


class FieldDecoder(hpack.Decoder):
    """Decodes heads, with few size updates each: one octet can be an update, which costs as much as
    a field, and no limit for fields counts it."""

    def decode(self, data: bytes, raw: bool = False) -> Iterable[hpack.HeaderTuple]:
        """As `hpack.Decoder.decode`. Raises `HPACKError`, or `IndexError` if `data` ends early."""
        if data and data[0] & _UPDATE_BITS == _UPDATE and _count_updates(data) > _MOST_UPDATES:
            raise hpack.InvalidTableSizeError("the table was resized beyond what is allowed")
        return super().decode(data, raw)


class FieldEncoder(hpack.Encoder):
    """Encodes heads, with a small dynamic table: the table is searched for each field."""

    @property
    def header_table_size(self) -> int:
        """The size of the dynamic table: what the client allows, and not more than the initial
        size."""
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
        """As `hpack.Encoder.encode`, without Huffman codes: they cost time, and repeated fields are
        sent as an index anyway."""
        return super().encode(headers, huffman)


def _count_updates(data: bytes) -> int:
    """How many size updates `data` begins with, counted up to one too many."""
    position = count = 0
    while (
        position < len(data) and data[position] & _UPDATE_BITS == _UPDATE and count <= _MOST_UPDATES
    ):
        count += 1
        continues = data[position] & _UPDATE_MASK == _UPDATE_MASK
        position += 1
        while continues and position < len(data):
            continues = bool(data[position] & _CONTINUES)
            position += 1
    return count
