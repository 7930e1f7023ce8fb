"""Which threads serve: who polls, who steps in, and who is lent to a long response.

`threads` seats; a thread needs one to poll and to run requests. A long response gives its seat up
(`lend`), and another thread, started if there is none, takes it.

* Eager: every seated thread waits on the poller. Always right on free-threaded Python.
* Reluctant: with the GIL, each event would wake a thread to fight for it. So one leader polls and
  serves in a tight loop, and a deputy looks at it about once a millisecond while there is work,
  and steps in when the leader has been inside one call for a whole tick: blocked on a database,
  computing, or streaming. The others wait in line behind the deputy and cost nothing.

Where such calls are the rule, the rota turns eager, and back when they are not.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

# Seconds. The first tick after a change is short; while all goes well they grow longer.
_SHORTEST_TICK = 0.001
_LONGEST_TICK = 0.004
#: A call that takes longer is one that others should not wait for.
LONG_CALL = _SHORTEST_TICK

# Of the last 32 ticks, how many must have found the leader stuck before all threads wait eagerly;
# and of a batch of calls timed in eager mode, how few may be long before one thread will do.
_ALL_TICKS = (1 << 32) - 1
_STUCK_TICKS = 8
_CALLS_OBSERVED = 256
_LONG_CALLS = 16

# Threads kept for the next long responses when the last have ended.
_SPARE_THREADS = 4


class Slot(Protocol):
    """What the rota knows of a serving thread. Written by that thread, read by the deputy."""

    events_taken: int  # counts the events it has taken

    @property
    def serving(self) -> object: ...  # what it is at; None while it waits for an event

    seated: bool  # it holds a seat; False while it is lent, or waits for its turn


class LeaderFollower:
    """Shared by the threads of a process.

    `_lock` guards the counters, `leader` and `deputy_asleep`.

    `spawn` starts one more thread that will call `acquire_slot`.
    """

    def __init__(
        self, threads: int, max_streams: int, spawn: Callable[[], None], *, gil: bool
    ) -> None:
        self.threads = threads
        self._max_streams = max_streams
        self._spawn = spawn
        #: Eager for good, so that nobody need time anything.
        self.always_eager = not gil
        self.eager = not gil
        self.leader: Slot | None = None
        #: The deputy sleeps: whoever begins to work wakes it.
        self.deputy_asleep = False
        self.lent = 0
        self._lock = threading.Lock()
        self._deputy_lock = threading.Lock()  # held by the deputy; the others wait for it
        self._deputy_wakeup = (
            threading.Lock()
        )  # held, but for the moment in which the deputy is woken
        self._deputy_wakeup.acquire()
        self._total = 0
        self._taken = 0
        self._stopping = False
        self._tick = _SHORTEST_TICK
        self._ticks = 0  # a bit a tick, 1 for a stuck leader
        self._calls = 0
        self._long_calls = 0

    # ---- Called by serving threads --------------------------------------------------------

    def joined(self) -> None:
        """A thread that was not spawned by the rota is about to call `acquire_slot`."""
        with self._lock:
            self._total += 1

    def acquire_slot(self, slot: Slot, *, permanent: bool = False) -> bool:
        """Block until the calling thread has a seat and may poll; False: it must end.

        Threads that were started for long responses end when they are too many, but for those that
        are `permanent`.
        """
        if not permanent and self._is_surplus():
            return False
        with self._deputy_lock:
            while not self._stopping:
                if self._take_slot(slot):
                    return True
                self._watch()
        with self._lock:
            self._total -= 1
        return False

    def leave(self, slot: Slot) -> None:
        """The calling thread has ended its turn: it was deposed, or must end."""
        with self._lock:
            if self.leader is slot:
                self.leader = None
            if slot.seated:
                slot.seated = False
                self._taken -= 1
        self.wake()

    def wake(self) -> None:
        """Let a sleeping deputy look again."""
        with self._lock:
            if self.deputy_asleep:
                self.deputy_asleep = False
                self._deputy_wakeup.release()

    def lend(self, slot: Slot) -> bool:
        """The calling thread begins a long response; False: there are too many of them."""
        with self._lock:
            if self.lent >= self._max_streams or self._stopping:
                return False
            self.lent += 1
            self._taken -= 1
            slot.seated = False
            short = self._total - self.lent < self.threads
            if short:
                self._total += 1
        if short:
            try:
                self._spawn()
            except RuntimeError:  # the system has no more threads
                with self._lock:
                    self._total -= 1
                self.release_slot(slot)
                return False
        if self.deputy_asleep:
            self.wake()
        return True

    def release_slot(self, slot: Slot) -> bool:
        """The long response is over; whether the calling thread may serve on, or ends its turn."""
        with self._lock:
            self.lent -= 1
            if self._taken < self.threads and (self.eager or self.leader is slot):
                self._taken += 1
                slot.seated = True
            return slot.seated

    def observe(self, slot: Slot, seconds: float) -> None:
        """In eager mode with a GIL: a call took so long. Long ones rare, one leader will do."""
        if seconds > LONG_CALL:
            self._long_calls += 1
        self._calls += 1
        if self._calls < _CALLS_OBSERVED:
            return
        with self._lock:
            if self._long_calls <= _LONG_CALLS and slot.seated and self.eager:
                self.eager = False
                self.leader = slot
                self._ticks = 0
            self._calls = self._long_calls = 0

    # ---- Called by whoever stops the server -----------------------------------------------

    def stop(self) -> None:
        """Let every thread end that comes to `acquire_slot`, or waits there."""
        with self._lock:
            self._stopping = True
            self.leader = None
            self.eager = False
        self.wake()

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping

    # ---- The head of the line: the deputy -------------------------------------------------

    def _take_slot(self, slot: Slot) -> bool:
        with self._lock:
            # `stop` may have come since the caller looked, and nobody would end that turn
            if self._stopping:
                return False
            if self._taken >= self.threads or not (self.eager or self.leader is None):
                return False
            if not self.eager:
                self.leader = slot
            self._taken += 1
            slot.seated = True
            return True

    def _is_surplus(self) -> bool:
        with self._lock:
            if self._total - self.lent <= self.threads + _SPARE_THREADS:
                return False
            self._total -= 1
            return True

    def _watch(self) -> None:
        """Watch the leader while it gets on. May free its place, or make the rota eager."""
        leader = self.leader
        if leader is None or self._taken >= self.threads:
            self._sleep(leader, -1)
            return
        while True:
            events_taken = leader.events_taken
            self._deputy_wakeup.acquire(timeout=self._tick)
            if self.leader is not leader:
                return
            if leader.events_taken == events_taken:
                break
            if self._tick < _LONGEST_TICK:
                self._tick *= 2
            self._ticks = self._ticks << 1 & _ALL_TICKS
        if leader.serving is None:
            self._sleep(leader, events_taken)
        else:
            self._depose(leader)

    def _depose(self, leader: Slot) -> None:
        """The leader is stuck: free its place at the poller, which the deputy then takes."""
        with self._lock:
            if self.leader is not leader or self._taken >= self.threads:
                return
            self.leader = None
            self._tick = _SHORTEST_TICK
            # a lent thread is meant to be away, and says nothing about the calls of the others
            self._ticks = (self._ticks << 1 | leader.seated) & _ALL_TICKS
            if self._ticks.bit_count() >= _STUCK_TICKS:
                self.eager = True
                self._calls = self._long_calls = 0

    def _sleep(self, leader: Slot | None, events_taken: int) -> None:
        """Until `wake`: there is no work to watch over, or no seat to take."""
        with self._lock:
            if self._stopping:
                return
            self.deputy_asleep = True
        # whatever happened before `deputy_asleep` was set did not wake anybody: look again
        if leader is None or events_taken < 0:
            missed = self._taken < self.threads
        else:
            missed = (
                self.leader is not leader
                or leader.events_taken != events_taken
                or leader.serving is not None
            )
        if missed:
            self.wake()
        self._deputy_wakeup.acquire()
