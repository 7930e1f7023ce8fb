"""Where connections wait: one poller a process, shared by all its threads.

    park(connection, now)   gives a connection to the poller
    wait(seconds)           takes one that is ready, new or overdue, for the calling thread alone

These two are where ownership passes, and the only place. A connection waits in `_parked`, by its
descriptor, and whoever pops it owns it: an event and the sweep for deadlines cannot both have it.
Who looks through `_parked` sees connections that may be another's a moment later, and descriptors
that may be another connection's: what counts is what the pop gives, and that is never dropped.
Events are one-shot, so the kernel tells one thread, once. The listeners wait in the same poller,
level-triggered and exclusive, so that a connection wakes one thread of one process.

`pollers.EpollPoller` and `pollers.KqueuePoller` are the kernel's ways, `distributor.QueuePoller` is
the portable one.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..connection import Connection, State
from ..errors import ClientDisconnected
from ..net.bound_socket import turn_away
from ..system.readiness import has_input
from . import fork_guard
from .listener import Listener

log = logging.getLogger("threadwell")

# Seconds between two looks at the deadlines: how much later than its deadline a wait may end.
SWEEP = 1.0

if TYPE_CHECKING:
    import ssl

    from .task import AnyTask

ConnectionQueue = queue.Queue[tuple[socket.socket, object]]


class Poller(ABC):
    """What all pollers share: the parked connections, the open ones, the listeners.

    `_parked`, `connections`, `_adopted`, `_parting` and `_passing` are changed, and copied, by
    single operations on a dict and on sets, which are atomic on every CPython. `_lock` guards the
    pausing of the listeners, which is rare.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        #: This is a copy, in a process that the application has forked off: see `forked`.
        self.forked = False
        self.draining = False
        #: While draining: when idle connections are closed, in the seconds of `time.monotonic`.
        self.idle_until = 0.0
        self._linger = 0.0
        #: Set when nothing is listened on and the last connection is gone.
        self.drained = threading.Event()
        self.listeners: dict[int, Listener] = {}
        #: Every open connection, whoever owns it.
        self.connections: set[Connection] = set()
        #: Those that the asyncio side has, and perhaps some that it has closed.
        self._adopted: set[Connection] = set()
        #: Those of `connections` that make room: to be closed, if no request comes just then.
        self._parting: set[Connection] = set()
        self._parked: dict[int, Connection] = {}
        #: The threads whose connection is in nobody's list just now: on its way from the backlog
        #: into `connections`, or from there to the asyncio side, or back.
        self._passing: set[int] = set()
        self._next_sweep = time.monotonic() + SWEEP
        self._overdue: deque[Connection] = deque()
        self._paused = False
        #: The listeners are closed, and what they had accepted is in `connections`.
        self._deaf = False
        #: Other processes listen on the same sockets: after each connection it is their turn.
        self.takes_turns = False
        self._lock = threading.Lock()
        #: Held while room is made for a new connection, so that it costs one idle one only.
        self._evicting = threading.Lock()
        #: Called with a connection that waits before any thread has had it.
        self.opened: Callable[[Connection], None] | None = None
        #: Called about once a second, by whichever thread comes by.
        self.every_second: Callable[[], None] | None = None
        #: Called when there is no room, and no idle connection here that would make some.
        self.when_full: Callable[[], None] | None = None
        fork_guard.watch(self)

    # ---- Called by serving threads --------------------------------------------------------

    @abstractmethod
    def wait(self, seconds: float) -> Connection | AnyTask | None:
        """The next connection that can go on, now the caller's; None when there was none.

        New ones are SERVING; the others are in the state they were parked in. Or an errand.
        """

    @abstractmethod
    def park(self, connection: Connection, now: float) -> None:
        """Take `connection`, which is in a waiting state, until it can go on or its time is up.

        `now` is the time of `time.monotonic`. The caller must not touch the connection
        afterwards, nor look at it: another thread may have it already. What is raised says that
        the connection is still the caller's: `OSError` when the kernel refuses it,
        `ClientDisconnected` when the poller is closed.
        """

    def forget(self, connection: Connection) -> None:
        """`connection` is closed, or another's for good; its place is free."""
        self.connections.discard(connection)
        self._parting.discard(connection)
        self._look_whether_drained()
        if self._paused and not self.draining and not self._is_full():
            self._resume()

    def begin_handoff(self, connection: Connection) -> None:
        """`connection` is ADOPTED, and may come back; until it is closed it takes up a place.

        The server is not drained before the calling thread has said `end_handoff`.
        """
        self._passing.add(threading.get_ident())
        self.release(connection)
        self._adopted.add(connection)
        self.forget(connection)

    def end_handoff(self) -> None:
        """The asyncio side knows of the connection, or never will; or it has given one back."""
        self._passing.discard(threading.get_ident())
        self._look_whether_drained()

    def begin_return(self) -> None:
        """A connection may come back: `adopt_back`. The server is not drained before the calling
        thread has said `end_handoff`."""
        self._passing.add(threading.get_ident())

    def adopt_back(self, connection: Connection, now: float) -> None:
        """`park` for a connection that was handed over."""
        self._adopted.discard(connection)
        connection.registered = False
        self.connections.add(connection)
        self.park(connection, now)

    def _is_full(self) -> bool:
        for connection in self._parting.copy() if self._parting else ():
            if connection.deadline:  # it was served after all, and has another
                self._parting.discard(connection)
        if self._taken_up() < self.limit:
            return False
        self._look_after_adopted()
        return self._taken_up() >= self.limit

    def _taken_up(self) -> int:
        return len(self.connections) - len(self._parting) + len(self._adopted)

    def _look_after_adopted(self) -> None:
        """Whoever has them tells nobody when it closes them."""
        for connection in self._adopted.copy():
            if connection.state is State.CLOSED:
                self._adopted.discard(connection)

    def expect_tasks(self) -> None:  # noqa: B027 - not all must prepare for them
        """There will be some: to be called before the first `submit`, and before anybody waits."""

    def submit(self, task: AnyTask) -> None:
        """Give `task` to whichever thread waits next. Any thread may call."""
        raise NotImplementedError

    def release(self, connection: Connection) -> None:
        """Make the kernel forget a connection that stays open elsewhere."""
        if connection.registered:
            connection.registered = False
            with contextlib.suppress(OSError):
                self._unregister(connection.fd)

    # ---- Called by whoever starts and stops -----------------------------------------------

    def listen(self, listener: Listener) -> None:
        """Accept from `listener` too."""
        with self._lock:
            self.listeners[listener.fileno()] = listener
            if not self._paused:
                self._register_listener(listener.fileno())

    def use_context(self, ssl_context: ssl.SSLContext) -> None:
        """Begin handshakes with `ssl_context` from now on; listeners without TLS stay so."""
        with self._lock:
            for listener in self.listeners.values():
                if listener.ssl_context is not None:
                    listener.ssl_context = ssl_context

    def drain(self, linger: float = 0.0) -> None:
        """Stop listening, and let every idle connection become ready so that it can be closed.

        Not at once but in `linger` seconds: a client that does not know yet may be sending its
        next request, which closing would lose. Connections that the kernel has accepted already
        are served: nobody else will.
        """
        with self._lock:
            if self.draining:
                return
            self._linger = linger
            self.linger(time.monotonic())
            self.draining = True
        turn_away([listener.sock for listener in list(self.listeners.values())])
        with self._lock:
            adopted = self._close_listeners()
            self._deaf = True
        # not under the lock: parking may look at the deadlines, and that at the listeners
        for connection in adopted:
            if self.opened is not None:
                self.opened(connection)
            try:
                self.park(connection, time.monotonic())
            except (OSError, ClientDisconnected):
                connection.close()
                self.forget(connection)
        self._look_whether_drained()
        if not linger:
            self.nudge_idle()

    def linger(self, now: float) -> None:
        """While draining: keep what is idle for as long as was said, from now on.

        For a client whose TLS handshake is done only now, it may have taken long, and whose first
        request cannot have come before.
        """
        if self._linger:
            self.idle_until = now + self._linger

    def _look_whether_drained(self) -> None:
        if self.draining and self._is_empty():
            self.drained.set()

    def _is_empty(self) -> bool:
        """Whether no connection is open, or about to come."""
        # in this order: what comes is expected until it is in `connections`
        return not self.expects_some() and not self.connections

    def expects_some(self) -> bool:
        """Whether connections may come yet, or are on their way into `connections`."""
        return not self._deaf or bool(self._passing)

    @abstractmethod
    def nudge_idle(self) -> None:
        """Make the idle connections ready."""

    @abstractmethod
    def wake(self) -> None:
        """Make every `wait` return, now and from now on."""

    @abstractmethod
    def close(self) -> list[Connection]:
        """Free what the poller holds. No thread may wait any more; once more does no harm.

        The connections that were still parked are the caller's, to be closed.
        """

    def _surrender(self) -> list[Connection]:
        """The connections that wait here, now the caller's."""
        left: list[Connection] = []
        while (connection := self._take_overdue()) is not None:
            left.append(connection)
        while self._parked:
            try:
                left.append(self._parked.popitem()[1])
            except KeyError:  # somebody was quicker
                break
        return left

    def _take_back(self, connection: Connection) -> bool:
        """Whether `connection`, which the kernel has refused, is its parker's again."""
        taken = self._parked.pop(connection.fd, None)
        if taken is connection:
            return True
        if taken is not None:
            self._overdue.append(taken)
        return False

    # ---- Accepting ------------------------------------------------------------------------

    def _accept(self, listener: Listener) -> Connection | None:
        if self._is_full():
            with self._evicting:
                if self._is_full():
                    return self._evict_for(listener)
        thread = threading.get_ident()
        self._passing.add(thread)
        try:
            connection = listener.accept()
            if connection is not None:
                self.connections.add(connection)
        except OSError as error:
            return self._make_room(str(error))
        finally:
            self._passing.discard(thread)
            self._look_whether_drained()
        if connection is not None and self.takes_turns:
            self._stand_back(listener.fileno())
        return connection

    def _stand_back(self, fd: int) -> None:
        """Wait for `fd` behind all others who do.

        The kernel wakes the first that waits, which would be the same each time.
        """
        with self._lock:
            if fd in self.listeners and not self._paused:
                self._unregister(fd)
                self._register_listener(fd)

    def _evict_for(self, listener: Listener) -> Connection | None:
        fd = listener.fileno()
        if fd < 0 or not has_input(fd):
            return None  # several threads are told of one connection, and another has it already
        return self._make_room("as many connections are open as limit_connections allows")

    def _make_room(self, why: str) -> Connection | None:
        """The connection that has been idle the longest, for the caller to close, or to serve.

        When none is idle the listeners pause: new connections stay in the backlog, unasked.
        """
        for fd, connection in self._parked.copy().items():
            if connection.state is not State.IDLE:
                continue
            taken = self._parked.pop(fd, None)
            if taken is None:
                continue
            if taken.state is State.IDLE and not has_input(fd):
                # else its next request has just come
                taken.deadline = 0.0
                self._parting.add(taken)
            return taken
        self._pause(why)
        if self.when_full is not None:
            self.when_full()
        return None

    def _pause(self, why: str) -> None:
        with self._lock:
            if self._paused or self.draining:
                return
            self._paused = True
            log.warning("No new connections are accepted for now: %s", why)
            for fd in self.listeners:
                self._unregister(fd)

    def _resume(self) -> None:
        with self._lock:
            if not self._paused or self.draining:
                return
            for fd in self.listeners:
                with contextlib.suppress(FileExistsError):  # from a try that failed half-way
                    self._register_listener(fd)
            self._paused = False

    def _close_listeners(self) -> list[Connection]:
        adopted: list[Connection] = []
        for fd, listener in self.listeners.items():
            if not self._paused:
                with contextlib.suppress(OSError, ValueError):  # closed by another thread, which
                    self._unregister(fd)  # ends a server that could not start
            adopted += self._adopt_backlog(listener)
            listener.close()
        self.listeners.clear()
        return adopted

    def _adopt_backlog(self, listener: Listener) -> list[Connection]:
        """Take what the kernel has accepted: closing the listener would reset it."""
        adopted: list[Connection] = []
        while not listener.shared:
            try:
                connection = listener.accept()
            except OSError:
                return adopted
            if connection is None:
                return adopted
            self.connections.add(connection)
            connection.become(listener.first_state)
            connection.deadline = time.monotonic() + listener.first_timeout
            adopted.append(connection)
        return adopted

    # ---- Deadlines ------------------------------------------------------------------------

    def _sweep(self, now: float) -> None:
        """Collect the connections whose time is up; `wait` gives them out."""
        self._next_sweep = now + SWEEP
        parting = self.draining and now >= self.idle_until
        for fd, connection in self._parked.copy().items():
            if connection.deadline <= now or (parting and connection.state is State.IDLE):
                taken = self._parked.pop(fd, None)
                if taken is not None:  # another one, perhaps: an early look does it no harm
                    self._overdue.append(taken)
        if self.takes_turns:
            # the kernel may have told a process that was killed before it could accept
            for fd in list(self.listeners):
                self._stand_back(fd)
        if self._adopted:
            self._look_after_adopted()
        if self._paused and not self.draining:
            self._resume()
        if self.every_second is not None:
            self.every_second()

    def _take_overdue(self) -> Connection | None:
        try:
            return self._overdue.popleft()
        except IndexError:
            return None

    # ---- System calls ---------------------------------------------------------------------

    @abstractmethod
    def _register_listener(self, fd: int) -> None: ...

    @abstractmethod
    def _unregister(self, fd: int) -> None: ...


class BlockingPoller(Poller):
    """Where nothing waits: for those who serve sockets that block, or have loops to wait in."""

    def wait(self, seconds: float) -> Connection | None:
        raise NotImplementedError

    def park(self, connection: Connection, now: float) -> None:
        raise NotImplementedError

    def nudge_idle(self) -> None: ...

    def wake(self) -> None: ...

    def close(self) -> list[Connection]:
        return []

    def _register_listener(self, fd: int) -> None: ...

    def _unregister(self, fd: int) -> None: ...


def connection_limit(asked: int) -> int:
    """How many connections may be open: as asked, or what the file descriptors allow."""
    try:
        import resource
    except ImportError:
        return min(asked or 500, 500)  # Windows' select takes 512, and fails of one more
    if asked:
        return asked
    allowed = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    if allowed < 0:  # no limit
        return 2**20
    # the application needs some: a quarter, up to 256
    return max(allowed - min(256, allowed // 4), 1)
