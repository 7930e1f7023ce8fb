"""The pollers of this system: epoll or kqueue, and the choice between them and the portable one."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from abc import abstractmethod
from collections import deque
from typing import TYPE_CHECKING, Any

from ..connection import FOR_OUTPUT, Connection, State
from ..errors import ClientDisconnected
from .base import Poller

if TYPE_CHECKING:
    import ssl

    from .base import ConnectionQueue
    from .task import AnyTask

_IDLE = State.IDLE  # a global name is found more quickly than a member of an Enum


class KernelPoller(Poller):
    """A poller on a kernel queue that many threads can wait on."""

    def __init__(self, limit: int) -> None:
        super().__init__(limit)
        self._waker, self._woken = socket.socketpair()
        self._tasks: deque[AnyTask] = deque()
        #: A pair of sockets whose second end is readable while there are tasks.
        self._task_wakeup: tuple[socket.socket, socket.socket] | None = None
        self._task_fd = -1
        self._closed = False

    @abstractmethod
    def fileno(self) -> int:
        """Readable when `wait` has something to give."""

    def _other(self, fd: int) -> Connection | AnyTask | None:
        """What the event on `fd`, which is of no parked connection, gives the calling thread."""
        listener = self.listeners.get(fd)
        if listener is not None:
            return self._begin_turn(listener)
        return self._take_task() if fd == self._task_fd else None

    def expect_tasks(self) -> None:
        self._task_wakeup = socket.socketpair()
        for end in self._task_wakeup:
            end.setblocking(False)
        self._task_fd = self._task_wakeup[1].fileno()
        self._register_listener(self._task_fd)

    def submit(self, task: AnyTask) -> None:
        self._tasks.append(task)
        if self._closed:  # perhaps after `close` has dropped the tasks
            self._drop_tasks()
        else:
            self._signal_tasks()

    def _drop_tasks(self) -> None:
        with contextlib.suppress(IndexError):
            while True:
                self._tasks.popleft().drop()

    def _signal_tasks(self) -> None:
        if self._task_wakeup is not None:
            with contextlib.suppress(OSError):  # full, and so readable already; or closed
                self._task_wakeup[0].send(b"!")

    def _take_task(self) -> AnyTask | None:
        assert self._task_wakeup is not None
        with contextlib.suppress(OSError):
            self._task_wakeup[1].recv(4096)
        try:
            task = self._tasks.popleft()
        except IndexError:  # another thread was quicker
            return None
        if self._tasks:
            self._signal_tasks()
        return task

    def _nothing_ready(self) -> Connection | None:
        now = time.monotonic()
        if now >= self._next_sweep:
            self._sweep(now)
        return self._take_ahead()

    def wake(self) -> None:
        with contextlib.suppress(OSError):
            self._waker.send(b"!")

    def close(self) -> list[Connection]:
        self._closed = True
        self._waker.close()
        self._woken.close()
        for end in self._task_wakeup or ():
            end.close()
        self._drop_tasks()
        return self._surrender()


class EpollPoller(KernelPoller):
    """Linux. See epoll(7) for EPOLLONESHOT and EPOLLEXCLUSIVE."""

    def __init__(self, limit: int) -> None:
        self._epoll = select.epoll()  # first: it closes itself if the next step fails
        super().__init__(limit)
        self._poll = self._epoll.poll
        self._modify = self._epoll.modify
        self._register = self._epoll.register
        self._epoll.register(self._woken, select.EPOLLIN)
        self._for_input = select.EPOLLIN | select.EPOLLONESHOT
        self._for_output = select.EPOLLOUT | select.EPOLLONESHOT

    def fileno(self) -> int:
        return self._epoll.fileno()

    def wait(self, seconds: float) -> Connection | AnyTask | None:
        if self._ahead and (ahead := self._take_ahead()) is not None:
            return ahead
        for fd, _ in self._poll(seconds, 1):
            connection = self._parked.pop(fd, None)
            return self._other(fd) if connection is None else connection
        return self._nothing_ready()

    def park(self, connection: Connection, now: float) -> None:
        fd = connection.fd
        events = self._for_input
        if (
            connection.state is not _IDLE and connection.state in FOR_OUTPUT
        ) or connection.wants_write:
            events = self._for_output
        if now >= self._next_sweep:
            self._sweep(now)
        registered = connection.registered
        connection.registered = True
        self._parked[fd] = connection  # first: the event may come at once
        try:
            if registered:
                self._modify(fd, events)
            else:
                self._register(fd, events)
        except OSError:
            if self._take_back(connection):
                raise
        except ValueError:  # epoll is closed
            if self._take_back(connection):
                raise ClientDisconnected("the server has stopped") from None
        if self.draining and now >= self.idle_until:
            self.nudge_idle()

    def nudge_idle(self) -> None:
        # an idle connection is always ready for output
        for fd, connection in self._parked.copy().items():
            if connection.state is State.IDLE:
                with contextlib.suppress(OSError, ValueError):
                    self._modify(fd, self._for_input | select.EPOLLOUT)

    def close(self) -> list[Connection]:
        self._epoll.close()
        return super().close()

    def _register_listener(self, fd: int) -> None:
        self._epoll.register(fd, select.EPOLLIN | getattr(select, "EPOLLEXCLUSIVE", 0))

    def _unregister(self, fd: int) -> None:
        self._epoll.unregister(fd)


class KqueuePoller(KernelPoller):
    """macOS and the BSDs. See kqueue(2) for EV_ONESHOT, which also deletes the event."""

    def __init__(self, limit: int) -> None:
        self._kqueue: Any = select.kqueue()  # type: ignore[attr-defined,unused-ignore]
        super().__init__(limit)
        self._change(self._woken.fileno(), "EVFILT_READ", "EV_ADD")

    def fileno(self) -> int:
        return int(self._kqueue.fileno())

    def wait(self, seconds: float) -> Connection | AnyTask | None:
        if self._ahead and (ahead := self._take_ahead()) is not None:
            return ahead
        for event in self._kqueue.control(None, 1, seconds):
            connection = self._parked.pop(event.ident, None)
            return self._other(event.ident) if connection is None else connection
        return self._nothing_ready()

    def park(self, connection: Connection, now: float) -> None:
        fd = connection.fd
        output = connection.state in FOR_OUTPUT or connection.wants_write
        if now >= self._next_sweep:
            self._sweep(now)
        self._parked[fd] = connection
        try:
            self._change(fd, "EVFILT_WRITE" if output else "EVFILT_READ", "EV_ADD", "EV_ONESHOT")
        except OSError:
            if self._take_back(connection):
                raise
        except ValueError:  # the kqueue is closed
            if self._take_back(connection):
                raise ClientDisconnected("the server has stopped") from None
        if self.draining and now >= self.idle_until:
            self.nudge_idle()

    def nudge_idle(self) -> None:
        for fd, connection in self._parked.copy().items():
            if connection.state is State.IDLE:
                with contextlib.suppress(OSError, ValueError):
                    self._change(fd, "EVFILT_WRITE", "EV_ADD", "EV_ONESHOT")

    def close(self) -> list[Connection]:
        self._kqueue.close()
        return super().close()

    def _register_listener(self, fd: int) -> None:
        self._change(fd, "EVFILT_READ", "EV_ADD")

    def _unregister(self, fd: int) -> None:
        for kind in ("EVFILT_READ", "EVFILT_WRITE"):
            with contextlib.suppress(OSError):
                self._change(fd, kind, "EV_DELETE")

    def _change(self, fd: int, kind: str, *flags: str) -> None:
        bits = sum(getattr(select, "KQ_" + flag) for flag in flags)
        event = select.kevent(fd, getattr(select, "KQ_" + kind), bits)  # type: ignore[attr-defined,unused-ignore]
        self._kqueue.control([event], 0)


def make_poller(
    kind: str,
    limit: int,
    conn_queue: ConnectionQueue | None = None,
    ssl_context: ssl.SSLContext | None = None,
) -> Poller:
    """The poller that `kind` names; `auto` is the best that this system has.

    With `conn_queue` it is a `QueuePoller` on that. Raises `OSError` for a poller that this system
    does not have.
    """
    has_epoll, has_kqueue = hasattr(select, "epoll"), hasattr(select, "kqueue")
    if conn_queue is None and (kind == "epoll" or (kind == "auto" and has_epoll)):
        if not has_epoll:
            raise OSError("this system has no epoll; leave the poller at auto")
        return EpollPoller(limit)
    if conn_queue is None and (kind == "kqueue" or (kind == "auto" and has_kqueue)):
        if not has_kqueue:
            raise OSError("this system has no kqueue; leave the poller at auto")
        return KqueuePoller(limit)
    from .distributor import QueuePoller

    return QueuePoller(limit, conn_queue, ssl_context)
