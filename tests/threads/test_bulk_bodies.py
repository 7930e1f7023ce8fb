"""Large uploads to threads: in memory and in files, with TLS and without."""

from __future__ import annotations

import hashlib
import io
import socket
from collections.abc import Callable
from typing import Any

import pytest

from threadwell import ThreadedServer

from ..helpers.certificates import Authority
from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
MIB = 1024 * 1024
PATTERN = bytes(range(251)) * (6 * MIB // 251)
HEAD = b"POST / HTTP/1.1\r\nHost: localhost\r\n"


def digests(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answers with the kind of the input's file, its length, and a digest."""
    stream = environ["wsgi.input"]
    kind = type(stream.raw).__name__ if isinstance(stream, io.BufferedReader) else "bytes"
    data = stream.read()
    start_response("200 OK", [])
    length = environ["CONTENT_LENGTH"]
    return [f"{kind} {length} {hashlib.sha256(data).hexdigest()}".encode()]


def framed(body: bytes, chunk: int) -> bytes:
    """A request, with a length if `chunk` is 0."""
    if not chunk:
        return HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
    pieces = [body[at : at + chunk] for at in range(0, len(body), chunk)]
    lines = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + lines + b"0\r\n\r\n"


def answers(client: Client, body: bytes, kind: str, chunk: int) -> None:
    """Upload `body` twice in a row, and look at the answers."""
    client.send(framed(body, chunk) * 2)
    for _ in range(2):
        expected = f"{kind} {len(body)} {hashlib.sha256(body).hexdigest()}"
        assert client.answer().body.decode() == expected


CASES = [(100_000, "bytes"), (2 * MIB, "MemoryFile"), (len(PATTERN), "FileIO")]


@pytest.mark.parametrize("chunk", [0, 5000, 100_000], ids=["length", "small chunks", "chunks"])
@pytest.mark.parametrize(("size", "kind"), CASES)
@pytest.mark.parametrize("encrypted", [False, True], ids=["", "TLS"])
def test_uploads(
    size: int, kind: str, chunk: int, encrypted: bool, serve: Serve, authority: Authority
) -> None:
    options: dict[str, Any] = {}
    if encrypted:
        cert, key = authority.issue("bulk")
        options = {"certfile": str(cert), "keyfile": str(key)}
    server = serve(digests, threads=1, **options)
    sock = socket.create_connection(("127.0.0.1", server.port), 20)
    if encrypted:
        sock = authority.trusting().wrap_socket(sock, server_hostname="localhost")
    with sock:
        answers(Client(sock), PATTERN[:size], kind, chunk)


def test_a_body_moves_to_a_file_when_there_is_no_memory_left(
    serve: Serve, connect: Callable[..., Client]
) -> None:
    client = connect(serve(digests, threads=1, memory_bodies=MIB))
    answers(client, PATTERN[: 2 * MIB], "FileIO", 100_000)
    answers(client, PATTERN[: 2 * MIB], "FileIO", 0)
    answers(client, PATTERN[:600_000], "MemoryFile", 50_000)
