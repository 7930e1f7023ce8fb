"""The resident memory of a server with more and more idle connections."""

from __future__ import annotations

import contextlib
import resource
import socket
import time
from collections.abc import Sequence

from .budget_cases import BROWSER
from .clients import ask, connect
from .servers import Kind, Process, running

WARMING = 200


def memory(kind: Kind, counts: Sequence[int] = (1000, 3000, 5000)) -> dict[str, dict[str, float]]:
    """KiB for each idle connection, at each of `counts`: before and after its first request.

    Each client has a path and a session of its own. Raises `OSError` if the server does not take so
    many. A server that closes each connection after its response has no idle ones.
    """
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    measured = {}
    for count in counts:
        with running(kind, "plain") as server, contextlib.ExitStack() as stack:
            warm = _connect(stack, server, min(WARMING, count))
            for number in range(5 * len(warm)):
                _ask(warm[number % len(warm)], number)
            before = _settled(server)
            clients = _connect(stack, server, count)
            silent = _settled(server)
            for number, client in enumerate(clients):
                _ask(client, number)
            asked = _settled(server)
            measured[str(count)] = {
                "silent": round((silent - before) / count, 2),
                "asked": round((asked - before) / count, 2),
                "all_mib": round(asked / 1024, 1),
            }
    return measured


def _connect(stack: contextlib.ExitStack, server: Process, count: int) -> list[socket.socket]:
    return [
        stack.enter_context(contextlib.closing(connect(server.port, 20.0))) for _ in range(count)
    ]


def _ask(client: socket.socket, number: int) -> None:
    fields = f"Host: localhost\n{BROWSER}Cookie: csrftoken=abcdefghij; sessionid={number:032d}\n\n"
    request = f"GET /items/{number} HTTP/1.1\n{fields}".replace("\n", "\r\n")
    if ask(client, request.encode()).status != 200:
        raise OSError("a connection was refused")


def _settled(server: Process) -> int:
    """The memory once it does not change any more: the server has taken what was sent."""
    last, now = -1, server.resident()
    while now != last:
        time.sleep(0.5)
        last, now = now, server.resident()
    return now
