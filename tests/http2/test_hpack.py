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


def test_the_decoder_means_what_hpack_means() -> None:
    chosen = random.Random(11)
    for _ in range(40):
        encoder = hpack.Encoder()
        ours, theirs = FieldDecoder(2**20), hpack.Decoder(2**20)
        for _ in range(30):
            if chosen.random() < 0.2:
                encoder.header_table_size = chosen.choice((0, 60, 500, 4096))
            block = encoder.encode(some(chosen), huffman=chosen.random() < 0.5)
            assert ours.decode(block, raw=True) == [*map(tuple, theirs.decode(block, raw=True))]
            assert [*ours.header_table.dynamic_entries] == [*theirs.header_table.dynamic_entries]


def test_the_decoder_refuses_what_hpack_refuses() -> None:
    chosen = random.Random(13)
    refused = 0
    for _ in range(4000):
        block = bytearray(hpack.Encoder().encode(some(chosen), huffman=chosen.random() < 0.5))
        for _ in range(chosen.randrange(1, 4)):
            block[chosen.randrange(len(block))] = chosen.randrange(256)
        data = bytes(block[: chosen.randrange(len(block)) + 1])
        try:
            expected: object = [*map(tuple, hpack.Decoder(9000).decode(data, raw=True))]
        except (hpack.HPACKError, IndexError):
            expected = None
        try:
            found: object = FieldDecoder(9000).decode(data, raw=True)
        except hpack.HPACKError:
            found = None
        assert found == expected, data.hex()
        refused += expected is None
    assert 1000 < refused < 3900


@pytest.mark.parametrize(
    "octets",
    ["80", "be", "ff00", "ffffffffffffffffffff7f", "0f", "00", "0001", "000161", "4085", "3fe1",
     "8220", "407fffffffffff0f"],
)  # fmt: skip
def test_a_block_that_is_not_valid(octets: str) -> None:
    with pytest.raises(hpack.HPACKError):
        FieldDecoder(1000).decode(bytes.fromhex(octets))


def test_a_secret_is_in_no_table() -> None:
    encoder = FieldEncoder()
    secret = hpack.NeverIndexedHeaderTuple(b"set-cookie", b"a=b")
    # of another response, and not secret there
    first = encoder.encode([(b"set-cookie", b"a=b")])
    block = encoder.encode([secret, secret])
    assert block.count(b"a=b") == 2
    decoder = hpack.Decoder()
    decoder.decode(first, raw=True)
    found = [*decoder.decode(block, raw=True)]
    assert not any(field.indexable for field in found)
    assert len(decoder.header_table.dynamic_entries) == 1


def test_what_changes_displaces_nothing() -> None:
    encoder = FieldEncoder()
    stays = [(b":status", b"200"), (b"content-type", b"text/plain"), (b"x-own", b"1")]
    encoder.encode(stays)
    for number in range(500):
        encoder.encode([*stays, (b"content-length", b"%d" % number), (b"etag", b"%d" % number)])
    assert len(encoder.encode(stays)) == 3
