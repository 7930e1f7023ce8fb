"""The supervisor: keeps the workers going, and hands over from one to the next.

    run
      _turn                       waits for a signal, a word of a child, an end, or a time
        _obey                     TERM INT QUIT HUP USR1 TTIN TTOU
        _hear                     ready, beat, replace, failed; forked, exited of a template
        _bury                     a child has ended: reaped, reported, or its line is cut
        _inspect                  the hung are replaced, the late are killed
        _reconcile                what there should be, and is not: hire, promote, retire

One thread, which never imports the application: a fork copies no locked lock, and a reload gets
new code. Nothing is remembered of what is under way. Each turn compares the workers there are
with the workers there should be; so a crash in the middle of a reload in the middle of a
recycling is nothing special.
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..system.signals import Signals
from ..system.systemd import Notifier
from ..watchdog import UNSEEN
from .children import Children
from .forking import Job, describe
from .generation import Child, Generation, Template, Worker
from .phase import Phase, Phased
from .pipe import Message
from .statistics import Statistics

if TYPE_CHECKING:
    import socket

    from ..metrics.prometheus import Metric

log = logging.getLogger("threadwell")

_HEEDED = ("SIGTERM", "SIGINT", "SIGQUIT", "SIGHUP", "SIGUSR1", "SIGTTIN", "SIGTTOU", "SIGCHLD")
# Seconds between two looks at everything.
_LOOK = 1.0
# Seconds after which a turn must have been interrupted.
_OVERSLEPT = 5.0
# Seconds for a child to end that was told to do so at once.
_LAST_MOMENT = 2.0
# Seconds beyond its own deadline that a draining worker has, and for one that has failed to end.
_MERCY = 5.0


class StartFailed(Exception):
    """No worker has become ready. `trace` is the application's traceback, if that is why.

    `loaded` says whether the application could be imported at all.
    """

    def __init__(self, message: str, trace: str = "", *, loaded: bool = False) -> None:
        super().__init__(message)
        self.trace = trace
        self.loaded = loaded


class Supervisor(Phased):
    """Keeps `count` workers serving. `run` blocks; call it in the main thread, without others.

    `started` is called with the facts of the first ready worker once all are, `stopping` when the
    end begins. The sockets are closed in the end.
    """

    def __init__(
        self,
        job: Job,
        count: int,
        started: Callable[[Message], None],
        stopping: Callable[[], None],
        monitored: Sequence[socket.socket] = (),
    ) -> None:
        super().__init__()
        self._books = Statistics(job.config, count)
        if monitored:
            self._books.open(monitored, self._gather, self._unready_reason)
        self._job = job = replace(job, shared_pages=self._books.shared_pages)
        self._preload = job.config.processes.preload
        self._worker_timeout = job.config.processes.worker_timeout
        self._start_timeout = job.config.processes.start_timeout
        self._patience = job.config.timeouts.graceful
        self._want = count
        self._started = started
        self._stopping = stopping
        self._notifier = Notifier()
        self._signals = Signals(getattr(signal, name) for name in _HEEDED)
        self._facts: Message = {}
        self._children = Children(job, self._signals, self._books)
        #: The one that serves, and the one that is to take over; None without.
        self._current: Generation | None = None
        self._next: Generation | None = None
        self._failure: StartFailed | None = None

    def run(self) -> None:
        """Until it is told to stop. Raises `StartFailed` when no worker has become ready."""
        with self._signals:
            try:
                self._next = self._children.new_generation()
                self._reconcile(time.monotonic())
                while self.phase is not Phase.STOPPED:
                    self._turn()
            finally:
                self._children.end()
                self._books.close()
        if self._failure is not None:
            raise self._failure

    # ---- Who watches ----------------------------------------------------------------------

    def _gather(self) -> list[Metric]:
        ready = not self._unready_reason()
        return self._books.metrics(ready=ready, serving=self._serving(), wanted=self._want)

    def _unready_reason(self) -> str:
        """Why no requests should come; empty if they may."""
        if self.phase is not Phase.SERVING:
            return str(self.phase.value)
        return "" if self._serving() else "no worker serves"

    def _serving(self) -> int:
        workers = self._current.workers if self._current is not None else ()
        return sum(each.phase is Phase.SERVING and not each.hangs for each in workers)

    # ---- A turn ---------------------------------------------------------------------------

    def _turn(self) -> None:
        asleep = time.monotonic()
        for child in self._children.wait(self._timeout()):
            self._on_message(child)
        for number in self._signals.take():
            self._on_signal(number)
        self._books.turn()
        now = time.monotonic()
        self._bury_the_dead(now)
        if now - asleep > _OVERSLEPT:
            # this process was stopped, and perhaps the others too: they need time to say a word
            for child in self._children.children():
                if child.phase is Phase.STARTING and child.deadline:
                    child.deadline += now - asleep
                if isinstance(child, Worker):
                    child.beat_at = now
        self._inspect(now)
        self._reconcile(now)

    def _timeout(self) -> float:
        """How long nothing is to be done, if nothing happens."""
        now = time.monotonic()
        times = [now + _LOOK]
        times += [child.deadline for child in self._children.children() if child.deadline]
        times += [each.not_before for each in self._children.generations if each.not_before > now]
        if self._notifier.interval:
            times.append(now + self._notifier.interval / 2)
        return max(min(times) - now, 0.0)

    # ---- Signals --------------------------------------------------------------------------

    def _on_signal(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            if self.phase is Phase.DRAINING:
                self._cut()
            else:
                self._drain_all()
        elif number == signal.SIGQUIT:
            self._drain_all()
            self._cut()
        elif number == signal.SIGHUP:
            self._reload()
        elif number == signal.SIGUSR1:
            for child in self._children.children():
                if isinstance(child, Worker):
                    child.channel.send({"reopen": True})
        elif number == signal.SIGTTIN:
            self._want += 1
        elif number == signal.SIGTTOU:
            self._want = max(self._want - 1, 1)

    def _reload(self) -> None:
        if self.phase is Phase.DRAINING:
            return
        if self._next is not None:  # what it imports may be older than this wish
            self._abandon(self._next)
        log.info("Reloading the application")
        self._notifier.reloading()
        self._next = self._children.new_generation()

    def _drain_all(self) -> None:
        if self.phase is Phase.DRAINING:
            return
        self._stopping()
        self._end()

    def _end(self) -> None:
        self.become(Phase.DRAINING)
        self._notifier.stopping()
        # the last of the workers that closes them takes what the kernel still has
        self._job.close_sockets()
        for generation in self._children.generations:
            if generation.template is not None:
                generation.template.channel.send({"close": True})
            self._abandon(generation)

    def _cut(self) -> None:
        deadline = time.monotonic() + _LAST_MOMENT
        for child in self._children.children():
            child.channel.send({"cut": True})
            child.deadline = deadline

    # ---- What children say ------------------------------------------------------------------

    def _on_message(self, child: Child) -> None:
        for message in self._children.listen(child):
            if "failed" in message:
                child.failed, child.trace = message["failed"], message["trace"]
                child.deadline = time.monotonic() + _MERCY  # a thread of the application's may stay
            elif "begun" in message:
                self._children.has_begun(child)
            elif isinstance(child, Worker):
                self._hear_worker(child, message)
            elif isinstance(child, Template):
                self._hear_template(child, message)

    def _hear_worker(self, worker: Worker, message: Message) -> None:
        now = time.monotonic()
        if "ready" in message:
            worker.ready_at = worker.beat_at = now
            worker.pid = message["ready"]  # the template's word of it may come later
            worker.become(Phase.SERVING)
            worker.in_time()
            log.debug("%s is ready", worker)
            if worker.dismissed:  # too late for that: it has accepted connections
                worker.dismissed = False
                self._drain(worker)
            else:
                self._facts = self._facts or message
        elif "beat" in message:
            worker.beat_at, worker.watchdog = now, message["beat"]
        elif "replace" in message:
            self._replace(worker, message["replace"], message["cause"])

    def _hear_template(self, parent: Template, message: Message) -> None:
        if "loaded" in message:
            parent.become(Phase.SERVING)
            parent.in_time()
        elif "exited" in message:
            for worker in parent.generation.workers:
                if worker.pid == message["exited"]:
                    worker.status = message["status"]
        else:
            number = message.get("forked", message.get("fork_failed"))
            for worker in parent.generation.workers:
                if worker.number == number and "pid" in message:
                    worker.pid = message["pid"]
                elif worker.number == number:
                    log.error("No worker could be started: %s", message["why"])

    # ---- The dead -------------------------------------------------------------------------

    def _bury_the_dead(self, now: float) -> None:
        for child in self._children.dead(now):
            self._on_message(child)  # its last words
            self._bury(child, now)

    def _bury(self, child: Child, now: float) -> None:
        self._children.close(child)
        before = child.phase
        child.become(Phase.STOPPED)
        if isinstance(child, Worker):
            self._books.buried(child.page, child.end(before))
        if isinstance(child, Template):
            self._bury_template(child, now)
        elif isinstance(child, Worker):
            generation = child.generation
            generation.workers.discard(child)
            end = describe(child.status) if child.status is not None else "is gone"
            if child.dismissed or before is Phase.DRAINING:
                log.debug("%s %s", child, end)
            else:
                self._lost(generation, child, end, now)

    def _bury_template(self, child: Template, now: float) -> None:
        generation = child.generation
        if generation.template is not child:
            return  # it was hung up on
        generation.template = None
        end = describe(child.status) if child.status is not None else "is gone"
        for worker in generation.workers:
            if worker.pid is None:  # it was asked for, and never born
                worker.dismissed = True
        self._lost(generation, child, end, now)

    def _lost(self, generation: Generation, child: Child, end: str, now: float) -> None:
        """A process has ended that was to live."""
        generation.lost(child, now)
        reason = child.failed or f"{child} {end} before it was ready"
        if generation.phase is Phase.STARTING and (child.failed or generation.is_hopeless()):
            self._give_up(generation, reason, child)
            return
        sys.stderr.write(generation.new_trace(child.trace))
        log.error("%s %s%s", child, end, f": {child.failed}" if child.failed else "")

    def _give_up(self, generation: Generation, reason: str, child: Child) -> None:
        """No worker of `generation` will ever be ready."""
        self._abandon(generation)
        if generation is not self._next:
            return
        self._next = None
        if self._current is None:
            self._failure = StartFailed(reason, child.trace, loaded=not child.failed)
            self._end()
            return
        sys.stderr.write(child.trace)
        log.error("The new application is not served, the old one goes on: %s", reason)
        self._books.reloaded(well=False)
        self._say_ready()

    # ---- The living -----------------------------------------------------------------------

    def _inspect(self, now: float) -> None:
        """Find the workers that hang, and end the children whose time is up."""
        self._notifier.alive()  # the manager watches this process, which watches the others
        for child in self._children.children():
            if child.deadline and now >= child.deadline:
                self._kill(child, now)
            if isinstance(child, Worker) and child.phase is Phase.SERVING:
                stuck = max(now - child.beat_at, child.watchdog)
                if (
                    self._worker_timeout
                    and stuck >= self._worker_timeout + UNSEEN
                    and not child.outgoing
                ):
                    child.hangs = True
                    why = f"it has taken no request for {stuck:.0f} seconds"
                    self._replace(child, why, "worker_timeout")

    def _kill(self, child: Child, now: float) -> None:
        """The time of `child` is up."""
        if child.phase is Phase.STARTING and not child.dismissed:
            child.failed = child.failed or (
                f"{child} was not ready within {self._start_timeout:g} seconds;"
                " give more with start_timeout, if it needs that"
            )
        child.deadline = now + _LAST_MOMENT
        child.kill()

    def _replace(self, worker: Worker, reason: str, cause: str) -> None:
        if worker.phase is Phase.SERVING and not worker.outgoing:
            self._books.replaced(cause)
            worker.outgoing = reason
            log.info("Replacing %s: %s", worker, reason)

    def _drain(self, worker: Worker) -> None:
        """Let a worker that serves finish what it has."""
        if worker.phase is Phase.SERVING:
            worker.become(Phase.DRAINING)
            # the threads of one that hangs would leave clients waiting that others can serve
            worker.channel.send({"drain": True, "adopt": not worker.hangs})
            worker.deadline = time.monotonic() + self._patience + _MERCY

    def _dismiss(self, worker: Worker) -> None:
        """End a worker that does not serve yet."""
        worker.dismissed = True
        worker.kill(signal.SIGTERM)
        worker.deadline = time.monotonic() + _LAST_MOMENT

    # ---- What there should be -----------------------------------------------------------------

    def _reconcile(self, now: float) -> None:
        if self.phase is Phase.STARTING or self.phase is Phase.SERVING:
            for generation in (self._next, self._current):
                if generation is not None:
                    self._staff(generation, now)
            if self._next is not None and self._next.count(Phase.SERVING) >= self._want:
                self._promote(self._next)
            elif self._next is None and self._current is not None:
                self._retire(self._current)
        generations = self._children.generations
        for generation in generations.copy():
            if generation not in (self._next, self._current) and not generation.workers:
                self._children.hang_up(generation)
                if generation.template is None:
                    generations.remove(generation)
        if self.phase is Phase.DRAINING and not any(each.workers for each in generations):
            self.become(Phase.STOPPED)

    def _staff(self, generation: Generation, now: float) -> None:
        """Start the workers that are missing."""
        missing = self._want - sum(worker.is_staff() for worker in generation.workers)
        if missing <= 0 or now < generation.not_before:
            return
        try:
            if self._preload:
                parent = generation.template or self._children.fork_template(generation)
                if parent.phase is not Phase.SERVING:
                    return
            for _ in range(missing):
                self._children.start_worker(generation)
        except OSError as error:
            log.error("No process could be started: %s", error)
            generation.not_before = now + _LOOK

    def _promote(self, generation: Generation) -> None:
        """All workers of a new generation are ready: it takes over."""
        old, self._current, self._next = self._current, generation, None
        generation.become(Phase.SERVING)
        generation.failures = 0
        if old is None:
            self.become(Phase.SERVING)
            self._started(self._facts)
        else:
            log.info("The new application is served")
            self._books.reloaded(well=True)
            old.become(Phase.DRAINING)
            self._abandon(old)
        self._say_ready()

    def _say_ready(self) -> None:
        self._notifier.ready(f"{self._want} workers serve")

    def _retire(self, generation: Generation) -> None:
        """Drain the workers that are too many: those that were replaced, then the oldest."""
        serving = [each for each in generation.workers if each.phase is Phase.SERVING]
        serving.sort(key=lambda each: (not each.outgoing, each.number))
        for worker in serving[: max(len(serving) - self._want, 0)]:
            self._drain(worker)

    def _abandon(self, generation: Generation) -> None:
        """Let a generation end: what serves drains, what starts is stopped."""
        for worker in generation.workers:
            if worker.phase is Phase.STARTING:
                self._dismiss(worker)
            else:
                self._drain(worker)
