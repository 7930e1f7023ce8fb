"""Clients: one request after the other, a load, and clients that are slow."""

from __future__ import annotations

import contextlib
import re
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

PATIENCE = 120.0


class ConnectionEnded(OSError):
    """The server has closed a connection before its response was complete."""


class Answer(NamedTuple):
    """A whole response; `last` if the server closes the connection after it."""

    status: int
    body: bytes
    last: bool


def connect(port: int, patience: float = PATIENCE) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), patience)


def ask(sock: socket.socket, request: bytes) -> Answer:
    """Send `request` and read the response. Raises `OSError`, `ConnectionEnded` among them."""
    sock.sendall(request)
    received = b""
    while b"\r\n\r\n" not in received:
        received += _receive(sock)
    head, body = received.split(b"\r\n\r\n", 1)
    length = re.search(rb"(?i)\r\ncontent-length: *([0-9]+)", head)
    last = re.search(rb"(?i)\r\nconnection: *close", head) is not None
    chunked = re.search(rb"(?i)\r\ntransfer-encoding: *chunked", head) is not None
    with contextlib.suppress(ConnectionEnded) if last else contextlib.nullcontext():
        while (
            len(body) < int(length[1]) if length else not (chunked and body.endswith(b"0\r\n\r\n"))
        ):
            body += _receive(sock)
    if length and len(body) < int(length[1]):
        raise ConnectionEnded("in the middle of a body")
    return Answer(int(head.split(b" ", 2)[1]), body, last)


def _receive(sock: socket.socket) -> bytes:
    octets = sock.recv(65536)
    if not octets:
        raise ConnectionEnded("no response")
    return octets


class Connection:
    """A client that keeps its connection, and makes a new one when the server has closed it."""

    def __init__(self, port: int, patience: float = PATIENCE) -> None:
        self._port, self._patience = port, patience
        self._sock: socket.socket | None = None

    def ask(self, request: bytes) -> Answer:
        """Ask once, on the connection if there is one. A failure is not tried again."""
        if self._sock is None:
            self._sock = connect(self._port, self._patience)
        try:
            answer = ask(self._sock, request)
        except OSError:
            self.close()
            raise
        if answer.last:
            self.close()
        return answer

    def close(self) -> None:
        if self._sock is not None:
            self._sock.close()
            self._sock = None


# ---- A load -----------------------------------------------------------------------------------


class Load(NamedTuple):
    """What a load has done."""

    requests: int
    failed: int


def load_client() -> str:
    """The program that makes a load here."""
    if shutil.which("wrk") is None:
        return "a client in Python"
    text = subprocess.run(["wrk", "-v"], capture_output=True, text=True, check=False).stdout
    found = re.match(r"wrk \S+", text)
    return found[0] if found else "wrk"


def load(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Load:
    """Send `requests` again and again, on so many connections at once. With wrk, where it is."""
    if shutil.which("wrk") is None:
        return _python_load(port, requests, connections, seconds)
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "requests.lua")
        # newlines in a long string of Lua are \n, and the first one is dropped
        texts = ",\n".join(_lua(request) for request in requests)
        script.write_bytes(
            b"local all, at = {\n" + texts.encode("latin-1") + b"}, 0\n"
            b"request = function() at = at % #all + 1; return all[at] end\n"
        )
        command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s"]
        command += ["--timeout", "30s", "-s", str(script), f"http://127.0.0.1:{port}/"]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    done = re.search(r"(\d+) requests in", text)
    errors = re.search(r"connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    failed = sum(map(int, errors.groups())) if errors else 0
    return Load(int(done[1]) if done else 0, failed + (int(bad[1]) if bad else 0))


def _lua(request: bytes) -> str:
    escaped = request.decode("latin-1").replace("\\", "\\\\").replace('"', '\\"')
    return '"' + escaped.replace("\r", "\\r").replace("\n", "\\n") + '"'


def _python_load(port: int, requests: Sequence[bytes], connections: int, seconds: float) -> Load:
    until = time.monotonic() + seconds
    counts: list[Load] = []

    def client(first: int) -> None:
        done = failed = 0
        connection = Connection(port)
        while time.monotonic() < until:
            try:
                good = connection.ask(requests[(first + done) % len(requests)]).status == 200
            except OSError:
                good = False
            done += 1
            failed += not good
        connection.close()
        counts.append(Load(done, failed))

    in_threads(client, [number * 997 for number in range(connections)])
    return Load(sum(each.requests for each in counts), sum(each.failed for each in counts))


def in_threads(work: Callable[[int], None], numbers: Sequence[int]) -> None:
    """Run `work` with each of `numbers` at once, and wait for all."""
    threads = [threading.Thread(target=work, args=(number,), daemon=True) for number in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# ---- Slow clients -----------------------------------------------------------------------------


class Beside:
    """Clients beside those that are measured. They have no thread: `act` is for the one caller.

    Each sends `head`; then `act` lets each do its part, and never waits.
    """

    def __init__(
        self, port: int, count: int, head: bytes, step: Callable[[socket.socket], object]
    ) -> None:
        self._step = step
        self._socks = [connect(port) for _ in range(count)]
        for sock in self._socks:
            sock.sendall(head)
            sock.setblocking(False)

    def act(self) -> None:
        for sock in self._socks:
            # it would wait, or the server has closed it
            with contextlib.suppress(OSError):
                self._step(sock)

    def close(self) -> None:
        for sock in self._socks:
            sock.close()


def slow_uploads(port: int, count: int) -> Beside:
    """Clients that send one byte of a body each time."""
    head = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\n"
    return Beside(port, count, head, lambda sock: sock.send(b"a"))


def event_streams(port: int, count: int) -> Beside:
    """Clients that read an endless response."""
    head = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"
    return Beside(port, count, head, lambda sock: sock.recv(65536))


def nothing(port: int, count: int) -> Beside:  # noqa: ARG001
    """No client."""
    return Beside(port, 0, b"", lambda sock: None)  # noqa: ARG005
