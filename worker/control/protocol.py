"""The protocol of the control socket: lines of JSON, one for a command and one for its answer."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any

#: Changes when a client of an earlier version would misunderstand an answer.
VERSION = 1
#: The longest line of a client, in octets, with its end.
LONGEST_COMMAND = 4096

LOG_LEVELS = ("debug", "info", "warning", "error", "critical")

_NUMBER = re.compile(r"[0-9]{1,9}")
# The most worker processes that may be asked for, see `config.concurrency`.
_MOST_WORKERS = 1000

Result = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Verb:
    """What a client may ask for. `argument` is its name, empty if there is none."""

    help: str
    argument: str = ""
    is_optional: bool = False


VERBS = {
    "status": Verb("show processes, threads, connections and latencies"),
    "requests": Verb("list the requests under way, the oldest first"),
    "stack": Verb(
        "show the Python stack of a request, or the stacks of a process or of all", "ID", True
    ),
    "config": Verb("show the settings; secrets are hidden"),
    "reload": Verb("load the application and the certificates again"),
    "workers": Verb("set the number of worker processes", "N"),
    "recycle": Verb("replace one worker process", "PID"),
    "drain": Verb("finish the requests under way, then end"),
    "reopen": Verb("open the access log again, after its file was renamed"),
    "log-level": Verb("set the minimum severity of messages", "LEVEL"),
}


class CommandError(Exception):
    """A command that cannot be carried out; its text says why, and what to do instead."""


class GarbageError(CommandError):
    """What a client has sent is no command at all: it speaks something else."""


@dataclass(frozen=True, slots=True)
class Command:
    """A command, checked. `argument` is empty if there is none."""

    verb: str
    argument: str = ""

    @property
    def number(self) -> int:
        """The argument of `workers` and `recycle`."""
        return int(self.argument)


def parse(line: bytes) -> Command:
    """The command in a line of a client. Raises `CommandError`, and `GarbageError`."""
    try:
        message = json.loads(line.decode())
    except (ValueError, RecursionError):
        raise GarbageError("this is not a line of JSON") from None
    if not isinstance(message, dict):
        raise GarbageError("a command is an object, such as " + _EXAMPLE)
    if message.get("v") != VERSION:
        raise CommandError(f"v: this server speaks version {VERSION} of the protocol")
    verb, arguments = message.get("verb"), message.get("args", [])
    if not isinstance(verb, str):
        raise CommandError("verb: give one, as in " + _EXAMPLE)
    if not isinstance(arguments, list) or not all(isinstance(each, str) for each in arguments):
        raise CommandError("args: give a list of texts")
    return checked(verb, arguments)


_EXAMPLE = '{"v": 1, "verb": "status"}'


def checked(verb: str, arguments: list[str]) -> Command:
    """The command of a verb and its arguments. Raises `CommandError`."""
    known = VERBS.get(verb)
    if known is None:
        raise CommandError(
            f"{verb[:40]!a}: there is no such verb; the verbs are {', '.join(VERBS)}"
        )
    if len(arguments) > bool(known.argument):
        more = f"takes {known.argument} only" if known.argument else "takes no argument"
        raise CommandError(f"{verb} {more}")
    if not arguments:
        if known.argument and not known.is_optional:
            raise CommandError(f"{verb}: give {known.argument}")
        return Command(verb)
    (argument,) = arguments
    if known.argument in ("N", "PID") and not _NUMBER.fullmatch(argument):
        raise CommandError(f"{verb}: {argument[:40]!a} is not a number")
    if verb == "workers" and not 1 <= int(argument) <= _MOST_WORKERS:
        raise CommandError(f"workers: {argument} is not between 1 and {_MOST_WORKERS}")
    if verb == "log-level" and argument not in LOG_LEVELS:
        raise CommandError(f"log-level: {argument[:40]!a} is not one of {', '.join(LOG_LEVELS)}")
    return Command(verb, argument)


def encode_command(verb: str, arguments: list[str]) -> bytes:
    """The line that a client sends."""
    return json.dumps({"v": VERSION, "verb": verb, "args": arguments}).encode() + b"\n"


def encode_result(result: Result) -> bytes:
    """The line that answers a command that was carried out."""
    return json.dumps({"v": VERSION, "ok": True, "result": result}).encode() + b"\n"


def encode_error(text: str) -> bytes:
    """The line that answers a command that was not carried out."""
    return json.dumps({"v": VERSION, "ok": False, "error": text}).encode() + b"\n"
