"""Where connections wait: one poller a process, shared by all its threads.

    park(connection, now)   gives a connection to the poller
    wait(seconds)           takes one that is ready, new or overdue, for the calling thread alone

Ownership of a connection passes in these two methods and nowhere else. A connection waits in
`_parked`, by its descriptor. The thread that pops it from there owns it, so an event and the sweep
for deadlines cannot both have it. A thread that iterates over `_parked` sees connections that may
have another owner a moment later, and descriptors that may belong to another connection by then:
only what the pop returns counts, and that is never dropped.

Events are one-shot: the kernel tells one thread, once. The listeners wait in the same poller,
level-triggered and exclusive, so that a new connection wakes one thread of one process.

`kernel.EpollPoller` and `kernel.KqueuePoller` use the kernel's queues; `distributor.QueuePoller` is
portable.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from abc import ABC, abstractmethod
from collections import deque
from typing import TYPE_CHECKING

from ..connection import Connection, State
from ..deadlines import is_overdue
from ..errors import ClientDisconnected
from ..net.bound_socket import refuse_connections
from ..system.readiness import has_input
from . import fork_guard
from .listener import Listener

log = logging.getLogger("threadwell")

# Seconds between two looks at the deadlines: how much later than its deadline a wait may end.
SWEEP = 1.0

if TYPE_CHECKING:
    import queue
    import ssl
    from collections.abc import Callable, Sequence

    from .task import AnyTask

    ConnectionQueue = queue.Queue[tuple[socket.socket, object]]


class Poller(ABC):
    """What all pollers share: the parked connections, the open ones, the listeners.

    `_parked`, `connections`, `_adopted`, `_parting` and `_passing` are changed, and copied, by
    single operations on a dict and on sets, which are atomic on every CPython. `_lock` guards the
    pausing of the listeners, which is rare.
    """

    #: Threads wait for a queue, which wakes one of them for each connection.
    has_queue = False

    def __init__(self, limit: int) -> None:
        self.limit = limit
        #: This is a copy, in a process that the application has forked off: see `fork_guard`.
        self.forked = False
        self.draining = False
        #: While draining: when idle connections are closed, in the seconds of `time.monotonic`.
        self.idle_until = 0.0
        self._linger = 0.0
        #: Set when nothing is listened on and the last connection is gone.
        self.drained = threading.Event()
        self.listeners: dict[int, Listener] = {}
        #: Every open connection, in any state.
        self.connections: set[Connection] = set()
        #: Those that the asyncio side has adopted, and perhaps some that it has closed since.
        self._adopted: set[Connection] = set()
        #: Those of `connections` that are closed to make room, unless a request arrives first.
        self._parting: set[Connection] = set()
        self._parked: dict[int, Connection] = {}
        #: The threads whose connection is in no list at the moment: on its way from the backlog
        #: into `connections`, or from there to the asyncio side, or back.
        self._passing: set[int] = set()
        self._next_sweep = time.monotonic() + SWEEP
        #: What `wait` gives before it asks the kernel: overdue connections, and a listener for
        #: each connection that may still be accepted in its turn.
        self._ahead: deque[Connection | Listener] = deque()
        self._paused = False
        #: The listeners are closed, and the connections of their backlog are in `connections`.
        self._deaf = False
        #: Other processes listen on the same sockets: each accepts in its turn.
        self.takes_turns = False
        #: How many processes that are, with this one.
        self.sharers = 1
        self._lock = threading.Lock()
        #: Held while room is made for a new connection, so that only one idle one is closed.
        self._evicting = threading.Lock()
        #: Called with a connection that is parked before any thread has served it.
        self.opened: Callable[[Connection], None] | None = None
        #: Called about once a second, on any of the polling threads.
        self.every_second: Callable[[], None] | None = None
        #: The states in which a connection is closed to make room, in this order.
        self.evicted_states: Sequence[State] = (State.IDLE,)
        #: Called when there is no room, and no idle connection here that could be closed.
        self.when_full: Callable[[], None] | None = None
        fork_guard.watch(self)

    # ---- Called by serving threads --------------------------------------------------------

    @abstractmethod
    def wait(self, seconds: float) -> Connection | AnyTask | None:
        """The next connection that can go on, which the caller owns now, or a task to run.

        A new connection is SERVING; any other is in the state in which it was parked. None after
        `seconds` without either.
        """

    @abstractmethod
    def park(self, connection: Connection, now: float) -> None:
        """Take `connection`, which is in a waiting state, until it can go on or its time is up.

        `now` is the time of `time.monotonic`. The caller must not touch the connection
        afterwards, nor look at it: another thread may own it already. If this raises, the
        connection is still the caller's: `OSError` when the kernel refuses it,
        `ClientDisconnected` when the poller is closed.
        """

    def forget(self, connection: Connection) -> None:
        """Free the place of `connection`, which is closed or has left for good."""
        self.connections.discard(connection)
        if self._parting:
            self._parting.discard(connection)
        if self.draining:
            self._look_whether_drained()
        if self._paused and not self.draining and not self._is_full():
            self._resume()

    def begin_handoff(self, connection: Connection) -> None:
        """`connection`, which is ADOPTED, goes to the asyncio side and may return.

        It counts against the limit until it is closed. The poller is not drained before the
        calling thread has called `end_handoff`.
        """
        self._passing.add(threading.get_ident())
        self.release(connection)
        self._adopted.add(connection)
        self.forget(connection)

    def end_handoff(self) -> None:
        """End what `begin_handoff` or `begin_return` has begun, whether it succeeded or not."""
        self._passing.discard(threading.get_ident())
        self._look_whether_drained()

    def begin_return(self) -> None:
        """A connection may return by `adopt_back`. The poller is not drained before the calling
        thread has called `end_handoff`."""
        self._passing.add(threading.get_ident())

    def adopt_back(self, connection: Connection, now: float) -> None:
        """`park` for a connection that the asyncio side had adopted."""
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
        # the asyncio side does not report the connections that it closes
        for connection in self._adopted.copy():
            if connection.state is State.CLOSED:
                self._adopted.discard(connection)

    def expect_tasks(self) -> None:  # noqa: B027 - not all must prepare for them
        """Prepare for `submit`. Called before any thread waits."""

    def submit(self, task: AnyTask) -> None:
        """Give `task` to the next thread that waits. Any thread may call."""
        raise NotImplementedError

    def release(self, connection: Connection) -> None:
        """Make the kernel forget a connection that stays open elsewhere."""
        if connection.registered:
            connection.registered = False
            with contextlib.suppress(OSError):
                self._unregister(connection.fd)

    # ---- Starting and stopping: any thread ------------------------------------------------

    def listen(self, listener: Listener) -> None:
        """Accept connections from `listener` too."""
        with self._lock:
            self.listeners[listener.fileno()] = listener
            if not self._paused:
                self._register_listener(listener.fileno())

    def use_context(self, ssl_context: ssl.SSLContext) -> None:
        """Use `ssl_context` for new handshakes. Listeners without TLS stay without."""
        with self._lock:
            for listener in self.listeners.values():
                if listener.ssl_context is not None:
                    listener.ssl_context = ssl_context

    def drain(self, linger: float = 0.0) -> None:
        """Stop listening, and make every idle connection ready so that it can be closed.

        They are closed after `linger` seconds: a client that does not know of the end may be
        sending its next request, which an earlier close would lose. Connections that the kernel
        has accepted already are served: no other process will.
        """
        with self._lock:
            if self.draining:
                return
            self._linger = linger
            self.linger(time.monotonic())
            self.draining = True
        refuse_connections([listener.sock for listener in list(self.listeners.values())])
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
        """While draining: restart the `linger` seconds of `drain`.

        Called when a TLS handshake is complete: the client cannot have sent its first request
        before that.
        """
        if self._linger:
            self.idle_until = now + self._linger

    def _look_whether_drained(self) -> None:
        if self.draining and self._is_empty():
            self.drained.set()

    def _is_empty(self) -> bool:
        """Whether no connection is open, or about to be."""
        # in this order: a new connection is expected until it is in `connections`
        return not self.expects_some() and not self.connections

    def expects_some(self) -> bool:
        """Whether connections may still arrive, or are on their way into `connections`."""
        return not self._deaf or bool(self._passing)

    @abstractmethod
    def nudge_idle(self) -> None:
        """Make the idle connections ready."""

    @abstractmethod
    def wake(self) -> None:
        """Make every `wait` return, now and from now on."""

    @abstractmethod
    def close(self) -> list[Connection]:
        """Free what the poller holds. No thread may wait any more. May be called repeatedly.

        Returns the connections that were still parked, for the caller to close.
        """

    def _surrender(self) -> list[Connection]:
        """The connections that wait here, which the caller owns now."""
        left: list[Connection] = []
        while self._ahead:
            ahead = self._ahead.popleft()
            if isinstance(ahead, Connection):
                left.append(ahead)
        while self._parked:
            try:
                left.append(self._parked.popitem()[1])
            except KeyError:  # another thread was quicker
                break
        return left

    def _take_back(self, connection: Connection) -> bool:
        """Whether the thread that parked `connection`, which the kernel refused, owns it again."""
        taken = self._parked.pop(connection.fd, None)
        if taken is connection:
            return True
        if taken is not None:
            self._ahead.append(taken)
        return False

    # ---- Accepting ------------------------------------------------------------------------

    def _accept(self, listener: Listener) -> Connection | None:
        # the plain count first, which is never too low
        if len(self.connections) + len(self._adopted) >= self.limit and self._is_full():
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
            if self.draining:
                self._look_whether_drained()
        if connection is not None and self.takes_turns:
            self._stand_back(listener.fileno())
        return connection

    def _begin_turn(self, listener: Listener) -> Connection | None:
        """`_accept`; the next calls of `wait` accept what else is in the backlog.

        So new connections are served where the listener was in the kernel's queue of what is ready.
        They stay in the backlog until a thread is free, and other processes may take them.
        """
        connection = self._accept(listener)
        if connection is not None and listener not in self._ahead:
            more = listener.rest_of_turn(self.sharers)
            if more:
                self._ahead.extend([listener] * more)
        return connection

    def _accept_ahead(self, listener: Listener) -> Connection | None:
        connection = self._accept(listener)
        if connection is None:  # other processes have taken the rest, or there is no room
            with contextlib.suppress(ValueError):
                while True:
                    self._ahead.remove(listener)
        return connection

    def _stand_back(self, fd: int) -> None:
        """Wait for `fd` behind all other processes that do.

        The kernel wakes the first waiter, which would otherwise be the same each time.
        """
        with self._lock:
            if fd in self.listeners and not self._paused:
                self._unregister(fd)
                self._register_listener(fd)

    def _evict_for(self, listener: Listener) -> Connection | None:
        fd = listener.fileno()
        if fd < 0 or not has_input(fd):
            return None  # several threads were told of one connection, and another took it
        return self._make_room("as many connections are open as limit_connections allows")

    def _make_room(self, why: str) -> Connection | None:
        """The connection that has been idle the longest, for the caller to close or to serve.

        When none is idle the listeners pause: new connections stay in the backlog.
        """
        for state in self.evicted_states:
            taken = self._take_oldest(state)
            if taken is None:
                continue
            if taken.state is not State.IDLE:
                taken.disconnect()  # the caller finds it ended, and closes it
            elif not has_input(taken.fd):
                # otherwise its next request has just arrived
                taken.deadline = 0.0
                self._parting.add(taken)
            return taken
        self._pause(why)
        if self.when_full is not None:
            self.when_full()
        return None

    def _take_oldest(self, state: State) -> Connection | None:
        """Take the connection that has waited longest in `state`; None without one."""
        for fd, connection in self._parked.copy().items():
            if connection.state is state:
                taken = self._parked.pop(fd, None)
                if taken is not None:
                    return taken
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
                with contextlib.suppress(FileExistsError):  # an earlier call failed half-way
                    self._register_listener(fd)
            self._paused = False

    def _close_listeners(self) -> list[Connection]:
        adopted: list[Connection] = []
        for fd, listener in self.listeners.items():
            if not self._paused:
                # another thread, which ends a server that could not start, may have closed it
                with contextlib.suppress(OSError, ValueError):
                    self._unregister(fd)
            adopted += self._adopt_backlog(listener)
            listener.close()
        self.listeners.clear()
        return adopted

    def _adopt_backlog(self, listener: Listener) -> list[Connection]:
        """Take the connections that the kernel has accepted: closing the listener would reset
        them."""
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
        """Collect the overdue connections, which `wait` then returns."""
        self._next_sweep = now + SWEEP
        parting = self.draining and now >= self.idle_until
        for fd, connection in self._parked.copy().items():
            if is_overdue(connection, now) or (parting and connection.state is State.IDLE):
                taken = self._parked.pop(fd, None)
                if taken is not None:  # perhaps another connection: an early look does no harm
                    self._ahead.append(taken)
        if self.takes_turns:
            # the kernel may have woken a process that was killed before it could accept
            for fd in list(self.listeners):
                self._stand_back(fd)
        if self._adopted:
            self._look_after_adopted()
        if self._paused and not self.draining:
            self._resume()
        if self.every_second is not None:
            self.every_second()

    def _take_ahead(self) -> Connection | None:
        try:
            ahead = self._ahead.popleft()
        except IndexError:  # another thread was quicker
            return None
        return ahead if isinstance(ahead, Connection) else self._accept_ahead(ahead)

    # ---- System calls ---------------------------------------------------------------------

    @abstractmethod
    def _register_listener(self, fd: int) -> None: ...

    @abstractmethod
    def _unregister(self, fd: int) -> None: ...


class BlockingPoller(Poller):
    """A poller in which nothing waits: for sockets that block, and for event loops."""

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
