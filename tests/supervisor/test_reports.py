"""What a worker, or a fork server, may send to its supervisor: anything, at its own cost."""

from __future__ import annotations

import contextlib
import json
import os
import random
import selectors
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from threadwell import ServerConfig
from threadwell.worker import Server
from threadwell.worker.metrics.counters import BLOCK, REQUESTS, USED
from threadwell.worker.metrics.shared_pages import SharedPages
from threadwell.worker.supervisor import Phase
from threadwell.worker.supervisor.forking import Loaded, ServerSpec
from threadwell.worker.supervisor.generation import Child, ForkServer, Worker
from threadwell.worker.supervisor.pipe import LONGEST_TEXT, Pipe, pair
from threadwell.worker.supervisor.supervisor import Supervisor
from threadwell.worker.system.processes import parent_of

from ..helpers.supervised import Start, starting
from ..helpers.waiting import until

READY = {"ready": True, "name": "app:app", "kind": "wsgi", "gil": True}
# What an honest process sends, of all kinds.
HONEST: list[dict[str, Any]] = [
    READY,
    {"starting": True},
    {"heartbeat": 0.5},
    {"exiting": True},
    {"replace": "it has served 10 requests", "cause": "max_requests"},
    {"failed": "there is no such module", "trace": "Traceback\n  File\n"},
    {"loaded": True},
    {"forked": 1, "pid": 4321},
    {"fork_failed": 1, "why": "no memory"},
    {"exited": 4321, "status": -9},
]
# What may stand in the place of each value.
WRONG: list[Any] = [
    *(None, True, False, -1, 0, 1, 2**31, 2**63, 10**400, -0.5, 1e308, float("nan"), float("inf")),
    *("", "x", "\x1b]0;\x07", "\ud800", "x" * (LONGEST_TEXT + 1), [], [[1]], {}, {"pid": 1}),
]
# What is no message.
LINES = [
    *(b"", b"\n", b"x\n", b"{}\n", b"[]\n", b"1\n", b"null\n", b'"ready"\n', b"{" * 90000 + b"\n"),
    *(b"[" * 90000 + b"\n", b"\xff\xfe\n", b'{"ready": 1e999}\n', b'{"heartbeat": NaN}\n'),
    *(b"x" * 500_000, b'{"heartbeat": ' + b"9" * 5000 + b"}\n", b"\0" * 100),
]


