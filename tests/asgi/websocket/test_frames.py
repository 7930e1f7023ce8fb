"""WebSocket frames by hand, in the categories of the Autobahn test suite."""

from __future__ import annotations

import logging
import random
import tracemalloc
import zlib
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest

from ...helpers.wire_client import Client
from .raw_frames import (
    BINARY,
    CLOSE,
    CONTINUED,
    PING,
    PONG,
    TEXT,
    Deflate,
    closed_with,
    frame,
    read,
)

Open = Callable[..., Client]


# ---- 1, framing ------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 128, 65535, 65536, 200_000])
@pytest.mark.parametrize("opcode", [TEXT, BINARY])
def test_sizes(ws: Open, opcode: int, size: int) -> None:
    client = ws()
    payload = b"*" * size
    client.send(frame(opcode, payload))
    assert read(client) == (opcode, payload, 0)


@pytest.mark.parametrize("step", [1, 997])
def test_pieces(ws: Open, step: int) -> None:
    client = ws()
    data = frame(TEXT, b"a" * 300) + frame(PING, b"p") + frame(BINARY, b"b" * 70_000)
    data = data[:1000] if step == 1 else data
    for at in range(0, len(data), step):
        client.send(data[at : at + step])
    expected = [(TEXT, b"a" * 300, 0), (PONG, b"p", 0), (BINARY, b"b" * 70_000, 0)]
    expected = expected[: 2 if step == 1 else 3]
    # a pong may overtake a message that is still with the application
    assert sorted(read(client) for _ in expected) == sorted(expected)


@pytest.mark.parametrize(
    "length",
    [
        b"\x7e\0\x05",
        b"\x7f" + (5).to_bytes(8),
        b"\x7f" + (65535).to_bytes(8),
        b"\x7f\x80" + bytes(7),
    ],
    ids=["16 bits", "64 bits", "64 bits for 16", "the highest bit"],
)
def test_lengths_that_are_not_the_shortest(ws: Open, length: bytes) -> None:
    client = ws()
    client.send(frame(BINARY, b"hello", length=length))
    closed_with(client, 1002)


def test_unmasked(ws: Open) -> None:
    client = ws()
    client.send(frame(TEXT, b"hello", mask=False))
    closed_with(client, 1002)


# ---- 2, pings and pongs ----------------------------------------------------------------------


@pytest.mark.parametrize("payload", [b"", b"hello", bytes(range(120, 245)), b"\xff\xfe"])
def test_a_ping_is_answered(ws: Open, payload: bytes) -> None:
    client = ws()
    client.send(frame(PING, payload))
    assert read(client) == (PONG, payload, 0)


def test_a_ping_that_is_too_long(ws: Open) -> None:
    client = ws()
    client.send(frame(PING, b"x" * 126))
    closed_with(client, 1002)


def test_pongs_that_nobody_asked_for(ws: Open) -> None:
    client = ws()
    client.send(frame(PONG) + frame(PONG, b"x") + frame(PING, b"y"))
    assert read(client) == (PONG, b"y", 0)


def test_many_pings(ws: Open) -> None:
    client = ws()
    client.send(b"".join(frame(PING, b"%d" % number) for number in range(100)))
    for number in range(100):
        assert read(client) == (PONG, b"%d" % number, 0)


# ---- 3 and 4, reserved bits and opcodes ------------------------------------------------------


@pytest.mark.parametrize("rsv", range(1, 8))
@pytest.mark.parametrize("opcode", [TEXT, BINARY, PING, CLOSE])
def test_reserved_bits(ws: Open, rsv: int, opcode: int) -> None:
    client = ws()
    client.send(frame(opcode, b"", rsv=rsv))
    closed_with(client, 1002)


@pytest.mark.parametrize("opcode", [3, 4, 5, 6, 7, 11, 12, 13, 14, 15])
def test_reserved_opcodes(ws: Open, opcode: int) -> None:
    client = ws()
    client.send(frame(opcode, b"x"))
    closed_with(client, 1002)


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (frame(5, b"x"), 1002),
        (frame(11, b"x"), 1002),
        (frame(TEXT, b"x", rsv=2), 1002),
        (frame(CONTINUED, b"x"), 1002),
        (frame(TEXT, b"x", fin=False) + frame(TEXT, b"x"), 1002),
        (frame(PING, b"x" * 126), 1002),
        (frame(TEXT, b"\xff"), 1007),
        (frame(BINARY, length=b"\x7f" + (2**40).to_bytes(8)), 1009),
    ],
)
def test_messages_before_a_bad_frame_are_answered(ws: Open, bad: bytes, code: int) -> None:
    """Also those that come in one segment with it; what comes behind it is not handled."""
    client = ws()
    client.send(frame(TEXT, b"one") + frame(TEXT, b"two") + bad + frame(TEXT, b"three"))
    assert read(client) == (TEXT, b"one", 0)
    assert read(client) == (TEXT, b"two", 0)
    closed_with(client, code)


