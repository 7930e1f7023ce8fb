"""Options from the environment: `THREADWELL_THREADS` sets `threads`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from .worker import ConfigError, Option

if TYPE_CHECKING:
    from collections.abc import Iterable

PREFIX = "THREADWELL"


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


def reason_of(error: ConfigError) -> str:
    """The message of `error` without the name of the option in front of it."""
    return str(error).partition(": ")[2]
