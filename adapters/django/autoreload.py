"""Django's autoreload, with a parent that keeps the sockets and outlives broken code.

    parent: Parent      needs none of the project's code: starts children, keeps their sockets,
                        watches the project's folders
    child: run_child    Django's reloader in the main thread, the server in another, as runserver

Django starts `runserver` when the project's code is broken, and no other command. So the parent
begins as early as `ThreadwellConfig` is made, before any model is imported. A child asks for the
next one with code 3. One that ends with another error has met broken code, and the next one waits
for a change.

Between the two is a line. The child sends its sockets; the parent a byte when a file has changed,
upon which Django's reloader looks at once, and not within a second. Its end ends the child.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import queue
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from django.utils import autoreload

from threadwell.binding import open_socket_for, open_sockets
from threadwell.process_setup import exit_on_next_signal
from threadwell.reload import this_command
from threadwell.watch import Watcher
from threadwell.worker.net.bind import SharedSocket, parse_bind

if TYPE_CHECKING:
    from types import FrameType

    from threadwell.worker import ServerConfig

_VARIABLE = "THREADWELL_DJANGO_RELOADER"

# With this code a child asks for the next one (django.utils.autoreload.trigger_reload).
_RELOAD = 3
# And with this one because of a change that came before it had looked at the files at all.
_RELOAD_LATE = 4
# What argparse ends with: the command line is wrong, or an address, and no edit will mend it.
_USAGE = 2
# Seconds until a child that a Ctrl-C in the terminal may have reached is told to end, and for its
# end after that.
_TERMINAL_FIRST = 1.0
_PATIENCE = 2.0
# Seconds between two looks at all the files, as Django's own reloader has it.
_INTERVAL = 1.0
# Seconds for the server of a child that ends, the stopping itself included.
_LAST_MOMENT = 0.5
# Most sockets that a child may hand to its parent, and most bytes that say which they are.
_MOST_SOCKETS = 64
_MOST_BYTES = 65536
# What a developer edits all day. What else is watched is looked at every `_INTERVAL`.
_PATTERNS = ("*.py", "*.html")

# Its level is that of Django's own messages about autoreload.
logger = logging.getLogger("django.utils.autoreload")


def is_child() -> bool:
    """Whether this process was started by a reloader."""
    return os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) == "true"


def project_folders() -> list[str]:
    """Where the project's code is, as far as can be known without importing it."""
    # not all of sys.prefix: with a system's Python that is /usr, and a project may be below it
    names = ("stdlib", "platstdlib", "purelib", "platlib", "scripts")
    installed = {Path(sysconfig.get_path(name)).resolve() for name in names}
    folders = dict.fromkeys(Path(entry).resolve() for entry in sys.path if entry)
    return [
        str(folder)
        for folder in folders
        if folder.is_dir()
        and not any(folder.is_relative_to(place) for place in installed)
        and not {"site-packages", "dist-packages"}.intersection(folder.parts)
    ]


# ---- The parent ---------------------------------------------------------------------------


