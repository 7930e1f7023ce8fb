"""HPACK (RFC 7541) for heads of many repeated fields, with limits for what a client may choose.

The classes have the interface of the library hpack, whose tables and Huffman codes are used here.
hpack itself takes ten times as long for an indexed field, and searches the whole dynamic table for
each field that it encodes.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import hpack
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

if TYPE_CHECKING:
    from .interfaces import Fields

# The initial size of the dynamic table of either side (RFC 7541, 4.2), and here the largest.
_CAPACITY = 4096
# RFC 7541, 4.2: at most two updates, the smallest size since the last head and the last size.
_MOST_UPDATES = 2
# What the size of an entry has beside its octets (RFC 7541, 4.1).
_OVERHEAD = 32
# The first octet of each representation, and the bits of the number in it (RFC 7541, 6).
_INDEXED, _INDEXED_BITS = 0x80, 7
_INCREMENTAL, _INCREMENTAL_BITS = 0x40, 6
_UPDATE, _UPDATE_BITS = 0x20, 5
_NEVER, _PLAIN, _PLAIN_BITS = 0x10, 0x00, 4
_HUFFMAN, _LENGTH_BITS = 0x80, 7
# How long an integer may be. No length and no index here needs as much.
_LONGEST_INTEGER = 5

_STATIC = HeaderTable.STATIC_TABLE
_STATIC_LENGTH = len(_STATIC)
_STATIC_PAIRS = {pair: index for index, pair in reversed([*enumerate(_STATIC, 1)]) if pair[1]}
_STATIC_NAMES = {pair[0]: index for index, pair in reversed([*enumerate(_STATIC, 1)])}
# Fields whose values seldom repeat: in the table they would only displace others.
_UNREPEATED = frozenset(
    (b"content-length", b"content-range", b"etag", b"last-modified", b"location", b"x-request-id")
)


class FieldDecoder(hpack.Decoder):
    """Decodes heads. A head may have two size updates at most: each is one octet, costs as much as
    a field, and is counted by no limit for fields."""

    def decode(self, data: bytes, raw: bool = True) -> list[tuple[bytes, bytes]]:  # type: ignore[override]  # noqa: ARG002
        """The fields of the block `data`, in octets whatever `raw` says. Raises `HPACKError`."""
        try:
            return self._decode(bytes(data))
        except IndexError as error:
            raise hpack.HPACKDecodingError("a block ends within a field") from error

    def _decode(self, data: bytes) -> list[tuple[bytes, bytes]]:
        table, static = self.header_table, _STATIC
        dynamic = table.dynamic_entries
        fields: list[tuple[bytes, bytes]] = []
        left = self.max_header_list_size
        position = updates = 0
        size = len(data)
        while position < size:
            first = data[position]
            if first & _INDEXED:
                number = first & 0x7F
                position += 1
                if number == 0x7F:
                    number, position = _read_integer(data, position, number)
                if 0 < number <= _STATIC_LENGTH:
                    field = static[number - 1]
                elif _STATIC_LENGTH < number <= _STATIC_LENGTH + len(dynamic):
                    field = dynamic[number - _STATIC_LENGTH - 1]
                else:
                    raise hpack.InvalidTableIndex("an index that the table does not have")
            elif first & _INCREMENTAL or not first & _UPDATE:
                field, position = self._decode_field(data, position, first)
            else:
                updates += 1
                if fields or updates > _MOST_UPDATES:
                    raise hpack.InvalidTableSizeError("the table was resized where it may not be")
                position = self._resize(data, position, first)
                continue
            left -= len(field[0]) + len(field[1]) + _OVERHEAD
            if left < 0:
                raise hpack.OversizedHeaderListError("a list of fields is too large")
            fields.append(field)
        if table.maxsize > self.max_allowed_table_size:
            raise hpack.InvalidTableSizeError("the table was not resized as the settings say")
        return fields

    def _decode_field(
        self, data: bytes, position: int, first: int
    ) -> tuple[tuple[bytes, bytes], int]:
        """The literal field at `position`, and the position behind it (RFC 7541, 6.2)."""
        incremental = first & _INCREMENTAL
        most = (1 << (_INCREMENTAL_BITS if incremental else _PLAIN_BITS)) - 1
        index = first & most
        position += 1
        if index == most:
            index, position = _read_integer(data, position, index)
        if index:
            name = self.header_table.get_by_index(index)[0]
        else:
            name, position = _read_string(data, position)
        value, position = _read_string(data, position)
        if incremental:
            self.header_table.add(name, value)
        return (name, value), position

    def _resize(self, data: bytes, position: int, first: int) -> int:
        most = (1 << _UPDATE_BITS) - 1
        number = first & most
        position += 1
        if number == most:
            number, position = _read_integer(data, position, number)
        if number > self.max_allowed_table_size:
            raise hpack.InvalidTableSizeError("the table was resized beyond what is allowed")
        self.header_table.maxsize = number
        return position


def _read_integer(data: bytes, position: int, number: int) -> tuple[int, int]:
    """The integer whose first bits were all set, and the position behind it (RFC 7541, 5.1)."""
    for shift in range(0, 7 * _LONGEST_INTEGER, 7):
        octet = data[position]
        position += 1
        number += (octet & 0x7F) << shift
        if not octet & 0x80:
            return number, position
    raise hpack.HPACKDecodingError("an integer is too long")


def _read_string(data: bytes, position: int) -> tuple[bytes, int]:
    """The string at `position`, and the position behind it (RFC 7541, 5.2)."""
    first = data[position]
    length = first & 0x7F
    position += 1
    if length == 0x7F:
        length, position = _read_integer(data, position, length)
    end = position + length
    if end > len(data):
        raise hpack.HPACKDecodingError("a block ends within a string")
    text = data[position:end]
    return (decode_huffman(text) if first & _HUFFMAN else text), end


class FieldEncoder(hpack.Encoder):
    """Encodes heads, with a small dynamic table in which a field is found by its hash.

    It writes no Huffman codes: they cost time, and repeated fields are sent as an index anyway.
    """

    def __init__(self) -> None:
        super().__init__()
        self._largest = _CAPACITY
        self._size = 0
        # the fields of the table, the oldest first, and the number of that one; numbers count up
        self._fields: deque[tuple[bytes, bytes]] = deque()
        self._oldest = 1
        self._numbers: dict[tuple[bytes, bytes], int] = {}
        self._numbers_of_names: dict[bytes, int] = {}

    @property
    def header_table_size(self) -> int:
        """The size of the dynamic table: what the client allows, and not more than the initial
        size."""
        return self._largest

    @header_table_size.setter
    def header_table_size(self, size: int) -> None:
        size = min(size, _CAPACITY)
        if size != self._largest:
            self._largest = size
            self._evict()
            # RFC 7541, 4.2: the smallest, and the last
            smallest = min([size, *self.table_size_changes])
            self.table_size_changes = [smallest] if smallest == size else [smallest, size]

    def encode(self, headers: Fields, huffman: bool = False) -> bytes:  # type: ignore[override]  # noqa: ARG002
        """The block of `headers`, whose names and values are octets. A `NeverIndexedHeaderTuple` is
        kept out of all tables, also those of proxies."""
        block = bytearray()
        for size in self.table_size_changes:
            _write_integer(block, _UPDATE, _UPDATE_BITS, size)
        self.table_size_changes = []
        for field in headers:
            index = _STATIC_PAIRS.get(field)
            if index is None and (number := self._numbers.get(field)):
                index = self._index_of(number)
            if type(field) is not tuple and not getattr(field, "indexable", True):
                self._write_literal(block, _NEVER, _PLAIN_BITS, field)
            elif index is None:
                if field[0] in _UNREPEATED:
                    self._write_literal(block, _PLAIN, _PLAIN_BITS, field)
                else:
                    self._write_literal(block, _INCREMENTAL, _INCREMENTAL_BITS, field)
                    self._add(field)
            elif index < 0x7F:
                block.append(_INDEXED | index)
            else:
                _write_integer(block, _INDEXED, _INDEXED_BITS, index)
        return bytes(block)

    def _index_of(self, number: int) -> int:
        """The index of field `number`: the newest comes first, after the static table."""
        return _STATIC_LENGTH + self._oldest + len(self._fields) - number

    def _write_literal(
        self, block: bytearray, kind: int, bits: int, field: tuple[bytes, bytes]
    ) -> None:
        name, value = field
        index = _STATIC_NAMES.get(name)
        if index is None and (number := self._numbers_of_names.get(name)):
            index = self._index_of(number)
        _write_integer(block, kind, bits, index or 0)
        if not index:
            _write_integer(block, 0, _LENGTH_BITS, len(name))
            block += name
        _write_integer(block, 0, _LENGTH_BITS, len(value))
        block += value

    def _add(self, field: tuple[bytes, bytes]) -> None:
        """Add `field`, in the place of the oldest. One that is too large empties the table (RFC
        7541, 4.4)."""
        field = (field[0], field[1])
        number = self._oldest + len(self._fields)
        self._fields.append(field)
        self._numbers[field] = self._numbers_of_names[field[0]] = number
        self._size += len(field[0]) + len(field[1]) + _OVERHEAD
        self._evict()

    def _evict(self) -> None:
        while self._size > self._largest:
            field = self._fields.popleft()
            self._size -= len(field[0]) + len(field[1]) + _OVERHEAD
            if self._numbers.get(field) == self._oldest:
                del self._numbers[field]
            if self._numbers_of_names.get(field[0]) == self._oldest:
                del self._numbers_of_names[field[0]]
            self._oldest += 1


def _write_integer(block: bytearray, kind: int, bits: int, number: int) -> None:
    """Append `number` to `block`, its first octet with `kind` (RFC 7541, 5.1)."""
    most = (1 << bits) - 1
    if number < most:
        block.append(kind | number)
        return
    block.append(kind | most)
    number -= most
    while number >= 0x80:
        block.append(number & 0x7F | 0x80)
        number >>= 7
    block.append(number)
