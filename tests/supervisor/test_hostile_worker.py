"""A worker of the user nobody that was taken over: it harms nobody but itself.

With `HOSTILE_ATTACKS=12 HOSTILE_SEED=3` in the environment it attacks for longer, in another way.
The supervisor starts workers that are killed soon less and less often.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from ..helpers.as_nobody import AsNobody, as_root, readable_by_all
from ..helpers.command import children
from ..helpers.waiting import until
from .test_reports import LINES, line, mutations

ATTACKS = int(os.environ.get("HOSTILE_ATTACKS", "6"))
# MiB that the supervisor may grow.
ROOM = 10

# What is posted goes into the channel of the worker, with descriptors.
APP = """
import os, select, socket
from threadwell.worker.supervisor import pipe as pipes

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    data = environ["wsgi.input"].read()
    while data:
        (channel,) = pipes._open_pipes
        select.select([], [channel._sock], [])
        data = data[socket.send_fds(channel._sock, [data[:65536]], [0, 1, 2]):]
    return [f"{os.getpid()} {os.getuid()}".encode()]
"""


def attacks(pids: list[int]) -> Iterator[bytes]:
    """Messages with wrong values, among them `pids`, and random octets; each time others."""
    chosen = random.Random(int(os.environ.get("HOSTILE_SEED", "12")))
    wrong = [*map(line, mutations()), *LINES]
    for pid in pids:
        wrong += [line({"ready": pid}), line({"pid": pid}), line({"exited": pid, "status": 0})]
        wrong += [line({"forked": 1, "pid": pid}), line({"ready": True, "pid": pid})]
    while True:
        kind = chosen.randrange(4)
        if kind == 0:
            yield chosen.randbytes(chosen.choice([1, 1000, 300_000]))
        elif kind == 1:
            yield b"".join(chosen.sample(wrong, 20))
        else:
            yield chosen.choice(wrong)


def attack(port: int, data: bytes) -> int:
    """Let one worker, whose process this returns, write `data` into its channel."""
    while True:
        # the worker is killed before it answers, or not, as the message is; the answer to the first
        # request is missing where it is killed for an earlier one
        with (
            contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as client,
            contextlib.suppress(OSError, http.client.HTTPException),
        ):
            client.request("GET", "/")
            pid, uid = map(int, client.getresponse().read().split())
            assert uid == 65534
            with contextlib.suppress(OSError, http.client.HTTPException):
                client.request("POST", "/", data)
                client.getresponse().read()
            return pid


def resident(pid: int) -> float:
    """MiB of memory that the process has."""
    return (
        int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE") / 2**20
    )


@as_root
def test_a_worker_of_nobody_harms_only_itself() -> None:
    with (
        readable_by_all(APP) as folder,
        subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as bystander,
        contextlib.closing(AsNobody(folder, "--bind", "127.0.0.1:0", "--workers", "2")) as server,
    ):
        supervisor = server.process.pid
        descriptors = Path(f"/proc/{supervisor}/fd")
        server.await_line("is ready", 2)
        opened, memory = len(list(descriptors.iterdir())), resident(supervisor)
        workers, attackers = set(children(supervisor)), set()
        for data in islice(attacks([supervisor, bystander.pid, os.getpid(), 1]), ATTACKS):
            attackers.add(attack(server.port, data))
            workers.update(children(supervisor))
        # the supervisor replaces those that it has killed, and goes on
        until(lambda: len(children(supervisor)) == 2)
        workers.update(children(supervisor))
        assert workers - set(children(supervisor)) <= attackers
        server.await_line("Killing worker")
        until(lambda: len(list(descriptors.iterdir())) <= opened)
        assert resident(supervisor) < memory + ROOM
        assert server.end() == 0
        bystander.communicate(b"\n")
        assert bystander.returncode == 0
