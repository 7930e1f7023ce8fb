"""The option table as arguments of a management command, and as the setting `THREADWELL`.

What a command is told on its line wins over the environment (`THREADWELL_THREADS`), and that over
`THREADWELL = {"threads": 16}` in the settings.
"""

from __future__ import annotations

import os
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable, Mapping
from typing import Any

from django.conf import settings

from threadwell.worker import OPTIONS, ConfigError, Option, ServerConfig


def add_arguments(parser: ArgumentParser) -> None:
    """Give `parser` every option of the table; those that are not typed are None."""
    group = parser.add_argument_group("options of threadwell")
    for option in OPTIONS:
        if option.secret:
            continue  # everybody on the machine may read command lines
        group.add_argument(
            option.flag,
            dest=option.name,
            action="append" if option.multiple else "store",
            type=_type(option),
            choices=option.choices or None,
            metavar=None if option.choices else (option.unit.split(" ")[0] or "value").upper(),
            help=option.help.replace("%", "%%"),
        )


def _type(option: Option) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        try:
            value = option.convert(text)
        except ConfigError as error:
            # argparse has the flag in front already
            raise ArgumentTypeError(str(error).partition(": ")[2]) from None
        return value[0] if option.multiple else value

    return convert


def configure(
    options: Mapping[str, Any], *, defaults: Mapping[str, Any], typed: Mapping[str, Any]
) -> ServerConfig:
    """The configuration that `defaults`, the environment and a command's `options` make.

    `defaults` are of the program and the settings; `typed` is what was given on the line in other
    words. Raises `ConfigError`, whose message says where the value stands.
    """
    chosen = dict(defaults)
    for option in OPTIONS:
        variable = f"THREADWELL_{option.name.upper()}"
        value = os.environ.get(variable)
        if value:
            try:
                chosen[option.name] = option.convert(value.split() if option.multiple else value)
            except ConfigError as error:
                raise ConfigError(f"{variable}: {str(error).partition(': ')[2]}") from None
    chosen.update(typed)
    given = {option.name: options.get(option.name) for option in OPTIONS}
    chosen.update((name, value) for name, value in given.items() if value is not None)
    return ServerConfig.from_options(**chosen)


def from_settings() -> dict[str, Any]:
    """What the setting `THREADWELL` says, checked. Raises `ConfigError`."""
    table = getattr(settings, "THREADWELL", {})
    if not isinstance(table, Mapping) or not all(isinstance(name, str) for name in table):
        raise ConfigError("the setting THREADWELL is not a dictionary from option names to values")
    chosen = {name.lower(): value for name, value in table.items()}
    try:
        ServerConfig.from_options(**chosen)
    except ConfigError as error:
        raise ConfigError(f"the setting THREADWELL: {error}") from None
    return chosen
