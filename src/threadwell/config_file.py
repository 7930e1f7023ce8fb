"""Settings from a file: `threadwell.toml`, or `[tool.threadwell]` of `pyproject.toml`."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .adapters.detect import INTERFACES
from .environment import reason_of, variable_of
from .worker import OPTIONS, ConfigError, ServerConfig, did_you_mean

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

OWN_FILE = "threadwell.toml"
SHARED_FILE = "pyproject.toml"
#: The variables in which hosting platforms recommend a number of processes, and say which port they
#: send requests to.
CONCURRENCY = "WEB_CONCURRENCY"
PORT = "PORT"

_OPTIONS = {option.name: option for option in OPTIONS}


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _is_bool(value: object) -> bool:
    return isinstance(value, bool)


# Options of the command that are not in the option table: a test for a value, and what it wants.
_COMMAND_OPTIONS: dict[str, tuple[Callable[[object], bool], str]] = {
    "app": (_is_text, "text, such as module:app"),
    "interface": (
        lambda value: value in INTERFACES,
        f"{', '.join(INTERFACES[:-1])} or {INTERFACES[-1]}",
    ),
    "asgi_app": (_is_text, "text, such as module:asgi_app"),
    "app_dir": (_is_text, "text, a folder"),
    "factory": (_is_bool, "true or false"),
}


class Settings(NamedTuple):
    """The checked values of a file, by the name of the option, and the place of each."""

    path: Path | None = None
    values: dict[str, Any] = {}  # noqa: RUF012 - it is never changed
    places: dict[str, str] = {}  # noqa: RUF012


def read_settings(path: str | None = None) -> Settings:
    """The settings of the file `path`, or of one in the current directory; empty without one.

    `threadwell.toml` wins: `pyproject.toml` is read only if there is no such file. Raises
    `ConfigError`, whose message names the file and the line.
    """
    if path:
        return _read(Path(path), required=True)
    for name in (OWN_FILE, SHARED_FILE):
        settings = _read(Path(name), required=False)
        if settings.path is not None:
            return settings
    return Settings()


def with_platform(settings: Settings) -> Settings:
    """`settings` with what a hosting platform says, as far as they do not say it themselves.

    `WEB_CONCURRENCY` is the number of workers. `PORT` is the port to listen on, at every IPv4
    address: requests come from other machines. Raises `ConfigError`.
    """
    settings = _with_variable(settings, CONCURRENCY, "workers", _OPTIONS["workers"].convert)
    return _with_variable(settings, PORT, "bind", _bind_of_platform)


def _bind_of_platform(port: str) -> tuple[str]:
    if not (port.isascii() and port.isdigit() and 0 < int(port) <= 65535):
        raise ConfigError(f"bind: {port!r} is not a port")
    return (f"0.0.0.0:{port}",)


def _with_variable(
    settings: Settings, variable: str, option: str, convert: Callable[[str], Any]
) -> Settings:
    text = os.environ.get(variable)
    if not text or option in settings.values:
        return settings
    try:
        value = convert(text)
    except ConfigError as error:
        raise ConfigError(f"{variable}: {reason_of(error)}") from None
    return Settings(
        settings.path,
        {**settings.values, option: value},
        {**settings.places, option: variable},
    )


def _read(path: Path, *, required: bool) -> Settings:
    try:
        text = path.read_text("utf-8")
        import tomllib  # most programs have no such file

        table = tomllib.loads(text)
    except FileNotFoundError:
        if not required:
            return Settings()
        raise ConfigError(f"config: there is no file {path}; check the path") from None
    except OSError as error:
        raise ConfigError(f"config: {path} cannot be read: {error.strerror}") from None
    except ValueError as error:  # not TOML, or not UTF-8
        raise ConfigError(f"{path}: {error}") from None
    section = ""
    if path.name == SHARED_FILE:
        section = "tool.threadwell"
        table = table.get("tool", {}).get("threadwell")
        if table is None:
            if required:
                raise ConfigError(f"config: {path} has no [tool.threadwell]; add it")
            return Settings()
    return _checked(path, table, text.splitlines(), section)


def _checked(path: Path, table: Any, lines: list[str], section: str) -> Settings:
    if not isinstance(table, dict):
        raise ConfigError(f"{path}: {section} is not a table of options")
    values: dict[str, Any] = {}
    places: dict[str, str] = {}
    for key, value in table.items():
        name = key.replace("-", "_")
        place = f"{path}:{_line_of(key, lines, section)}"
        try:
            if name in values:
                raise ConfigError(f"{key}: it is set twice, before at {places[name]}")
            values[name] = _value(key, name, value)
        except ConfigError as error:
            raise ConfigError(f"{place}: {error}") from None
        places[name] = place
    return Settings(path, values, places)


def _value(key: str, name: str, value: Any) -> Any:
    if isinstance(value, dict):
        raise ConfigError(f"{key}: this is a table; give its options without one")
    if option := _OPTIONS.get(name):
        if option.secret:
            raise ConfigError(f"{key}: a secret does not belong in a file; set {variable_of(name)}")
        return option.convert(value)
    if name in _COMMAND_OPTIONS:
        is_right, wanted = _COMMAND_OPTIONS[name]
        if not is_right(value):
            raise ConfigError(f"{key}: {value!r} is not {wanted}")
        return value
    meant = did_you_mean(name, [*_OPTIONS, *_COMMAND_OPTIONS])
    raise ConfigError(f"{key}: there is no such option{meant}")


def _line_of(key: str, lines: list[str], section: str) -> int:
    """The number of the line that sets `key`, which `tomllib` does not report."""
    spelled = rf"[\"']?{re.escape(key)}[\"']?"
    inner = f"{section}.{key}" if section else key
    current = ""
    for number, line in enumerate(lines, 1):
        if header := re.match(r"\s*\[+\s*([^\]]+?)\s*\]", line):
            current = header[1].replace('"', "").replace(" ", "")
            if current == inner or current.startswith(inner + "."):
                return number
        elif current == section and re.match(rf"\s*{spelled}\s*[=.]", line):
            return number
    return 1


def show(config: ServerConfig, sources: Mapping[str, str]) -> str:
    """`config` as the text of a `threadwell.toml`, with the source of each value as a comment.

    `sources` has the sources by the names of the options. The values of secrets are not shown.
    """
    lines = []
    for option in OPTIONS:
        value = getattr(getattr(config, option.group), option.attribute)
        source = sources.get(option.name, "default")
        if option.secret:
            if value:
                lines.append(f"# {option.name} is set  # {source}")
        else:
            lines.append(f"{option.name} = {_toml(value)}  # {source}")
    return "\n".join(lines)


def _toml(value: Any) -> str:
    if isinstance(value, tuple):
        return f"[{', '.join(map(_toml, value))}]"
    # For texts, numbers and booleans, JSON is also TOML.
    import json  # imported only to show settings, to keep the start fast

    return json.dumps(value)
