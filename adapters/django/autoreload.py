"""Django's autoreload, with a parent that keeps the sockets and outlives broken code.

    parent: Parent      needs none of the project's code: starts children, keeps their sockets
    child: run_child    Django's reloader in the main thread, the server in another, as runserver

Django starts `runserver` when the project's code is broken, and no other command. So the parent
begins as early as `LooplessConfig` is made, before any model is imported; a child that fails
before it has reached its command has met broken code, and the next one waits for a change.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from django.utils import autoreload

from loopless.reload import this_command
from loopless.watch import Watcher
from loopless.worker.listener import SharedSocket

if TYPE_CHECKING:
    from types import FrameType

_VARIABLE = "LOOPLESS_DJANGO_RELOADER"

# With this code a child asks for the next one (django.utils.autoreload.trigger_reload).
_RELOAD = 3
# What argparse ends with: the command line is wrong, and no edit will mend it.
_USAGE = 2
# Seconds for a child that was told to end.
_PATIENCE = 2.0
# Seconds between two looks at all the files, as Django's own reloader has it.
_INTERVAL = 1.0
# Most sockets that a child may hand to its parent.
_MOST_SOCKETS = 64


def is_child() -> bool:
    """Whether this process was started by a reloader."""
    return os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) == "true"


def project_folders() -> list[str]:
    """Where the project's code is, as far as can be known without importing it."""
    installed = Path(sys.prefix).resolve(), Path(sys.base_prefix).resolve()
    folders = [Path.cwd(), *(Path(entry).resolve() for entry in sys.path if entry)]
    return [
        str(folder)
        for folder in dict.fromkeys(folders)
        if folder.is_dir() and not any(folder.is_relative_to(place) for place in installed)
    ]


# ---- The parent ---------------------------------------------------------------------------


