"""In which order new connections are served, and those that are ready beside them."""

from __future__ import annotations

import contextlib
import fcntl
import select
import socket
import ssl
import struct
import termios
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from threadwell import ServerConfig, ThreadedServer
from threadwell.worker.connection import Connection, State
from threadwell.worker.lifecycle import ConnectionOpened
from threadwell.worker.polling.kernel import EpollPoller
from threadwell.worker.polling.listener import Listener
from threadwell.worker.system.readiness import has_input

from ..helpers.certificates import Authority
from ..helpers.waiting import until

pytestmark = pytest.mark.skipif(not hasattr(select, "epoll"), reason="Linux")


class Bench:
    """A listening socket, pollers on it that belong to as many processes, and clients."""

    def __init__(self, processes: int, address: str = "") -> None:
        self.stack = contextlib.ExitStack()
        if address:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.bind(address)
            self.sock.listen(128)
        else:
            self.sock = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.pollers = [self._poller(processes) for _ in range(processes)]

    def _poller(self, processes: int) -> EpollPoller:
        poller = EpollPoller(1000)
        poller.takes_turns, poller.sharers = processes > 1, processes
        poller.listen(Listener(self.sock.dup(), ServerConfig()))
        return poller

    def newcomers(self, number: int) -> None:
        """New connections, in the backlog. They are called 0, 1, and so on."""
        for _ in range(number):
            client = socket.socket(self.sock.family)
            self.stack.enter_context(client).connect(self.sock.getsockname())
        until(lambda: has_input(self.sock.fileno()))

    def ready(self, name: str, poller: EpollPoller) -> Connection:
        """A connection that is served already, with a request that has arrived."""
        ours, theirs = socket.socketpair()
        self.stack.enter_context(theirs)
        connection = Connection(ours, (name, 0), ("", 0))
        ours.setblocking(False)
        self.stack.callback(ours.close)
        connection.state = State.IDLE
        poller.connections.add(connection)
        theirs.send(b"x")
        poller.park(connection, 0.0)
        return connection

    def served(self, poller: EpollPoller, most: int = 1000, last: str = "") -> list[str]:
        """What `poller` gives to a thread that asks until nothing is left, in this order; no more
        than `most`, and nothing after `last`."""
        given: list[str] = []
        while len(given) < most and (connection := poller.wait(0)) is not None:
            assert isinstance(connection, Connection)
            if connection.state is State.IDLE:
                given.append(connection.client[0])
            else:
                given.append("new")
                self.stack.callback(connection.sock.close)
            if given[-1] == last:
                break
        return given

    def close(self) -> None:
        for poller in self.pollers:
            poller.close()
            for listener in poller.listeners.values():
                listener.close()
        self.stack.close()
        self.sock.close()


@pytest.fixture
def bench() -> Iterator[Callable[..., Bench]]:
    with contextlib.ExitStack() as stack:

        def make(processes: int = 1, address: str = "") -> Bench:
            return stack.enter_context(contextlib.closing(Bench(processes, address)))

        yield make


@pytest.mark.parametrize("kind", ["tcp", "unix"])
def test_newcomers_are_served_in_the_place_of_the_first(
    bench: Callable[..., Bench], kind: str, tmp_path: Any
) -> None:
    made = bench(address="" if kind == "tcp" else str(tmp_path / "s"))
    (poller,) = made.pollers
    for name in ("early 1", "early 2"):
        made.ready(name, poller)
    made.newcomers(16)
    for name in ("late 1", "late 2"):
        made.ready(name, poller)
    expected = ["early 1", "early 2", *["new"] * 16, "late 1", "late 2"]
    assert made.served(poller) == expected


def test_a_connection_that_is_served_goes_behind_the_newcomers(
    bench: Callable[..., Bench],
) -> None:
    made = bench()
    (poller,) = made.pollers
    made.newcomers(2)
    made.ready("a", poller)
    assert made.served(poller, 1) == ["new"]
    made.ready("b", poller)  # ready while the first newcomer is served
    assert made.served(poller) == ["new", "a", "b"]


def test_a_flood_of_newcomers_lets_those_go_on_who_are_ready(bench: Callable[..., Bench]) -> None:
    made = bench()
    (poller,) = made.pollers
    made.newcomers(100)
    made.ready("ready", poller)
    assert made.served(poller) == [*["new"] * 64, "ready", *["new"] * 36]


def test_a_process_takes_its_share_and_leaves_the_rest(bench: Callable[..., Bench]) -> None:
    made = bench(processes=4)
    made.newcomers(64)
    for poller in made.pollers:
        made.ready("ready", poller)
    turns = [made.served(poller, last="ready") for poller in made.pollers]
    # a fourth of what each has found
    assert turns == [[*["new"] * number, "ready"] for number in (16, 12, 9, 7)]


def test_the_last_of_a_burst_are_not_taken_one_by_one(bench: Callable[..., Bench]) -> None:
    made = bench(processes=16)
    made.newcomers(16)
    for poller in made.pollers:
        made.ready("ready", poller)
    turns = [len(made.served(poller, last="ready")) - 1 for poller in made.pollers]
    assert turns == [4, 4, 4, 4, *[0] * 12]


@pytest.mark.parametrize(("processes", "taken"), [(2, [8, 8]), (3, [6, 6, 4]), (4, [4, 4, 4, 4])])
def test_one_turn_of_each_process_takes_a_small_burst(
    bench: Callable[..., Bench], processes: int, taken: list[int]
) -> None:
    made = bench(processes=processes)
    made.newcomers(16)
    for poller in made.pollers:
        made.ready("ready", poller)
    turns = [len(made.served(poller, last="ready")) - 1 for poller in made.pollers]
    assert turns == taken


