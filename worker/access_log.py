"""The access log: a line a request, in Apache's formats or JSON."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime

from .lifecycle import LifecycleEvent, ResponseCompleted
from .settings import ConfigError, Log

COMMON = '%h %l %u %t "%r" %>s %b'
COMBINED = COMMON + ' "%{Referer}i" "%{User-Agent}i"'

log = logging.getLogger("loopless")

_DIRECTIVE = re.compile(r"%(?:>?([A-Za-z%])|\{([^}]+)\}([A-Za-z]))")
# What would end a line or a quoted field early; anything not printable, as Apache escapes it.
_UNSAFE = re.compile(r'["\\]|[^\x20-\x7e]')

_Field = Callable[[ResponseCompleted], str]


def _escape(text: str) -> str:
    return _UNSAFE.sub(_escaped, text)


def _escaped(match: re.Match[str]) -> str:
    character = match[0]
    return (
        "\\" + character
        if character in '"\\'
        else "".join(f"\\x{octet:02x}" for octet in character.encode("latin-1", "replace"))
    )


def _timestamp() -> str:
    return datetime.now().astimezone().strftime("[%d/%b/%Y:%H:%M:%S %z]")


def _request_line(event: ResponseCompleted) -> str:
    request = event.request
    if request is None:
        return "-"
    return _escape(f"{request.method} {request.target} HTTP/{request.version}")


def _header(name: str) -> _Field:
    def value(event: ResponseCompleted) -> str:
        return _escape(event.request.header(name)) or "-" if event.request else "-"

    return value


#: What the letters of a format stand for: Apache's mod_log_config, where it has the same.
_FIELDS: dict[str, _Field] = {
    "%": lambda event: "%",
    "h": lambda event: event.client[0] or "-",
    "a": lambda event: event.client[0] or "-",
    "l": lambda event: "-",
    "u": lambda event: "-",
    "t": lambda event: _timestamp(),
    "r": _request_line,
    "s": lambda event: str(event.status),
    "b": lambda event: str(event.body_bytes or "-"),
    "B": lambda event: str(event.body_bytes),
    "m": lambda event: event.request.method if event.request else "-",
    "U": lambda event: _escape(event.request.path) if event.request else "-",
    "q": lambda event: _query(event),  # noqa: PLW0108
    "H": lambda event: f"HTTP/{event.request.version}" if event.request else "-",
    "D": lambda event: str(round(event.seconds * 1e6)),
    "T": lambda event: str(int(event.seconds)),
    "X": lambda event: "+" if event.complete else "X",
    "P": lambda event: str(os.getpid()),
}


def _query(event: ResponseCompleted) -> str:
    return _escape("?" + event.request.query) if event.request and event.request.query else ""


def compile_format(text: str) -> Callable[[ResponseCompleted], str]:
    """A function from the event to its line. Raises `ConfigError` for an unknown directive."""
    if text == "json":
        return _json_line
    text = {"common": COMMON, "combined": COMBINED}.get(text, text)
    if "%" not in text:
        raise ConfigError(f"log_format: {text!r} is neither common, combined, json nor a format")
    parts: list[_Field] = []
    at = 0
    for match in _DIRECTIVE.finditer(text):
        parts.append(_literal(text[at : match.start()]))
        if match[2] is not None and match[3] == "i":
            parts.append(_header(match[2]))
        elif match[0] == "%{c}a":
            parts.append(lambda event: event.peer[0] or "-")
        elif match[1] is not None and match[1] in _FIELDS:
            parts.append(_FIELDS[match[1]])
        else:
            raise ConfigError(f"log_format: {match[0]!r} is not known")
        at = match.end()
    parts.append(_literal(text[at:]))
    if "%" in _DIRECTIVE.sub("", text):
        raise ConfigError(f"log_format: a % without its letter in {text!r}")
    return lambda event: "".join([part(event) for part in parts])


def _literal(text: str) -> _Field:
    return lambda event: text


def _json_line(event: ResponseCompleted) -> str:
    request = event.request
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "client": event.client[0],
        "peer": event.peer[0],
        "method": request.method if request else None,
        "target": request.target if request else None,
        "protocol": f"HTTP/{request.version}" if request else None,
        "status": event.status,
        "bytes": event.body_bytes,
        "seconds": round(event.seconds, 6),
        "complete": event.complete,
        "referer": request.header("referer") if request else "",
        "user_agent": request.header("user-agent") if request else "",
    }
    return json.dumps(line)


class AccessLog:
    """A `LifecycleCollector` that writes a line for every answer. Safe from all threads.

    A line is one `write` to a descriptor opened for appending: lines of several threads, and of
    several processes, do not mix, and none is left in a buffer.
    """

    def __init__(
        self, descriptor: int, line: Callable[[ResponseCompleted], str], path: str = ""
    ) -> None:
        self._descriptor = descriptor
        #: The file to open again; empty where there is none.
        self._path = path
        self._line = line
        self._failed = False
        # closing must not come between: another file may have the descriptor's number then
        self._lock = threading.Lock()

    @classmethod
    def open(cls, settings: Log) -> AccessLog:
        """As `settings` say. Raises `ConfigError` for a format or a file that cannot be used."""
        line = compile_format(settings.format)
        if settings.access_log == "-":
            return cls(os.dup(sys.stdout.fileno()), line)
        try:
            return cls(_open(settings.access_log), line, os.path.abspath(settings.access_log))
        except OSError as error:
            raise ConfigError(f"access_log: {settings.access_log}: {error.strerror}") from error

    def record(self, event: LifecycleEvent) -> None:
        if type(event) is ResponseCompleted:
            line = (self._line(event) + "\n").encode("ascii", "replace")
            with self._lock:
                self._write(line)

    def _write(self, line: bytes) -> None:
        if self._descriptor < 0:  # a thread that was left behind when the server stopped
            return
        try:
            os.write(self._descriptor, line)
        except OSError as error:
            # the reader is gone or the disk is full: that must cost no answer
            if not self._failed:
                log.error("The access log cannot be written: %s", error)
            self._failed = True

    def reopen(self) -> None:
        """Go on in the file that has the name now, for whoever renames logs. No line is lost."""
        if not self._path:
            return
        try:
            fresh = _open(self._path)
        except OSError as error:
            log.error("The access log cannot be opened again: %s", error)
            return
        with self._lock:
            if self._descriptor >= 0:  # else it was closed meanwhile
                fresh, self._descriptor = self._descriptor, fresh
            self._failed = False
        os.close(fresh)

    def close(self) -> None:
        """Close the file. What is recorded afterwards is dropped."""
        with self._lock:
            descriptor, self._descriptor = self._descriptor, -1
        os.close(descriptor)


def _open(path: str) -> int:
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0)
    return os.open(path, flags, 0o640)
