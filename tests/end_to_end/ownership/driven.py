"""A worker that is driven by hand, and connections that note every look at them.

`Watched` takes the place of the poller. What is parked there turns into a `GivenAway`, which notes
every look at it, as another thread's looks and changes would meet it on a server.
"""

from __future__ import annotations

import socket
from typing import Any

from threadwell import Request, Response, ServerConfig, SyncWorker
from threadwell.worker.connection import WAITING, Connection, State
from threadwell.worker.polling.base import Poller
from threadwell.worker.polling.listener import connect as connection_on

from ...helpers.wire_client import Client

looks: list[str] = []


class GivenAway(Connection):  # type: ignore[misc]
    """A connection in the poller's hands."""

    __slots__ = ()

    def __getattribute__(self, name: str) -> Any:
        if name == "__class__":  # what isinstance may ask of anything
            return object.__getattribute__(self, name)
        looks.append(f"read {name}")
        raise AssertionError(f"{name} was read after the connection was parked")

    def __setattr__(self, name: str, value: Any) -> None:
        looks.append(f"set {name}")
        raise AssertionError(f"{name} was set after the connection was parked")


class Watched:
    """The worker's own poller, but for `park`: the connection goes into `parked` instead."""

    def __init__(self, poller: Poller) -> None:
        self._poller = poller
        self.parked: list[tuple[Connection, State]] = []

    def park(self, connection: Connection, now: float) -> None:
        assert connection.state in WAITING
        self.parked.append((connection, connection.state))
        object.__setattr__(connection, "__class__", GivenAway)

    def take(self) -> Connection:
        """The connection that was parked last, for the test to look at."""
        connection, _ = self.parked[-1]
        object.__setattr__(connection, "__class__", Connection)
        return connection

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poller, name)


def app(request: Request) -> Response | None:
    if request.path == "/none":
        return None
    if request.path == "/fails":
        raise SystemExit(3)
    if request.path == "/large":
        return Response(200, [], b"x" * 20_000_000)
    if request.path == "/stream":
        return Response(200, [], iter([b"one", b"two"]))
    return Response(200, [], request.read())


class Driven:
    """A worker driven by hand, one turn after the other, on one connection."""

    def __init__(self, **options: Any) -> None:
        config = ServerConfig.from_options(threads=1, **options)
        self.worker = SyncWorker(config, app, socket.create_server(("127.0.0.1", 0)))
        self.own = self.worker.poller
        self.poller = Watched(self.own)
        self.worker.poller = self.poller  # type: ignore[assignment]
        ours, theirs = socket.socketpair()
        theirs.settimeout(5)
        self.client = Client(theirs)
        self.connection = connection_on(ours, ("192.0.2.1", 5), ("192.0.2.2", 80), None)
        self.own.connections.add(self.connection)

    def turn(self) -> State:
        """Serve once; the state that the connection was parked in."""
        if self.poller.parked:
            self.poller.take()
        self.poller.parked.clear()
        self.worker._handle_connection(self.connection, ("192.0.2.1", 5), None)
        assert looks == []
        assert len(self.poller.parked) == 1
        return self.poller.parked[0][1]

    def close(self) -> None:
        if self.poller.parked:
            self.poller.take()
        self.worker.poller = self.own
        self.worker.close()
        self.client.close()


GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"


def idle_connection() -> tuple[Connection, socket.socket]:
    ours, theirs = socket.socketpair()
    connection = connection_on(ours, ("192.0.2.1", 5), ("192.0.2.2", 80), None)
    connection.become(State.IDLE)
    connection.deadline = 1e12
    return connection, theirs
