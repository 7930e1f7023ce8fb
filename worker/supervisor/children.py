"""The processes of a supervisor: how they are born, listened to, and found dead.

What should become of them is the supervisor's to say; nothing is decided here.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial

from ..system.signals import Signals
from . import fork_server, worker_process
from .forking import Job, fork
from .generation import Child, Generation, Template, Worker
from .phase import Phase
from .pipe import Channel, Message, pair
from .statistics import Statistics

# Seconds between the end of a child's line and its being reaped.
_BURIAL = 1.0
# Seconds for a process that is late to say where it is.
_LAST_WORDS = 1.0
# Seconds for a template to end.
_PARTING = 2.0


class Children:
    """Generations, their children, and the lines to them. Belongs to the supervisor's thread.

    `signals`, which are open, end a `wait` too, and so does who asks for the `statistics`.
    """

    def __init__(self, job: Job, signals: Signals, statistics: Statistics) -> None:
        self.generations: list[Generation] = []
        self._job = job
        self._signals = signals
        self._books = statistics
        self._preload = job.config.processes.preload
        self._patience = job.config.processes.start_timeout
        self._selector = selectors.PollSelector()  # which leaves nothing behind in a child
        self._selector.register(signals, selectors.EVENT_READ, None)
        if statistics.monitor is not None:
            self._selector.register(statistics.monitor, selectors.EVENT_READ, None)
        self._workers_made = 0
        self._generations_made = 0
        #: Templates that were hung up on and not reaped yet, and when they are killed.
        self._strays: dict[int, float] = {}

    def children(self) -> list[Child]:
        """All of them, of all generations."""
        children: list[Child] = []
        for generation in self.generations:
            children += generation.workers
            if generation.template is not None:
                children.append(generation.template)
        return children

    def end(self) -> None:
        """Kill whoever is left, and wait for those that can be waited for."""
        self._selector.close()
        for child in self.children():
            child.channel.close()
            child.kill()
            if self._is_own(child) and child.pid is not None:
                os.waitpid(child.pid, 0)
        while self._strays:
            self._signals.wait(max(min(self._strays.values()) - time.monotonic(), 0))
            self._reap_strays(time.monotonic())

    # ---- Births ---------------------------------------------------------------------------

    def new_generation(self) -> Generation:
        """A generation without anybody in it."""
        self._generations_made += 1
        generation = Generation(self._generations_made)
        self.generations.append(generation)
        return generation

    def start_worker(self, generation: Generation) -> None:
        """One worker more, forked by the template if there is one. Raises `OSError`."""
        self._workers_made += 1
        number = self._workers_made
        ours, theirs = pair()
        page = self._books.hired()
        with theirs:
            if generation.template is not None:
                generation.template.channel.send({"fork": number, "page": page}, theirs.fileno())
                pid = None
            else:
                try:
                    pid = self._fork(ours, theirs, partial(worker_process.run, page=page))
                except OSError:
                    self._books.fork_failed(page)
                    raise
        worker = Worker(Channel(ours), pid, number, generation, page)
        worker.deadline = self._start_deadline()
        self._selector.register(worker.channel, selectors.EVENT_READ, worker)
        generation.workers.add(worker)

    def fork_template(self, generation: Generation) -> Template:
        """Give `generation` a template. Raises `OSError`."""
        ours, theirs = pair()
        with theirs:
            pid = self._fork(ours, theirs, fork_server.run)
        generation.template = made = Template(Channel(ours), pid, generation)
        made.deadline = self._start_deadline()
        self._selector.register(made.channel, selectors.EVENT_READ, made)
        return made

    def has_begun(self, child: Child) -> None:
        """The time of `child` counts from now: on a busy machine its first turn may come late."""
        if child.phase is Phase.STARTING and not child.dismissed:
            child.deadline = self._start_deadline()

    def _start_deadline(self) -> float:
        """Until when a process that is born now must be ready; 0 without an end."""
        return time.monotonic() + self._patience + _LAST_WORDS if self._patience else 0.0

    def _fork(
        self, ours: socket.socket, theirs: socket.socket, run: Callable[[Job, socket.socket], int]
    ) -> int:
        def main() -> int:
            ours.close()
            self._signals.close()
            self._books.forget()
            return run(self._job, theirs)

        try:
            return fork(main)
        except OSError:
            ours.close()
            raise

    # ---- Words ----------------------------------------------------------------------------

    def wait(self, seconds: float) -> list[Child]:
        """Wait for a signal or a word; the children that have said something, or ended."""
        ready = self._selector.select(seconds)
        return [key.data for key, _ in ready if key.data is not None]

    def listen(self, child: Child) -> list[Message]:
        """What `child` has said. Notes when it will say no more."""
        if child.channel.ended:
            return []
        messages = child.channel.receive()
        if child.channel.ended:
            self._selector.unregister(child.channel)
            child.silent_since = time.monotonic()
        return messages

    def close(self, child: Child) -> None:
        """Nobody listens to `child` any more."""
        if not child.channel.ended:
            self._selector.unregister(child.channel)
        child.channel.close()

    def hang_up(self, generation: Generation) -> None:
        """Let the template end; its workers live on, and are watched by their lines."""
        parent, generation.template = generation.template, None
        if parent is not None:
            self.close(parent)
            if parent.phase is Phase.STARTING:  # else it sees that it is alone
                parent.kill(signal.SIGTERM)
            assert parent.pid is not None
            self._strays[parent.pid] = time.monotonic() + _PARTING

    # ---- Deaths ---------------------------------------------------------------------------

    def dead(self, now: float) -> Iterator[Child]:
        """The children that have ended, each to be listened to once more, and closed."""
        for child in self.children():
            if child.status is None and self._is_own(child):
                assert child.pid is not None
                found, status = os.waitpid(child.pid, os.WNOHANG)
                if found:
                    child.status = os.waitstatus_to_exitcode(status)
            if child.status is not None:
                yield child
            elif child.silent_since and now - child.silent_since >= self._respite(child):
                if self._is_own(child):
                    child.kill()  # it lives, but cannot be spoken to; the next turn reaps it
                else:
                    yield child
        self._reap_strays(now)
        if os.getpid() == 1:
            self._reap_strangers()

    def _reap_strays(self, now: float) -> None:
        for pid, deadline in self._strays.copy().items():
            if now >= deadline:  # it waits for a thread that the application has started
                os.kill(pid, signal.SIGKILL)
                self._strays[pid] = now + _PARTING
            if os.waitpid(pid, os.WNOHANG)[0]:
                del self._strays[pid]

    def _respite(self, child: Child) -> float:
        """For how long somebody may yet say how a child has ended, whose line is cut."""
        orphan = isinstance(child, Worker) and child.generation.template is None
        return _BURIAL if self._is_own(child) or not orphan else 0.0

    def _is_own(self, child: Child) -> bool:
        return isinstance(child, Template) or not self._preload

    def _reap_strangers(self) -> None:
        """The first process of a container is given the orphans of all the others."""
        own = {child.pid for child in self.children()} | self._strays.keys()
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return
            if found is None or found.si_pid in own:
                return
            os.waitpid(found.si_pid, os.WNOHANG)
