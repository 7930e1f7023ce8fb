"""The CPU time that a server needs for a thousand requests, in all of its processes."""

from __future__ import annotations

import importlib.util

from .budget_cases import CASES
from .clients import load
from .servers import Kind, running

CONNECTIONS = 16
NAMES = ("hello-browser", "hello-varied", "post1k", "stream", "flask-varied", "django-varied")


def cpu(kind: Kind, seconds: float = 1.0, rounds: int = 2) -> dict[str, float]:
    """CPU milliseconds, user and kernel, for a thousand requests: the least of `rounds`.

    The least, because other work on the machine only adds: it empties the processor's caches.
    `least` joins several of these, from different minutes.
    """
    measured = {}
    for case in CASES:
        if case.name not in NAMES or (case.package and not _is_installed(case.package)):
            continue
        requests = [case.request(number) for number in range(1000, 6000)]
        with running(kind, case.app.removesuffix("()")) as server:
            load(server.port, requests, CONNECTIONS, min(1.0, seconds))
            spent = []
            for _ in range(rounds):
                before = server.cpu_seconds()
                done = load(server.port, requests, CONNECTIONS, seconds)
                if done.failed or not done.requests:
                    raise RuntimeError(f"{kind.name}, {case.name}: {done}")
                spent.append((server.cpu_seconds() - before) / done.requests)
        measured[case.name] = round(min(spent) * 1e6, 1)
    return measured


def least(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    """The smaller figure of each case."""
    return {name: min(value, other[name]) for name, value in one.items()}


def _is_installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None
