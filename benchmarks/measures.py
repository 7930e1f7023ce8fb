"""What can be measured, of which servers, and how long it takes."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .counts import instructions, system_calls
from .cpu import cpu, least
from .latency import latency
from .memory import memory
from .parallelism import parallelism
from .reloads import reload
from .servers import Kind


@dataclass(frozen=True)
class Measure:
    """`run` measures a server, in short if so told. `lacks` says why a server has no figure."""

    name: str
    run: Callable[[Kind, bool], dict[str, Any]]
    lacks: Callable[[Kind], str] = lambda kind: ""  # noqa: ARG005
    #: How often the servers take turns, and what joins their figures.
    passes: int = 1
    join: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]] | None = None
    #: The program that it needs, and is left out without.
    program: str = ""

    def is_possible(self) -> bool:
        return not self.program or shutil.which(self.program) is not None


def _instructions(kind: Kind, quick: bool) -> dict[str, Any]:
    return instructions(kind, (20, 20, 40)) if quick else instructions(kind)


def _system_calls(kind: Kind, quick: bool) -> dict[str, Any]:
    return system_calls(kind, 20, 40) if quick else system_calls(kind)


def _cpu(kind: Kind, quick: bool) -> dict[str, Any]:
    return cpu(kind, seconds=1.0, rounds=1) if quick else cpu(kind)


def _latency(kind: Kind, quick: bool) -> dict[str, Any]:
    return latency(kind, 80, 4, 1) if quick else latency(kind)


def _memory(kind: Kind, quick: bool) -> dict[str, Any]:
    return memory(kind, (20, 40)) if quick else memory(kind)


def _reload(kind: Kind, quick: bool) -> dict[str, Any]:
    return reload(kind, 1) if quick else reload(kind)


def _no_idle(kind: Kind) -> str:
    return "" if kind.keeps_alive else "closes each connection"


def _no_reload(kind: Kind) -> str:
    return "" if kind.reloads else "has no reload"


MEASURES = (
    Measure("instructions", _instructions, program="valgrind"),
    Measure("syscalls", _system_calls, program="strace"),
    Measure("cpu", _cpu, passes=4, join=least),
    Measure("latency", _latency),
    Measure("memory", _memory, _no_idle),
    Measure("reload", _reload, _no_reload),
)


def threads(
    kinds: list[Kind], free_threaded: str, quick: bool
) -> dict[str, dict[str, dict[str, float]]]:
    """`parallelism` of each server, with this Python and with the one that is given."""
    pythons = {"GIL": sys.executable, **({"free-threaded": free_threaded} if free_threaded else {})}
    seconds, rounds = (1.0, 1) if quick else (3.0, 3)
    return {
        kind.name: {
            name: parallelism(kind, path, seconds, rounds) for name, path in pythons.items()
        }
        for kind in kinds
    }