class Parent:
    """Starts the same command again whenever a child asks for it."""

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []
        self._bind: list[str] = []
        self._child: subprocess.Popen[bytes] | None = None
        self._changed: queue.SimpleQueue[Path] = queue.SimpleQueue()
        # guards the line: the watching thread must not send to a number that is something else now
        self._lock = threading.Lock()
        self._line: socket.socket | None = None
        self._listening: threading.Thread | None = None

    def run(self) -> int:
        """Until a child ends for good, or a signal comes; returns the exit code (blocking)."""
        signal.signal(signal.SIGTERM, _exit)
        watcher = Watcher(project_folders(), include=_PATTERNS)
        watching = threading.Thread(target=self._watch, args=(watcher,), daemon=True)
        watching.start()
        try:
            code = _RELOAD
            while code not in (0, _USAGE) and code >= 0:
                started = time.time()
                # a project that writes its own code as it starts would be started for ever
                since = None if code == _RELOAD_LATE else started
                code = self._run_child({"engine": watcher.engine, "since": since})
                if code not in (0, _USAGE, _RELOAD, _RELOAD_LATE) and code >= 0:
                    self._wait_for_change(started)
            return code
        except KeyboardInterrupt:
            with contextlib.suppress(KeyboardInterrupt):
                self._ended_within(_TERMINAL_FIRST)
            return 0  # as runserver
        finally:
            self._end_child()
            self._hang_up()  # what the child has sent is in `_sockets` then
            watcher.close()
            watching.join()
            _close(self._sockets)

    def _run_child(self, facts: dict[str, Any]) -> int:
        """One child, from its start to its end; its exit code. `facts` is what it is told."""
        environ = {**os.environ, autoreload.DJANGO_AUTORELOAD_ENV: "true"}
        if os.name == "nt":  # there the sockets stay with the child
            self._child = subprocess.Popen(this_command(), env=environ)
            return self._child.wait()
        line, theirs = socket.socketpair()
        with theirs:
            numbers = [theirs.fileno(), *(sock.fileno() for sock in self._sockets)]
            facts = {**facts, "line": numbers[0], "sockets": numbers[1:], "bind": self._bind}
            for number in numbers:
                os.set_inheritable(number, True)
            # close_fds as Django: what this process was given, as by systemd, is for the child
            self._child = subprocess.Popen(
                this_command(), env={**environ, _VARIABLE: json.dumps(facts)}, close_fds=False
            )
        with self._lock:
            self._line = line
        self._listening = threading.Thread(target=self._listen, args=(line,), daemon=True)
        self._listening.start()
        code = self._child.wait()
        self._hang_up()
        return code

    def _hang_up(self) -> None:
        """Take what the child has sent still, and close the line."""
        with self._lock:
            line, self._line = self._line, None
            if line is None:
                return
            with line:
                # a process of the child's may hold the other end
                with contextlib.suppress(OSError):
                    line.shutdown(socket.SHUT_RDWR)
                if self._listening is not None:
                    self._listening.join()

    def _listen(self, line: socket.socket) -> None:
        """Take the sockets that the child has opened."""
        with contextlib.suppress(OSError):
            while True:
                message, numbers, _, _ = socket.recv_fds(line, _MOST_BYTES, _MOST_SOCKETS)
                if not message:
                    return
                before, self._sockets = self._sockets, [socket.socket(fileno=n) for n in numbers]
                self._bind = json.loads(message)
                _close(before, but=self._sockets)

    def _watch(self, watcher: Watcher) -> None:
        while (path := watcher.wait()) is not None:
            self._changed.put(path)
            with self._lock, contextlib.suppress(OSError):
                if self._line is not None:
                    self._line.send(b"!", socket.MSG_DONTWAIT)

    def _wait_for_change(self, started: float) -> None:
        """Until something changes; a change since the child was `started` is enough."""
        sys.stderr.write("The server starts again when a file changes.\n")
        while not self._changed.empty():
            # what has led to this child may be told of late
            if _is_code(path := self._changed.get()) and _changed_since(path, started):
                return
        while True:
            # in short steps, for on Windows a wait without an end hears no Ctrl-C
            with contextlib.suppress(queue.Empty):
                if _is_code(self._changed.get(timeout=_INTERVAL)):
                    return

    def _ended_within(self, seconds: float) -> bool:
        if self._child is None:
            return True
        try:
            self._child.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        return True

    def _end_child(self) -> None:
        child = self._child
        if child is None or child.poll() is not None:
            return
        with contextlib.suppress(KeyboardInterrupt):
            child.send_signal(signal.SIGTERM)
            if self._ended_within(_PATIENCE):
                return
        child.kill()
        child.wait()


def _exit(_number: int, _frame: FrameType | None) -> NoReturn:
    raise SystemExit(0)


def _is_code(path: Path) -> bool:
    return path.suffix == ".py"


def _changed_since(path: Path, moment: float) -> bool:
    try:
        return path.stat().st_mtime >= moment
    except OSError:  # deleted
        return True


def _close(sockets: Iterable[socket.socket], but: Iterable[socket.socket] = ()) -> None:
    """Close `sockets`. The files of unix sockets go, `but` for those of sockets that stay."""
    kept = {sock.getsockname() for sock in but}
    for sock in sockets:
        name = sock.getsockname()
        if name not in kept and isinstance(name, str) and name:
            with contextlib.suppress(OSError):
                os.unlink(name)
        sock.close()


def take_over(command: str) -> None:
    """Become the parent, if this process is `manage.py COMMAND` with autoreload. Then it ends here.

    To be called before the project's models are imported.
    """
    options = sys.argv[2:]
    if sys.argv[1:2] != [command]:
        return
    if is_child():
        line()  # nobody else would end a child that the parent does not
        return
    if any(option in options for option in ("--noreload", "--help", "-h", "--version")):
        return
    sys.exit(Parent().run())


# ---- The child ----------------------------------------------------------------------------


