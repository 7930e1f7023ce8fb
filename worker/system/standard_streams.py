"""Standard input, output and error: always open, and never waited for without a limit.

A pipe whose reader has stopped, and a terminal after Ctrl-S, accept nothing, for ever. The messages
of the server are therefore written without blocking, and dropped if there is no room.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import stat
import sys
import threading
import time
from typing import TextIO

from .readiness import has_room

# Seconds to wait for room once; then nothing is waited for until there was room again.
_PATIENCE = 1.0
# The most octets that a pipe takes in one piece (pipe(7)).
_PIPE_BUF = getattr(select, "PIPE_BUF", 512)
# Not on Windows, whose consoles take text only and whose pipes cannot be polled.
_CAN_POLL = hasattr(select, "poll")
_NAMES = ("stdin", "stdout", "stderr")

# The descriptors that had no room at the last attempt.
_full: set[int] = set()


def open_missing_streams() -> None:
    """Open the null device on each of the descriptors 0 to 2 that is closed.

    The next socket would get that number otherwise, and become the standard output of a child
    process, or receive the messages of a library that writes to descriptor 2. Python sets
    `sys.stdout` to None then; it becomes a stream to the null device. Call it before anything else
    is opened.
    """
    for number, name in enumerate(_NAMES):
        try:
            os.fstat(number)
        except OSError:
            # the lowest free number, which is `number`: those below it are open
            opened = os.open(os.devnull, os.O_RDONLY if number == 0 else os.O_WRONLY)
            os.set_inheritable(opened, True)
        if getattr(sys, name) is None:
            nowhere = os.open(os.devnull, os.O_WRONLY if number else os.O_RDONLY)
            # like Python's own, it does not close its descriptor
            mode = "w" if number else "r"
            setattr(sys, name, open(nowhere, mode, encoding="utf-8", closefd=False))  # noqa: SIM115


def write_text(stream: TextIO | None, text: str) -> bool:
    """Write `text` to `stream`; returns whether it was written completely.

    Waits at most a second for a reader, and only if the last text was written. It bypasses the
    buffer of `stream`, which a thread of the application may hold while it waits for the reader. A
    stream that was closed gets nothing.
    """
    if stream is None:
        return False
    try:
        descriptor = stream.fileno()
    except (AttributeError, OSError, ValueError):  # an object in the place of the stream
        descriptor = -1
    try:
        if descriptor < 0 or not _CAN_POLL:
            stream.write(text)
            stream.flush()
            return True
        encoding = getattr(stream, "encoding", None) or "utf-8"
        return _write(descriptor, text.encode(encoding, "backslashreplace"))
    except (OSError, ValueError):
        return False


def _write(descriptor: int, data: bytes) -> bool:
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        while data:
            data = data[os.write(descriptor, data) :]
        return True
    deadline = time.monotonic() + (0 if descriptor in _full else _PATIENCE)
    own = _reopened(descriptor)
    try:
        while data:
            if not has_room(descriptor, max(deadline - time.monotonic(), 0)):
                _full.add(descriptor)
                return False
            with contextlib.suppress(BlockingIOError):
                data = data[os.write(descriptor if own < 0 else own, data[:_PIPE_BUF]) :]
    finally:
        if own >= 0:
            os.close(own)
    _full.discard(descriptor)
    return True


def _reopened(descriptor: int) -> int:
    """The same pipe or terminal, reopened as non-blocking; -1 where that is impossible.

    Another process may take the room between the look and the write. `O_NONBLOCK` on `descriptor`
    itself would be set for all processes that share it, such as a shell.
    """
    try:
        flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
        return os.open(f"/proc/self/fd/{descriptor}", flags)
    except OSError:  # a socket, a descriptor of another user, or not Linux
        return -1


def duplicate(descriptor: int) -> int:
    """A duplicate of `descriptor`, which does not block if it is a pipe or a terminal."""
    own = -1 if stat.S_ISREG(os.fstat(descriptor).st_mode) else _reopened(descriptor)
    return os.dup(descriptor) if own < 0 else own


class TextFormatter(logging.Formatter):
    """Formats a record as text, and says how many before it were dropped."""

    def format(self, record: logging.LogRecord) -> str:
        text = super().format(record)
        dropped = getattr(record, "dropped", 0)
        return f"({dropped} messages before this one were dropped)\n{text}" if dropped else text


class StandardErrorHandler(logging.Handler):
    """Writes log messages to standard error. It drops a message for which there is no room."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(TextFormatter())
        self._stream = sys.stderr
        self._dropped = 0

    def emit(self, record: logging.LogRecord) -> None:
        record.dropped = self._dropped  # for the formatter
        try:
            text = self.format(record) + "\n"
        except Exception:
            self.handleError(record)
            return
        self._dropped = 0 if write_text(self._stream, text) else self._dropped + 1


def flush_streams() -> bool:
    """Flush standard output and standard error; returns whether that ended within a second.

    Otherwise nothing may flush them any more, neither `logging.shutdown` nor the interpreter at its
    end: it would wait for the reader.
    """
    flushing = threading.Thread(target=_flush, name="threadwell-flush", daemon=True)
    try:
        flushing.start()
    except RuntimeError:  # no thread can be started: the system has no more, or it is too late
        return not _full
    flushing.join(_PATIENCE)
    return not flushing.is_alive()


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:  # the reader has closed the pipe
            # what is left in the buffer would fail again when the process ends
            with contextlib.suppress(OSError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), stream.fileno())
        except (AttributeError, ValueError):  # None, or closed
            pass
