"""Accepting connections on an event loop."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Protocol

from ..system.readiness import has_input

if TYPE_CHECKING:
    import asyncio

    from ..connection import Connection
    from ..polling.listener import Listener
    from .interfaces import LoopPoolView

log = logging.getLogger("threadwell")

# How many connections are accepted before the loop serves them.
_ACCEPTS_A_TURN = 16


class AcceptingWorker(Protocol):
    """What an Acceptor needs of its LoopWorker."""

    loop: asyncio.AbstractEventLoop
    draining: bool

    @property
    def pool(self) -> LoopPoolView[Any]: ...

    def place(self, conn: Connection) -> None:
        """Serve a connection that was just accepted, on this loop or on another."""

    def serve(self, conn: Connection) -> None:
        """Serve a connection that was just accepted, on this loop."""

    def close_idlest(self) -> bool:
        """Close the connection that has been idle the longest; False when none is idle."""


class Acceptor:
    """The listeners of one loop. Belongs to the loop's thread."""

    def __init__(self, worker: AcceptingWorker) -> None:
        self._worker = worker
        self._listeners: dict[int, Listener] = {}
        self._accepting = False

    @property
    def listeners(self) -> list[Listener]:
        """The listeners that connections are accepted from."""
        return list(self._listeners.values())

    def listen(self, listener: Listener) -> None:
        """Accept from `listener`. Other loops may accept from it at the same time."""
        self._listeners[listener.fileno()] = listener
        self._worker.loop.add_reader(listener.fileno(), self._accept, listener)
        self._accepting = True

    def _accept(self, listener: Listener) -> None:
        pool = self._worker.pool
        left, has_looked = 1, False
        while left:
            if pool.has_no_room() and (not has_input(listener.fileno()) or not self._make_room()):
                return
            try:
                conn = listener.accept()
            except OSError as error:
                if not self._make_room():
                    self._pause(str(error))
                return
            if conn is None:
                return
            self._worker.place(conn)
            left -= 1
            if not left and pool.is_alone and not has_looked:
                # an accept that finds nothing costs ten times as much as this look
                has_looked = True
                left = min(listener.rest_of_turn(1), _ACCEPTS_A_TURN - 1)

    def _make_room(self) -> bool:
        """Close an idle connection, or else pause; whether there is room."""
        if self._worker.close_idlest():
            return True
        self._pause("as many connections are open as limit_connections allows")
        return False

    def _pause(self, why: str) -> None:
        if self._accepting:
            log.warning("No new connections are accepted for now: %s", why)
            self._accepting = False
            for fd in self._listeners:
                self._worker.loop.remove_reader(fd)

    def resume(self) -> None:
        """Accept again, if there is room. Called about once a second."""
        if self._accepting or not self._listeners:
            return
        if not self._worker.draining and not self._worker.pool.has_no_room():
            self._accepting = True
            for fd, listener in self._listeners.items():
                self._worker.loop.add_reader(fd, self._accept, listener)

    def take_backlogs(self) -> None:
        """Serve the connections in the backlogs: closing the listeners would reset them.

        A listener that another process has too keeps its backlog.
        """
        for listener in self.listeners:
            if not listener.shared:
                self._take_backlog(listener)

    def _take_backlog(self, listener: Listener) -> None:
        while True:
            try:
                conn = listener.accept()
            except OSError:
                return
            if conn is None:
                return
            self._worker.serve(conn)

    def close(self) -> None:
        """Stop accepting, for good."""
        for fd, listener in self._listeners.items():
            if self._accepting:
                self._worker.loop.remove_reader(fd)
            self._worker.pool.release_listener(listener)
        self._listeners.clear()
