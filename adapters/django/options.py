"""The option table as arguments of a management command, and as the setting `THREADWELL`.

The command line wins over the environment (`THREADWELL_THREADS`), which wins over
`THREADWELL = {"threads": 16}` in the settings.
"""

from __future__ import annotations

from argparse import ArgumentParser, ArgumentTypeError, BooleanOptionalAction
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from django.conf import settings

from threadwell.environment import read_environment, reason_of
from threadwell.option_text import TITLES, help_of, metavar_of
from threadwell.worker import OPTIONS, ConfigError, Option, ServerConfig


def add_arguments(parser: ArgumentParser) -> None:
    """Add every option of the table to `parser`. An option that is not given is None."""
    groups = {
        name: parser.add_argument_group(f"threadwell: {title}") for name, title in TITLES.items()
    }
    for option in OPTIONS:
        if option.secret:
            continue  # Every user of the machine can read command lines.
        if option.type is bool:
            groups[option.group].add_argument(
                option.flag,
                dest=option.name,
                action=BooleanOptionalAction,
                help=option.help.replace("%", "%%"),
            )
            continue
        groups[option.group].add_argument(
            option.flag,
            dest=option.name,
            action="append" if option.multiple else "store",
            type=_type(option),
            metavar=metavar_of(option),
            help=help_of(option).replace("%", "%%"),
        )


def _type(option: Option) -> Callable[[str], Any]:
    def convert(text: str) -> Any:
        try:
            value = option.convert(text)
        except ConfigError as error:
            # argparse prints the flag in front of it.
            raise ArgumentTypeError(reason_of(error)) from None
        return value[0] if option.multiple else value

    return convert


def configure(
    options: Mapping[str, Any], *, defaults: Mapping[str, Any], typed: Mapping[str, Any]
) -> ServerConfig:
    """The configuration that `defaults`, the environment and the `options` of a command make.

    `defaults` come from the program and the settings. `typed` has the values of arguments that are
    not options of the table, such as an address. Raises `ConfigError`, whose message names the
    source of the value.
    """
    given = {option.name: options.get(option.name) for option in OPTIONS}
    return ServerConfig.from_options(
        **{
            **defaults,
            **read_environment(OPTIONS),
            **typed,
            **{name: value for name, value in given.items() if value is not None},
        }
    )


def values_of(config: ServerConfig) -> dict[str, Any]:
    """The value of every option in `config`, for `ServerConfig.from_options` in another process."""
    groups = asdict(config)
    return {option.name: groups[option.group][option.attribute] for option in OPTIONS}


def from_settings() -> dict[str, Any]:
    """The checked values of the setting `THREADWELL`, by option. Raises `ConfigError`."""
    table = getattr(settings, "THREADWELL", {})
    if not isinstance(table, Mapping) or not all(isinstance(name, str) for name in table):
        raise ConfigError("the setting THREADWELL is not a dictionary from option names to values")
    chosen = {name.lower(): value for name, value in table.items()}
    try:
        ServerConfig.from_options(**chosen)
    except ConfigError as error:
        raise ConfigError(f"the setting THREADWELL: {error}") from None
    return chosen
