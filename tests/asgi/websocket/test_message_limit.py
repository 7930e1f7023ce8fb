"""The limit of a WebSocket message: at a frame's header, over its frames, and inflated."""

from __future__ import annotations

import logging
import random
import zlib
from collections.abc import Callable

import pytest

from ...helpers.wire_client import Client
from .raw_frames import (
    BINARY,
    CLOSE,
    CONTINUED,
    LIMIT,
    PING,
    PONG,
    TEXT,
    Deflate,
    closed_with,
    frame,
    header,
    read,
)

Open = Callable[..., Client]


def test_the_largest_message(ws: Open) -> None:
    client = ws()
    client.send(frame(BINARY, bytes(LIMIT)))
    assert read(client) == (BINARY, bytes(LIMIT), 0)


@pytest.mark.parametrize(
    "data",
    [
        frame(BINARY, bytes(LIMIT + 1)),
        frame(TEXT, "é".encode() * (LIMIT // 2 + 1)),
        frame(BINARY, bytes(LIMIT // 2), fin=False) + frame(CONTINUED, bytes(LIMIT // 2 + 1)),
        frame(BINARY, bytes(LIMIT + 1), fin=False),
    ],
    ids=["binary", "text", "fragments", "unfinished"],
)
def test_a_message_that_is_too_big(ws: Open, data: bytes) -> None:
    client = ws()
    client.send(data)
    opcode, payload, _ = read(client)
    assert (opcode, int.from_bytes(payload)) == (CLOSE, 1009)


@pytest.mark.parametrize(
    "data",
    [
        header(BINARY, LIMIT + 1),
        header(TEXT, 2**63 - 1),
        header(BINARY, LIMIT + 1, fin=False),
        frame(BINARY, b"x", fin=False) + header(CONTINUED, LIMIT),
        frame(BINARY, b"x", fin=False) + frame(PING) + header(CONTINUED, LIMIT),
        frame(BINARY, b"x" * 9) + header(BINARY, LIMIT + 1),
    ],
    ids=["binary", "the largest", "fragment", "sum", "sum with a ping", "second message"],
)
def test_a_header_that_announces_too_much(
    ws: Open, data: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "threadwell")
    client = ws()
    client.send(data)
    while (got := read(client))[0] in (PONG, BINARY):
        pass
    assert (got[0], int.from_bytes(got[1])) == (CLOSE, 1009)
    assert "closed with 1009: the message is larger than limit_ws_message" in caplog.text


def test_a_compressed_header_that_announces_too_much(ws: Open) -> None:
    client = ws("permessage-deflate")
    client.send(header(BINARY, 2 * LIMIT, rsv=4))
    closed_with(client, 1009)


def test_a_header_in_pieces_is_counted_once(ws: Open) -> None:
    client = ws()
    data = frame(BINARY, bytes(LIMIT))
    for octet in data[:12]:
        client.send(bytes([octet]))
        client.send(b"")
    client.send(data[12:])
    assert len(read(client)[1]) == LIMIT


def test_what_cannot_be_compressed_may_be_as_large_as_the_limit(ws: Open) -> None:
    client, deflate = ws("permessage-deflate"), Deflate()
    message = random.Random(1).randbytes(LIMIT)
    data = deflate.compress(message)
    assert len(data) > LIMIT
    client.send(frame(BINARY, data, rsv=4))
    assert deflate.decompress(read(client)[1]) == message


@pytest.mark.parametrize("size", [LIMIT + 1, 200_000_000])
def test_a_bomb(ws: Open, size: int, caplog: pytest.LogCaptureFixture) -> None:
    """What is small on the wire may be large afterwards, and is measured then."""
    caplog.set_level(logging.INFO, "threadwell")
    compressor = zlib.compressobj(wbits=-15)
    data = b"".join(
        compressor.compress(bytes(min(1 << 20, size - at))) for at in range(0, size, 1 << 20)
    )
    data += compressor.flush(zlib.Z_SYNC_FLUSH)
    client = ws("permessage-deflate")
    client.send(frame(BINARY, data.removesuffix(b"\0\0\xff\xff"), rsv=4))
    opcode, payload, _ = read(client)
    assert (opcode, int.from_bytes(payload)) == (CLOSE, 1009)
    assert "closed with 1009: the message is larger than limit_ws_message" in caplog.text


def test_the_largest_compressed_message(ws: Open) -> None:
    client, deflate = ws("permessage-deflate"), Deflate()
    client.send(frame(BINARY, deflate.compress(bytes(LIMIT)), rsv=4))
    assert deflate.decompress(read(client)[1]) == bytes(LIMIT)
