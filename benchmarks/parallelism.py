"""What more threads bring to an application that computes, with and without the GIL."""

from __future__ import annotations

import statistics

from .clients import load
from .servers import Kind, running

REQUESTS = [b"GET /work HTTP/1.1\r\nHost: localhost\r\n\r\n"]
THREADS = (1, 2, 4)


def parallelism(kind: Kind, python: str, seconds: float, rounds: int) -> dict[str, float]:
    """Requests in the same time with more threads, to those with one: the median of `rounds`.

    One process, as many clients as threads, each request some milliseconds of Python. The numbers
    of threads take turns. `python` needs threadwell.
    """
    found: dict[int, list[float]] = {threads: [] for threads in THREADS}
    for _ in range(rounds):
        for threads in THREADS:
            with running(kind, "service", threads=threads, python=python) as server:
                done = load(server.port, REQUESTS, threads, seconds)
                if done.failed:
                    raise RuntimeError(f"{kind.name} with {threads} threads: {done}")
                found[threads].append(done.requests / seconds)
    one = statistics.median(found[1])
    return {
        str(threads): round(statistics.median(each) / one, 2) for threads, each in found.items()
    }
