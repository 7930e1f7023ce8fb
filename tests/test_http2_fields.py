"""HPACK beside the one of hpack, and what a client may not do with it."""

from __future__ import annotations

import random
import tracemalloc

import hpack
import pytest

from loopless.worker.http2.fields import FieldDecoder, FieldEncoder

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


def test_what_hpack_writes_is_read() -> None:
    chosen = random.Random(8)
    encoder, decoder = hpack.Encoder(), FieldDecoder(10**6)
    for _ in range(200):
        if chosen.random() < 0.1:
            encoder.header_table_size = chosen.choice((0, 100, 1000, 4096))
        fields = some(chosen)
        data = encoder.encode(fields, huffman=chosen.random() < 0.8)
        assert decoder.decode(data) == [tuple(field) for field in fields]


def test_the_examples_of_the_standard() -> None:
    """RFC 7541, C.4."""
    decoder = FieldDecoder(1000)
    common = [(b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/")]
    host = (b":authority", b"www.example.com")
    octets = bytes.fromhex("828684418cf1e3c2e5f23a6ba0ab90f4ff")
    assert decoder.decode(octets) == [*common, host]
    octets = bytes.fromhex("828684be5886a8eb10649cbf")
    assert decoder.decode(octets) == [*common, host, (b"cache-control", b"no-cache")]
    octets = bytes.fromhex("828785bf408825a849e95ba97d7f8925a849e95bb8e8b4bf")
    assert decoder.decode(octets)[-1] == (b"custom-key", b"custom-value")


def test_secrets_are_never_remembered() -> None:
    encoder = FieldEncoder()
    secret = hpack.NeverIndexedHeaderTuple(b"set-cookie", b"a=1")
    assert encoder.encode([secret]) == encoder.encode([secret])
    (field,) = hpack.Decoder().decode(encoder.encode([secret]), raw=True)
    assert isinstance(field, hpack.NeverIndexedHeaderTuple)


BROKEN = {
    "index 0": "80",
    "an index that is not there": "be",
    "a name that is not there": "7f0000",
    "a resize in the middle": "8220",
    "a resize to too much": "3fe21f",
    "three resizes": "20202082",
    "an integer without end": "ffffffffffffff00",
    "a string without an end": "0001617f",
    "nothing behind a name": "000161",
    "bad Huffman": "00016181ff00",
}


@pytest.mark.parametrize("octets", BROKEN.values(), ids=BROKEN)
def test_what_is_broken(octets: str) -> None:
    with pytest.raises((hpack.HPACKError, IndexError)):
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
