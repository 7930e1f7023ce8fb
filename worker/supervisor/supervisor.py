"""The supervisor: keeps the workers running, and replaces one generation by the next.

    run
      _run_once                   waits for a signal, a message, an exit, or a deadline
        _on_message               ready, heartbeat, replace, failed; of a fork server forked, exited
        _on_signal                TERM INT QUIT HUP USR1 USR2 TTIN TTOU
        _reap                     handles the processes that have exited
        _check_health             replaces workers that hang, kills what is past its deadline
        _reconcile                starts what is missing, promotes, drains what is too many

It has one thread and never imports the application: a fork copies no locked lock, and a reload
gets new code. It does not remember what it is in the middle of. Each round compares the workers
that exist with the workers that should, so a crash during a reload needs no code of its own.
"""

from __future__ import annotations

import logging
import signal
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import StartFailed
from ..system.signals import UPGRADE, Signals, refuse_upgrade
from ..system.standard_streams import write_text
from ..system.systemd import Notifier
from ..system.terminal import Terminal
from ..watchdog import UNSEEN
from .children import Children
from .control import SupervisorControl
from .forking import ServerSpec, describe_exit
from .generation import Child, ForkServer, Generation, Worker
from .phase import Phase, Phased
from .pipe import Message
from .statistics import Statistics

if TYPE_CHECKING:
    import socket

    from ..metrics.prometheus import Metric

log = logging.getLogger("threadwell")

_HANDLED = tuple("SIGTERM SIGINT SIGQUIT SIGHUP SIGUSR1 SIGUSR2 SIGTTIN SIGTTOU SIGCHLD".split())
# The longest time between two rounds, in seconds.
_INTERVAL = 1.0
# A round that takes so many seconds shows that this process was suspended.
_SUSPENDED = 5.0
# Seconds for a process to exit that was told to exit at once.
_LAST_MOMENT = 2.0
# Seconds for a worker that failed to start to exit.
_EXIT_TIME = 5.0
# What a worker may report before its fork server reports it: its start, and that it is ready.
_MOST_EARLY = 8


