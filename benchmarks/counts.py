"""User instructions (callgrind), or system calls (strace), that a request costs.

Two batches of requests are counted, a small one and a large one: the difference of the counts, by
that of the requests, has neither the start nor the connections in it. Counts repeat on a busy
machine.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path

from .budget_cases import CASES, Case
from .clients import Connection
from .servers import Kind, Process, running

CONNECTIONS = 8
FIRST = 1000  # all numbers have as many digits
NAMES = ("hello-browser", "hello-varied")
BY_NAME: dict[str, Case] = {case.name: case for case in CASES}
#: How many requests there are to warm up, in the small batch, and in the large one.
BATCHES = (100, 50, 250)


def instructions(kind: Kind, batches: tuple[int, int, int] = BATCHES) -> dict[str, float]:
    """User instructions a request, for heads that are the same and that differ."""
    measured = {}
    with tempfile.TemporaryDirectory() as folder:
        # a worker of gunicorn or granian is a child
        tool = ["valgrind", "--tool=callgrind", "--trace-children=yes"]
        tool.append(f"--callgrind-out-file={folder}/counts.%p")
        with running(kind, "plain", tool=tool) as server:
            for name in NAMES:
                counts = []
                for requests in batches:
                    _ask(server.port, BY_NAME[name], requests)
                    counts.append(_counted(server, Path(folder)))
                measured[name] = round((counts[2] - counts[1]) / (batches[2] - batches[1]), 1)
            server.kill()  # all is counted
    return measured


def _counted(server: Process, folder: Path) -> int:
    """The instructions of all processes since the last call, or the start."""
    total = 0
    for pid in server.pids():
        command = ["callgrind_control", "--dump", str(pid)]
        subprocess.run(command, capture_output=True, check=True)
        for path in folder.glob(f"counts.{pid}.*"):
            found = re.search(
                r"^(?:summary|totals): ([0-9]+)", path.read_text(errors="replace"), re.MULTILINE
            )
            total += int(found[1]) if found else 0
            path.unlink()
    return total


def system_calls(kind: Kind, few: int = 100, many: int = 600) -> dict[str, float]:
    """System calls a request, `futex` included."""
    case, totals = BY_NAME["hello-browser"], []
    for requests in (few, many):
        with tempfile.TemporaryDirectory() as folder:
            counts = Path(folder, "counts")
            with running(kind, "plain", tool=["strace", "-f", "-c", "-o", str(counts)]) as server:
                _ask(server.port, case, requests)
            # 100.00  0.1234  5  1234  56 total
            totals.append(int(counts.read_text().strip().splitlines()[-1].split()[3]))
    return {case.name: round((totals[1] - totals[0]) / (many - few), 1)}


def _ask(port: int, case: Case, requests: int) -> None:
    connections = [Connection(port) for _ in range(CONNECTIONS)]
    for number in range(FIRST, FIRST + requests):
        answer = connections[number % CONNECTIONS].ask(case.request(number))
        if answer.status != 200:
            raise OSError(f"{case.name} was answered with {answer.status}")
    for connection in connections:
        connection.close()
