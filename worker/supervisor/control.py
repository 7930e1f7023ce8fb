"""Control of a server with a supervisor: commands, and questions that the workers answer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Protocol

from ..control.endpoint import Endpoint
from ..control.protocol import CommandError
from ..control.report import BOUNDS
from ..control.settings import shown_settings
from ..control.single import (
    identified,
    no_such_request,
    overview,
    said,
    set_log_level,
    split_id,
)
from ..errors import ConfigError
from ..net.bind import url_of
from .answers import Question
from .generation import Child, Worker
from .phase import Phase

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterable

    from ..control.endpoint import Reply
    from ..control.protocol import Command, Result
    from .forking import ServerSpec
    from .pipe import Message

# Seconds for the workers to answer; the others' answers then count without them. A stack takes
# longer: its source is read, and loops are asked.
_TIMEOUT = 2.0
_STACK_TIMEOUT = 5.0
# Seconds after which a question is forgotten: the pipe may have been full.
_FORGOTTEN = 60.0
# A worker that has not answered so many questions is asked no more.
_MOST_QUESTIONS = 16

_UNKNOWN: dict[str, Any] = {
    "memory": 0,
    "served": 0,
    "threads": {"slots": 0, "busy": 0, "lent": 0, "total": 0},
    "loops": 0,
    "connections": {},
    "waiting": 0,
    "latencies": [0] * (len(BOUNDS) + 1),
}


class Supervised(Protocol):
    """What a client may have done to a `Supervisor`."""

    phase: Phase
    wanted: int

    def children(self) -> Iterable[Child]: ...

    def reload(self) -> None: ...

    def drain_all(self) -> None: ...

    def reopen_logs(self) -> None: ...

    def replace_worker(self, worker: Worker, reason: str, cause: str) -> None: ...


class SupervisorControl:
    """Belongs to the supervisor's thread, which calls `poll` in each round."""

    def __init__(self, sock: socket.socket, supervisor: Supervised, spec: ServerSpec) -> None:
        self._supervisor = supervisor
        self._spec = spec
        self._began = time.monotonic()
        self.endpoint = Endpoint(sock, self._handle)
        if not self.endpoint.can_be_polled():
            self.endpoint.close()
            raise ConfigError("control: with a supervisor this needs epoll or kqueue; leave it out")
        self._number = 0
        self._gathers: list[_Gather] = []

    def poll(self) -> None:
        """Serve the clients, and end what waits for workers in vain."""
        self.endpoint.poll()
        now = time.monotonic()
        for gather in self._gathers.copy():
            gather.left.intersection_update(self._answering())
            if not gather.left or now >= gather.deadline:
                self._gathers.remove(gather)
                gather.finish()
        for worker in self._workers():
            for number, question in list(worker.questions.items()):
                if now >= question.asked_at + _FORGOTTEN:
                    del worker.questions[number]

    # ---- Questions ------------------------------------------------------------------------

    def _workers(self) -> list[Worker]:
        return [each for each in self._supervisor.children() if isinstance(each, Worker)]

    def _answering(self) -> list[Worker]:
        """The workers that can answer: not those that are about to exit."""
        return [each for each in self._workers() if not (each.closed_at or each.exiting)]

    def _ask(
        self,
        what: str,
        workers: Iterable[Worker],
        reply: Reply,
        merge: Callable[[dict[Worker, dict[str, Any]]], Result],
        wanted: str = "",
    ) -> None:
        """Ask `workers`, and reply what `merge` makes of those answers that come in time."""
        self._number += 1
        gather = _Gather(reply, merge, _STACK_TIMEOUT if what == "stack" else _TIMEOUT)
        for worker in workers:
            if len(worker.questions) < _MOST_QUESTIONS:
                worker.ask(self._number, Question(what, time.monotonic()))
                worker.pipe.send({"ask": self._number, "what": what, "wanted": wanted})
                gather.left.add(worker)
        gather.number = self._number
        self._gathers.append(gather)

    def on_answer(self, worker: Worker, report: Message) -> bool:
        """Take a part of an answer. False if no honest worker would have sent it."""
        number = report["answer"]
        question = worker.questions.get(number)
        if question is None:  # forgotten meanwhile, or never asked
            return bool(number <= worker.last_question)
        if not question.take(report):
            return False
        if question.result is None:
            return True
        del worker.questions[number]
        for gather in self._gathers:
            if gather.number == number and worker in gather.left:
                gather.left.discard(worker)
                gather.found[worker] = question.result
        return True

    # ---- Commands -------------------------------------------------------------------------

    def _handle(self, command: Command, reply: Reply) -> None:
        """Carry out `command`. Raises `CommandError`."""
        verb, argument = command.verb, command.argument
        if verb == "status":
            serving = [each for each in self._answering() if each.ready_at]
            self._ask("status", serving, reply, self._status)
        elif verb == "requests":
            self._ask("requests", self._ready(), reply, _merged_requests)
        elif verb == "stack":
            self._stack(argument, reply)
        elif verb == "config":
            reply({"settings": shown_settings(self._spec.config)})
        elif verb == "log-level":
            set_log_level(argument)
            for child in self._supervisor.children():
                child.pipe.send({"log_level": argument})
            reply(said(f"messages of {argument} and above are logged"))
        elif verb == "reopen":
            self._supervisor.reopen_logs()
            reply(said("the access log is being opened again"))
        elif verb == "drain":
            self._supervisor.drain_all()
            reply(said("the workers finish their requests; then the server ends"))
        else:
            reply(self._change(command))

    def _change(self, command: Command) -> Result:
        """Carry out what makes no sense while the server ends."""
        supervisor = self._supervisor
        if supervisor.phase is Phase.DRAINING:
            raise CommandError(f"{command.verb}: the server is about to end")
        if command.verb == "reload":
            supervisor.reload()
            return said("new workers load the application; the log says when they serve")
        if command.verb == "workers":
            supervisor.wanted = command.number
            return said(f"the number of workers becomes {command.number}")
        worker = self._find(command.number, "recycle")
        if worker.phase is not Phase.SERVING:
            raise CommandError(f"recycle: process {command.number} is {worker.phase.value}")
        supervisor.replace_worker(worker, "a client of the control socket asks for it", "control")
        return said(f"process {command.number} is replaced; its successor starts first")

    def _find(self, pid: int, verb: str) -> Worker:
        for worker in self._answering():
            if worker.pid == pid:
                return worker
        raise CommandError(f"{verb}: {pid} is not a worker of this server; `status` lists them")

    def _ready(self) -> list[Worker]:
        phases = (Phase.SERVING, Phase.DRAINING)
        return [each for each in self._answering() if each.phase in phases]

    # ---- Results --------------------------------------------------------------------------

    def _status(self, found: dict[Worker, dict[str, Any]]) -> Result:
        now = time.monotonic()
        sockets = self._spec.sockets
        scheme = "https" if self._spec.config.tls.on else "http"
        workers = sorted(self._workers(), key=lambda each: each.number)
        return overview(
            pid=self._spec.owner,
            supervised=True,
            state=str(self._supervisor.phase.value),
            age=now - self._began,
            wanted=self._supervisor.wanted,
            urls=[url_of(scheme, sock.getsockname()) for sock in sockets],
            listeners=sockets,
            workers=[_row(worker, found.get(worker), now) for worker in workers],
        )

    def _stack(self, argument: str, reply: Reply) -> None:
        pid, key = split_id(argument)
        asked = [self._find(pid, "stack")] if pid else self._ready()

        def merge(found: dict[Worker, dict[str, Any]]) -> Result:
            rows = [
                row
                for worker, answer in found.items()
                for row in identified(answer["stacks"], worker.pid or 0)
            ]
            left = self._answering()
            silent = [each.pid for each in asked if each not in found and each in left]
            if argument and not rows and not silent:
                raise CommandError(no_such_request(argument))
            more = sum(answer["more"] for answer in found.values())
            return {"stacks": rows, "more": more, "silent": silent}

        self._ask("stack", asked, reply, merge, key)


