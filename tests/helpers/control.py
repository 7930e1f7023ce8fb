"""The control socket, for tests: a client, and servers whose threads are stuck."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from threadwell.control_client import ControlClient

from .waiting import until

#: Five requests stuck in a lock, two streams, one that is served, and none of them quick.
STUCK = """
import os, pathlib, threading, time
from threadwell import Response

lock = threading.Lock()
lock.acquire()

def wait_for_the_lock():
    while not pathlib.Path("go").exists():
        lock.acquire(timeout=0.05)

def stream():
    while not pathlib.Path("go").exists():
        yield b"x" * 100
        time.sleep(0.05)

def serve_slowly():
    while not pathlib.Path("go").exists():
        time.sleep(0.01)

def app(request):
    if request.path.startswith("/lock"):
        wait_for_the_lock()
    elif request.path.startswith("/stream"):
        return Response(200, [], stream())
    elif request.path.startswith("/slow"):
        serve_slowly()
    return Response(200, [], f"old {os.getpid()}".encode())
"""
#: The paths of the requests to `STUCK`.
PATHS = [*(f"/lock{n}" for n in range(5)), "/stream0", "/stream1", "/slow"]


def ask(path: Path, verb: str, *arguments: str) -> dict[str, Any]:
    """The result of a command, over a connection of its own. Raises `ControlError`."""
    with ControlClient(str(path)) as client:
        return client.ask(verb, *arguments)


@contextlib.contextmanager
def requests_to(port: int, paths: list[str]) -> Iterator[dict[str, socket.socket]]:
    """Connections on which requests for `paths` were sent, one each."""
    with contextlib.ExitStack() as stack:
        opened = {}
        for path in paths:
            sock = stack.enter_context(socket.create_connection(("127.0.0.1", port), 20))
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            opened[path] = sock
        yield opened


def running(path: Path) -> dict[str, dict[str, Any]]:
    """The requests under way, by their paths."""
    return {row["path"]: row for row in ask(path, "requests")["requests"]}


def await_stuck(path: Path) -> dict[str, dict[str, Any]]:
    """The requests for `PATHS`, once all are under way and both streams have begun."""
    wanted = {each: "streaming" if "stream" in each else "running" for each in PATHS}
    until(lambda: {each: row["state"] for each, row in running(path).items()} == wanted)
    return running(path)
