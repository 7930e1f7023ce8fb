"""Restarts the server when a file changes. For development.

    parent: Reloader    holds the listening sockets, watches the files, starts the child
    child: Inherited    the same command once more; finds the sockets in its environment

The sockets are the parent's, so the port is never lost: who connects during a restart waits in the
backlog. A line between the two tells the parent which files the child has imported, and the child
when the parent is gone.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .watch import Watcher, module_files
from .worker.net.bind import SharedSocket

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

_VARIABLE = "THREADWELL_RELOADER"

#: Seconds of grace for the requests in flight when the child is told to end.
GRACE = 0.2
# Seconds until a child that does not end is killed: in a restart, and at the end.
_PATIENCE = 0.7
_LAST_PATIENCE = 3.0
# Seconds until a child that may have had the terminal's own signal gets one from here.
_TERMINAL_FIRST = 0.3
# Seconds without a change, after the first; and for how long they are waited for.
_QUIET = 0.05
_LONGEST_BURST = 0.5
# Seconds between two looks at what the child has imported.
_REPORT = 0.5
# Windows does not interrupt a wait that has no end.
_TICK = 0.5


class Watched(NamedTuple):
    """What is watched, as `Watcher` takes it."""

    roots: Sequence[str]
    include: Sequence[str] = ("*.py",)
    exclude: Sequence[str] = ()
    extra_files: Sequence[str] = ()


def this_command() -> list[str]:
    """How this process was started, to start it once more."""
    return [sys.executable, *sys.orig_argv[1:]]


# ---- The parent ---------------------------------------------------------------------------


class Reloader:
    """Runs `command` with `sockets`, again whenever a file of `watched` changes.

    `say` prints a line for the user. A child that fails is not started again before a change.
    """

    def __init__(
        self,
        command: Sequence[str],
        sockets: Sequence[socket.socket],
        watched: Watched,
        say: Callable[[str], None],
    ) -> None:
        self._command = list(command)
        self._sockets = list(sockets)
        self._watched = watched
        self._say = say
        self._events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._child: _Child | None = None
        self._starts = 0
        self._code = 0

    def run(self) -> int:
        """Until SIGINT or SIGTERM comes, or the child ends by itself, without an error (blocking).

        Returns the exit code of the child; after it was told to end, that is 0. Call it in the
        main thread.
        """
        before = {
            number: signal.signal(number, self._on_signal)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        watched = self._watched
        watcher = Watcher(
            watched.roots,
            include=watched.include,
            exclude=watched.exclude,
            extra_files=watched.extra_files,
        )
        watching = threading.Thread(target=self._watch, args=(watcher,), daemon=True)
        watching.start()
        try:
            self._start(watcher)
            while self._goes_on(watcher):
                pass
        finally:
            if self._child is not None:
                self._child.end(signal.SIGTERM, _LAST_PATIENCE)
            watcher.close()
            watching.join()
            for sock in self._sockets:
                sock.close()
            for number, handler in before.items():
                signal.signal(number, handler)
        return self._code

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._events.put(("signal", number))

    def _watch(self, watcher: Watcher) -> None:
        while (path := watcher.wait()) is not None:
            self._events.put(("change", path))

    def _next_event(self, seconds: float | None = None) -> tuple[str, Any]:
        """What has happened, and to what; `nothing` after `seconds`."""
        until = None if seconds is None else time.monotonic() + seconds
        while until is None or time.monotonic() < until:
            rest = _TICK if until is None else min(_TICK, max(until - time.monotonic(), 0))
            with contextlib.suppress(queue.Empty):
                return self._events.get(timeout=rest)
        return "nothing", None

    def _goes_on(self, watcher: Watcher) -> bool:
        """Wait for something, and do what it asks for. False: this was the end."""
        kind, value = self._next_event()
        if kind == "signal":
            self._stop(value)
            return False
        if kind == "change":
            return self._restart(value, watcher)
        if kind == "ended" and isinstance(value, _Child) and value is self._child:
            self._child, self._code = None, value.code
            if not self._code:
                return False
            self._say(f"the server ended {_how(self._code)}; it starts again when a file changes")
        return True

    def _start(self, watcher: Watcher) -> None:
        self._starts += 1
        facts = {"engine": watcher.engine, "starts": self._starts}
        self._child = _Child(self._command, self._sockets, facts, watcher, self._events)

    def _restart(self, path: Path, watcher: Watcher) -> bool:
        self._say(f"{_seen_from_here(path)} has changed: restarting")
        kind = value = None
        until = time.monotonic() + _LONGEST_BURST
        # an editor, or git, is seldom done with one change
        while kind != "nothing" and time.monotonic() < until:
            kind, value = self._next_event(_QUIET)
            if kind == "signal":
                self._stop(value)
                return False
        if self._child is not None:
            self._child.end(signal.SIGTERM, _PATIENCE)
        self._start(watcher)
        return True

    def _stop(self, number: int) -> None:
        """Ctrl-C, or a signal to this process alone: the child ends, patiently if it is the first.

        A terminal has told the child too. One signal more would tell it to cut what it is at.
        """
        self._say("stopping")
        child, self._child = self._child, None
        if child is None:  # it had failed, and the code says so
            return
        if number != signal.SIGINT or not child.ended_within(_TERMINAL_FIRST):
            child.tell(signal.SIGTERM)
        until = time.monotonic() + _LAST_PATIENCE
        while not child.ended_within(0.02) and time.monotonic() < until:
            with contextlib.suppress(queue.Empty):
                if self._events.get_nowait()[0] == "signal":
                    break
        self._code = max(child.end(signal.SIGTERM, 0), 0)


class _Child:
    """A child process, the line to it, and two threads that listen to both."""

    def __init__(
        self,
        command: Sequence[str],
        sockets: Sequence[socket.socket],
        facts: dict[str, Any],
        watcher: Watcher,
        events: queue.SimpleQueue[tuple[str, Any]],
    ) -> None:
        self._line, theirs = socket.socketpair()
        descriptors = [theirs.fileno(), *(sock.fileno() for sock in sockets)]
        facts = {**facts, "line": descriptors[0], "sockets": descriptors[1:]}
        environ = {**os.environ, _VARIABLE: json.dumps(facts)}
        with theirs:
            if os.name == "nt":  # handles are inherited by their numbers, or not at all
                for descriptor in descriptors:
                    os.set_handle_inheritable(descriptor, True)  # type: ignore[attr-defined,unused-ignore]
                self._process = subprocess.Popen(command, env=environ, close_fds=False)
            else:
                self._process = subprocess.Popen(command, env=environ, pass_fds=descriptors)
        self._watcher = watcher
        self._events = events
        self._threads = [
            threading.Thread(target=target, daemon=True) for target in (self._wait, self._hear)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def code(self) -> int:
        return self._process.wait()

    def _wait(self) -> None:
        self._process.wait()
        self._events.put(("ended", self))

    def _hear(self) -> None:
        """Watch the files that the child reports."""
        lines = self._line.makefile("r", encoding="utf-8", errors="replace")
        with self._line, lines, contextlib.suppress(OSError, ValueError):
            for text in lines:
                self._watcher.add_sources(json.loads(text))

    def tell(self, number: int) -> None:
        with contextlib.suppress(OSError):  # it has ended just now
            self._process.send_signal(number)

    def ended_within(self, seconds: float) -> bool:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self, number: int, seconds: float) -> int:
        """End it, by force after `seconds`, and return its code."""
        if self._process.poll() is None and seconds:
            self.tell(number)
        if not self.ended_within(seconds):
            self._process.kill()
        code = self._process.wait()
        with contextlib.suppress(OSError):  # a process of the child's may hold the other end
            self._line.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        return code


def _how(code: int) -> str:
    if code >= 0:
        return f"with code {code}"
    with contextlib.suppress(ValueError):
        return f"by {signal.Signals(-code).name}"
    return f"by signal {-code}"


def _seen_from_here(path: Path) -> str:
    with contextlib.suppress(ValueError, OSError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


# ---- The child ----------------------------------------------------------------------------


class Inherited:
    """What a child has from its parent: listening sockets, and how the files are watched."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.sockets: list[socket.socket] = [SharedSocket(fileno=fd) for fd in facts["sockets"]]
        self.engine = str(facts["engine"])
        #: The first start is said at length.
        self.first = facts["starts"] == 1
        self._line = socket.socket(fileno=facts["line"])
        for sock in (*self.sockets, self._line):
            sock.set_inheritable(False)  # what the application starts must not hold them
        thread = threading.Thread(target=self._attend, name="threadwell-reload", daemon=True)
        thread.start()

    @classmethod
    def take(cls) -> Inherited | None:
        """The inheritance of this process; None when no `Reloader` has started it."""
        facts = os.environ.pop(_VARIABLE, None)
        return None if facts is None else cls(json.loads(facts))

    def _attend(self) -> None:
        """Report what is imported, and end when the parent is gone: nobody else would do it."""
        self._line.settimeout(_REPORT)
        known: set[str] = set()
        count = 0
        while True:
            modules = sys.modules.copy()
            new = set(module_files(modules)) - known if len(modules) != count else set()
            count = len(modules)
            known |= new
            try:
                if new:
                    self._line.sendall(json.dumps(sorted(new)).encode() + b"\n")
                if not self._line.recv(1):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        os.kill(os.getpid(), signal.SIGTERM)