# ---- 5, fragments ----------------------------------------------------------------------------


@pytest.mark.parametrize("opcode", [PING, PONG, CLOSE])
def test_a_control_frame_in_fragments(ws: Open, opcode: int) -> None:
    client = ws()
    client.send(frame(opcode, b"", fin=False) + frame(CONTINUED, b""))
    closed_with(client, 1002)


@pytest.mark.parametrize("opcode", [TEXT, BINARY])
@pytest.mark.parametrize("between", [b"", frame(PING, b"p"), frame(PONG, b"p")])
def test_fragments(ws: Open, opcode: int, between: bytes) -> None:
    client = ws()
    parts = [b"one", b"", b"two", b"three"]
    client.send(frame(opcode, parts[0], fin=False))
    for part in parts[1:-1]:
        client.send(between + frame(CONTINUED, part, fin=False))
    client.send(between + frame(CONTINUED, parts[-1]))
    received = read(client)
    while received[0] == PONG:
        received = read(client)
    assert received == (opcode, b"onetwothree", 0)


@pytest.mark.parametrize(
    "data",
    [
        frame(CONTINUED, b"x"),
        frame(CONTINUED, b"x", fin=False),
        frame(TEXT, b"a", fin=False) + frame(TEXT, b"b"),
        frame(TEXT, b"a", fin=False) + frame(BINARY, b"b", fin=False),
        frame(TEXT, b"a", fin=False) + frame(CONTINUED, b"b") + frame(CONTINUED, b"c"),
    ],
)
def test_fragments_out_of_order(ws: Open, data: bytes) -> None:
    client = ws()
    client.send(data)
    opcode, payload, _ = read(client)
    if opcode == TEXT:
        opcode, payload, _ = read(client)
    assert (opcode, int.from_bytes(payload)) == (CLOSE, 1002)


# ---- 6, UTF-8 --------------------------------------------------------------------------------

VALID = [
    "κόσμε".encode(),
    b"\x00",
    b"\xc2\x80",
    b"\xe0\xa0\x80",
    b"\xf0\x90\x80\x80",
    b"\x7f",
    b"\xdf\xbf",
    b"\xef\xbf\xbf",
    b"\xed\x9f\xbf",
    b"\xee\x80\x80",
    b"\xf4\x8f\xbf\xbf",
]
INVALID = [
    b"\x80",
    b"\xbf",
    b"\xc0\xaf",
    b"\xc1\xbf",
    b"\xe0\x80\xaf",
    b"\xe0\x9f\xbf",
    b"\xf0\x80\x80\xaf",
    b"\xf8\x88\x80\x80\x80",
    b"\xfc\x84\x80\x80\x80\x80",
    b"\xf4\x90\x80\x80",
    b"\xed\xa0\x80",
    b"\xed\xa0\x80\xed\xb0\x80",
    b"\xfe",
    b"\xff",
    b"\xce\xba\xe1\xbd\xb9\xcf\x83\xce\xbc\xce\xb5\xed\xa0\x80edited",
    b"\xe2\x82",
    b"a\xc3",
]


@pytest.mark.parametrize("payload", VALID)
def test_valid_text(ws: Open, payload: bytes) -> None:
    client = ws()
    client.send(frame(TEXT, payload))
    assert read(client) == (TEXT, payload, 0)
    # cut between any two octets, in fragments and in pieces
    for at in range(len(payload) + 1):
        client.send(frame(TEXT, payload[:at], fin=False) + frame(CONTINUED, payload[at:]))
        assert read(client) == (TEXT, payload, 0)


@pytest.mark.parametrize("payload", INVALID)
@pytest.mark.parametrize("fragments", [False, True])
def test_invalid_text(ws: Open, payload: bytes, fragments: bool) -> None:
    client = ws()
    if fragments:
        edges = pairwise(range(len(payload) + 1))
        first, *rest = [payload[a:b] for a, b in edges]
        client.send(frame(TEXT, first, fin=False))
        client.send(b"".join(frame(CONTINUED, part, fin=False) for part in rest))
        client.send(frame(CONTINUED))
    else:
        client.send(frame(TEXT, payload))
    closed_with(client, 1007)


