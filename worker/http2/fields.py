"""HPACK (RFC 7541): fields to octets and back, in a time and a memory that no client can choose.

Of hpack it takes the tables. Its encoder lets the client say how much it remembers, without limit,
and searches all of that for each field; its decoder copies what is left of a head for each field.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from hpack import (
    HPACKDecodingError,
    InvalidTableSizeError,
    NeverIndexedHeaderTuple,
    OversizedHeaderListError,
)
from hpack.huffman import HuffmanEncoder
from hpack.huffman_constants import REQUEST_CODES, REQUEST_CODES_LENGTH
from hpack.huffman_table import decode_huffman
from hpack.table import HeaderTable

Field = tuple[bytes, bytes]

# RFC 7541, 4.2: what either side remembers at first. Here it is never more.
_CAPACITY = 4096
# RFC 7541, 4.1: what an entry counts beside its octets.
_OVERHEAD = 32
_STATIC: tuple[Field, ...] = HeaderTable.STATIC_TABLE
_FIRST_DYNAMIC = len(_STATIC) + 1
_STATIC_INDEX = {field: index for index, field in reversed([*enumerate(_STATIC, 1)])}
_NAME_INDEX = {name: index for index, (name, _) in reversed([*enumerate(_STATIC, 1)])}
# The first bits of a representation, and the largest integer behind them (RFC 7541, 6).
_INDEXED, _INDEX_MASK = 0x80, 0x7F
_INCREMENTAL, _INCREMENTAL_MASK = 0x40, 0x3F
_RESIZE, _RESIZE_BITS, _RESIZE_MASK = 0x20, 0xE0, 0x1F
_NEVER, _PLAIN, _PLAIN_MASK = 0x10, 0x00, 0x0F
_HUFFMAN, _LENGTH_MASK = 0x80, 0x7F
_MOST_RESIZED = 2
# Beyond 28 bits nothing is meant.
_LONGEST_SHIFT = 21
# Values that hardly come again would push others out of the table.
_ONCE = frozenset(
    (
        *(b"age", b"content-length", b"content-range", b"etag", b"expires"),
        *(b"last-modified", b"location", b"x-request-id"),
    )
)

_LONGEST_CACHED = 256
_MOST_CACHED = 64

_huffman = HuffmanEncoder(REQUEST_CODES, REQUEST_CODES_LENGTH).encode


class FieldDecoder:
    """Takes heads apart. Belongs to one connection, whose client decides what it remembers."""

    def __init__(self, largest_list: int) -> None:
        self.max_header_list_size = largest_list
        self._entries: deque[Field] = deque()
        self._size = 0
        self._capacity = _CAPACITY
        #: Strings that came before, for clients that do not want a path to be remembered. Bounded.
        self._strings: dict[bytes, bytes] = {}

    def decode(self, data: bytes, raw: bool = True) -> list[Field]:  # noqa: ARG002
        """The fields in `data`. Raises `HPACKError`, or `IndexError` where it ends early."""
        fields: list[Field] = []
        size = 0
        at = self._resized(data)
        end = len(data)
        while at < end:
            first = data[at]
            at += 1
            if first & _INDEXED:
                index = first & _INDEX_MASK
                if index == _INDEX_MASK:
                    index, at = _rest(data, at, index)
                field = self._at(index)
            else:
                field, at = self._literal(data, at, first)
                if first & _INCREMENTAL:
                    self._remember(field)
            fields.append(field)
            size += len(field[0]) + len(field[1]) + _OVERHEAD
            if size > self.max_header_list_size:
                raise OversizedHeaderListError("a head takes too much when it is unpacked")
        return fields

    def _resized(self, data: bytes) -> int:
        """Change how much is remembered, if `data` begins with that; how long that was."""
        at = changes = 0
        while at < len(data) and data[at] & _RESIZE_BITS == _RESIZE:
            size, at = _integer(data, at, _RESIZE_MASK)
            changes += 1
            if size > _CAPACITY or changes > _MOST_RESIZED:  # RFC 7541, 4.2
                raise InvalidTableSizeError("the table was resized beyond what is allowed")
            self._capacity = size
            self._shrink()
        return at

    def _literal(self, data: bytes, at: int, first: int) -> tuple[Field, int]:
        if first & _INCREMENTAL:
            mask = _INCREMENTAL_MASK
        elif first & _RESIZE:
            raise HPACKDecodingError("the table was resized in the middle of a head")
        else:
            mask = _PLAIN_MASK
        index = first & mask
        if index == mask:
            index, at = _rest(data, at, index)
        if index:
            name = self._at(index)[0]
        else:
            name, at = self._string(data, at)
        value, at = self._string(data, at)
        return (name, value), at

    def _string(self, data: bytes, at: int) -> tuple[bytes, int]:
        is_huffman = data[at] & _HUFFMAN
        length, at = _integer(data, at, _LENGTH_MASK)
        end = at + length
        string = data[at:end]
        if len(string) != length:
            raise HPACKDecodingError("a head ends early")
        return self._unpack(string) if is_huffman else string, end

    def _unpack(self, string: bytes) -> bytes:
        known = self._strings.get(string)
        if known is None:
            known = decode_huffman(string)
            if len(known) <= _LONGEST_CACHED:
                if len(self._strings) >= _MOST_CACHED:
                    self._strings.clear()
                self._strings[string] = known
        return known

    def _at(self, index: int) -> Field:
        if 0 < index < _FIRST_DYNAMIC:
            return _STATIC[index - 1]
        index -= _FIRST_DYNAMIC
        if 0 <= index < len(self._entries):
            return self._entries[index]
        raise HPACKDecodingError("there is no such entry in the table")

    def _remember(self, field: Field) -> None:
        self._entries.appendleft(field)
        self._size += len(field[0]) + len(field[1]) + _OVERHEAD
        self._shrink()

    def _shrink(self) -> None:
        while self._size > self._capacity:
            name, value = self._entries.pop()
            self._size -= len(name) + len(value) + _OVERHEAD


class FieldEncoder:
    """Makes heads. Belongs to one connection."""

    def __init__(self) -> None:
        # a field, and how many were remembered by then
        self._known: dict[Field, int] = {}
        self._entries: deque[Field] = deque()
        self._remembered = 0
        self._size = 0
        self._capacity = _CAPACITY
        self._changes: list[int] = []

    @property
    def header_table_size(self) -> int:
        """How much is remembered: what the client allows, and no more than at first."""
        return self._capacity

    @header_table_size.setter
    def header_table_size(self, size: int) -> None:
        capacity = min(size, _CAPACITY)
        if capacity != self._capacity:
            self._capacity = capacity
            self._changes.append(capacity)
            self._shrink()

    def encode(self, fields: Iterable[Field]) -> bytes:
        """The octets of `fields`; those that are `NeverIndexedHeaderTuple` are not remembered."""
        out = bytearray()
        if self._changes:
            # RFC 7541, 4.2: the smallest, and the last
            for size in sorted({min(self._changes), self._changes[-1]}):
                _put(out, size, _RESIZE_MASK, _RESIZE)
            self._changes = []
        for field in fields:
            index = _STATIC_INDEX.get(field)
            if index is None and (number := self._known.get(field)) is not None:
                index = _FIRST_DYNAMIC + self._remembered - number
            if index is not None:
                _put(out, index, _INDEX_MASK, _INDEXED)
            else:
                self._put_literal(out, field)
        return bytes(out)

    def _put_literal(self, out: bytearray, field: Field) -> None:
        name, value = field
        size = len(name) + len(value) + _OVERHEAD
        if type(field) is NeverIndexedHeaderTuple:
            kind, mask = _NEVER, _PLAIN_MASK
        elif name in _ONCE or 2 * size > self._capacity:
            kind, mask = _PLAIN, _PLAIN_MASK
        else:
            kind, mask = _INCREMENTAL, _INCREMENTAL_MASK
        index = _NAME_INDEX.get(name, 0)
        _put(out, index, mask, kind)
        # what is sent again and again is not worth the time
        is_packed = kind == _INCREMENTAL
        if not index:
            _put_string(out, name, is_packed)
        _put_string(out, value, is_packed)
        if kind == _INCREMENTAL:
            self._remembered += 1
            self._known[field] = self._remembered
            self._entries.append(field)
            self._size += size
            self._shrink()

    def _shrink(self) -> None:
        while self._size > self._capacity:
            field = self._entries.popleft()
            self._size -= len(field[0]) + len(field[1]) + _OVERHEAD
            del self._known[field]


def _integer(data: bytes, at: int, mask: int) -> tuple[int, int]:
    """The integer at `at`, of which `mask` are the bits in its first octet; and what follows it."""
    value = data[at] & mask
    return _rest(data, at + 1, value) if value == mask else (value, at + 1)


def _rest(data: bytes, at: int, value: int) -> tuple[int, int]:
    """What the octets from `at` on add to `value` (RFC 7541, 5.1)."""
    shift = 0
    while True:
        octet = data[at]
        at += 1
        value += (octet & 0x7F) << shift
        if octet < 0x80:
            return value, at
        shift += 7
        if shift > _LONGEST_SHIFT:
            raise HPACKDecodingError("an integer is too long")


def _put(out: bytearray, value: int, mask: int, kind: int) -> None:
    if value < mask:
        out.append(kind | value)
        return
    out.append(kind | mask)
    value -= mask
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)


def _put_string(out: bytearray, string: bytes, is_packed: bool) -> None:
    kind = 0
    if is_packed:
        packed = _huffman(string)
        if len(packed) < len(string):
            string, kind = packed, _HUFFMAN
    _put(out, len(string), _LENGTH_MASK, kind)
    out += string
