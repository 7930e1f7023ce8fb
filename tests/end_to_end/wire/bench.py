"""What must be seen of the corpus, and a bench that feeds a worker without a network."""

from __future__ import annotations

import contextlib
import socket
from pathlib import Path
from typing import Any, cast
from urllib.parse import unquote_to_bytes

import pytest

from threadwell import Request, Response, ServerConfig, SyncWorker
from threadwell.worker.connection import Connection

from ...helpers.wire_client import Answer, Client
from ...helpers.wire_corpus import INVALID, VALID

# Above this, sending a byte at a time and splitting everywhere is not worth its time.
SHORT = 400


def ids(path: Path) -> str:
    return path.stem


valid_files = pytest.mark.parametrize("path", VALID, ids=ids)
invalid_files = pytest.mark.parametrize("path", INVALID, ids=ids)


class Recorder:
    """A `SyncApp` that remembers the requests that it saw, and echoes method and target."""

    def __init__(self) -> None:
        self.seen: list[tuple[Request, bytes]] = []

    def __call__(self, request: Request) -> Response:
        self.seen.append((request, request.read()))
        return Response(200, [("X-Echo", "yes")], f"{request.method} {request.target}".encode())

    def targets(self) -> list[str]:
        return [request.target for request, _ in self.seen]


def check_seen(seen: list[tuple[Request, bytes]], requests: list[dict[str, Any]]) -> None:
    assert len(seen) == len(requests)
    for (request, body), wanted in zip(seen, requests, strict=True):
        for name in ("method", "target", "path", "query", "version"):
            if name in wanted:
                assert getattr(request, name) == wanted[name]
        if "path_info" in wanted:
            assert unquote_to_bytes(request.path).decode("latin-1") == wanted["path_info"]
        for name, value in wanted.get("headers", {}).items():
            assert request.header(name) == value
        if "body" in wanted:
            assert body.decode("latin-1") == wanted["body"]


def final_answer(client: Client, method: str = "GET") -> Answer:
    while True:
        answer = client.answer(method)
        if answer.status >= 200:
            return answer


def send_dribbling(client: Client, data: bytes) -> None:
    """Byte by byte, or in odd pieces when there are many; a refusal may come before the end."""
    client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    size = 1 if len(data) <= SHORT else 97
    with contextlib.suppress(ConnectionError):
        for at in range(0, len(data), size):
            client.send(data[at : at + size])


class ScriptedSocket:
    """A connection whose octets come in the pieces given, with a wait between, and then the end."""

    def __init__(self, pieces: list[bytes]) -> None:
        # something that a poller can wait for: it is always readable and always writable
        self._real, peer = socket.socketpair()
        peer.close()
        self._pieces: list[bytes | None] = []
        for piece in pieces:
            self._pieces += [piece, None]
        self.sent = b""
        self.closed = False

    def fileno(self) -> int:
        return self._real.fileno()

    def recv(self, size: int) -> bytes:
        if not self._pieces:
            return b""
        piece = self._pieces.pop(0)
        if piece is None:
            raise BlockingIOError
        if len(piece) > size:
            self._pieces.insert(0, piece[size:])
        return piece[:size]

    def send(self, data: bytes, flags: int = 0) -> int:
        del flags
        self.sent += data
        return len(data)

    def shutdown(self, how: int) -> None:
        pass

    def close(self) -> None:
        self.closed = True
        self._real.close()


class Replay:
    """As much of a socket as reading answers needs."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def recv(self, size: int) -> bytes:
        del size
        data, self._data = self._data, b""
        return data


class Bench:
    """A worker that is driven by hand: no thread, no clock, no network."""

    def __init__(self, **options: Any) -> None:
        self.app = Recorder()
        config = ServerConfig.from_options(**options)
        self._worker = SyncWorker(config, self.app, None)

    def run(self, *pieces: bytes) -> Client:
        """Serve the connection to its end; the answers are read from the client returned."""
        self.app.seen.clear()
        sock = ScriptedSocket([piece for piece in pieces if piece])
        poller = self._worker.poller
        with contextlib.closing(sock):
            connection = Connection(cast("socket.socket", sock), ("::1", 1), ("::1", 80))
            poller.connections.add(connection)
            self._worker._handle_connection(connection, connection.peer, None)
            while not sock.closed:
                ready = poller.wait(1)
                assert ready is connection, "the connection waits for nothing"
                self._worker._handle_connection(connection, connection.peer, None)
        return Client(cast("socket.socket", Replay(sock.sent)))

    def close(self) -> None:
        self._worker.poller.close()
