"""What an application may return as a body, and what is none."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from threadwell import ThreadedServer

from ...helpers.wire_client import Client
from .applications import PLAIN, Environ, StartResponse, answering, failures

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ([], b""),
        ((), b""),
        ([b""], b""),
        ([b"", b""], b""),
        ([b"one"], b"one"),
        ((b"one",), b"one"),
        ([b"one", b"", b"two"], b"onetwo"),
        ((b"one", b"two"), b"onetwo"),
        ([b"x" * 40000, b"y" * 40000], b"x" * 40000 + b"y" * 40000),
        ([b"x" * 3_000_000], b"x" * 3_000_000),
        (b"bytes are sent as one block", b"bytes are sent as one block"),
        ({b"key": 1}, b"key"),
    ],
)
@pytest.mark.parametrize("declared", [False, True])
def test_bodies_that_are_there(
    serve: Serve, connect: Connect, body: Any, expected: bytes | None, declared: bool
) -> None:
    headers = [("Content-Length", str(len(expected or b"")))] if declared else []
    client = connect(serve(answering(body, headers=headers)))
    for _ in range(2):
        answer = client.get()
        if expected is None:
            assert answer.status == 500
        else:
            assert (answer.status, answer.body) == (200, expected)


@pytest.mark.parametrize(
    "blocks",
    [[], [b""], [b"", b""], [b"one"], [b"", b"one"], [b"one", b"", b"two"], [b"x" * 100_000] * 5],
)
@pytest.mark.parametrize("declared", [False, True])
def test_bodies_that_are_made(
    serve: Serve, connect: Connect, blocks: list[bytes], declared: bool
) -> None:
    expected = b"".join(blocks)

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", str(len(expected)))] if declared else [])
        return iter(blocks)

    client = connect(serve(app))
    for _ in range(2):
        answer = client.get()
        assert (answer.status, answer.body, answer.complete) == (200, expected, True)
        assert b"" not in answer.chunks


@pytest.mark.parametrize(
    "body",
    [
        ["text"],
        ("text",),
        [b"one", "two"],
        ("text", "text"),
        [None],
        [1, 2],
        [["x"]],
        "text",
        None,
        1,
        ["x" * 50_000, "y" * 50_000],
        [b"x" * 50_000, "y" * 50_000],
    ],
)
def test_bodies_that_are_none(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture, body: Any
) -> None:
    client = connect(serve(answering(body)))
    for count in (1, 2):
        answer = client.get()
        assert (answer.status, answer.complete) == (500, True)
        assert len(failures(caplog)) == count


@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("block", ["text", None, 1, bytearray])
def test_generators_of_what_is_no_bytes(
    serve: Serve, connect: Connect, block: Any, declared: bool
) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[Any]:
        start_response("200 OK", [("Content-Length", "4")] if declared else [])
        yield block if block is not None else ...

    client = connect(serve(app))
    assert client.get().status == 500
    assert client.get().status == 500


def test_text_behind_bytes_is_visible(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[Any]:
        start_response("200 OK", PLAIN)
        yield b"bytes"
        yield "text"

    answer = connect(serve(app)).get()
    assert (answer.status, answer.body, answer.complete) == (200, b"bytes", False)
    assert len(failures(caplog)) == 1


@pytest.mark.parametrize("declared", [False, True])
def test_a_block_is_out_before_the_next_is_asked_for(
    serve: Serve, connect: Connect, declared: bool
) -> None:
    read = [threading.Event() for _ in range(3)]

    def blocks() -> Iterator[bytes]:
        yield b"block 0 "
        for number, event in enumerate(read, 1):
            assert event.wait(10)
            yield b"block %d " % number

    headers = [("Content-Length", "32")] if declared else []
    client = connect(serve(answering(blocks(), headers=headers)))
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    received = b""
    for number in range(4):
        while b"block %d " % number not in received:
            received += client.sock.recv(4096)
        assert b"block %d " % (number + 1) not in received
        if number < 3:
            read[number].set()


def test_an_application_object_and_a_tuple_subclass(serve: Serve, connect: Connect) -> None:
    class Blocks(list[bytes]):
        closes = 0

        def close(self) -> None:
            self.closes += 1

    blocks = Blocks([b"one"])

    class Application:
        def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", PLAIN)
            return blocks

    server = serve(Application())
    assert connect(server).get().body == b"one"
    server.stop()
    assert blocks.closes == 1
