"""One setting as data: its name, type, unit, allowed values and help text."""

from __future__ import annotations

import re
from dataclasses import field
from typing import Any, NamedTuple

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
    high: float | None = None,
    choices: tuple[str, ...] = (),
    secret: bool = False,
    word: str = "",
) -> Any:
    """Return a dataclass field that is also the option `name`, with dashes on the command line.

    A `secret` option has no flag, because all users of the machine can read command lines, and it
    is left out of `repr`; the environment and the keyword argument set it. `word` is a word that
    stands for 0.
    """
    metadata = {
        "name": name,
        "help": text,
        "unit": unit,
        "low": low,
        "high": high,
        "choices": choices,
        "secret": secret,
        "word": word,
    }
    return field(default=default, metadata=metadata, repr=not secret)


class Option(NamedTuple):
    """One row of the option table.

    `name` is the keyword of `serve` and `ServerConfig.from_options`, `flag` the name on the command
    line. `ServerConfig` has the value as `attribute` of `group`.
    """

    name: str
    group: str
    attribute: str
    type: type
    default: Any
    help: str
    unit: str
    low: float | None
    high: float | None
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
        """Return `value`, text or not, in the type of the option. Raises `ConfigError`."""
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
            wanted = _TYPE_NAMES[self.type] + (f" or {self.word}" if self.word else "")
            shown = "what was given" if self.secret else repr(value)
            raise ConfigError(f"{self.name}: {shown} is not {wanted}{self._in_unit()}") from error
        if self.low is not None and converted < self.low:
            raise ConfigError(f"{self.name}: {value!r} is less than the minimum, {self.low:g}")
        if self.high is not None and converted > self.high:
            raise ConfigError(f"{self.name}: {value!r} is more than the maximum, {self.high:g}")
        if self.choices and isinstance(converted, str):
            converted = converted.lower()
        if self.choices and converted not in (*self.choices, self.default):
            raise ConfigError(f"{self.name}: {value!r} is not one of {', '.join(self.choices)}")
        return converted

    def _convert(self, value: Any) -> Any:
        if self.type is bool:
            return _parse_bool(value)
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


_TYPE_NAMES = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}

_BOOLEANS = {
    **dict.fromkeys(("true", "t", "yes", "y", "on", "1"), True),
    **dict.fromkeys(("false", "f", "no", "n", "off", "0"), False),
}


def _parse_bool(value: Any) -> bool:
    if isinstance(value, str):
        value = _BOOLEANS.get(value.strip().lower())
    if not isinstance(value, bool):
        raise TypeError(value)
    return value


def parse_size(text: str) -> int:
    """Return the bytes of a size such as `10M`: K, M and G are powers of 1024.

    Raises `ValueError`.
    """
    match = re.fullmatch(r"([0-9]+) ?([kmgKMG]?)(?:i?[bB])?", text.strip())
    if match is None:
        raise ValueError(text)
    power = " kmg".index(match[2].lower() or " ")
    return int(match[1]) * int(1024**power)
