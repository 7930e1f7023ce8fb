"""What `sources` and `gunicorn_file` have read, and `command` translates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple


class Given(NamedTuple):
    """A setting of another server.

    `flag` is its flag on a command line, empty for the application. `value` is None if it has none.
    `place` is the file and the line, `text` what stands there. `note` says how the value came about
    if it is not written there. `variables` are those of the environment that it depends on.
    `is_switch`: the value is only a yes.
    """

    flag: str
    value: Any
    place: str
    text: str
    note: str = ""
    variables: tuple[str, ...] = ()
    is_switch: bool = False


@dataclass
class Source:
    """All settings of a file, and those that cannot be taken, each with the reason.

    A command line is in `words`, as it stands at `place`: flags, values and variables.
    """

    server: str
    settings: list[Given] = field(default_factory=list)
    not_taken: list[tuple[Given, str]] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    place: str = ""
