"""Response bodies of every kind, and raw exchanges, for the tests of responses."""

from __future__ import annotations

import itertools
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

from threadwell import Request, Response

from .wire_client import Client

GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


class Counted:
    """A body that counts how often it is closed and how far it was asked."""

    def __init__(self, *blocks: Any) -> None:
        self.blocks = iter(blocks)
        self.asked = 0
        self.closed = 0
        self.done = threading.Event()

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        self.asked += 1
        block = next(self.blocks)
        if isinstance(block, BaseException):
            raise block
        return block  # type: ignore[no-any-return]

    def close(self) -> None:
        self.closed += 1
        self.done.set()


def respond(*answers: Response) -> Callable[[Request], Response]:
    """An application that gives these answers in turn, again and again."""
    following = itertools.cycle(answers)

    def app(request: Request) -> Response:
        del request
        return next(following)

    return app


def raw(client: Client, request: bytes) -> bytes:
    """All that the server sends until it closes. Half-closes, so that it has to."""
    client.send(request)
    client.sock.shutdown(socket.SHUT_WR)
    return client.rest()


BODIES: dict[str, Callable[[], Any]] = {
    "bytes": lambda: b"hello",
    "empty": lambda: b"",
    "list": lambda: [b"he", b"", b"llo"],
    "empty list": list,
    "stream": lambda: iter([b"he", b"", b"llo"]),
    "empty stream": lambda: iter([]),
    "stream of empty blocks": lambda: iter([b"", b""]),
    "large": lambda: b"x" * 100_000,
    "large list": lambda: [b"x" * 50_000] * 2,
    "large stream": lambda: iter([b"x" * 50_000] * 2),
}


def whole(kind: str) -> bytes:
    if "large" in kind:
        return b"x" * 100_000
    return b"" if "empty" in kind else b"hello"
