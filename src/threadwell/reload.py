"""Restarts the server when a file changes. For development.

    parent: Reloader    keeps the listening sockets, watches the files, starts the child
    child: Inherited    runs the same command, and finds the sockets in its environment

The parent keeps the sockets open, so a client that connects during a restart waits in the backlog.
While the child has failed, the parent answers with an error page.

A socket pair connects the two: the child reports the files that it has imported and why it fails,
and notices the end of the parent.
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
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from .app_loader import AppError
from .binding import adopt_socket
from .process_setup import USAGE_ERROR
from .watch import Watcher, module_files
from .worker import ConfigError
from .worker.system.processes import reap_orphans
from .worker.system.threads import start_thread

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from types import FrameType

    from .worker import Server

_VARIABLE = "THREADWELL_RELOADER"
# What a child reports when it prints the start message. Its other reports are a list of files, and
# an object with the error that ends it.
_ANNOUNCED = "announced"

#: Seconds that requests in flight get when the child is told to end.
GRACE = 0.2
# Seconds until a child that was told to end is killed: for a restart, and at the end.
_KILL_AFTER = 0.7
_LAST_KILL_AFTER = 3.0
# Seconds that a child gets to end by itself, because a Ctrl-C in a terminal reaches it, too.
_TERMINAL_GRACE = 0.3
# A restart waits until nothing has changed for so many seconds, but not longer than the second.
_QUIET = 0.05
_LONGEST_BURST = 0.5
# Seconds between two checks of what the child has imported.
_REPORT_INTERVAL = 0.5
# The longest single wait in seconds: on Windows, a signal does not interrupt a wait.
_TICK = 0.5


class WatchedFiles(NamedTuple):
    """Which files to watch: the arguments of `Watcher`."""

    roots: Sequence[str]
    include: Sequence[str] = ("*.py",)
    exclude: Sequence[str] = ()
    extra_files: Sequence[str] = ()


def this_command() -> list[str]:
    """The command line that starts this process again."""
    return [sys.executable, *sys.orig_argv[1:]]


# ---- The parent ---------------------------------------------------------------------------


class Reloader:
    """Runs `command` with `sockets` in a child, again whenever a file of `watched` changes.

    `say` prints a line. A child that fails is started again only after a change. Until then the
    server that `serve_error` starts answers with the reason, which is its argument. It raises as
    the function of that name.

    `run` belongs to the main thread. Other threads wait for the child and for changes, and put what
    happens into a queue.
    """

    def __init__(
        self,
        command: Sequence[str],
        sockets: Sequence[socket.socket],
        watched: WatchedFiles,
        say: Callable[[str], None],
        serve_error: Callable[[str], Server],
    ) -> None:
        self._command = list(command)
        self._sockets = list(sockets)
        self._watched = watched
        self._say = say
        self._serve_error = serve_error
        self._error_server: Server | None = None
        self._events: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._child: _Child | None = None
        #: Whether a child has printed the whole start message.
        self._announced = threading.Event()
        self._code = 0

    def run(self) -> int:
        """Run children until SIGINT, SIGTERM, SIGHUP, or one ends without an error (blocking).

        Returns the exit code of the last child, 0 if it was told to end. Raises `OSError` if the
        system refuses a process, a thread or a descriptor. Call it in the main thread.
        """
        # SIGHUP is sent when the terminal is closed, unless nohup(1) ignores it.
        ending = [signal.SIGINT, signal.SIGTERM]
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            ending.append(signal.SIGHUP)
        before = {number: signal.signal(number, self._on_signal) for number in ending}
        with contextlib.ExitStack() as stack:
            for number, handler in before.items():
                stack.callback(signal.signal, number, handler)
            for sock in self._sockets:
                stack.callback(sock.close)
            watched = self._watched
            watcher = Watcher(
                watched.roots,
                include=watched.include,
                exclude=watched.exclude,
                extra_files=watched.extra_files,
            )
            watching = threading.Thread(target=self._watch, args=(watcher,), daemon=True)
            stack.callback(self._end, watcher, watching)
            start_thread(watching)
            self._start(watcher)
            while self._handle_event(watcher):
                pass
        return self._code

    def _end(self, watcher: Watcher, watching: threading.Thread) -> None:
        if self._child is not None:
            self._child.end(signal.SIGTERM, _LAST_KILL_AFTER)
        self._stop_error_server()
        watcher.close()
        if watching.ident is not None:
            watching.join()

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._events.put(("signal", number))

    def _watch(self, watcher: Watcher) -> None:
        while (path := watcher.wait()) is not None:
            self._events.put(("change", path))

    def _next_event(self, seconds: float | None = None) -> tuple[str, Any]:
        """The next event: its kind, and its subject. The kind is `nothing` after `seconds`."""
        until = None if seconds is None else time.monotonic() + seconds
        while until is None or time.monotonic() < until:
            rest = _TICK if until is None else min(_TICK, max(until - time.monotonic(), 0))
            reap_orphans({self._child.pid if self._child is not None else None})
            with contextlib.suppress(queue.Empty):
                return self._events.get(timeout=rest)
        return "nothing", None

    def _handle_event(self, watcher: Watcher) -> bool:
        """Wait for an event and handle it. Returns False if the reloader must end."""
        kind, value = self._next_event()
        if kind == "signal":
            self._stop(value)
            return False
        if kind == "change":
            return self._restart(value, watcher)
        if kind == "ended" and isinstance(value, _Child) and value is self._child:
            self._child, self._code = None, value.end(signal.SIGTERM, 0)
            if not self._code:
                return False
            reason = f"the server ended {_exit_reason(self._code)}"
            self._start_error_server(value.error or f"{reason}; its terminal may say why")
            self._say(f"{reason}; it starts again when a file changes")
        return True

    def _start_error_server(self, text: str) -> None:
        try:
            self._error_server = self._serve_error(text)
        except ConfigError as error:
            self._say(str(error))

    def _stop_error_server(self) -> None:
        server, self._error_server = self._error_server, None
        if server is not None:
            server.stop(GRACE)

    def _start(self, watcher: Watcher) -> None:
        facts = {"engine": watcher.engine, "first": not self._announced.is_set()}
        self._child = _Child(
            self._command, self._sockets, facts, watcher, self._events, self._announced
        )

    def _restart(self, path: Path, watcher: Watcher) -> bool:
        self._say(f"{_relative(path)} has changed: restarting")
        kind = value = None
        until = time.monotonic() + _LONGEST_BURST
        # Editors and git change several files in a row.
        while kind != "nothing" and time.monotonic() < until:
            kind, value = self._next_event(_QUIET)
            if kind == "signal":
                self._stop(value)
                return False
        if self._child is not None:
            self._child.end(signal.SIGTERM, _KILL_AFTER)
        self._stop_error_server()
        try:
            self._start(watcher)
        except OSError as error:
            self._child, self._code = None, USAGE_ERROR
            self._say(f"the server cannot start: {error}; it starts again when a file changes")
            self._start_error_server(f"the server cannot start: {error}")
        return True

    def _stop(self, number: int) -> None:
        """End the child after the signal `number`. Another signal kills it at once.

        A Ctrl-C in a terminal reaches the child, too. It must not get a second signal then, which
        would cut its requests.
        """
        self._say("stopping")
        child, self._child = self._child, None
        if child is None:  # It has failed, and `_code` is its exit code.
            return
        if number != signal.SIGINT or not child.ended_within(_TERMINAL_GRACE):
            child.send_signal(signal.SIGTERM)
        until = time.monotonic() + _LAST_KILL_AFTER
        while not child.ended_within(0.02) and time.monotonic() < until:
            with contextlib.suppress(queue.Empty):
                if self._events.get_nowait()[0] == "signal":
                    break
        self._code = max(child.end(signal.SIGTERM, 0), 0)


class _Child:
    """A child process, the channel to it, and two threads that wait for the two."""

    def __init__(
        self,
        command: Sequence[str],
        sockets: Sequence[socket.socket],
        facts: dict[str, Any],
        watcher: Watcher,
        events: queue.SimpleQueue[tuple[str, Any]],
        announced: threading.Event,
    ) -> None:
        self._announced = announced
        #: Why it fails, as it has reported; complete after `end`.
        self.error = ""
        self._channel, theirs = socket.socketpair()
        descriptors = [theirs.fileno(), *(sock.fileno() for sock in sockets)]
        facts = {**facts, "channel": descriptors[0], "sockets": descriptors[1:]}
        environ = {**os.environ, _VARIABLE: json.dumps(facts)}
        with theirs:
            if os.name == "nt":  # There is no `pass_fds` on Windows.
                for descriptor in descriptors:
                    os.set_handle_inheritable(descriptor, True)  # type: ignore[attr-defined,unused-ignore]
                self._process = subprocess.Popen(command, env=environ, close_fds=False)
            else:
                self._process = subprocess.Popen(command, env=environ, pass_fds=descriptors)
        self._watcher = watcher
        self._events = events
        self._threads = [
            threading.Thread(target=target, daemon=True) for target in (self._wait, self._receive)
        ]
        try:
            for thread in self._threads:
                start_thread(thread)
        except OSError:
            self._process.kill()
            self._process.wait()
            self._channel.close()
            raise

    @property
    def pid(self) -> int:
        return self._process.pid

    def _wait(self) -> None:
        self._process.wait()
        self._events.put(("ended", self))

    def _receive(self) -> None:
        """Receive what the child reports: files to watch, its start message, and its error."""
        lines = self._channel.makefile("r", encoding="utf-8", errors="replace")
        with self._channel, lines, contextlib.suppress(OSError, ValueError):
            for text in lines:
                if (report := json.loads(text)) == _ANNOUNCED:
                    self._announced.set()
                elif isinstance(report, dict):
                    self.error = report["error"]
                else:
                    self._watcher.add_sources(report)

    def send_signal(self, number: int) -> None:
        with contextlib.suppress(OSError):  # It has just ended.
            self._process.send_signal(number)

    def ended_within(self, seconds: float) -> bool:
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def end(self, number: int, seconds: float) -> int:
        """Send the signal `number`, kill the child after `seconds`, and return its exit code.

        With 0 seconds, kill it at once.
        """
        if self._process.poll() is None and seconds:
            self.send_signal(number)
        if not self.ended_within(seconds):
            self._process.kill()
        code = self._process.wait()
        with contextlib.suppress(OSError):  # A process of the child may hold the other end.
            self._channel.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        return code


def _exit_reason(code: int) -> str:
    if code >= 0:
        return f"with code {code}"
    with contextlib.suppress(ValueError):
        return f"by {signal.Signals(-code).name}"
    return f"by signal {-code}"


def _relative(path: Path) -> str:
    with contextlib.suppress(ValueError, OSError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


# ---- The child ----------------------------------------------------------------------------


class Inherited:
    """What a child gets from its parent: listening sockets, and the name of the engine."""

    def __init__(self, facts: dict[str, Any]) -> None:
        self.sockets: list[socket.socket] = [adopt_socket(fd) for fd in facts["sockets"]]
        self.engine = str(facts["engine"])
        #: Whether no child before this one has printed the start message.
        self.first = bool(facts["first"])
        self._channel = socket.socket(fileno=facts["channel"])
        self._lock = threading.Lock()  # guards sending, by two threads
        self._channel.set_inheritable(False)  # Programs of the application must not hold it.
        start_thread(
            threading.Thread(target=self._report_imports, name="threadwell-reload", daemon=True)
        )

    @classmethod
    def take(cls) -> Inherited | None:
        """What this process has inherited; None if no `Reloader` has started it.

        Raises `ConfigError` if the system refuses a thread.
        """
        facts = os.environ.pop(_VARIABLE, None)
        try:
            return None if facts is None else cls(json.loads(facts))
        except OSError as error:
            raise ConfigError(f"the server cannot start: {error}") from None

    def report_announced(self) -> None:
        """Tell the parent that the start message is printed. Any thread may call it."""
        with contextlib.suppress(OSError):  # The parent has just ended.
            self._send(_ANNOUNCED)

    @contextlib.contextmanager
    def reporting_errors(self) -> Iterator[None]:
        """Tell the parent which exception ends this block: it serves a page with it."""
        try:
            yield
        except Exception as error:
            # The user's own traceback says more than that of the command.
            trace = getattr(error, "trace", "")
            text = (
                f"{trace}{error}"
                if isinstance(error, AppError | ConfigError)
                else traceback.format_exc()
            )
            with contextlib.suppress(OSError):  # The parent has just ended.
                self._send({"error": text})
            raise

    def _send(self, report: object) -> None:
        with self._lock:
            self._channel.sendall(json.dumps(report).encode() + b"\n")

    def _report_imports(self) -> None:
        """Report imported files to the parent; end this process when the parent is gone."""
        self._channel.settimeout(_REPORT_INTERVAL)
        known: set[str] = set()
        count = 0
        while True:
            modules = sys.modules.copy()
            new = set(module_files(modules)) - known if len(modules) != count else set()
            count = len(modules)
            known |= new
            try:
                if new:
                    self._send(sorted(new))
                if not self._channel.recv(1):
                    break
            except TimeoutError:
                continue
            except OSError:
                break
        os.kill(os.getpid(), signal.SIGTERM)