def test_invalid_text_is_noticed_before_its_message_ends(ws: Open) -> None:
    client = ws()
    client.send(frame(TEXT, b"abc\xff", fin=False))
    closed_with(client, 1007)


def test_binary_is_not_looked_at(ws: Open) -> None:
    client = ws()
    client.send(frame(BINARY, b"\xff\xfe"))
    assert read(client) == (BINARY, b"\xff\xfe", 0)


# ---- 7, closing ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999]
)
def test_codes_that_are_answered(ws: Open, code: int) -> None:
    client = ws()
    client.send(frame(CLOSE, code.to_bytes(2) + b"why"))
    closed_with(client, code)


@pytest.mark.parametrize("code", [0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000])
def test_codes_that_must_not_be_sent(ws: Open, code: int) -> None:
    client = ws()
    client.send(frame(CLOSE, code.to_bytes(2)))
    closed_with(client, 1002)


def test_close_without_a_code(ws: Open) -> None:
    client = ws()
    client.send(frame(CLOSE))
    assert read(client) == (CLOSE, b"", 0)
    assert client.closed()


@pytest.mark.parametrize(
    ("payload", "code"),
    [(b"\x03", 1002), (b"\x03\xe8" + b"x" * 124, 1002), (b"\x03\xe8\xff", 1007)],
    ids=["an octet", "too long", "not UTF-8"],
)
def test_close_that_is_wrong(ws: Open, payload: bytes, code: int) -> None:
    client = ws()
    client.send(frame(CLOSE, payload))
    closed_with(client, code)


def test_nothing_is_heard_behind_a_close(ws: Open) -> None:
    client = ws()
    client.send(frame(CLOSE, b"\x03\xe8") + frame(TEXT, b"late") + frame(PING) + frame(CLOSE))
    closed_with(client, 1000)


def test_close_within_a_message(ws: Open) -> None:
    client = ws()
    client.send(frame(TEXT, b"begun", fin=False) + frame(CLOSE, b"\x03\xe8"))
    closed_with(client, 1000)


# ---- 9, limits -------------------------------------------------------------------------------


def test_small_fragments_take_no_more_room_than_a_message(ws: Open) -> None:
    client = ws()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        client.send(frame(BINARY, b"ab", fin=False) + frame(CONTINUED, b"ab", fin=False) * 30_000)
        client.send(frame(PING))
        assert read(client)[0] == PONG
        assert tracemalloc.get_traced_memory()[0] - before < 1_000_000
    finally:
        tracemalloc.stop()
    client.send(frame(CONTINUED, b"ab"))
    assert read(client) == (BINARY, b"ab" * 30_002, 0)


# ---- 12 and 13, compression ------------------------------------------------------------------

OFFERS = [
    ("permessage-deflate", "permessage-deflate"),
    ("permessage-deflate; client_max_window_bits", "permessage-deflate"),
    ("permessage-deflate; client_max_window_bits=8", "permessage-deflate"),
    (
        "permessage-deflate; server_no_context_takeover",
        "permessage-deflate; server_no_context_takeover",
    ),
    (
        "permessage-deflate; client_no_context_takeover",
        "permessage-deflate; client_no_context_takeover",
    ),
    (
        "permessage-deflate; server_max_window_bits=9",
        "permessage-deflate; server_max_window_bits=9",
    ),
    (
        'permessage-deflate; server_max_window_bits="12"',
        "permessage-deflate; server_max_window_bits=12",
    ),
    ("permessage-deflate; unknown, permessage-deflate", "permessage-deflate"),
    ("x-webkit-deflate-frame, permessage-deflate", "permessage-deflate"),
    ("permessage-deflate; server_max_window_bits=8", None),
    ("permessage-deflate; server_max_window_bits", None),
    ("permessage-deflate; server_max_window_bits=x", None),
    ("permessage-deflate; client_max_window_bits=16", None),
    ("permessage-deflate; server_no_context_takeover=1", None),
    ("permessage-deflate; server_no_context_takeover; server_no_context_takeover", None),
    ("permessage-deflate; unknown=1", None),
    ("x-other", None),
]


@pytest.mark.parametrize(("offer", "agreed"), OFFERS)
def test_negotiation(ws: Open, offer: str, agreed: str | None) -> None:
    client: Any = ws(offer)
    assert client.extensions == agreed


