"""How long quick clients wait, alone and beside clients that are slow or that read streams."""

from __future__ import annotations

import math
import selectors
import socket
import statistics
import time
from collections.abc import Callable

from .clients import Beside, connect, event_streams, nothing, slow_uploads
from .servers import Kind, running

QUICK = 4
#: Seconds after which a quick client gives a request up.
PATIENCE = 5.0
#: Seconds between two parts of a slow client.
PAUSE = 0.1
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: quick\r\n\r\n"
END = b"Hello, world!"
BESIDE: dict[str, Callable[[int, int], Beside]] = {
    "alone": nothing,
    "slow": slow_uploads,
    "streams": event_streams,
}


def latency(
    kind: Kind, requests: int = 2000, others: int = 32, rounds: int = 3
) -> dict[str, dict[str, float]]:
    """p50 and p99 of quick clients in milliseconds, beside `others`: the medians of `rounds`.

    A request that was given up counts with `PATIENCE`: its time is at least that. `given_up` is how
    many there were.
    """
    measured = {}
    for name, beside in BESIDE.items():
        found: list[tuple[float, float, int]] = []
        for _ in range(rounds):
            with running(kind, "service") as server:
                loop = _Loop(server.port, beside(server.port, others), requests)
                found.append(loop.run())
            if found[-1][2]:
                break  # the others would be given up too
        measured[name] = {
            "p50": round(statistics.median(each[0] for each in found) * 1000, 2),
            "p99": round(statistics.median(each[1] for each in found) * 1000, 2),
            "given_up": max(each[2] for each in found),
        }
    return measured


class _Loop:
    """All clients, in one thread: several would wait for each other's GIL, and measure that."""

    def __init__(self, port: int, beside: Beside, requests: int) -> None:
        self._port = port
        self._beside = beside
        self._left = requests
        self._selector = selectors.DefaultSelector()
        self._began: dict[socket.socket, float] = {}
        self._received: dict[socket.socket, bytes] = {}
        self._times: list[float] = []
        self._given_up = 0

    def run(self) -> tuple[float, float, int]:
        """Ask; p50 and p99 in seconds, and how many requests were given up."""
        self._act_until(time.perf_counter() + 5 * PAUSE)  # the server has taken the others
        for _ in range(QUICK):
            self._ask(None)
        next_part = time.perf_counter()
        while self._began:
            if time.perf_counter() >= next_part:
                self._beside.act()
                self._give_up()
                next_part = time.perf_counter() + PAUSE
            for key, _ in self._selector.select(PAUSE):
                self._receive(key.fileobj)  # type: ignore[arg-type]
        self._selector.close()
        self._beside.close()
        times = sorted(self._times)
        return _percentile(times, 50), _percentile(times, 99), self._given_up

    def _act_until(self, end: float) -> None:
        while time.perf_counter() < end:
            self._beside.act()
            time.sleep(PAUSE)

    def _ask(self, sock: socket.socket | None) -> None:
        """Send the next request, on `sock` or on a new connection, unless all are sent."""
        if not self._left:
            if sock is not None:
                self._forget(sock)
            return
        self._left -= 1
        began = time.perf_counter()
        if sock is None:
            sock = connect(self._port, PATIENCE)
            self._selector.register(sock, selectors.EVENT_READ)
        self._began[sock], self._received[sock] = began, b""
        sock.sendall(REQUEST)

    def _receive(self, sock: socket.socket) -> None:
        octets = sock.recv(65536)
        self._received[sock] += octets
        if octets and not self._received[sock].endswith(END):
            return
        head = self._received[sock].lower()
        if not head.endswith(END.lower()):
            raise OSError("the server has closed a connection before its response")
        self._times.append(time.perf_counter() - self._began[sock])
        if octets and b"\nconnection: close" not in head:
            self._ask(sock)
        else:
            self._forget(sock)
            self._ask(None)

    def _give_up(self) -> None:
        """Give requests up that have waited for too long. Their clients stop."""
        now = time.perf_counter()
        for sock in [sock for sock, began in self._began.items() if now - began > PATIENCE]:
            self._times.append(PATIENCE)
            self._given_up += 1
            self._forget(sock)

    def _forget(self, sock: socket.socket) -> None:
        self._selector.unregister(sock)
        self._began.pop(sock, None)
        sock.close()


def _percentile(times: list[float], percent: int) -> float:
    """Of times that are sorted."""
    return times[math.ceil(len(times) * percent / 100) - 1]
