"""A setting as data: what it is called, its type, its unit, what it may be, and what it does."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from ..errors import ConfigError

KIB = 1024
MIB = 1024 * KIB


def option(
    name: str,
    default: Any,
    text: str,
    *,
    unit: str = "",
    low: float | None = None,
    choices: tuple[str, ...] = (),
    secret: bool = False,
    word: str = "",
) -> Any:
    """A dataclass field that is also an option called `name` (dashes on the command line).

    A `secret` one has no flag, because everybody on the machine may read command lines, and no
    representation; the environment and the keyword take it. `word` may be said for 0.
    """
    metadata = {
        "name": name,
        "help": text,
        "unit": unit,
        "low": low,
        "choices": choices,
        "secret": secret,
        "word": word,
    }
    return field(default=default, metadata=metadata, repr=not secret)


@dataclass(frozen=True, slots=True)
class Option:
    """One row of the option table.

    `name` is the keyword of `serve` and `ServerConfig.from_options`; `flag` the command line's
    spelling. `group` and `attribute` say where the value stands in `ServerConfig`.
    """

    name: str
    group: str
    attribute: str
    type: type
    default: Any
    help: str
    unit: str
    low: float | None
    choices: tuple[str, ...]
    secret: bool = False
    word: str = ""

    @property
    def flag(self) -> str:
        return "--" + self.name.replace("_", "-")

    @property
    def multiple(self) -> bool:
        return isinstance(self.default, tuple)

    def convert(self, value: Any) -> Any:
        """`value`, as typed or as passed, in the option's type; `ConfigError` when it has none."""
        if self.multiple:
            values = tuple(value) if isinstance(value, (tuple, list)) else (value,)
            if not values and self.default:
                raise ConfigError(f"{self.name}: give at least one")
            if not all(type(item) in (str, int) for item in values):
                raise ConfigError(f"{self.name}: {value!r} is not text, or a sequence of texts")
            return tuple(str(item) for item in values)
        try:
            converted = self._convert(value)
        except (TypeError, ValueError, OverflowError) as error:
            wanted = _KINDS[self.type] + (f" or {self.word}" if self.word else "")
            shown = "what was given" if self.secret else repr(value)
            raise ConfigError(f"{self.name}: {shown} is not {wanted}{self._in_unit()}") from error
        if self.low is not None and converted < self.low:
            raise ConfigError(f"{self.name}: {value!r} is below the least, {self.low:g}")
        if self.choices and converted not in (*self.choices, self.default):
            raise ConfigError(f"{self.name}: {value!r} is not one of {', '.join(self.choices)}")
        return converted

    def _convert(self, value: Any) -> Any:
        if self.type is bool:
            return _truth(value)
        if self.word and value == self.word:
            return 0
        return self._number(value) if self.type in (int, float) else self._text(value)

    def _text(self, value: Any) -> str:
        if not isinstance(value, str):
            raise TypeError(value)
        return value

    def _number(self, value: Any) -> Any:
        if isinstance(value, bool):
            raise TypeError(value)
        if isinstance(value, str) and self.unit == "bytes":
            return parse_size(value)
        number = self.type(value)
        if number != number or number in (float("inf"), float("-inf")) or number != float(value):
            raise ValueError(value)
        return number

    def _in_unit(self) -> str:
        return f" of {self.unit}" if self.unit else ""


_KINDS = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}

_TRUTHS = {
    **dict.fromkeys(("true", "t", "yes", "y", "on", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "off", "0"), False),
}


def _truth(value: Any) -> bool:
    if isinstance(value, str):
        value = _TRUTHS.get(value.strip().lower())
    if not isinstance(value, bool):
        raise TypeError(value)
    return value


def parse_size(text: str) -> int:
    """The bytes that `text` says: digits, and K, M or G for the powers of 1024. `ValueError`."""
    match = re.fullmatch(r"([0-9]+) ?([kmgKMG]?)(?:i?[bB])?", text.strip())
    if match is None:
        raise ValueError(text)
    power = " kmg".index(match[2].lower() or " ")
    return int(match[1]) * int(1024**power)