class Parent:
    """Starts the same command again whenever a child asks for it."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []
        self._bind: list[str] = []
        self._reached = threading.Event()
        self._child: subprocess.Popen[bytes] | None = None

    def run(self) -> int:
        """Until a child ends for good, or a signal comes; returns the exit code (blocking)."""
        signal.signal(signal.SIGTERM, _exit)
        try:
            while True:
                started = time.time()
                code = self._run_child()
                if code == _RELOAD:
                    continue
                if code in (0, _USAGE) or code < 0 or self._reached.is_set():
                    return code
                _wait_for_change(started)
        except KeyboardInterrupt:
            return 0  # as runserver
        finally:
            self._end_child()
            for sock in self._sockets:
                sock.close()

    def _run_child(self) -> int:
        """One child, from its start to its end; its exit code."""
        self._reached.clear()
        line, theirs = socket.socketpair()
        numbers = [theirs.fileno(), *(sock.fileno() for sock in self._sockets)]
        facts = {"line": numbers[0], "sockets": numbers[1:], "bind": self._bind}
        environ = {
            **os.environ,
            autoreload.DJANGO_AUTORELOAD_ENV: "true",
            _VARIABLE: json.dumps(facts),
        }
        with line:
            with theirs:
                if os.name == "nt":  # there the sockets stay with the child
                    environ.pop(_VARIABLE)
                    self._child = subprocess.Popen(this_command(), env=environ)
                    self._reached.set()
                else:
                    self._child = subprocess.Popen(this_command(), env=environ, pass_fds=numbers)
            listening = threading.Thread(target=self._listen, args=(line,), daemon=True)
            listening.start()
            code = self._child.wait()
            # a process of the child's may hold the other end
            with contextlib.suppress(OSError):
                line.shutdown(socket.SHUT_RDWR)
            listening.join()
        return code

    def _listen(self, line: socket.socket) -> None:
        """Take what the child says: that it has reached its command, then its sockets."""
        with contextlib.suppress(OSError):
            while True:
                message, numbers, _, _ = socket.recv_fds(line, 65536, _MOST_SOCKETS)
                if not message:
                    return
                self._reached.set()
                if numbers:
                    before, self._sockets = (
                        self._sockets,
                        [socket.socket(fileno=n) for n in numbers],
                    )
                    self._bind = json.loads(message)
                    for sock in before:
                        sock.close()

    def _end_child(self) -> None:
        child = self._child
        if child is None or child.poll() is not None:
            return
        with contextlib.suppress(KeyboardInterrupt, subprocess.TimeoutExpired):
            # a Ctrl-C in the terminal was for both of them; any other signal for this one alone
            child.send_signal(signal.SIGTERM)
            child.wait(_PATIENCE)
        child.kill()
        child.wait()


def _exit(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def _wait_for_change(since: float) -> None:
    sys.stderr.write("The server starts again when a file changes.\n")
    with contextlib.closing(Watcher(project_folders(), since=since)) as watcher:
        while watcher.wait(_INTERVAL) is None:
            pass  # in short steps, for on Windows a wait without an end hears no Ctrl-C


def take_over(command: str) -> None:
    """Become the parent, if this process is `manage.py COMMAND` with autoreload. Then it ends here.

    To be called before the project's models are imported.
    """
    options = sys.argv[2:]
    if sys.argv[1:2] != [command] or is_child():
        return
    if any(option in options for option in ("--noreload", "--help", "-h", "--version")):
        return
    sys.exit(Parent().run())


# ---- The child ----------------------------------------------------------------------------


class Line:
    """The child's end of the line to its parent. Without a parent it does nothing."""

    def __init__(self) -> None:
        facts = json.loads(os.environ.pop(_VARIABLE, "{}"))
        self._line = socket.socket(fileno=facts["line"]) if facts else None
        self._bind: list[str] = facts.get("bind", [])
        self._sockets = [SharedSocket(fileno=number) for number in facts.get("sockets", [])]
        for sock in (*self._sockets, *filter(None, [self._line])):
            sock.set_inheritable(False)  # what the project starts must not hold them

    def reached(self) -> None:
        """Say that the code was good enough for the command to begin; from now on, watch over it.

        When the parent is gone, nobody else ends this process.
        """
        if self._line is None:
            return
        self._line.sendall(b"reached")
        threading.Thread(target=self._attend, name="loopless-reload", daemon=True).start()

    def _attend(self) -> None:
        assert self._line is not None
        with contextlib.suppress(OSError):
            self._line.recv(1)
        os.kill(os.getpid(), signal.SIGTERM)

    def sockets(
        self, bind: Sequence[str], open_sockets: Callable[[], list[socket.socket]]
    ) -> list[socket.socket]:
        """The sockets for `bind`: those of the child before if it had the same, else new ones."""
        if self._sockets and self._bind == list(bind):
            return list(self._sockets)
        for sock in self._sockets:
            sock.close()
        sockets = open_sockets()
        if self._line is not None:
            numbers = [sock.fileno() for sock in sockets]
            socket.send_fds(self._line, [json.dumps(list(bind)).encode()], numbers)
        return sockets


class QuickReloader(autoreload.StatReloader):
    """Django's reloader, which looks at every file once a second; this one is told to look sooner.

    What is watched, and what follows from a change, is Django's: `autoreload_started` and
    `file_changed` are sent, templates are reset, other apps may add folders.
    """

    SLEEP_TIME = 0

    def tick(self) -> Iterator[None]:
        looks = super().tick()
        folders = [*project_folders(), *map(str, self.directory_globs)]
        with contextlib.closing(Watcher(folders, include=("*.py", "*.html", "*.txt"))) as watcher:
            while True:
                next(looks)
                watcher.wait(_INTERVAL)
                yield


def run_child(serve: Callable[..., None], **options: Any) -> None:
    """Run `serve` in a thread, and Django's reloader in this, the main one (blocking)."""
    signal.signal(signal.SIGTERM, _exit)
    reloader = autoreload.get_reloader()
    if type(reloader) is autoreload.StatReloader:  # else somebody has chosen another one
        reloader = QuickReloader()
    with contextlib.suppress(KeyboardInterrupt):
        autoreload.start_django(reloader, serve, **options)
