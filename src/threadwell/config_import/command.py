"""The command, and what it writes."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from ..adapters.detect import INTERFACES
from ..config_file import CONCURRENCY, OWN_FILE, PORT
from ..environment import reason_of, variable_of
from ..foreign_options import ALREADY_DEFAULT, HOST, SERVERS, Foreign
from ..foreign_options import PORT as PORT_HALF
from ..option_hints import DEFAULT_HALVES, split_arguments
from ..process_setup import say
from ..worker import OPTIONS, ConfigError, Option, ServerConfig
from ..worker.assembly import check
from ..worker.system.standard_streams import write_text
from .given import Given, Source
from .sources import expand, read_source, with_app_of_uwsgi

_OPTIONS = {option.flag: option for option in OPTIONS}
# Flags of the command that a file may have, and that are not in the option table.
_COMMAND_OPTIONS = {"--app-dir": "app_dir", "--factory": "factory", "--interface": "interface"}
# Which variable of a hosting platform is read for an option.
_PLATFORM = {"bind": PORT, "workers": CONCURRENCY}
# Flags of granian whose value is in milliseconds.
_MILLISECONDS = ("--http1-header-read-timeout",)
# Their values may be secrets, which do not belong in a comment.
_HIDDEN = ("--env", "-e", "--ssl-keyfile-password", "--keyfile-password")


class Flags(NamedTuple):
    """The flags of the command that serves: whether a value follows, and the long flag of each."""

    own: dict[str, bool]
    long: dict[str, str]


class _Line(NamedTuple):
    """A setting to write."""

    value: Any
    given: list[Given]
    note: str


def importer(flags: Flags) -> Callable[..., int]:
    """The callback of the command. `flags` are those of the command that serves."""

    def run(file: str, output: str | None, overwrite: bool) -> int:
        text, summary = imported(Path(file), flags)
        if output is None:
            say(text.rstrip("\n"))
        else:
            _write(Path(output), text, overwrite=overwrite)
        write_text(sys.stderr, summary)
        return 0

    return run


def _write(path: Path, text: str, *, overwrite: bool) -> None:
    try:
        with path.open("w" if overwrite else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise ConfigError(f"--output: {path} exists; add --overwrite to replace it") from None
    except OSError as error:
        raise ConfigError(f"--output: {path} cannot be written: {error.strerror}") from None


def imported(path: Path, flags: Flags) -> tuple[str, str]:
    """The text of a `threadwell.toml` for the settings in `path`, and a summary for people.

    `flags` are as for `importer`. Raises `ConfigError` if `path` has no settings of a known server.
    """
    source = read_source(path)
    found = _Importer(source, flags)
    found.run()
    return found.text(path), found.summary(path)


class _Importer:
    def __init__(self, source: Source, flags: Flags) -> None:
        self._source = source
        self._own = flags.own
        self._long = flags.long
        self._table = SERVERS[source.server]
        self._lines: dict[str, _Line] = {}
        self._left = list(source.not_taken)

    def run(self) -> None:
        """Translate every setting."""
        halves: dict[str, Given] = {}
        settings: Iterable[Given] = chain(self._source.settings, self._of_command_line())
        if self._source.server == "uWSGI":
            settings = with_app_of_uwsgi(settings)
        for given in settings:
            foreign = self._table.get(given.flag)
            if foreign is not None and foreign.form in (HOST, PORT_HALF):
                halves[foreign.form] = given
            elif not given.flag:
                self._take_app(given)
            else:
                self._take(given, foreign)
        if halves:
            self._take_address(halves)
        self._leave_what_does_not_fit()

    # ---- Command lines --------------------------------------------------------------------

    def _of_command_line(self) -> Iterator[Given]:
        place = self._source.place
        for flag, value in split_arguments(self._source.words, self._own, self._table):
            text = " ".join(each for each in (flag, value) if each)
            given = Given(flag, value, place, text, is_switch=value is None)
            expanded, variables = expand(value or "")
            missing = [name for name, default in variables.items() if default is None]
            given = given._replace(variables=tuple(variables))
            if "$(" in text or "`" in text:
                self._left.append((given, "only a shell can say what it is"))
            elif missing and not self._is_of_platform(given):
                self._left.append((given, f"it is the variable {missing[0]}, which is not read"))
            else:
                if variables:
                    note = f"the default of the variable {', '.join(variables)}, which is not read"
                    given = given._replace(value=expanded, note=note)
                yield given

    def _is_of_platform(self, given: Given) -> bool:
        foreign = self._table.get(given.flag)
        ours = self._long.get(given.flag, "") if foreign is None else foreign.ours
        return _PLATFORM.get(_name(ours), "") in given.variables

    # ---- One setting ----------------------------------------------------------------------

    def _take_app(self, given: Given) -> None:
        if "app" in self._lines or not re.match(r"[A-Za-z_./~]", str(given.value)):
            self._left.append((given, "it has no flag before it, and there is one application"))
        else:
            self._lines["app"] = _Line(str(given.value), [given], given.note)

    def _take_address(self, halves: dict[str, Given]) -> None:
        values = DEFAULT_HALVES | {form: str(given.value) for form, given in halves.items()}
        host = f"[{values[HOST]}]" if ":" in values[HOST] else values[HOST]
        first, *others = halves.values()
        variables = tuple(name for given in halves.values() for name in given.variables)
        whole = first._replace(
            flag="--bind",
            value=f"{host}:{values[PORT_HALF]}",
            text=" ".join(each.text for each in (first, *others)),
            variables=variables,
        )
        self._take(whole, Foreign("--bind"))

    def _take(self, given: Given, foreign: Foreign | None) -> None:
        if foreign is None and given.flag not in self._own:
            self._left.append((given, "threadwell has no such option"))
            return
        if foreign is None:
            ours = self._long.get(given.flag, given.flag)
            foreign = Foreign(ours, takes_value=self._own[given.flag])
        if not foreign.takes_value and given.value is False:
            return  # the default
        if not foreign.ours:
            self._left.append((given, foreign.note))
            return
        name = _name(foreign.ours)
        variable = _PLATFORM.get(name, "")
        if variable and variable in given.variables:
            self._left.append((given, f"threadwell reads the variable {variable} by itself"))
        elif name == "interface" and given.value not in INTERFACES:
            self._left.append((given, f"it may be {', '.join(INTERFACES)}"))
        elif foreign.ours in _COMMAND_OPTIONS:
            value = True if name == "factory" else str(given.value)
            self._lines[_COMMAND_OPTIONS[foreign.ours]] = _Line(value, [given], given.note)
        elif option := _OPTIONS.get(foreign.ours) or _OPTIONS.get(_positive(foreign.ours)):
            self._take_option(given, foreign, option)
        elif name == "config":
            self._left.append((given, "import that file, too"))
        elif name.startswith("reload"):
            self._left.append((given, f"type {foreign.ours} in development"))
        else:
            self._left.append((given, f"type {foreign.ours}: it is not for a file"))

    def _take_option(self, given: Given, foreign: Foreign, option: Option) -> None:
        values = given.value if isinstance(given.value, list) else [given.value]
        try:
            if option.name == "trusted_proxies":
                values = [part for value in values for part in re.split(r"[,\s]+", str(value))]
            if given.flag in _MILLISECONDS:
                values = [float(value) / 1000 for value in values]
            found = [self._value(option, foreign, value) for value in values]
            if not option.multiple and len(found) > 1:
                found = [",".join(map(str, found))]
            value = found if option.multiple else found[0]
            option.convert(value)
            if option.secret:
                raise ConfigError(f": a secret; set {variable_of(option.name)}")
        except ConfigError as error:
            self._left.append((given, reason_of(error)))
            return
        except ValueError:
            self._left.append((given, "it is not a number"))
            return
        before = self._lines.get(option.name)
        is_converted = foreign.form != "{}" or given.flag in _MILLISECONDS
        notes = "; ".join(filter(None, (given.note, "" if is_converted else foreign.note)))
        if option.multiple and before is not None:
            notes = "; ".join(dict.fromkeys(n for n in (before.note, notes) if n))
            self._lines[option.name] = _Line(before.value + value, [*before.given, given], notes)
        else:
            self._lines[option.name] = _Line(value, [given], notes)

    def _value(self, option: Option, foreign: Foreign, value: Any) -> Any:
        """The value of ours for `value`. Raises `ConfigError`."""
        if option.type is bool:
            return value if isinstance(value, bool) else not foreign.ours.startswith("--no-")
        if not foreign.takes_value:
            return foreign.form
        if value is None or isinstance(value, (dict, list)):
            raise ConfigError(f": {value!r} is not one value")
        if isinstance(value, bool) and foreign.form:
            raise ConfigError(f": {value!r} is not a value")
        text = foreign.form.format(value)
        if option.name == "bind":
            return _address(text)
        if option.name == "log_format":
            return _log_format(text)
        if option.type in (int, float) and re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", text):
            return float(text) if "." in text else int(text)
        return text

    def _leave_what_does_not_fit(self) -> None:
        """Leave out the options that the checks of a start refuse, one after the other."""
        while True:
            # The folders of `static` may be elsewhere than where the file is imported.
            names = [
                option.name
                for option in OPTIONS
                if option.name in self._lines and option.name != "static"
            ]
            try:
                check(ServerConfig.from_options(**{n: self._lines[n].value for n in names}))
            except ConfigError as error:
                name = str(error).partition(":")[0]
                if name not in self._lines:
                    return  # `threadwell check` will say it
                line = self._lines.pop(name)
                self._left += [(given, reason_of(error)) for given in line.given]
            else:
                return

    # ---- What is written ------------------------------------------------------------------

    def text(self, path: Path) -> str:
        """The file, with the place of each setting as a comment."""
        parts = [
            f"# {OWN_FILE}, written by `threadwell config import {path.name}` from settings of"
            f" {self._source.server}.\n# Check it with `threadwell check`."
        ]
        for name, (value, given, note) in self._lines.items():
            comments = [f"# {each.place}: {_shown(each)}" for each in given]
            if note:
                comments.append(f"# {note}")
            parts.append("\n".join([*comments, f"{name} = {_toml(value)}"]))
        for title, left in (("Not taken", self._missing()), ("Not needed", self._defaults())):
            if left:
                shown = [f"#   {each.place}: {_shown(each)}\n#       {why}" for each, why in left]
                parts.append("\n".join([f"# {title}:", *shown]))
        return "\n\n".join(parts) + "\n"

    def summary(self, path: Path) -> str:
        """What was taken, and what was not, for standard error."""
        taken = sum(len(line.given) for line in self._lines.values())
        server, missing = self._source.server, self._missing()
        lines = [
            f"threadwell: {path}: {taken} settings of {server} taken, {len(missing)} not taken"
        ]
        lines += [f"  {each.place}: {_shown(each)}: {why}" for each, why in missing]
        return "\n".join(lines) + "\n"

    def _missing(self) -> list[tuple[Given, str]]:
        found = [each for each in self._left if each[1] != ALREADY_DEFAULT]
        return sorted(found, key=lambda each: _line_of(each[0]))

    def _defaults(self) -> list[tuple[Given, str]]:
        return [each for each in self._left if each[1] == ALREADY_DEFAULT]


def _line_of(given: Given) -> int:
    return int(given.place.rpartition(":")[2])


def _name(flag: str) -> str:
    return flag.lstrip("-").replace("-", "_")


def _positive(flag: str) -> str:
    return "--" + flag.removeprefix("--no-") if flag.startswith("--no-") else flag


def _address(text: str) -> str:
    """An address as `bind` takes it. Without a host, other servers listen at all addresses."""
    for wildcard in (":", "*:"):
        if text.startswith(wildcard) and text[len(wildcard) :].isdigit():
            return f"0.0.0.0:{text[len(wildcard) :]}"
    return f"unix:{text}" if text.startswith(("/", "./", "@")) else text


def _log_format(text: str) -> str:
    """A format of `%(h)s`, as gunicorn has it, with the directives of Apache."""
    fields = {"f": "%{Referer}i", "a": "%{User-Agent}i", "s": "%>s"}

    def directive(match: re.Match[str]) -> str:
        name = match[1]
        if name.startswith("{"):
            return f"%{name}"
        return fields.get(name, f"%{name}")

    return re.sub(r"%\((\{[^}]+\}[a-zA-Z]|[a-zA-Z])\)s", directive, text)


def _shown(given: Given) -> str:
    """What stands in the file, on one line; of a secret only the name."""
    text = given.text
    is_variable = not given.flag and given.value is None
    if given.flag in _HIDDEN or is_variable:
        text = re.split(r"[=\s]", text, maxsplit=1)[0] + " ..."
    return "".join(each if each.isprintable() else "?" for each in text)


def _toml(value: Any) -> str:
    # For texts, numbers, booleans and lists of them, JSON is also TOML.
    return json.dumps(value, ensure_ascii=False)