@pytest.mark.parametrize("offer", [offer for offer, agreed in OFFERS if agreed])
def test_compressed_messages(ws: Open, offer: str) -> None:
    client, deflate = ws(offer), Deflate(9)
    fresh_in = "client_no_context" in offer
    fresh_out = "server_no_context" in offer
    generator = random.Random(1)
    for size in (0, 1, 16, 1000, 70_000):
        payload = bytes(generator.choices(b"abcdefgh {}", k=size))
        if fresh_in:
            deflate._out = zlib.compressobj(wbits=-15)
        client.send(frame(TEXT, deflate.compress(payload), rsv=4))
        opcode, got, rsv = read(client)
        assert (opcode, rsv) == (TEXT, 4)
        if fresh_out:
            deflate._in = zlib.decompressobj(wbits=-15)
        assert deflate.decompress(got) == payload


@pytest.mark.parametrize("bits", range(9, 16))
def test_the_window_that_was_agreed(ws: Open, bits: int) -> None:
    """A client with a small window can inflate: nothing is referred to that it has forgotten."""
    client = ws(f"permessage-deflate; server_max_window_bits={bits}")
    inflate = zlib.decompressobj(wbits=-bits)
    block = random.Random(bits).randbytes(1 << (bits - 1))
    payload = block + random.Random(0).randbytes(1 << bits) + block  # too far back to refer to
    for _ in range(3):
        client.send(frame(BINARY, payload))
        opcode, got, rsv = read(client)
        assert (opcode, rsv) == (BINARY, 4)
        assert inflate.decompress(got + b"\0\0\xff\xff") == payload


@pytest.mark.parametrize("parameter", ["", "; server_no_context_takeover"])
def test_the_context_is_taken_over_unless_agreed_otherwise(ws: Open, parameter: str) -> None:
    client = ws("permessage-deflate" + parameter)
    payload = random.Random(1).randbytes(2000)
    sizes = []
    for _ in range(2):
        client.send(frame(BINARY, payload))
        sizes.append(len(read(client)[1]))
    assert (sizes[1] < 100) is (not parameter)
    assert sizes[0] > 1900


def test_text_in_compressed_fragments_is_checked(ws: Open) -> None:
    """A character may be in two fragments; what is none is noticed at once."""
    client, deflate = ws("permessage-deflate"), Deflate()
    data = deflate.compress("hé€𐍈".encode() * 50)
    for at in range(1, len(data)):
        part = frame(CONTINUED, data[at:])
        client.send(frame(TEXT, data[:at], fin=False, rsv=4) + part)
        assert deflate.decompress(read(client)[1]).decode() == "hé€𐍈" * 50
        data = deflate.compress("hé€𐍈".encode() * 50)
        if at >= len(data) - 1:
            break
    wrong = Deflate()
    client = ws("permessage-deflate")
    client.send(frame(TEXT, wrong.compress(b"fine \xff") + b"\0\0\xff\xff", fin=False, rsv=4))
    closed_with(client, 1007)


def test_compressed_and_plain_messages_in_fragments(ws: Open) -> None:
    client, deflate = ws("permessage-deflate"), Deflate()
    for _ in range(3):
        data = deflate.compress(b"hello " * 100)
        client.send(frame(TEXT, data[:3], fin=False, rsv=4) + frame(PING, b"between"))
        client.send(frame(CONTINUED, data[3:5], fin=False) + frame(PONG))
        client.send(frame(CONTINUED, data[5:]) + frame(CONTINUED, b"")[:0])
        assert read(client) == (PONG, b"between", 0)
        assert deflate.decompress(read(client)[1]) == b"hello " * 100
        client.send(frame(TEXT, b"plain"))
        assert deflate.decompress(read(client)[1]) == b"plain"


def test_a_block_that_is_the_last(ws: Open) -> None:
    """RFC 7692, 7.2.3.4: a message may end with a block that says that it is the last."""
    client, deflate = ws("permessage-deflate"), Deflate()
    for _ in range(2):
        final = zlib.compressobj(wbits=-15)
        data = final.compress(b"hello") + final.flush(zlib.Z_FINISH)
        client.send(frame(TEXT, data + b"\0", rsv=4))
        assert deflate.decompress(read(client)[1]) == b"hello"


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (frame(CONTINUED, b"x", rsv=4), 1002),
        (frame(TEXT, b"a", fin=False) + frame(CONTINUED, b"b", rsv=4), 1002),
        (frame(PING, b"x", rsv=4), 1002),
        (frame(TEXT, b"x", rsv=2), 1002),
        (frame(TEXT, b"\xff\xff\xff", rsv=4), 1007),
        (frame(TEXT, Deflate().compress(b"\xff"), rsv=4), 1007),
    ],
)
def test_compression_that_is_wrong(
    ws: Open, data: bytes, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "threadwell")
    client = ws("permessage-deflate")
    client.send(data)
    closed_with(client, code)
    assert "error in extension" not in caplog.text
