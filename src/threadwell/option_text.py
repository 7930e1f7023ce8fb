"""What the help of a command says of an option, with click and with argparse."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .worker.config import TITLES

if TYPE_CHECKING:
    from .worker import Option

__all__ = ["TITLES", "help_of", "metavar_of"]

_METAVARS = {"bytes": "SIZE", "seconds": "SECONDS", "bytes per second": "BYTES"}


def metavar_of(option: Option) -> str:
    """What stands for the value of `option`."""
    if option.choices:
        return f"[{'|'.join(option.choices)}]"
    if option.unit:
        return _METAVARS[option.unit]
    return {int: "NUMBER", float: "NUMBER"}.get(option.type, "TEXT")


def help_of(option: Option) -> str:
    """The help of an option with a value: what it does, its unit and its default."""
    facts = [option.unit] if option.unit else []
    if shown := _default_text(option):
        facts.append(f"default: {shown}")
    return option.help + (f"  [{', '.join(facts)}]" if facts else "")


def _default_text(option: Option) -> str:
    """The default value as a user would type it."""
    default = option.default
    if option.multiple:
        return " ".join(default)
    if option.unit == "bytes":
        for letter, size in (("M", 1024**2), ("K", 1024)):
            if default and default % size == 0:
                return f"{default // size}{letter}"
    return f"{default:g}" if option.type is float else str(default)