class Supervisor(Phased):
    """Keeps `count` workers serving. Call `run` in the main thread, while there is no other thread.

    `started` is called with the message of the first ready worker once all are ready, `stopping`
    when the end begins. `run` closes the sockets.
    """

    def __init__(
        self,
        spec: ServerSpec,
        count: int,
        started: Callable[[Message], None],
        stopping: Callable[[], None],
        monitored: Sequence[socket.socket] = (),
        control: socket.socket | None = None,
    ) -> None:
        super().__init__()
        self._statistics = Statistics(spec.config, count)
        if monitored:
            self._statistics.open(monitored, self._gather, self._unready_reason)
        self._spec = spec = replace(spec, shared_pages=self._statistics.shared_pages)
        self._preload = spec.config.processes.preload
        self._worker_timeout = spec.config.processes.worker_timeout
        #: How many workers should serve.
        self.wanted = count
        self._started = started
        self._stopping = stopping
        self._notifier = Notifier()
        self._terminal = Terminal()
        self._signals = Signals(getattr(signal, name) for name in _HANDLED)
        self._ready_message: Message = {}
        self._children = Children(spec, self._signals, self._statistics)
        self._control: SupervisorControl | None = None
        if control is not None:
            self._control = SupervisorControl(control, self, spec)
            self._children.watch(self._control.endpoint)
        #: The generation that serves, and the one that starts to take its place.
        self._current: Generation | None = None
        self._next: Generation | None = None
        self._failure: StartFailed | None = None

    def run(self) -> None:
        """Serve until a signal ends it. Raises `StartFailed` if no worker has become ready."""
        with self._signals:
            try:
                self._next = self._children.new_generation()
                self._reconcile(time.monotonic())
                while self.phase is not Phase.STOPPED:
                    self._run_once()
            finally:
                self._children.kill_all()
                self._statistics.close()
                if self._control is not None:
                    self._control.endpoint.close()
        if self._failure is not None:
            raise self._failure

    # ---- Metrics --------------------------------------------------------------------------

    def _gather(self) -> list[Metric]:
        ready = not self._unready_reason()
        sockets, serving = self._spec.sockets, self._serving()
        return self._statistics.metrics(sockets, ready=ready, serving=serving, wanted=self.wanted)

    def _unready_reason(self) -> str:
        """Why no requests should be sent here; empty if they may."""
        if self.phase is not Phase.SERVING:
            return str(self.phase.value)
        return "" if self._serving() else "no worker serves"

    def _serving(self) -> int:
        workers = self._current.workers if self._current is not None else ()
        return sum(each.phase is Phase.SERVING and not each.hangs for each in workers)

    # ---- A round --------------------------------------------------------------------------

    def _run_once(self) -> None:
        began = time.monotonic()
        readable = self._children.wait(self._timeout())
        # before the messages: a signal to the whole group also lets workers ask for replacements
        for number in self._signals.take():
            self._on_signal(number)
        for child in readable:
            self._on_message(child)
        self._statistics.poll()
        if self._control is not None:
            self._control.poll()
        now = time.monotonic()
        self._reap(now)
        if now - began > _SUSPENDED:
            # the workers may have been suspended too: give them time for a heartbeat
            for child in self._children.children():
                if child.phase is Phase.STARTING and child.deadline:
                    child.deadline += now - began
                if isinstance(child, Worker):
                    child.heartbeat_at = now
        self._check_health(now)
        self._reconcile(now)

    def _timeout(self) -> float:
        """Seconds until the next deadline."""
        now = time.monotonic()
        times = [now + _INTERVAL]
        times += [child.deadline for child in self._children.children() if child.deadline]
        times += [each.not_before for each in self._children.generations if each.not_before > now]
        if self._notifier.interval:
            times.append(now + self._notifier.interval / 2)
        return max(min(times) - now, 0.0)

    # ---- Signals --------------------------------------------------------------------------

    def _on_signal(self, number: int) -> None:
        if number in (signal.SIGTERM, signal.SIGINT):
            if self.phase is Phase.DRAINING:
                self._children.cut()
            else:
                self.drain_all()
        elif number == signal.SIGQUIT:
            self.drain_all()
            self._children.cut()
        elif number == signal.SIGHUP and self._terminal.hung_up():
            self.drain_all()
        elif number == signal.SIGHUP:
            self.reload()
        elif number == signal.SIGUSR1:
            self.reopen_logs()
        elif number == UPGRADE:
            refuse_upgrade()
        elif number == signal.SIGTTIN:
            self.wanted += 1
        elif number == signal.SIGTTOU:
            self.wanted = max(self.wanted - 1, 1)

    def children(self) -> list[Child]:
        """The workers and fork servers of all generations."""
        return self._children.children()

    def reopen_logs(self) -> None:
        """Have the workers open their log files again."""
        for child in self._children.children():
            if isinstance(child, Worker):
                child.pipe.send({"reopen": True})

    def reload(self) -> None:
        """Have a new generation of workers load the application, unless the server ends."""
        if self.phase is Phase.DRAINING:
            return
        if self._next is not None:  # it may have imported files from before this signal
            self._children.end_generation(self._next)
        log.info("Reloading the application")
        self._notifier.reloading()
        self._next = self._children.new_generation()

    def drain_all(self) -> None:
        """Let the workers finish their requests, then end."""
        if self.phase is Phase.DRAINING:
            return
        self._stopping()
        self._begin_end()

    def _begin_end(self) -> None:
        self.become(Phase.DRAINING)
        self._notifier.stopping()
        # the last worker to close its copies accepts what is left in their backlogs
        self._spec.close_sockets()
        for generation in self._children.generations:
            if generation.fork_server is not None:
                generation.fork_server.pipe.send({"close": True})
            self._children.end_generation(generation)

    # ---- Messages -------------------------------------------------------------------------

    def _on_message(self, child: Child) -> None:
        messages = self._children.receive(child)
        unasked = [each for each in messages if not child.is_asked_for(each)]
        if child.reports.are_too_many(len(unasked), time.monotonic()):
            self._reject(child, "more messages than it has reason for")
        for message in messages:
            if not child.rejected:
                report = child.reports.check(message)
                if report is None or not self._on_report(child, report):
                    self._reject(child, f"a message that it must not send: {message!a:.200}")
        if child.pipe.error and not child.rejected:
            self._reject(child, child.pipe.error)

    def _reject(self, child: Child, what: str) -> None:
        """Kill a process that has sent `what`: a bug of threadwell, or an attack."""
        log.error("Killing %s: it has sent %s", child, what)
        child.rejected = True
        self._children.disconnect(child)
        child.kill()

    def _on_report(self, child: Child, report: Message) -> bool:
        """Act on `report`. False: it is not true, or `child` may not report that now."""
        if isinstance(child, Worker) and child.pid is None:
            child.early.append(report)  # the fork server's message is on its way
            return len(child.early) <= _MOST_EARLY
        if "failed" in report:
            if child.phase is not Phase.STARTING:
                return False
            if child.failed:  # it is past its deadline, too
                return True
            child.failed, child.trace = report["failed"] or "it failed", report["trace"]
            # threads of the application may keep it from exiting
            child.deadline = time.monotonic() + _EXIT_TIME
        elif "starting" in report:
            if child.announced or child.phase is not Phase.STARTING:
                return False
            child.announced = True
            self._children.restart_deadline(child)
        elif isinstance(child, Worker):
            return self._on_worker_report(child, report)
        elif isinstance(child, ForkServer):
            return self._on_fork_server_report(child, report)
        return True

    def _on_worker_report(self, worker: Worker, message: Message) -> bool:
        now = time.monotonic()
        if "ready" in message:
            if worker.phase is not Phase.STARTING:
                return False
            if worker.failed:  # too late: it is killed
                return True
            worker.ready_at = worker.heartbeat_at = now
            worker.become(Phase.SERVING)
            worker.clear_start_deadline()
            log.debug("%s is ready", worker)
            if worker.dismissed:  # too late: it has accepted connections
                worker.dismissed = False
                self._children.drain(worker)
            else:
                self._ready_message = self._ready_message or message
        elif "heartbeat" in message:
            worker.heartbeat_at, worker.idle_for = now, message["heartbeat"]
        elif "exiting" in message:
            worker.exiting = True
        elif "answer" in message:
            return self._control is not None and self._control.on_answer(worker, message)
        elif "replace" in message:
            self.replace_worker(worker, message["replace"], message["cause"])
        return True

    def _on_fork_server_report(self, fork_server: ForkServer, message: Message) -> bool:
        if "loaded" in message:
            if fork_server.phase is not Phase.STARTING:
                return False
            fork_server.become(Phase.SERVING)
            fork_server.clear_start_deadline()
        elif "exited" in message:
            for worker in fork_server.generation.workers:
                if worker.pid == message["exited"]:
                    worker.status = message["status"]
        else:
            number = message.get("forked", message.get("fork_failed"))
            for worker in fork_server.generation.workers:
                if worker.number == number and "pid" not in message:
                    log.error("No worker could be started: %s", message["why"])
                elif worker.number == number:
                    return self._on_forked(worker, fork_server, message["pid"])
        return True

    def _on_forked(self, worker: Worker, fork_server: ForkServer, pid: int) -> bool:
        if worker.pid is not None or not self._children.adopt(worker, fork_server, pid):
            return False
        if worker.rejected:  # before it could be killed
            worker.kill()
        early, worker.early = worker.early, []
        for report in early:
            if not worker.rejected and not self._on_report(worker, report):
                self._reject(worker, f"a message that it must not send: {report!a:.200}")
        return True

    # ---- Exits ----------------------------------------------------------------------------

    def _reap(self, now: float) -> None:
        for child in self._children.exited(now):
            self._on_message(child)  # what it sent before it exited
            self._on_exit(child, now)

    def _on_exit(self, child: Child, now: float) -> None:
        self._children.close(child)
        before = child.phase
        child.become(Phase.STOPPED)
        if isinstance(child, ForkServer):
            self._on_fork_server_exit(child, now)
        elif isinstance(child, Worker):
            self._statistics.worker_ended(child.page, child.ended_as(before))
            generation = child.generation
            generation.workers.discard(child)
            end = describe_exit(child.status) if child.status is not None else "is gone"
            if child.dismissed or before is Phase.DRAINING:
                log.debug("%s %s", child, end)
            else:
                self._on_unexpected_exit(generation, child, end, now)

    def _on_fork_server_exit(self, child: ForkServer, now: float) -> None:
        generation = child.generation
        if generation.fork_server is not child:
            return  # it was detached
        generation.fork_server = None
        end = describe_exit(child.status) if child.status is not None else "is gone"
        for worker in generation.workers:
            if worker.pid is None:  # the request for it was sent, and it was not forked
                worker.dismissed = True
                worker.deadline = now + _LAST_MOMENT  # if it was forked all the same
        self._on_unexpected_exit(generation, child, end, now)

    def _on_unexpected_exit(
        self, generation: Generation, child: Child, end: str, now: float
    ) -> None:
        generation.note_exit(child, now)
        reason = child.failed or f"{child} {end} before it was ready"
        if generation.phase is Phase.STARTING and (child.failed or generation.has_failed()):
            self._give_up(generation, reason, child)
            return
        write_text(sys.stderr, generation.new_trace(child.trace))
        log.error("%s %s%s", child, end, f": {child.failed}" if child.failed else "")

    def _give_up(self, generation: Generation, reason: str, child: Child | None = None) -> None:
        """No worker of `generation` will become ready: keep the current one, or end."""
        self._children.end_generation(generation)
        if generation is not self._next:
            return
        self._next = None
        if self._current is None:
            trace, loaded = (child.trace, not child.failed) if child is not None else ("", True)
            self._failure = StartFailed(reason, trace, loaded=loaded)
            self._begin_end()
            return
        write_text(sys.stderr, child.trace if child is not None else "")
        log.error("The new application is not served; the old one keeps serving: %s", reason)
        self._statistics.reloaded(well=False)
        self._notify_ready()

    # ---- Health ---------------------------------------------------------------------------

    def _check_health(self, now: float) -> None:
        """Replace the workers that hang, and kill the processes that are past their deadline."""
        self._notifier.alive()  # systemd watches this process, which watches the others
        for child in self._children.children():
            if child.deadline and now >= child.deadline:
                self._children.kill_overdue(child, now)
            if isinstance(child, Worker) and child.phase is Phase.SERVING:
                idle_for, patience = (
                    max(now - child.heartbeat_at, child.idle_for),
                    self._worker_timeout,
                )
                if patience and idle_for >= patience + UNSEEN and not child.replace_reason:
                    child.hangs = True
                    why = f"it has taken no request for {idle_for:.0f} seconds"
                    self.replace_worker(child, why, "worker_timeout")

    def replace_worker(self, worker: Worker, reason: str, cause: str) -> None:
        """Have another worker started; `worker` serves until that one is ready."""
        if worker.phase is Phase.SERVING and not worker.replace_reason:
            self._statistics.worker_replaced(cause)
            worker.replace_reason = reason
            log.info("Replacing %s: %s", worker, reason)

    # ---- Reconciliation -------------------------------------------------------------------

    def _reconcile(self, now: float) -> None:
        if self.phase is Phase.STARTING or self.phase is Phase.SERVING:
            for generation in (self._next, self._current):
                if generation is not None:
                    self._start_missing(generation, now)
            if self._next is not None and self._next.count(Phase.SERVING) >= self.wanted:
                self._promote(self._next)
            elif self._next is None and self._current is not None:
                self._drain_surplus(self._current)
        generations = self._children.generations
        for generation in generations.copy():
            if generation not in (self._next, self._current) and not generation.workers:
                self._children.detach_fork_server(generation)
                generations.remove(generation)
        if self.phase is Phase.DRAINING and not any(each.workers for each in generations):
            self.become(Phase.STOPPED)

    def _start_missing(self, generation: Generation, now: float) -> None:
        missing = self.wanted - sum(worker.is_staying() for worker in generation.workers)
        if missing <= 0 or now < generation.not_before:
            return
        try:
            if self._preload:
                fork_server = generation.fork_server
                fork_server = fork_server or self._children.start_fork_server(generation)
                if fork_server.phase is not Phase.SERVING:
                    return
            for _ in range(missing):
                self._children.start_worker(generation)
        except OSError as error:
            log.error("No process could be started: %s", error)
            generation.note_failed_fork(now + _INTERVAL)
            if generation.has_failed() and generation is self._next:
                self._give_up(generation, f"no process could be started: {error}")

    def _promote(self, generation: Generation) -> None:
        """All workers of `generation` are ready: it takes the place of the current one."""
        old, self._current, self._next = self._current, generation, None
        generation.become(Phase.SERVING)
        generation.failures = 0
        if old is None:
            self.become(Phase.SERVING)
            self._started(self._ready_message)
        else:
            log.info("The new application is served")
            self._statistics.reloaded(well=True)
            old.become(Phase.DRAINING)
            self._children.end_generation(old)
        self._notify_ready()

    def _notify_ready(self) -> None:
        self._notifier.ready(f"{self.wanted} workers serve")

    def _drain_surplus(self, generation: Generation) -> None:
        """Drain the workers that are too many: first those to be replaced, then the oldest."""
        serving = [each for each in generation.workers if each.phase is Phase.SERVING]
        serving.sort(key=lambda each: (not each.replace_reason, each.number))
        for worker in serving[: max(len(serving) - self.wanted, 0)]:
            self._children.drain(worker)
