"""How much of responses may wait in memory for the client of a connection, and for all clients.

A client that opens no window, or does not read, leaves all that it has requested in the memory of
the server until `write_timeout`. Over HTTP/2 a single connection can request a hundred responses at
once. So every octet that waits is counted, and

* a connection that exceeds its budget begins further requests only as its client takes something;
* while all connections together exceed the budget of the process, that holds for each connection
  of which something waits, and those that hold the most lose responses: see `HTTP2Sender.shed`.
"""

from __future__ import annotations

import threading

# What counts as progress of a client: a window that is opened octet by octet is none.
_STEP = 16 * 1024
# For each request that begins beyond the budget the client must take a step, or this part of what
# waits. The window that a stream has at first (64 KiB) pays for few: 100 responses of 5 MB each,
# of which a client takes that much, end at about twice the default.
_PART_FOR_A_REQUEST = 256
# While the process exceeds its budget, the client must take a step, or this part of what waits, in
# so many seconds. So clients can hold beyond it only what they take within about two minutes.
_PATIENCE = 2.0
_PART_IN_TIME = 64
# While the process exceeds its budget, this part of a connection's own budget is free to use, even
# if that many clients share the budget of the process that each would have less.
_LEAST_SHARE = 16


class ProcessBudget:
    """What waits for all clients of a server. Any thread may call."""

    __slots__ = ("_clients", "_lock", "limit", "waiting")

    def __init__(self, limit: int) -> None:
        self._lock = threading.Lock()
        self._clients = 0
        #: How many octets may wait.
        self.limit = limit
        #: How many octets wait.
        self.waiting = 0

    def is_exceeded(self) -> bool:
        """Whether more waits than may."""
        return self.waiting > self.limit

    def share(self) -> int:
        """The part of the limit for each client of which something waits."""
        return self.limit // max(self._clients, 1)

    def is_average(self, size: int) -> bool:
        """Whether a client for which `size` octets wait has at least the average of all."""
        return size * self._clients >= self.waiting

    def count(self, budget: SendBudget, size: int) -> None:
        """Count `size` more octets for the connection of `budget`; fewer if it is negative."""
        with self._lock:
            before = budget.waiting
            budget.waiting = before + size
            self.waiting += size
            self._clients += (before + size > 0) - (before > 0)


class SendBudget:
    """What waits for the client of one connection. Any thread may call `count`, and one thread at a
    time `admits`; all else belongs to the loop."""

    __slots__ = (
        "_checked",
        "_least",
        "_limit",
        "_process",
        "_progresses",
        "_stalled_since",
        "_takes_at",
        "holds",
        "taken",
        "waiting",
    )

    def __init__(self, limit: int, process: ProcessBudget) -> None:
        self._limit = limit
        self._least = limit // _LEAST_SHARE
        self._process = process
        #: How many octets wait in memory, and how many octets the client has taken so far.
        self.waiting = self.taken = 0
        #: A request was not admitted.
        self.holds = False
        # the count of `taken` from which on the next request may begin beyond the budget
        self._takes_at = 0
        # whether the client was seen to make progress; the count of `taken` when it was; and since
        # when it was not, None while nothing waits
        self._progresses = False
        self._checked = 0
        self._stalled_since: float | None = None

    def count(self, size: int) -> None:
        """Count `size` more octets that wait, or fewer if it is negative."""
        self._process.count(self, size)

    # ---- Further requests -----------------------------------------------------------------

    def has_room(self) -> bool:
        """Whether a request may begin."""
        waiting = self.waiting
        if waiting <= self._limit and not (waiting and self._process.is_exceeded()):
            return True
        return self.taken >= self._takes_at

    def admits(self) -> bool:
        """Whether a request may begin; the caller begins it then. Otherwise `holds` is set."""
        if not self.has_room():
            # before the second look: the loop counts what is taken, and looks at `holds` then
            self.holds = True
            if not self.has_room():
                return False
        self._takes_at = self.taken + max(_STEP, self.waiting // _PART_FOR_A_REQUEST)
        return True

    # ---- Responses that are given up ------------------------------------------------------

    def is_excess(self) -> bool:
        """Whether the process exceeds its budget, and this connection its own. Where the client
        makes no progress, the connection has no more than its share of that of the process."""
        waiting, process = self.waiting, self._process
        if waiting <= self._least or not process.is_exceeded():
            return False
        return waiting > self._limit or (
            not self._progresses and waiting > max(self._least, process.share())
        )

    def is_share_of_excess(self) -> bool:
        """Whether the process exceeds its budget, and this connection has at least the average."""
        process = self._process
        return process.is_exceeded() and process.is_average(self.waiting)

    def is_stalled(self, now: float) -> bool:
        """Whether the client has taken too little for a while. Called about once a second."""
        waiting, taken = self.waiting, self.taken
        progresses = taken - self._checked >= max(_STEP, waiting // _PART_IN_TIME)
        if progresses or not waiting or self._stalled_since is None:
            self._progresses = progresses
            self._checked = taken
            self._stalled_since = now if waiting else None
            return False
        if now < self._stalled_since + _PATIENCE:
            return False
        self._progresses = False
        return True
