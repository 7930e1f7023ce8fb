"""The processes of a supervisor: starts and ends them, receives their messages, and reaps them.

What is to become of a process is decided in `supervisor` alone.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import NamedTuple

from ..control.endpoint import Endpoint
from ..system.processes import reap_orphans
from ..system.signals import Signals
from . import fork_server, worker_process
from .forking import ServerSpec, fork
from .generation import Child, ForkServer, Generation, Worker
from .phase import Phase
from .pipe import Message, Pipe, pair
from .start_trace import StartTrace
from .statistics import Statistics

# Seconds between the end of a process's pipe and its being reaped.
_REAP_TIMEOUT = 1.0
# Seconds beyond `start_timeout` for a process to print where it hangs.
_TRACEBACK_TIME = 1.0
# Seconds for a process to exit that was told to exit at once.
_LAST_MOMENT = 2.0
# Seconds for a draining worker beyond its `graceful_timeout`.
_EXIT_TIME = 5.0
# Seconds for a fork server to exit.
_FORK_SERVER_EXIT = 2.0


class Children:
    """Generations, their processes, and the pipes to them. The supervisor's thread calls it.

    A `wait` also ends at one of `signals`, which are open, and at a request for `statistics`.
    """

    def __init__(self, spec: ServerSpec, signals: Signals, statistics: Statistics) -> None:
        self.generations: list[Generation] = []
        self._spec = spec
        self._signals = signals
        self._statistics = statistics
        self._preload = spec.config.processes.preload
        self._start_timeout = spec.config.processes.start_timeout
        self._graceful = spec.config.timeouts.graceful
        self._selector = selectors.PollSelector()  # unlike epoll it has no descriptor to inherit
        self._selector.register(signals, selectors.EVENT_READ, None)
        if statistics.monitor is not None:
            self._selector.register(statistics.monitor, selectors.EVENT_READ, None)
        self._watched: list[Endpoint] = []
        self._worker_number = 0
        self._generation_number = 0
        #: Fork servers that were told to exit and are not reaped yet, and when they are killed.
        self._detached: dict[int, float] = {}

    def watch(self, endpoint: Endpoint) -> None:
        """Let `wait` also end when `endpoint` is readable. Forked processes close their copy."""
        self._watched.append(endpoint)
        self._selector.register(endpoint, selectors.EVENT_READ, None)

    def children(self) -> list[Child]:
        """The workers and fork servers of all generations."""
        children: list[Child] = []
        for generation in self.generations:
            children += generation.workers
            if generation.fork_server is not None:
                children.append(generation.fork_server)
        return children

    def kill_all(self) -> None:
        """Kill the processes that are left, and reap those that are children of this one."""
        self._selector.close()
        for child in self.children():
            child.pipe.close()
            child.kill()
            if self._is_own(child) and child.pid is not None:
                os.waitpid(child.pid, 0)
        while self._detached:
            self._signals.wait(max(min(self._detached.values()) - time.monotonic(), 0))
            self._reap_detached(time.monotonic())

    # ---- Starts ---------------------------------------------------------------------------

    def new_generation(self) -> Generation:
        """A generation without processes."""
        self._generation_number += 1
        generation = Generation(self._generation_number)
        self.generations.append(generation)
        return generation

    def start_worker(self, generation: Generation) -> None:
        """Start a worker; the fork server forks it if there is one. Raises `OSError`."""
        self._worker_number += 1
        number = self._worker_number
        with _connect() as ends:
            page = self._statistics.worker_started()
            if generation.fork_server is not None:
                message = {"fork": number, "page": page}
                generation.fork_server.pipe.send(message, (ends.theirs.fileno(), ends.copy))
                pid = None
            else:
                try:
                    pid = self._fork(ends, partial(worker_process.run, page=page))
                except OSError:
                    self._statistics.fork_failed(page)
                    raise
            worker = Worker(Pipe(ends.ours), pid, number, generation, page)
        worker.start_trace = ends.trace
        worker.deadline = self._start_deadline()
        self._selector.register(worker.pipe, selectors.EVENT_READ, worker)
        generation.workers.add(worker)

    def start_fork_server(self, generation: Generation) -> ForkServer:
        """Start the fork server of `generation`. Raises `OSError`."""
        with _connect() as ends:
            pid = self._fork(ends, fork_server.run)
            child = ForkServer(Pipe(ends.ours), pid, generation)
        child.start_trace = ends.trace
        child.deadline = self._start_deadline()
        self._selector.register(child.pipe, selectors.EVENT_READ, child)
        generation.fork_server = child
        return child

    def restart_deadline(self, child: Child) -> None:
        """Count the start of `child` from now, where its code runs: a busy machine may be late."""
        if child.phase is Phase.STARTING and not child.dismissed:
            child.deadline = self._start_deadline()

    def _start_deadline(self) -> float:
        """When a process that starts now must be ready; 0 without a limit."""
        seconds = self._start_timeout
        return time.monotonic() + seconds + _TRACEBACK_TIME if seconds else 0.0

    def _fork(self, ends: _Ends, run: Callable[[ServerSpec, socket.socket, int], int]) -> int:
        def main() -> int:
            ends.ours.close()
            self._signals.close()
            self._statistics.close_copy()
            for each in self._watched:
                each.close_copy()
            return run(self._spec, ends.theirs, ends.copy)

        return fork(main)

    # ---- Ends -----------------------------------------------------------------------------

    def drain(self, worker: Worker) -> None:
        """Let a worker that serves finish its requests, and exit."""
        if worker.phase is Phase.SERVING:
            worker.become(Phase.DRAINING)
            # a worker that hangs must leave its backlog to others, which can serve it
            worker.pipe.send({"drain": True, "take_backlog": not worker.hangs})
            worker.deadline = time.monotonic() + self._graceful + _EXIT_TIME

    def _dismiss(self, worker: Worker) -> None:
        """End a worker that does not serve yet."""
        worker.dismissed = True
        worker.kill(signal.SIGTERM)
        worker.deadline = time.monotonic() + _LAST_MOMENT

    def end_generation(self, generation: Generation) -> None:
        """Drain the workers that serve, and end those that start."""
        for worker in generation.workers:
            if worker.phase is Phase.STARTING:
                self._dismiss(worker)
            else:
                self.drain(worker)

    def cut(self) -> None:
        """Let every process end at once."""
        deadline = time.monotonic() + _LAST_MOMENT
        for child in self.children():
            child.pipe.send({"cut": True})
            child.deadline = deadline

    def kill_overdue(self, child: Child, now: float) -> None:
        """Kill a process that is past its deadline."""
        if child.phase is Phase.STARTING and not child.dismissed:
            child.failed = child.failed or (
                f"{child} was not ready within {self._start_timeout:g} seconds;"
                " give more with start_timeout, if it needs that"
            )
            if child.start_trace is not None:
                child.trace = child.trace or child.start_trace.read()
        child.deadline = now + _LAST_MOMENT
        child.kill()
        if child.pid is None:  # nor will it be known: the end of its pipe ends it
            self.disconnect(child)

    # ---- Messages -------------------------------------------------------------------------

    def wait(self, seconds: float) -> list[Child]:
        """Wait for a signal or a message; return the children that have sent one, or ended."""
        ready = self._selector.select(seconds)
        return [key.data for key, _ in ready if key.data is not None]

    def receive(self, child: Child) -> list[Message]:
        """The messages of `child`. Notes when its end of the pipe was closed."""
        if child.closed_at:
            return []
        messages = child.pipe.receive()
        if child.pipe.ended:
            self.disconnect(child)
        return messages

    def disconnect(self, child: Child) -> None:
        """Read nothing more of `child`. It counts as gone if it does not exit in time."""
        if not child.closed_at:
            self._selector.unregister(child.pipe)
            child.closed_at = time.monotonic()

    def adopt(self, worker: Worker, fork_server: ForkServer, pid: int) -> bool:
        """Take over the `pid` that `fork_server` has reported; False if it cannot be true."""
        if any(child.pid == pid for child in self.children()) or pid in self._detached:
            return False
        assert fork_server.pid is not None
        processes = self._spec.config.processes
        privileged = bool(processes.user or processes.group)
        return worker.adopt(pid, fork_server.pid, privileged=privileged)

    def close(self, child: Child) -> None:
        """Close the pipe to `child`."""
        self.disconnect(child)
        child.pipe.close()
        child.release()

    def detach_fork_server(self, generation: Generation) -> None:
        """Let the fork server exit. Its workers live on, and show their exit by their pipes."""
        detached, generation.fork_server = generation.fork_server, None
        if detached is not None:
            self.close(detached)
            if detached.phase is Phase.STARTING:  # else it sees that the pipe was closed
                detached.kill(signal.SIGTERM)
            assert detached.pid is not None
            self._detached[detached.pid] = time.monotonic() + _FORK_SERVER_EXIT

    # ---- Exits ----------------------------------------------------------------------------

    def exited(self, now: float) -> Iterator[Child]:
        """The children that have exited. The caller receives their messages and closes them."""
        for child in self.children():
            if child.status is None and self._is_own(child):
                assert child.pid is not None
                found, status = os.waitpid(child.pid, os.WNOHANG)
                if found:
                    child.status = os.waitstatus_to_exitcode(status)
            if child.status is not None:
                yield child
            elif child.closed_at and now - child.closed_at >= self._reap_timeout(child):
                if self._is_own(child):
                    child.kill()  # it runs without a pipe; it is reaped by a later call
                else:
                    yield child
        self._reap_detached(now)
        self._reap_orphans()

    def _reap_detached(self, now: float) -> None:
        for pid, deadline in self._detached.copy().items():
            if now >= deadline:  # it waits for a thread that the application has started
                os.kill(pid, signal.SIGKILL)
                self._detached[pid] = now + _FORK_SERVER_EXIT
            if os.waitpid(pid, os.WNOHANG)[0]:
                del self._detached[pid]

    def _reap_timeout(self, child: Child) -> float:
        """How long after the end of its pipe the exit status of `child` may still come."""
        # the fork server reports the status of its workers; without one nothing does
        orphan = isinstance(child, Worker) and child.generation.fork_server is None
        return _REAP_TIMEOUT if self._is_own(child) or not orphan else 0.0

    def _is_own(self, child: Child) -> bool:
        """Whether `child` is a child of this process, and not of the fork server."""
        return isinstance(child, ForkServer) or not self._preload

    def _reap_orphans(self) -> None:
        reap_orphans({child.pid for child in self.children()} | self._detached.keys())


class _Ends(NamedTuple):
    """What connects a process that starts: both ends of a pipe, and a `StartTrace`."""

    ours: socket.socket
    theirs: socket.socket
    trace: StartTrace
    #: The descriptor of the process for `trace`.
    copy: int


@contextlib.contextmanager
def _connect() -> Iterator[_Ends]:
    """For the block in which a process is started. Raises `OSError` without descriptors.

    At its end, what belongs to the process is closed here; if it has failed, all is.
    """
    ours, theirs = pair()
    with contextlib.ExitStack() as unless_started, theirs:
        unless_started.callback(ours.close)
        trace = StartTrace()
        unless_started.callback(trace.close)
        copy = trace.copy()
        try:
            yield _Ends(ours, theirs, trace, copy)
        finally:
            os.close(copy)
        unless_started.pop_all()