def test_a_turn_ends_where_others_have_taken_the_rest(bench: Callable[..., Bench]) -> None:
    made = bench(processes=2)
    mine, other = made.pollers
    made.newcomers(16)
    made.ready("ready", mine)
    assert made.served(mine, 2) == ["new", "new"]
    assert made.served(other) == ["new"] * 14
    assert made.served(mine) == ["ready"]
    assert not mine._ahead


def test_a_turn_ends_where_there_is_no_room(bench: Callable[..., Bench]) -> None:
    made = bench()
    (poller,) = made.pollers
    poller.limit = 3
    made.newcomers(8)
    assert made.served(poller) == ["new"] * 3
    busy = next(iter(poller.connections))
    busy.close()
    poller.forget(busy)  # listens again
    assert made.served(poller) == ["new"]


def test_a_poller_that_ends_amid_a_turn_hands_out_connections_only(
    bench: Callable[..., Bench],
) -> None:
    made = bench()
    (poller,) = made.pollers
    made.newcomers(4)
    assert made.served(poller, 1) == ["new"]
    parked = made.ready("ready", poller)
    poller.drain()
    left = poller.close()
    assert parked in left
    assert all(isinstance(connection, Connection) for connection in left)
    assert len(left) == 4  # with the three of the backlog, which closing would have reset
    for connection in left:
        connection.close()


# ---- Of a server, whatever comes before a request ------------------------------------------


class Log:
    """In which order connections were opened and requests were served; `/hold` waits."""

    def __init__(self) -> None:
        self.lines: list[object] = []
        self.held, self.release = threading.Event(), threading.Event()

    def record(self, event: object) -> None:
        if isinstance(event, ConnectionOpened):
            self.lines.append(event.client[1])

    def app(self, environ: dict[str, Any], start_response: Any) -> list[bytes]:
        self.lines.append(environ["PATH_INFO"])
        if environ["PATH_INFO"] == "/hold":
            self.held.set()
            assert self.release.wait(20)
        start_response("200 OK", [("Content-Length", "2")])
        return [b"OK"]


class Guest:
    """A client of a server that may want a PROXY header first, and TLS."""

    def __init__(self, server: ThreadedServer, header: bytes, trusting: ssl.SSLContext | None):
        self.server = server
        self.sock = socket.create_connection(("127.0.0.1", server.port), 20)
        self.port = self.sock.getsockname()[1]
        self.sock.sendall(header)
        if trusting is not None:
            self.sock = trusting.wrap_socket(
                self.sock, server_hostname="127.0.0.1", do_handshake_on_connect=False
            )

    def begin(self, path: str) -> None:
        """Send what a client sends first, which is a request if it is not a ClientHello."""
        if isinstance(self.sock, ssl.SSLSocket):
            self.sock.setblocking(False)
            with pytest.raises(ssl.SSLWantReadError):
                self.sock.do_handshake()
            self.sock.settimeout(20)
        else:
            self.send(path)
        until(lambda: not self._unacknowledged())

    def _unacknowledged(self) -> int:
        octets = fcntl.ioctl(self.sock.fileno(), termios.TIOCOUTQ, bytes(4))
        return int(struct.unpack("i", octets)[0])

    def send(self, path: str) -> None:
        self.sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())

    def send_when_parked(self, path: str) -> None:
        """Send a request on a connection that waits in the poller, and await its arrival."""
        worker = self.server._worker
        assert worker is not None
        parked = worker.poller._parked

        def mine() -> list[Connection]:
            return [each for each in parked.copy().values() if each.peer[1] == self.port]

        until(mine)
        self.send(path)
        until(lambda: has_input(mine()[0].fd))

    def answer(self) -> None:
        received = b""
        while not received.endswith(b"\r\n\r\nOK"):
            octets = self.sock.recv(4096)
            assert octets
            received += octets


@pytest.mark.parametrize("before", ["nothing", "proxy", "tls", "proxy and tls"])
def test_newcomers_of_a_server_take_their_turn(
    serve: Callable[..., ThreadedServer], authority: Authority, before: str
) -> None:
    log, options, header = Log(), {}, b""
    if "tls" in before:
        cert, key = authority.issue("newcomers")
        options = {"certfile": str(cert), "keyfile": str(key)}
    if "proxy" in before:
        options |= {"proxy_protocol": True, "trusted_proxies": "127.0.0.1"}
        header = b"PROXY TCP4 192.0.2.1 192.0.2.2 1000 80\r\n"
    trusting = authority.trusting() if "tls" in before else None
    server = serve(log.app, threads=1, lifecycle_collector=log, **options)
    with contextlib.ExitStack() as stack:

        def guest() -> Guest:
            made = Guest(server, header, trusting)
            stack.enter_context(made.sock)
            return made

        holder, early, late = (guest() for _ in range(3))
        for each in (holder, early, late):
            each.send("/")
            each.answer()
        holder.send("/hold")
        assert log.held.wait(20)
        log.lines.clear()
        early.send_when_parked("/early")
        new = [guest() for _ in range(3)]
        for each in new:
            each.begin("/new")
        late.send_when_parked("/late")
        log.release.set()
        for each in (holder, early, late):
            each.answer()
        for each in new:
            if trusting is not None:
                each.send("/new")
            each.answer()
    one, two, three = (each.port for each in new)
    if trusting is None:
        served = [one, "/new", two, "/new", three, "/new", "/late"]
    else:  # a handshake takes two turns
        served = [one, two, three, "/late", "/new", "/new", "/new"]
    assert log.lines == ["/early", *served]
