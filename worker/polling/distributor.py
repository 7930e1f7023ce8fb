"""The portable poller: one thread selects, the others take what is ready from a queue."""

from __future__ import annotations

import contextlib
import logging
import queue
import selectors
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from ..connection import FOR_OUTPUT, Connection, State
from ..errors import ClientDisconnected
from ..net.bind import address_of
from ..system.threads import start_thread
from .base import SWEEP, Poller
from .listener import connect
from .task import AnyTask, ThreadTask

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

    from .base import ConnectionQueue

log = logging.getLogger("threadwell")


class QueuePoller(Poller):
    """The distributor: one thread selects and accepts; ready connections go into a queue.

    Only that thread touches the selector. The others put connections into `_inbox` and wake it.
    The embedding program may fill `conn_queue` too, with (socket, address) pairs that it accepted.
    """

    has_queue = True

    def __init__(
        self,
        limit: int,
        conn_queue: ConnectionQueue | None = None,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        super().__init__(limit)
        self._ssl_context = ssl_context
        self.conn_queue: ConnectionQueue = conn_queue if conn_queue is not None else queue.Queue()
        self._selector = selectors.DefaultSelector()
        self._inbox: deque[Connection] = deque()
        self._waker, self._woken = socket.socketpair()
        self._waker.setblocking(False)
        self._woken.setblocking(False)
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._closing = False
        self._thread = threading.Thread(
            target=self._distribute, name="threadwell-distributor", daemon=True
        )
        try:
            start_thread(self._thread)
        except OSError:
            for each in (self._waker, self._woken, self._selector):
                each.close()
            raise

    def wait(self, seconds: float) -> Connection | AnyTask | None:
        """As `Poller.wait`. A pair of the embedding program becomes a new connection."""
        try:
            sock, what = self.conn_queue.get(timeout=seconds)
        except queue.Empty:
            return None
        try:
            return self._from_queue(sock, what)
        finally:
            # not before the connection is in `connections`: see `Poller._is_empty`
            self.conn_queue.task_done()
            self._look_whether_drained()

    def _from_queue(self, sock: socket.socket, what: object) -> Connection | AnyTask | None:
        if isinstance(what, (Connection, ThreadTask)):
            return what
        if what is None:  # from `wake`
            self.conn_queue.put((sock, what))
            return None
        try:
            server = address_of(sock.getsockname())
            connection = connect(sock, address_of(what), server, self._ssl_context)
        except OSError:  # reset meanwhile
            sock.close()
            return None
        self.connections.add(connection)
        return connection

    def use_context(self, ssl_context: ssl.SSLContext) -> None:
        """As `Poller.use_context`, and for the pairs in the queue."""
        if self._ssl_context is not None:
            self._ssl_context = ssl_context
        super().use_context(ssl_context)

    def park(self, connection: Connection, now: float) -> None:  # noqa: ARG002
        self._inbox.append(connection)
        if self._closing:
            try:
                self._inbox.remove(connection)
            except ValueError:  # `close` has taken it
                return
            raise ClientDisconnected("the server has stopped")
        self._wake_distributor()

    def submit(self, task: AnyTask) -> None:
        if not self._closing:
            self.conn_queue.put((self._woken, task))
        if self._closing:  # perhaps after `close` has dropped the tasks; twice does no harm
            task.drop()

    def release(self, connection: Connection) -> None:
        """Nothing to do: a connection that a thread has is not in the selector."""

    def expects_some(self) -> bool:
        """As `Poller.expects_some`, with the pairs in the queue."""
        return bool(self.conn_queue.unfinished_tasks) or super().expects_some()

    def nudge_idle(self) -> None:
        self._wake_distributor()

    def wake(self) -> None:
        self.conn_queue.put((self._woken, None))

    def close(self) -> list[Connection]:
        self._closing = True
        self._wake_distributor()
        self._thread.join()
        self._selector.close()
        self._waker.close()
        self._woken.close()
        return [*self._empty_queue(), *self._surrender()]

    def _empty_queue(self) -> Iterator[Connection]:
        with contextlib.suppress(queue.Empty):
            while True:
                sock, what = self.conn_queue.get_nowait()
                self.conn_queue.task_done()
                if isinstance(what, Connection):
                    yield what
                elif isinstance(what, ThreadTask):
                    what.drop()
                elif what is not None:  # a pair that has not become a connection
                    sock.close()
        with contextlib.suppress(IndexError):
            while True:
                yield self._inbox.popleft()

    def _wake_distributor(self) -> None:
        with contextlib.suppress(OSError):  # full: it is going to wake up anyway
            self._waker.send(b"!")

    # ---- On the distributor's thread ------------------------------------------------------

    def _distribute(self) -> None:
        while not self._closing:
            try:
                self._distribute_once()
            except Exception:
                # a bug of threadwell may cost a connection, and not the server
                log.exception("The distributor met an internal error")

    def _distribute_once(self) -> None:
        for key, _ in self._selector.select(SWEEP):
            self._event(key.fd)
        while self._inbox:
            self._park(self._inbox.popleft())
        now = time.monotonic()
        if now >= self._next_sweep:
            self._sweep(now)
        while (connection := self._take_ahead()) is not None:
            self._hand_out(connection)
        if self.draining and now >= self.idle_until:
            self._hand_out_idle()

    def _event(self, fd: int) -> None:
        if fd == self._woken.fileno():
            with contextlib.suppress(OSError):
                self._woken.recv(4096)
        elif (listener := self.listeners.get(fd)) is not None:
            connection = self._accept(listener)
            if connection is not None and connection.registered:
                self._hand_out(connection)
            elif connection is not None:
                self.conn_queue.put((_raw(connection), connection))
        elif (connection := self._parked.pop(fd, None)) is not None:
            self._hand_out(connection)

    def _park(self, connection: Connection) -> None:
        output = connection.state in FOR_OUTPUT or connection.wants_write
        self._parked[connection.fd] = connection
        event = selectors.EVENT_WRITE if output else selectors.EVENT_READ
        connection.registered = True
        try:
            self._selector.register(connection.fd, event)
        except OSError as error:
            log.error("A connection was dropped, because it cannot wait: %s", error)
            del self._parked[connection.fd]
            connection.close()
            self.forget(connection)

    def _hand_out(self, connection: Connection) -> None:
        connection.registered = False
        self._selector.unregister(connection.fd)
        self.conn_queue.put((_raw(connection), connection))

    def _hand_out_idle(self) -> None:
        for fd, connection in self._parked.copy().items():
            if connection.state is State.IDLE and self._parked.pop(fd, None) is connection:
                self._hand_out(connection)

    def _register_listener(self, fd: int) -> None:
        self._selector.register(fd, selectors.EVENT_READ)
        self._wake_distributor()

    def _unregister(self, fd: int) -> None:
        self._selector.unregister(fd)


def _raw(connection: Connection) -> Any:
    return connection.sock
