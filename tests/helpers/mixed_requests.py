"""Clients of the script of the aborts that ask for everything it has, and some that leave."""

from __future__ import annotations

import contextlib
import itertools
import ssl
from collections.abc import Iterator

from ..apps.abort_server import BIG, SOME, SOME_BLOCK
from .aborts import HTTP2_KINDS, KINDS, Abort, Server, get, leave
from .asgi_tools import UPGRADE
from .http2_client import Http2Client
from .wire_client import Client

_PLAIN = get("/")
_PIPELINED = 40
_CHUNKED = b"POST /body HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
_CHUNK = b"x" * 1000
_POST = b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n"
# One that stays in memory, and one that goes to a file.
_BODIES = (5_000, 400_000)
_MESSAGES = 10
_STREAMS = 40


class Unexpected(Exception):
    """An answer is not what it must be."""


def check(condition: object, what: str) -> None:
    """Raise `Unexpected` if `condition` does not hold."""
    if not condition:
        raise Unexpected(what)


class Mixture:
    """One client, for one kind of server. `turn` makes a round of requests."""

    def __init__(self, server: Server, kind: str, context: ssl.SSLContext | None) -> None:
        self._server = server
        self._context = context
        self._has_websockets = kind != "sync" and context is None
        kinds = KINDS if context is None else HTTP2_KINDS
        self._aborts: Iterator[Abort] = itertools.cycle(kinds[kind].values())
        self._number = 0

    def turn(self) -> int:
        """How many requests it were. Raises `Unexpected`, and `OSError`."""
        count = self._http1() if self._context is None else self._http2(self._context)
        for _ in range(4):
            self._number += 1
            leave(next(self._aborts)(self._server), self._number)
        return count + 4

    # ---- HTTP/1.1 --------------------------------------------------------------------------

    def _http1(self) -> int:
        count = 0
        with self._connected() as client:
            for _ in range(20):
                check(client.get("/").status == 200, "GET")
            client.send(_PLAIN * _PIPELINED)
            for _ in range(_PIPELINED):
                check(client.answer().status == 200, "pipelined")
            count += 20 + _PIPELINED
        with self._connected() as client:
            count += self._bodies(client)
        return count + (self._websocket() if self._has_websockets else 0)

    @contextlib.contextmanager
    def _connected(self) -> Iterator[Client]:
        with contextlib.closing(self._server.connect()) as sock:
            yield Client(sock)

    def _bodies(self, client: Client) -> int:
        for size in _BODIES:
            client.send(_POST % size + b"x" * size)
            check(client.answer().body == b"%d" % size, "POST")
        client.send(_CHUNKED + (b"%x\r\n%s\r\n" % (len(_CHUNK), _CHUNK)) * 10 + b"0\r\n\r\n")
        check(client.answer().body == b"%d" % (10 * len(_CHUNK)), "chunked")
        for _ in range(5):
            check(client.get("/some").body == SOME_BLOCK * SOME, "stream")
        check(client.get("/big").body == BIG, "large body")
        return len(_BODIES) + 7

    def _websocket(self) -> int:
        with contextlib.closing(self._server.connect()) as sock:
            client = Client(sock)
            client.send(get("/echo", UPGRADE))
            check(client.answer().status == 101, "handshake")
            for _ in range(_MESSAGES):
                client.send(b"\x82\x84\0\0\0\0ping")  # masked by zeros
            check(client.octets(6 * _MESSAGES) == b"\x82\x04ping" * _MESSAGES, "echo")
            client.send(b"\x88\x82\0\0\0\0\x03\xe8")
            check(client.rest() == b"\x88\x02\x03\xe8", "close frame")
        return 1

    # ---- HTTP/2 ----------------------------------------------------------------------------

    def _http2(self, context: ssl.SSLContext) -> int:
        client = Http2Client(self._server.port, context)
        with contextlib.closing(client.sock):
            expected: dict[int, bytes] = {}
            for number in range(_STREAMS):
                if number % 4 == 0:
                    expected[client.get("/some")] = SOME_BLOCK * SOME
                elif number % 4 == 1:
                    body = b"x" * 1000
                    expected[client.request("/body", method="POST", body=body)] = b"1000"
                else:
                    expected[client.get("/")] = b""
            for stream, wanted in expected.items():
                answer = client.answer(stream)
                check(answer.status == 200 and answer.body == wanted, "HTTP/2")
        return _STREAMS
