"""Answers flags that the command does not have, with the command line to type."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from .foreign_options import HOST, PORT, SERVERS, Foreign
from .worker import did_you_mean

#: The address of the other servers, where only one half of it is given.
DEFAULT_HALVES = {HOST: "127.0.0.1", PORT: "8000"}


class Argument(NamedTuple):
    """A flag and its value; what is no flag has an empty one."""

    flag: str
    value: str | None


def hint_for(args: Sequence[str], own: Mapping[str, bool], program: str) -> str:
    """The answer to a command line with flags of another server, or of none, on one line.

    `args` follow `program`, the command; `own` has its flags, and whether a value follows.
    """
    table = _table_for(args, own)
    arguments = list(split_arguments(args, own, table))
    flags = [each.flag for each in arguments if each.flag]
    unknown = [flag for flag in flags if flag not in own and flag not in table]
    if unknown:
        meant = did_you_mean(unknown[0], own)
        return f"No such option: {unknown[0]}{meant}; see threadwell --help"
    foreign = {flag: table[flag] for flag in flags if flag in table}
    line = shlex.join([program, *_translated(arguments, table)])
    notes = [f"{each.ours or flag}: {each.note}" for flag, each in foreign.items() if each.note]
    said = f"{', '.join(foreign)}: not known here; type: {line}"
    return said + (f" ({'; '.join(notes)})" if notes else "")


def _table_for(args: Sequence[str], own: Mapping[str, bool]) -> dict[str, Foreign]:
    """The foreign flags: those of the server that most of `args` are for come first."""
    given = {_flag(arg) for arg in args} - set(own)
    fitting = max(SERVERS.values(), key=lambda flags: len(given & set(flags)))
    merged: dict[str, Foreign] = {}
    for flags in reversed(SERVERS.values()):
        merged |= {flag: each for flag, each in flags.items() if flag not in own}
    return merged | fitting if given & set(fitting) else merged


def _flag(arg: str) -> str:
    """The flag in `arg`, without an attached value; empty if there is none."""
    if not arg.startswith("-") or arg == "-":
        return ""
    return arg.partition("=")[0] if arg.startswith("--") else arg[:2]


def split_arguments(
    args: Sequence[str], own: Mapping[str, bool], table: Mapping[str, Foreign]
) -> list[Argument]:
    """`args` as flags with their values.

    `own` has the flags of the command, and whether a value follows; those of `table` come first.
    """
    found, rest = [], list(args)
    while rest:
        arg = rest.pop(0)
        flag = _flag(arg)
        attached = arg[len(flag) :].removeprefix("=") if flag else ""
        takes = table[flag].takes_value if flag in table else own.get(flag, False)
        if not flag:
            found.append(Argument("", arg))
        elif attached:
            found.append(Argument(flag, attached))
        elif takes and rest:
            found.append(Argument(flag, rest.pop(0)))
        else:
            found.append(Argument(flag, None))
    return found


def _translated(arguments: Sequence[Argument], table: Mapping[str, Foreign]) -> list[str]:
    words: list[str] = []
    halves: dict[str, str] = {}
    for flag, value in arguments:
        foreign = table.get(flag)
        if foreign is None:
            words += [each for each in (flag, value) if each]
        elif foreign.form in (HOST, PORT) and value is not None:
            halves[foreign.form] = value
        elif foreign.ours:
            words.append(foreign.ours)
            if value is not None and foreign.form:
                words.append(foreign.form.format(value))
            elif not foreign.takes_value and foreign.form:
                words.append(foreign.form)
    if halves:
        halves = DEFAULT_HALVES | halves
        host = f"[{halves[HOST]}]" if ":" in halves[HOST] else halves[HOST]
        words += ["--bind", f"{host}:{halves[PORT]}"]
    return words
