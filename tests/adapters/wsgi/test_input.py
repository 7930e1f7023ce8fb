"""`wsgi.input`: every way to read it, in memory, in files and in streams."""

from __future__ import annotations

import io
import itertools
import socket
from collections.abc import Callable, Iterable
from typing import Any

import pytest

from threadwell import ThreadedServer

from ...helpers.process import descriptors, script
from ...helpers.wire_client import Client
from .applications import PLAIN, Environ, Seen, StartResponse, answering

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]


def hold(text: bytes, *, chunked: bool = False) -> bytes:
    """A POST with `text` as its body."""
    if chunked:
        sizes = [7, 1, 300, 4000]
        pieces, at = [], 0
        for size in itertools.cycle(sizes):
            if at >= len(text):
                break
            piece = text[at : at + size]
            pieces.append(b"%x\r\n%b\r\n" % (len(piece), piece))
            at += size
        framing, data = b"Transfer-Encoding: chunked", b"".join(pieces) + b"0\r\n\r\n"
    else:
        framing, data = b"Content-Length: %d" % len(text), text
    return b"POST / HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n" + data


TEXT = b"first line\nsecond\n\n" + b"x" * 3000 + b"\nlast, without end"
SMALL = b"a\nbb\n\nccc"
READERS: dict[str, Callable[[Any], list[bytes]]] = {
    "read()": lambda stream: [stream.read()],
    "read(-1)": lambda stream: [stream.read(-1)],
    "read(7)": lambda stream: list(iter(lambda: stream.read(7), b"")),
    "read(10**6)": lambda stream: [stream.read(10**6)],
    "read(0)": lambda stream: [stream.read(0), stream.read()],
    "readline()": lambda stream: list(iter(stream.readline, b"")),
    "readline(4)": lambda stream: list(iter(lambda: stream.readline(4), b"")),
    "readline(-1)": lambda stream: list(iter(lambda: stream.readline(-1), b"")),
    "readlines()": lambda stream: stream.readlines(),
    "readlines(5)": lambda stream: list(
        itertools.chain.from_iterable(iter(lambda: stream.readlines(5), []))
    ),
    "iter": list,
    "mixed": lambda stream: [stream.readline(), stream.read(3), *stream],
}


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("body", [SMALL, TEXT], ids=["memory", "disk"])
@pytest.mark.parametrize("reader", READERS)
def test_input(serve: Serve, connect: Connect, reader: str, body: bytes, chunked: bool) -> None:
    got: list[list[bytes]] = []
    seen: list[Environ] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(dict(environ))
        stream = environ["wsgi.input"]
        got.append(READERS[reader](stream))
        ends = [stream.read(), stream.read(5), stream.readline(), stream.readline(5)]
        assert ends == [b""] * 4
        assert stream.readlines() == list(stream) == []
        start_response("200 OK", PLAIN)
        return [b"ok"]

    client = connect(serve(app, memory_body=1000))
    # what is behind the body is the next request, and never part of the input
    client.send(hold(body, chunked=chunked) + b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.answer().status == 200
    assert client.answer().status == 200
    assert got[0] == READERS[reader](io.BytesIO(body))
    assert b"".join(got[0]) == body
    assert b"".join(got[1]) == b""
    assert seen[0]["CONTENT_LENGTH"] == str(len(body))
    assert "HTTP_TRANSFER_ENCODING" not in seen[0]
    assert seen[1]["PATH_INFO"] == "/next"


CALLS = [
    ("read", ()), ("read", (None,)), ("read", (-1,)), ("read", (0,)), ("read", (5,)),
    ("read1", ()), ("read1", (None,)), ("read1", (-1,)), ("read1", (0,)), ("read1", (5,)),
    ("readline", ()), ("readline", (None,)), ("readline", (-1,)), ("readline", (0,)),
    ("readline", (5,)), ("readlines", ()), ("readlines", (None,)), ("readlines", (-1,)),
    ("readlines", (0,)), ("readlines", (5,)), ("readinto", (bytearray(5),)),
    ("readinto", (memoryview(bytearray(0)),)), ("readinto1", (bytearray(5),)), ("readable", ()),
    ("seekable", ()), ("isatty", ()), ("flush", ()), ("tell", ()), ("seek", (0,)), ("seek", (3,)),
    ("seek", (0, 1)), ("seek", (0, 2)), ("__iter__", ()), ("__enter__", ()),
]  # fmt: skip
WRONG = [("read", ("5",)), ("read1", ("5",)), ("readline", ("5",)), ("readinto", (b"5",))]


@pytest.mark.parametrize("body", [b"", SMALL, TEXT], ids=["none", "memory", "disk"])
def test_every_method_with_every_argument(serve: Serve, connect: Connect, body: bytes) -> None:
    """A request without a body, with one in memory and with one on disk take the same."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        stream, wanted = environ["wsgi.input"], io.BytesIO(body)
        for name, arguments in CALLS:
            stream.seek(0)
            wanted.seek(0)
            result, right = (getattr(each, name)(*arguments) for each in (stream, wanted))
            if name.startswith("__"):
                assert b"".join(result) == body
            else:
                assert (result, name, arguments) == (right, name, arguments)
                assert stream.read() == wanted.read() or name in ("tell", "seek")
        for name, arguments in WRONG:
            with pytest.raises(TypeError):
                getattr(stream, name)(*arguments)
        with pytest.raises(OSError if len(body) > 1000 else ValueError):
            stream.seek(-1)
        stream.seek(0)
        with io.TextIOWrapper(stream, "latin-1", newline="") as text:
            assert text.read() == body.decode()
        start_response("200 OK", PLAIN)
        return [b"ok"]

    client = connect(serve(app, threads=1, memory_body=1000))
    for _ in range(2):
        client.send(hold(body) if body else b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.answer().body == b"ok"


def test_what_requests_share_cannot_be_changed(serve: Serve, connect: Connect) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        stream = environ["wsgi.input"]
        assert stream.tell() == 0
        for name, *arguments in [("write", b"x"), ("writelines", [b"x"]), ("truncate",)]:
            with pytest.raises(io.UnsupportedOperation):
                getattr(stream, name)(*arguments)
        assert not stream.writable()
        stream.seek(5)
        stream.close()
        start_response("200 OK", PLAIN)
        return [b"ok"]

    client = connect(serve(app, threads=1))
    assert [client.get().body for _ in range(2)] == [b"ok"] * 2


def test_chunked_input_of_nothing(serve: Serve, connect: Connect) -> None:
    seen = Seen()
    client = connect(serve(seen))
    client.send(hold(b"", chunked=True))
    assert client.answer().status == 200
    assert seen.last["CONTENT_LENGTH"] == "0"
    assert seen.last["wsgi.input"].read() == b""


@pytest.mark.parametrize("size", [999, 1000, 1001])
def test_input_at_the_border_of_memory(serve: Serve, connect: Connect, size: int) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        return [environ["wsgi.input"].read()]

    client = connect(serve(app, memory_body=1000))
    for chunked in (False, True):
        client.send(hold(b"z" * size, chunked=chunked))
        assert client.answer().body == b"z" * size


def test_input_that_nobody_reads(serve: Serve, connect: Connect) -> None:
    client = connect(serve(answering([b"ok"]), memory_body=1000))
    for chunked in (False, True):
        for body in (SMALL, TEXT):
            client.send(hold(body, chunked=chunked))
            assert client.answer().body == b"ok"


def test_input_in_a_stream(serve: Serve, connect: Connect) -> None:
    """A generator reads its input while its answer is under way."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        yield from iter(lambda: environ["wsgi.input"].read(1000), b"")

    client = connect(serve(app, memory_body=1000))
    client.send(hold(TEXT))
    assert client.answer().body == TEXT


def test_an_input_that_was_taken_apart(serve: Serve, connect: Connect) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        with environ["wsgi.input"].detach() as raw:
            start_response("200 OK", [])
            return iter([raw.read(), b"!"])

    client = connect(serve(app, threads=1, max_streams=1, memory_body=1000))
    for _ in range(3):
        client.send(hold(TEXT))
        assert client.answer().body == TEXT + b"!"


def test_files_of_inputs_are_closed(serve: Serve, connect: Connect) -> None:
    client = connect(serve(answering([b"ok"]), memory_body=1000))
    client.send(hold(TEXT))
    client.answer()
    before = descriptors()
    for _ in range(20):
        client.send(hold(TEXT))
        client.answer()
    # the last one's may still be about to be closed
    assert descriptors() <= before + 1


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_large_upload_takes_little_memory(chunked: bool) -> None:
    block = bytes(range(256)) * 256
    with script("memory_server.py") as server:
        with socket.create_connection(("127.0.0.1", server.port), 10) as sock:
            client = Client(sock)
            client.send(hold(b"warm", chunked=chunked))
            before = int(client.answer().body.split()[3])
            client.send(b"POST / HTTP/1.1\r\nHost: x\r\n")
            if chunked:
                client.send(b"Transfer-Encoding: chunked\r\n\r\n")
            else:
                client.send(b"Content-Length: %d\r\n\r\n" % (800 * len(block)))
            for _ in range(800):
                client.send(b"%x\r\n%b\r\n" % (len(block), block) if chunked else block)
            if chunked:
                client.send(b"0\r\n\r\n")
            size, total, _, after = map(int, client.answer().body.split())
        server.finish()
    assert size == 800 * len(block)
    assert total == 800 * sum(block[::4096])
    assert after - before < 10 * 1024, f"it grew from {before} KiB to {after} KiB"
