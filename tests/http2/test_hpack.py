"""What a client may not do with HPACK."""

from __future__ import annotations

import random
import tracemalloc

import hpack
import pytest

from threadwell.worker.http2.hpack import FieldDecoder, FieldEncoder

NAMES = [b":status", b"content-type", b"content-length", b"date", b"set-cookie", b"x-own", b"vary"]


def some(chosen: random.Random) -> list[tuple[bytes, bytes]]:
    fields: list[tuple[bytes, bytes]] = [(b":status", b"200")]
    for _ in range(chosen.randrange(12)):
        name = chosen.choice(NAMES) if chosen.random() < 0.7 else b"x-%d" % chosen.randrange(99)
        size = chosen.choice((0, 1, 5, 30, 130, 3000))
        value = chosen.randbytes(size) if chosen.random() < 0.3 else b"%d" % chosen.randrange(9)
        kind = hpack.NeverIndexedHeaderTuple if name == b"set-cookie" else lambda *pair: pair
        fields.append(kind(name, value))
    return fields


def test_hpack_reads_what_is_written() -> None:
    chosen = random.Random(7)
    encoder, decoder = FieldEncoder(), hpack.Decoder()
    for _ in range(200):
        if chosen.random() < 0.1:
            for _ in range(chosen.randrange(1, 4)):
                size = chosen.choice((0, 100, 1000, 4096, 65536, 2**32 - 1))
                encoder.header_table_size = decoder.max_allowed_table_size = size
            decoder.max_allowed_table_size = 4096
        fields = some(chosen)
        assert [tuple(field) for field in decoder.decode(encoder.encode(fields), raw=True)] == [
            tuple(field) for field in fields
        ]
        assert decoder.header_table_size == encoder.header_table_size


def test_two_resizes_are_right() -> None:
    assert list(FieldDecoder(1000).decode(bytes.fromhex("203fe11f82"), raw=True)) == [
        (b":method", b"GET")
    ]


RESIZES = {
    "a resize to too much": "3fe21f",
    "three resizes": "20202082",
    "three longer ones": "3f013f013f0182",
    "many": "20" * 9999,
}


@pytest.mark.parametrize("octets", RESIZES.values(), ids=RESIZES)
def test_too_much_is_resized(octets: str) -> None:
    with pytest.raises(hpack.InvalidTableSizeError):
        FieldDecoder(1000).decode(bytes.fromhex(octets))


def test_a_list_that_is_too_large() -> None:
    decoder = FieldDecoder(1000)
    data = b"\x40\x01a\x7f\x49" + b"b" * 200
    with pytest.raises(hpack.OversizedHeaderListError):
        decoder.decode(data + b"\xbe" * 10)


def test_a_client_cannot_choose_what_is_remembered() -> None:
    encoder = FieldEncoder()
    encoder.header_table_size = 2**32 - 1
    tracemalloc.start()
    try:
        for number in range(500):
            encoder.encode([(b"x-own", b"%d" % number + b"x" * 200)])
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()
