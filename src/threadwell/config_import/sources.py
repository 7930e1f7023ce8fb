"""Reads what other servers are configured with, without executing it.

`read_source` returns the settings of a file as flags of the server's command line, with the place
of each: of `gunicorn.conf.py`, `uwsgi.ini`, a Procfile, or any file with a command line of one of
the servers of `foreign_options`.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..foreign_options import SERVERS
from ..worker import ConfigError
from .given import Given, Source
from .gunicorn_file import read_gunicorn_file

if TYPE_CHECKING:
    from collections.abc import Iterable

# The names of commands, and of modules behind `python -m`, by server.
_COMMANDS = {
    "gunicorn": "gunicorn",
    "uvicorn": "uvicorn",
    "granian": "granian",
    "hypercorn": "hypercorn",
    "waitress-serve": "waitress",
    "waitress": "waitress",
    "daphne": "daphne",
    "uwsgi": "uWSGI",
}
_VARIABLE = re.compile(r"\$(?:\{(\w+)(?::?-([^}]*))?\}|(\w+))")
_ASSIGNMENT = re.compile(r"\w+=")
# A word of a Procfile, or of a unit of systemd, in front of the command.
_LABEL = re.compile(r"^(?:[\w-]+:\s+|ExecStart\s*=\s*|exec\s+|CMD\s+|ENTRYPOINT\s+)")


def read_source(path: Path) -> Source:
    """The settings in the file `path`. Raises `ConfigError` if it is of no kind that is known."""
    try:
        text = path.read_text("utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: it cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: it is not text in UTF-8") from None
    if re.search(r"^\s*\[uwsgi\]\s*$", text, re.MULTILINE):
        return _uwsgi_file(path, text)
    if path.suffix == ".py":
        return read_gunicorn_file(path, text)
    return _command_line(path, text)


# ---- uwsgi.ini ----------------------------------------------------------------------------


def _uwsgi_file(path: Path, text: str) -> Source:
    source = Source("uWSGI")
    known: dict[str, str] = {}
    used: set[str] = set()
    section = ""
    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if line.startswith("[") and line.endswith("]"):
            section = line[1:-1].strip()
            continue
        if section != "uwsgi" or not line or line[0] in "#;":
            continue
        key, equals, value = (part.strip() for part in line.partition("="))
        for name in [name for name in known if f"%({name})" in value]:
            value = value.replace(f"%({name})", known[name])
            used.add(f"--{name}")
        known[key] = value
        given = Given(f"--{key}", value, f"{path.name}:{number}", line)
        if re.search(r"\$\(|%[a-zA-Z(]|@\(", value):
            source.not_taken.append((given, "it has a placeholder of uWSGI"))
        elif not equals or value.lower() in ("true", "1", "yes", "on"):
            source.settings.append(given._replace(value=value or None, is_switch=True))
        elif value.lower() in ("false", "0", "no", "off") and f"--{key}" in SERVERS["uWSGI"]:
            if SERVERS["uWSGI"][f"--{key}"].takes_value:
                source.settings.append(given)
        else:
            source.settings.append(given)
    source.settings = [
        each
        for each in source.settings
        if each.flag in SERVERS["uWSGI"] or each.flag not in used  # a name for other lines only
    ]
    return source


def with_app_of_uwsgi(settings: Iterable[Given]) -> list[Given]:
    """`settings` with the application that `module`, `wsgi-file` and `callable` name, if any."""
    every = list(settings)
    parts = {each.flag: each for each in every if each.flag in _APP_FLAGS}
    named = next((parts[flag] for flag in _APP_FLAGS[:-1] if flag in parts), None)
    if named is None:
        return every
    app = str(named.value)
    attribute = parts.get("--callable")
    if attribute is not None and ":" not in app:
        app = f"{app}:{attribute.value}"
    rest = [each for each in every if each.flag not in _APP_FLAGS]
    return [named._replace(flag="", value=app), *rest]


_APP_FLAGS = ("--module", "-w", "--wsgi", "--wsgi-file", "--file", "--callable")


# ---- Command lines ------------------------------------------------------------------------


class _Command(NamedTuple):
    server: str
    words: list[str]
    place: str
    #: The words in front of the command that set a variable.
    variables: list[str]


def _command_line(path: Path, text: str) -> Source:
    commands = _commands(path, text)
    if not commands:
        names = ", ".join(dict.fromkeys(_COMMANDS.values()))
        raise ConfigError(
            f"{path}: it is no gunicorn.conf.py, has no section [uwsgi], and no command line of"
            f" {names}"
        )
    command, *others = commands
    source = Source(command.server)
    for word in command.variables:
        given = Given("", None, command.place, word)
        source.not_taken.append((given, "set the variable where the server is started"))
    for other in others:
        text = shlex.join([other.server, *other.words])
        source.not_taken.append(
            (Given("", text, other.place, text), "it is another command line; one file is for one")
        )
    source.words = command.words
    source.place = command.place
    return source


def _commands(path: Path, text: str) -> list[_Command]:
    found = []
    number = 1
    for logical in re.split(r"(?<!\\)\n", text):
        place = f"{path.name}:{number}"
        number += logical.count("\n") + 1
        line = logical.replace("\\\n", " ").strip()
        if not line or line.startswith("#"):
            continue
        line = _LABEL.sub("", line)
        if line.startswith("["):  # the exec form of a Dockerfile
            line = re.sub(r'["\',\[\]]', " ", line)
        try:
            words = shlex.split(line, comments=True)
        except ValueError:
            continue
        if command := _command_of(words, place):
            found.append(command)
    return found


def _command_of(words: list[str], place: str) -> _Command | None:
    for at, word in enumerate(words):
        name = word.rpartition("/")[2].removesuffix(".exe")
        is_module = at and words[at - 1] == "-m"
        if name in _COMMANDS and (name != "waitress" or is_module):
            rest = words[at + 1 :]
            end = next((i for i, each in enumerate(rest) if each in ("&&", "||", ";", "|")), None)
            variables = [each for each in words[:at] if _ASSIGNMENT.match(each)]
            return _Command(_COMMANDS[name], rest[:end], place, variables)
    return None


def expand(word: str) -> tuple[str, dict[str, str | None]]:
    """`word` with the defaults of its shell variables, and these defaults; None without one."""
    variables = {m[1] or m[3]: m[2] for m in _VARIABLE.finditer(word)}
    return _VARIABLE.sub(lambda m: m[2] or "", word), variables
