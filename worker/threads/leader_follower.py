"""Which threads serve: the leader, its deputy, the followers, and those lent to long responses.

There are `threads` slots. A thread needs one to poll and to run requests. A long response gives its
slot up (`lend`); another thread takes it, and is started if there is none.

* Eager: every thread with a slot waits on the poller. This is always right on free-threaded Python.
* Reluctant: with the GIL, each event would wake a thread that then fights for it. So one leader
  polls and serves in a tight loop. A deputy looks at the leader about once a millisecond while
  there is work. It takes the poller over when the leader has been inside one call for a whole
  tick: blocked on a database, computing, or streaming. The other threads wait behind the deputy
  and cost nothing.

Where such calls are the rule, all threads wait eagerly, until the calls are short again.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

# Seconds. The first tick after a change is short; ticks grow while the leader gets on.
_SHORTEST_TICK = 0.001
_LONGEST_TICK = 0.004
#: Seconds. Other requests should not wait for a call that takes longer.
LONG_CALL = _SHORTEST_TICK

# All threads wait eagerly once this many of the last 32 ticks have found the leader stuck. One
# leader polls again once at most `_LONG_CALLS` of a batch of calls timed in eager mode were long.
_ALL_TICKS = (1 << 32) - 1
_STUCK_TICKS = 8
_CALLS_OBSERVED = 256
_LONG_CALLS = 16

# How many threads above `threads` are kept for the next long responses.
_SPARE_THREADS = 4


class Slot:
    """One serving thread as `LeaderFollower` sees it.

    The thread itself writes `events_taken`, `serving` and `request`, and others read them. The rest
    is written under the lock of `LeaderFollower`.
    """

    __slots__ = ("events_taken", "lent", "lost", "request", "seated", "serving")

    def __init__(self) -> None:
        #: Counts the events that the thread has taken from the poller.
        self.events_taken = 0
        #: The connection or task that the thread serves; None while it waits for an event.
        self.serving: object = None
        #: What `threads.tracking` notes of the request that the thread runs; None without one.
        self.request: object = None
        #: The thread holds a slot. False while it is lent, or waits for one.
        self.seated = False
        #: The thread runs a long response, for which it has given its slot up.
        self.lent = False
        #: A long response is over, and other threads have all the slots.
        self.lost = False


class LeaderFollower:
    """Shared by the threads of a pool. `_lock` guards the counters, `leader` and `deputy_asleep`.

    `spawn` starts one more thread, which calls `acquire_slot`; it raises `RuntimeError` when the
    system has no thread left.
    """

    def __init__(
        self, threads: int, max_streams: int, spawn: Callable[[], None], *, gil: bool
    ) -> None:
        self.threads = threads
        self._max_streams = max_streams
        self._spawn = spawn
        #: Eager for good: no need to time calls.
        self.always_eager = not gil
        self.eager = not gil
        self.leader: Slot | None = None
        #: The deputy sleeps. A thread that begins to work wakes it.
        self.deputy_asleep = False
        self.lent = 0
        self._lock = threading.Lock()
        # Held by the deputy; the threads behind it wait for it.
        self._deputy_lock = threading.Lock()
        # Held, except in the moment in which the deputy is woken.
        self._deputy_wakeup = threading.Lock()
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
        """Count a thread that was not started by `spawn`, before it calls `acquire_slot`."""
        with self._lock:
            self._total += 1

    def acquire_slot(self, slot: Slot, *, permanent: bool = False) -> bool:
        """Block until the calling thread has a slot and may poll. False: the thread must end.

        Threads that were started for long responses end when there are too many of them;
        `permanent` ones never do.
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
        """Give the slot back. The calling thread was deposed, or is about to end."""
        with self._lock:
            if self.leader is slot:
                self.leader = None
            if slot.seated:
                slot.seated = False
                self._taken -= 1
        self.wake()

    def wake(self) -> None:
        """Wake a sleeping deputy."""
        with self._lock:
            if self.deputy_asleep:
                self.deputy_asleep = False
                self._deputy_wakeup.release()

    def lend(self, slot: Slot) -> bool:
        """Give the calling thread's slot to another thread, for the time of a long response.

        False: as many are lent as may be, or nobody would be left, and no thread can be started.
        """
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
                    alone = self._total <= self.lent
                if alone:
                    self.release_slot(slot)
                    return False
        if self.deputy_asleep:
            self.wake()
        slot.lent = True
        return True

    def release_slot(self, slot: Slot) -> bool:
        """End the lending. Whether the calling thread has a slot again; else `slot.lost` is set."""
        with self._lock:
            self.lent -= 1
            if self._taken < self.threads and (self.eager or self.leader is slot):
                self._taken += 1
                slot.seated = True
            slot.lent = False
            slot.lost = not slot.seated
            return slot.seated

    def observe(self, slot: Slot, seconds: float) -> None:
        """Note in eager mode, with a GIL, how long a call took. Return to one leader if most are
        short."""
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

    # ---- Any thread -------------------------------------------------------------------------

    def stop(self) -> None:
        """End every thread that waits in `acquire_slot`, or comes to it."""
        with self._lock:
            self._stopping = True
            self.leader = None
            self.eager = False
        self.wake()

    @property
    def stopping(self) -> bool:
        """Whether `stop` was called."""
        return self._stopping

    # ---- The deputy: the thread that holds `_deputy_lock` -----------------------------------

    def _take_slot(self, slot: Slot) -> bool:
        with self._lock:
            # `stop` may have been called since the caller looked: nothing would end the polling
            if self._stopping:
                return False
            if self._taken >= self.threads or not (self.eager or self.leader is None):
                return False
            if not self.eager:
                self.leader = slot
            self._taken += 1
            slot.seated = True
            slot.lost = False
            return True

    def _is_surplus(self) -> bool:
        with self._lock:
            if self._total - self.lent <= self.threads + _SPARE_THREADS:
                return False
            self._total -= 1
            return True

    def _watch(self) -> None:
        """Watch the leader while it gets on. May depose it, or switch to eager mode."""
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
        """Depose a leader that is stuck in a call: the deputy then takes its place."""
        with self._lock:
            if self.leader is not leader or self._taken >= self.threads:
                return
            self.leader = None
            self._tick = _SHORTEST_TICK
            # a lent thread is away on purpose, and says nothing about how long calls take
            self._ticks = (self._ticks << 1 | leader.seated) & _ALL_TICKS
            if self._ticks.bit_count() >= _STUCK_TICKS:
                self.eager = True
                self._calls = self._long_calls = 0

    def _sleep(self, leader: Slot | None, events_taken: int) -> None:
        """Sleep until `wake`: there is no work to watch, or no slot to take."""
        with self._lock:
            if self._stopping:
                return
            self.deputy_asleep = True
        # what happened before `deputy_asleep` was set woke nobody: look again
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
