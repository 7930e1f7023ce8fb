"""Options from the environment: `THREADWELL_THREADS` sets `threads`."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from .worker import ConfigError, Option, did_you_mean
from .worker.system.standard_streams import write_text

if TYPE_CHECKING:
    from collections.abc import Iterable

    import click

PREFIX = "THREADWELL"
# Variables with which threadwell's own processes pass facts to each other.
_INTERNAL = {"THREADWELL_RELOADER", "THREADWELL_DJANGO_WORKERS", "THREADWELL_DJANGO_RELOADER"}


def variable_of(name: str) -> str:
    """The environment variable that sets the option `name`."""
    return f"{PREFIX}_{name.upper()}"


def read_environment(options: Iterable[Option]) -> dict[str, Any]:
    """The values that the environment gives to `options`, by the name of the option.

    An empty variable counts as unset. Several values of one option are separated by blanks. Raises
    `ConfigError`, whose message starts with the name of the variable.
    """
    found = {}
    for option in options:
        variable = variable_of(option.name)
        text = os.environ.get(variable)
        if text:
            try:
                found[option.name] = option.convert(text.split() if option.multiple else text)
            except ConfigError as error:
                raise ConfigError(f"{variable}: {reason_of(error)}") from None
    return found


def warn_of_unknown_variables(params: Iterable[click.Parameter]) -> None:
    """Name the variables with our prefix that set none of `params`, on standard error.

    A child of a reloader says nothing: its parent did.
    """
    if _INTERNAL & os.environ.keys():
        return
    known = {variable_of(param.name) for param in params if param.name}
    for name in sorted(os.environ):
        if name.startswith(f"{PREFIX}_") and name not in known:
            meant = did_you_mean(name, known, f"{PREFIX}_")
            write_text(
                sys.stderr, f"threadwell: {name} is set, and there is no such option{meant}\n"
            )


def reason_of(error: ConfigError) -> str:
    """The message of `error` without the name of the option in front of it."""
    return str(error).partition(": ")[2]
