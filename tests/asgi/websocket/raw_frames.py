"""WebSocket frames by hand, as wrong as a test may want them."""

from __future__ import annotations

import zlib

from ...helpers.asgi_tools import Receive, Scope, Send, no_lifespan
from ...helpers.wire_client import Client

CONTINUED, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
_MASK = b"\x37\xfa\x21\x3d"
#: The limit of a message in these tests.
LIMIT = 1_000_000


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    await no_lifespan(scope)
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({**message, "type": "websocket.send"})


def masked(data: bytes) -> bytes:
    return bytes(octet ^ _MASK[at % 4] for at, octet in enumerate(data))


def frame(
    opcode: int,
    payload: bytes = b"",
    *,
    fin: bool = True,
    rsv: int = 0,
    mask: bool = True,
    length: bytes | None = None,
) -> bytes:
    """A client's frame, as wrong as it may be asked for."""
    first = bytes([(fin << 7) | (rsv << 4) | opcode])
    if length is None:
        size = len(payload)
        if size < 126:
            length = bytes([size])
        elif size < 65536:
            length = b"\x7e" + size.to_bytes(2)
        else:
            length = b"\x7f" + size.to_bytes(8)
    second = bytes([length[0] | mask << 7]) + length[1:]
    return first + second + (_MASK + masked(payload) if mask else payload)


def read(client: Client) -> tuple[int, bytes, int]:
    """The opcode, the payload and the reserved bits of the server's next frame."""
    first, second = client._exactly(2)
    assert first & 0x80, "not the last of its message"
    assert second < 0x80, "masked"
    size = second
    if size >= 126:
        size = int.from_bytes(client._exactly(2 if size == 126 else 8))
    return first & 15, client._exactly(size), first >> 4 & 7


def closed_with(client: Client, code: int) -> None:
    """The next frame is a close with `code`, and it is the last."""
    opcode, payload, _ = read(client)
    assert (opcode, int.from_bytes(payload[:2])) == (CLOSE, code)
    assert client.closed()


def header(opcode: int, size: int, *, fin: bool = True, rsv: int = 0) -> bytes:
    """A frame without its payload."""
    return frame(opcode, fin=fin, rsv=rsv, length=b"\x7f" + size.to_bytes(8))


class Deflate:
    """A client's half of permessage-deflate, over many messages."""

    def __init__(self, bits: int = 15) -> None:
        self._out = zlib.compressobj(wbits=-bits)
        self._in = zlib.decompressobj(wbits=-15)

    def compress(self, data: bytes) -> bytes:
        out = self._out.compress(data) + self._out.flush(zlib.Z_SYNC_FLUSH)
        return out.removesuffix(b"\0\0\xff\xff")

    def decompress(self, data: bytes) -> bytes:
        return self._in.decompress(data + b"\0\0\xff\xff")
