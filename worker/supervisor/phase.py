"""The state machine of a worker, of a generation of workers, and of the supervisor.

This table alone decides what may follow each phase. docs/architecture.md draws it.
"""

from __future__ import annotations

from enum import Enum


class Phase(Enum):
    """How far something is between its start and its end."""

    STARTING = "starting"  # the application is being imported
    SERVING = "serving"  # it has reported that it accepts connections
    DRAINING = "draining"  # it accepts no new connections, and finishes its requests
    STOPPED = "stopped"


#: From each phase, the phases that may follow.
TRANSITIONS: dict[Phase, frozenset[Phase]] = {
    Phase.STARTING: frozenset({Phase.SERVING, Phase.DRAINING, Phase.STOPPED}),
    Phase.SERVING: frozenset({Phase.DRAINING, Phase.STOPPED}),
    Phase.DRAINING: frozenset({Phase.STOPPED}),
    Phase.STOPPED: frozenset(),
}


class IllegalPhase(RuntimeError):
    """A move to a phase that may not follow the current one: a bug of threadwell."""


class Phased:
    """Has a phase, which one thread of its process changes."""

    def __init__(self) -> None:
        self.phase = Phase.STARTING

    def become(self, phase: Phase) -> None:
        """Move to `phase`. Raises `IllegalPhase` if the table does not allow it."""
        if phase not in TRANSITIONS[self.phase]:
            raise IllegalPhase(f"{self.phase.value} -> {phase.value}")
        self.phase = phase