class Rig:
    """A supervisor whose first generation has the children `worker`, `other` and `template`.

    `killed` are the processes that were signalled; nothing is really killed.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.supervisor = Supervisor(
            ServerSpec(Loaded, Server, ServerConfig(), []), 2, self.say, id
        )
        self.killed: list[int] = []
        self.facts: list[Any] = []
        monkeypatch.setattr(os, "kill", lambda pid, _number: self.killed.append(pid))
        self.generation = self.supervisor._children.new_generation()
        self.supervisor._next = self.generation
        self.ends: dict[Pipe, socket.socket] = {}
        self.worker = Worker(self.pipe(), 1001, 1, self.generation)
        self.other = Worker(self.pipe(), 1002, 2, self.generation)
        self.template = ForkServer(self.pipe(), 1003, self.generation)
        for child in (self.worker, self.other, self.template):
            self.supervisor._children._selector.register(child.pipe, selectors.EVENT_READ, child)
        self.generation.fork_server = self.template
        self.generation.workers |= {self.worker, self.other}

    def say(self, facts: Any) -> None:
        self.facts.append(facts)

    def pipe(self) -> Pipe:
        ours, theirs = pair()
        theirs.setblocking(False)
        made = Pipe(ours)
        self.ends[made] = theirs
        return made

    def send(self, child: Child, data: bytes, descriptors: list[int] | None = None) -> None:
        """Let `child` send `data`, as much as there is room for, and the supervisor read it."""
        end = self.ends[child.pipe]
        while data:
            with contextlib.suppress(BlockingIOError):
                sent = socket.send_fds(end, [data], descriptors or [])
                data = data[sent:]
            if child.closed_at:
                return
            self.supervisor._on_message(child)

    def close(self) -> None:
        for end in self.ends.values():
            end.close()
        self.supervisor._children._selector.close()
        self.supervisor._signals.close()
        for child in (self.worker, self.other, self.template):
            child.pipe.close()


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Rig]:
    made = Rig(monkeypatch)
    yield made
    made.close()


@pytest.fixture
def new_rig(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], Rig]]:
    with contextlib.ExitStack() as stack:

        def make() -> Rig:
            made = Rig(monkeypatch)
            stack.callback(made.close)
            return made

        yield make


def line(message: Any) -> bytes:
    return json.dumps(message).encode() + b"\n"


def mutations() -> Iterator[dict[str, Any]]:
    for message in HONEST:
        for name in message:
            yield {key: value for key, value in message.items() if key != name}
            yield {**message, "more": 1}
            for value in WRONG:
                yield {**message, name: value}


@pytest.mark.parametrize("who", ["worker", "template"])
def test_whatever_a_process_sends_costs_at_most_itself(
    new_rig: Callable[[], Rig], who: str
) -> None:
    rig = new_rig()
    for data in [*map(line, mutations()), *LINES, *map(line, HONEST * 2)]:
        child: Child = getattr(rig, who)
        if child.rejected:
            rig = new_rig()
            child = getattr(rig, who)
        rig.send(child, data)
        assert set(rig.killed) <= {child.pid}
        assert child.rejected or not rig.killed
        assert rig.other.phase is Phase.STARTING
        assert not rig.other.rejected


def test_random_octets_and_messages_cost_at_most_their_sender(new_rig: Callable[[], Rig]) -> None:
    chosen = random.Random(12)
    messages = [*map(line, mutations()), *LINES]
    rig = new_rig()
    for _ in range(1500):
        child: Child = chosen.choice([rig.worker, rig.template])
        data = bytearray(chosen.choice(messages))
        for _ in range(chosen.choice([0, 0, 1, 3])):
            if data:
                data[chosen.randrange(len(data))] = chosen.randrange(256)
        if not child.closed_at:
            rig.send(child, bytes(data[: chosen.choice([10, 100, 10**6])]))
        assert set(rig.killed) <= {each.pid for each in (rig.worker, rig.template) if each.rejected}
        if rig.worker.rejected and rig.template.rejected:
            rig = new_rig()
        assert rig.other.phase is Phase.STARTING


@pytest.mark.parametrize("message", [READY, {"starting": True}, {"failed": "x", "trace": ""}])
def test_what_comes_at_the_wrong_time_costs_its_sender(rig: Rig, message: dict[str, Any]) -> None:
    rig.send(rig.worker, line(READY))
    assert rig.worker.phase is Phase.SERVING
    rig.send(rig.worker, line(message))
    assert rig.worker.rejected
    assert rig.killed == [1001]
    assert rig.generation.phase is Phase.STARTING


def test_a_flood_costs_its_sender(rig: Rig) -> None:
    rig.send(rig.worker, line(READY) + line({"heartbeat": 0}) * 3000)
    assert rig.killed == [1001]


def test_a_text_cannot_act_on_a_terminal(rig: Rig) -> None:
    rig.send(rig.worker, line({"failed": "a\x1b[2J\ud800", "trace": "one\n\ttwo\r\x9b"}))
    assert rig.worker.failed == "a\\x1b[2J\\ud800"
    assert rig.worker.trace == "one\n\ttwo\\r\\x9b"


def test_descriptors_are_not_kept(rig: Rig) -> None:
    reader, writer = os.pipe()
    rig.send(rig.worker, line(READY), [writer] * 4)
    os.close(writer)
    assert rig.worker.phase is Phase.SERVING
    assert os.read(reader, 1) == b"", "a copy is open"
    os.close(reader)


# ---- The ids that a fork server reports ----------------------------------------------------


def test_only_children_of_the_fork_server_are_signalled(rig: Rig) -> None:
    """The process is one of this user's, but none of the fork server's children."""
    rig.worker.pid = None
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        assert parent_of(stranger.pid) == os.getpid()
        rig.send(rig.template, line({"forked": 1, "pid": stranger.pid}))
        assert rig.template.rejected
        rig.worker.kill()
        assert rig.killed == [1003]
        assert stranger.poll() is None


def test_a_reported_child_of_the_fork_server_is_signalled(rig: Rig) -> None:
    rig.worker.pid = None
    rig.template.pid = os.getpid()
    rig.send(rig.worker, line(READY))
    assert rig.worker.phase is Phase.STARTING, "nobody has reported it"
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as mine:
        rig.send(rig.template, line({"forked": 1, "pid": mine.pid}))
        assert rig.worker.phase is Phase.SERVING
        rig.worker.kill()
        assert rig.killed in ([], [mine.pid])  # the first by a descriptor of the process
        if not rig.killed:
            assert mine.wait(20) == -signal.SIGKILL
    rig.worker.release()


def test_two_workers_are_not_the_same_process(rig: Rig) -> None:
    rig.worker.pid = None
    rig.send(rig.template, line({"forked": 1, "pid": 1002}))
    assert rig.killed == [1003]


# ---- Pages of metrics ----------------------------------------------------------------------


def test_a_forged_page_is_read_within_its_bounds() -> None:
    pages = SharedPages(2, 4)
    forged, honest = pages.take(), pages.take()
    pages.page(honest)[USED] = 2
    pages.page(honest)[BLOCK + REQUESTS] = 7
    page = pages.page(forged)
    chosen = random.Random(12)
    for _ in range(20):
        for at in range(len(page)):
            page[at] = chosen.choice([0, 2**64 - 1, 2**63, 2**62])
        page[USED] = chosen.choice([0, 5, 2**40, 2**64 - 1])
        assert pages.totals()[REQUESTS] == 7
        assert max(pages.gauges()[forged]) < 2**62
    pages.retire(forged)
    assert pages.totals()[REQUESTS] == 7


# ---- A worker that was taken over ----------------------------------------------------------

ATTACK = """
import json, os, random, socket
from threadwell.worker.supervisor import pipe as pipes
def app(environ, start_response):
    if environ["PATH_INFO"] != "/":
        (line,) = pipes._open_pipes
        sock = line._sock
        sock.setblocking(True)
        data = {
            "/pid": json.dumps({"ready": os.getppid()}).encode() + b"\\n",
            "/octets": random.Random(3).randbytes(200_000),
            "/flood": b'{"heartbeat": 0}\\n' * 200_000,
        }[environ["PATH_INFO"]]
        while data:
            data = data[socket.send_fds(sock, [data[:65536]], [0, 1, 2]):]
        import time
        time.sleep(60)
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]
"""


@pytest.mark.parametrize("extra", [(), ("--preload",)], ids=["each-imports", "preload"])
def test_a_worker_that_was_taken_over_is_replaced(tmp_path: Path, extra: tuple[str, ...]) -> None:
    with starting(tmp_path, ATTACK) as start:
        server = attacked(start, extra)
        assert server == 0


def attacked(start: Start, extra: tuple[str, ...]) -> int:
    server = start("app:app", "--workers", "2", *extra)
    descriptors = Path(f"/proc/{server.process.pid}/fd")
    before = len(list(descriptors.iterdir())) if descriptors.exists() else 0
    for number, path in enumerate(["/pid", "/octets", "/flood"], 1):
        with pytest.raises(OSError, match=r"."):
            server.get(path)
        server.await_line("Killing worker", number)
        server.await_line("is ready", 2 + number)
        assert int(server.get()) in server.ready_workers()
    assert server.process.poll() is None
    if before:
        until(lambda: len(list(descriptors.iterdir())) <= before)
    return server.end()