class _Gather:
    """The answers of several workers, for one command."""

    def __init__(
        self,
        reply: Reply,
        merge: Callable[[dict[Worker, dict[str, Any]]], Result],
        seconds: float,
    ) -> None:
        self._reply = reply
        self._merge = merge
        self.number = 0
        self.left: set[Worker] = set()
        self.found: dict[Worker, dict[str, Any]] = {}
        self.deadline = time.monotonic() + seconds

    def finish(self) -> None:
        try:
            result = self._merge(self.found)
        except CommandError as error:
            self._reply(error)
        else:
            self._reply(result)


def _row(worker: Worker, answer: dict[str, Any] | None, now: float) -> dict[str, Any]:
    note = worker.replace_reason
    if answer is None and worker.ready_at:
        why = "it is about to exit" if worker.exiting else "it does not answer"
        note = why + (f"; {note}" if note else "")
    return {
        **(answer or _UNKNOWN),
        "pid": worker.pid or 0,
        "number": worker.number,
        "state": str(worker.phase.value),
        "age": round(now - worker.ready_at, 3) if worker.ready_at else 0.0,
        "note": note,
    }


def _merged_requests(found: dict[Worker, dict[str, Any]]) -> Result:
    rows = [
        row
        for worker, answer in found.items()
        for row in identified(answer["requests"], worker.pid or 0)
    ]
    more = sum(answer["more"] for answer in found.values())
    return {"requests": sorted(rows, key=lambda row: -row["age"]), "more": more}
