"""The state machine of everything that serves: a worker, a generation of them, the supervisor.

Rule: whether something may be given connections, and what it may become, is decided by this
table alone. docs/architecture.md draws it.
"""

from __future__ import annotations

from enum import Enum


class Phase(Enum):
    """Where it stands between being started and being gone."""

    STARTING = "starting"  # the application is being imported
    SERVING = "serving"  # it said that it takes requests
    DRAINING = "draining"  # it takes no new connections, and answers what it has
    STOPPED = "stopped"


#: From each phase, the phases that may follow.
TRANSITIONS: dict[Phase, frozenset[Phase]] = {
    Phase.STARTING: frozenset({Phase.SERVING, Phase.DRAINING, Phase.STOPPED}),
    Phase.SERVING: frozenset({Phase.DRAINING, Phase.STOPPED}),
    Phase.DRAINING: frozenset({Phase.STOPPED}),
    Phase.STOPPED: frozenset(),
}


class IllegalPhase(RuntimeError):
    """Something was moved to a phase that cannot follow its own: a bug of threadwell."""


class Phased:
    """Has a phase. Belongs to the one thread of its process that changes it."""

    def __init__(self) -> None:
        self.phase = Phase.STARTING

    def become(self, phase: Phase) -> None:
        """Move to `phase`. Raises `IllegalPhase` where the table has no such step."""
        if phase not in TRANSITIONS[self.phase]:
            raise IllegalPhase(f"{self.phase.value} -> {phase.value}")
        self.phase = phase
