"""The command `threadwell ctl`: looks into a running server, and commands it."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from .control_client import ControlClient, ControlError
from .control_text import as_text
from .process_setup import USAGE_ERROR, say
from .worker.control.protocol import VERBS, CommandError, checked

if TYPE_CHECKING:
    from collections.abc import Sequence


def verbs_text() -> str:
    """The verbs, one a line."""
    names = {verb: f"{verb} {known.argument}".strip() for verb, known in VERBS.items()}
    width = max(map(len, names.values()))
    return "\n".join(f"  {names[verb].ljust(width)}  {VERBS[verb].help}" for verb in VERBS)


def run(path: str, verb: str, arguments: Sequence[str], as_json: bool) -> int:
    """Carry out a command and print its result; return the exit code."""
    try:
        checked(verb, list(arguments))
        with ControlClient(path) as client:
            result = client.ask(verb, *arguments)
    except (CommandError, ControlError) as error:
        say(f"threadwell: {error}", sys.stderr)
        return USAGE_ERROR
    say(json.dumps(result, indent=2) if as_json else as_text(verb, result))
    return 0