class Line:
    """The child's end of the line to its parent. Without a parent it does nothing.

    When the parent is gone, the process is sent SIGTERM.
    """

    def __init__(self) -> None:
        facts = json.loads(os.environ.pop(_VARIABLE, "{}"))
        #: How the parent watches the project; empty without one.
        self.engine: str = facts.get("engine", "")
        #: What has changed since then may have been imported before; None: do not ask.
        self.since: float | None = facts.get("since")
        #: The reloader has looked at the files, so that it notices what changes from now on.
        self.looked = threading.Event()
        #: A file has changed.
        self.changed = threading.Event()
        self._sockets = list(
            zip(facts.get("bind", []), map(_shared, facts.get("sockets", [])), strict=True)
        )
        self._line: socket.socket | None = None
        if facts:
            self._line = socket.socket(fileno=facts["line"])
            self._line.set_inheritable(False)  # what the project starts must not hold it
            threading.Thread(target=self._attend, name="threadwell-reload", daemon=True).start()

    def _attend(self) -> None:
        assert self._line is not None
        with contextlib.suppress(OSError):
            while self._line.recv(_MOST_BYTES):
                self.changed.set()
        os.kill(os.getpid(), signal.SIGTERM)

    def sockets(self, config: ServerConfig) -> list[socket.socket]:
        """Listening sockets for `config`: those of the child before, and new ones for the rest.

        Raises `ConfigError`, in words, for what the system refuses.
        """
        if self._line is None:
            return open_sockets(config)
        before, self._sockets = self._sockets, []
        found = [(text, _take(before, text)) for text in config.bind.addresses]
        for _, sock in before:
            # the parent has them too: only so is the address free
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        sockets = [sock or open_socket_for(text, config.bind) for text, sock in found]
        with contextlib.suppress(OSError):  # the parent has just gone
            names = json.dumps(config.bind.addresses).encode()
            socket.send_fds(self._line, [names], [sock.fileno() for sock in sockets])
        return [_shared(sock.detach()) for sock in sockets]


def _shared(number: int) -> SharedSocket:
    sock = SharedSocket(fileno=number)
    sock.set_inheritable(False)
    return sock


def _take(sockets: list[tuple[str, SharedSocket]], text: str) -> socket.socket | None:
    """The first of `sockets` that listens on what `text` says, which it then leaves."""
    for pair in sockets:
        if parse_bind(pair[0]) == parse_bind(text):
            sockets.remove(pair)
            return pair[1]
    return None


@functools.cache
def line() -> Line:
    """The line of this process."""
    return Line()


class QuickReloader(autoreload.StatReloader):
    """Django's reloader, which looks at every file once a second, and also when the parent says so.

    Django's takes a file for what was imported when it first finds it; this one asks whether it
    has changed since the process began. A file with an error is found late.

    What is watched, and what follows from a change, is Django's: `autoreload_started` and
    `file_changed` are sent, templates are reset, other apps may add folders.
    """

    SLEEP_TIME = 0

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[Path] = set()

    def tick(self) -> Iterator[None]:
        changed = line().changed
        for _ in super().tick():
            line().looked.set()
            changed.wait(_INTERVAL)
            changed.clear()
            yield

    def snapshot_files(self) -> Iterator[tuple[Path, float]]:
        since = line().since
        for path, mtime in super().snapshot_files():
            if path not in self._seen:
                self._seen.add(path)
                if since is not None and _is_code(path) and since < mtime <= time.time():
                    logger.info("%s changed, reloading.", path)
                    sys.exit(_RELOAD_LATE)
            yield path, mtime


def run_child(serve: Callable[..., None], stop: Callable[[], object], **options: Any) -> None:
    """Run `serve` in a thread, and Django's reloader in this, the main one (blocking).

    `stop` is called at the end, and given a moment.
    """
    signal.signal(signal.SIGTERM, _exit)
    reloader = autoreload.get_reloader()
    name = type(reloader).__name__
    if type(reloader) is autoreload.StatReloader:  # else somebody has chosen another one
        reloader, name = QuickReloader(), line().engine or name
    else:
        line().looked.set()
    logger.info("Watching for file changes with %s", name)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            autoreload.start_django(reloader, serve, **options)
    finally:
        # in a thread, for the application may keep it waiting
        stopping = threading.Thread(target=stop, name="threadwell-stop", daemon=True)
        stopping.start()
        stopping.join(_LAST_MOMENT)
        exit_on_next_signal()
