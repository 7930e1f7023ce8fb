"""Autoreload of Django, with a parent process that keeps the sockets and survives broken code.

    parent: Parent      starts children, keeps their sockets, watches the folders of the project;
                        it imports no code of the project
    child: run_child    the reloader of Django in the main thread, the server in another thread,
                        as with `runserver`

Django starts no other command than `runserver` if the project cannot be imported. So the parent
begins when `ThreadwellConfig` is made, before any model is imported. A child that exits with code 3
asks for the next child. A child that fails has met broken code; the next one waits for a change.

A socket pair connects the two. The child sends its listening sockets over it. The parent sends one
byte for each changed file, so that the reloader of Django scans the files at once instead of within
a second. When the parent ends, its end closes, and the child ends, too.
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

from threadwell.binding import adopt_socket, is_same_address, open_socket_for, open_sockets
from threadwell.process_setup import USAGE_ERROR, exit_on_next_signal, open_missing_streams
from threadwell.reload import this_command
from threadwell.watch import Watcher

if TYPE_CHECKING:
    from types import FrameType

    from threadwell.worker import ServerConfig

_VARIABLE = "THREADWELL_DJANGO_RELOADER"

# The exit code of a child that asks for the next one (django.utils.autoreload.trigger_reload).
_RELOAD = 3
# The same, for a change that came before the first scan of the child.
_RELOAD_LATE = 4
# Seconds that a child gets to end by itself, because a Ctrl-C in a terminal reaches it, too.
_TERMINAL_GRACE = 1.0
# Seconds until a child that was told to end is killed.
_KILL_AFTER = 2.0
# Seconds between two scans of all files, as in `StatReloader` of Django.
_SCAN_INTERVAL = 1.0
# Seconds that a child waits for its server to stop.
_STOP_TIMEOUT = 0.5
# The most sockets that a child can send to its parent, and the most bytes of their addresses.
_MOST_SOCKETS = 64
_MOST_BYTES = 65536
# The files that the parent watches. The child scans all others every `_SCAN_INTERVAL`.
_PATTERNS = ("*.py", "*.html")

# The messages have the level that the project has set for those of Django about autoreload.
logger = logging.getLogger("django.utils.autoreload")


def is_child() -> bool:
    """Whether this process was started by a reloader."""
    return os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) == "true"


def project_folders() -> list[str]:
    """The folders on `sys.path` that have code of the project."""
    # Not everything below sys.prefix: that may be /usr, and a project may be below it.
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
    """Runs this command in a child, again whenever a child asks for it.

    `run` belongs to the main thread. One thread watches files, and one receives from the child.
    """

    def __init__(self) -> None:
        self._sockets: list[socket.socket] = []
        self._bind: list[str] = []
        self._child: subprocess.Popen[bytes] | None = None
        self._changed: queue.SimpleQueue[Path] = queue.SimpleQueue()
        # Guards `_channel`: the watching thread must not send to a descriptor that was reused.
        self._lock = threading.Lock()
        self._channel: socket.socket | None = None
        self._receiving: threading.Thread | None = None

    def run(self) -> int:
        """Run children until a signal, or until one ends for good (blocking); the exit code."""
        signal.signal(signal.SIGTERM, _exit)
        watcher = Watcher(project_folders(), include=_PATTERNS)
        watching = threading.Thread(target=self._watch, args=(watcher,), daemon=True)
        watching.start()
        try:
            code = _RELOAD
            while code not in (0, USAGE_ERROR) and code >= 0:
                started = time.time()
                # Not twice in a row: a project may write some of its own code whenever it starts.
                since = None if code == _RELOAD_LATE else started
                code = self._run_child({"engine": watcher.engine, "since": since})
                if code not in (0, USAGE_ERROR, _RELOAD, _RELOAD_LATE) and code >= 0:
                    self._wait_for_change(started)
            return code
        except KeyboardInterrupt:
            with contextlib.suppress(KeyboardInterrupt):
                self._ended_within(_TERMINAL_GRACE)
            return 0  # As `runserver`.
        finally:
            self._end_child()
            self._close_channel()  # This receives the sockets that the child has sent.
            watcher.close()
            watching.join()
            _close(self._sockets)

    def _run_child(self, facts: dict[str, Any]) -> int:
        """Run one child and return its exit code. It gets `facts` in its environment."""
        environ = {**os.environ, autoreload.DJANGO_AUTORELOAD_ENV: "true"}
        if os.name == "nt":  # Windows cannot send sockets: they stay with the child.
            self._child = subprocess.Popen(this_command(), env=environ)
            return self._child.wait()
        channel, theirs = socket.socketpair()
        with theirs:
            numbers = [theirs.fileno(), *(sock.fileno() for sock in self._sockets)]
            facts = {**facts, "channel": numbers[0], "sockets": numbers[1:], "bind": self._bind}
            for number in numbers:
                os.set_inheritable(number, True)
            # As Django: the child gets the descriptors of this process, such as those of systemd.
            self._child = subprocess.Popen(
                this_command(), env={**environ, _VARIABLE: json.dumps(facts)}, close_fds=False
            )
        with self._lock:
            self._channel = channel
        self._receiving = threading.Thread(target=self._receive, args=(channel,), daemon=True)
        self._receiving.start()
        code = self._child.wait()
        self._close_channel()
        return code

    def _close_channel(self) -> None:
        """Receive what the child has already sent, and close the channel."""
        with self._lock:
            channel, self._channel = self._channel, None
            if channel is None:
                return
            with channel:
                # A process that the child has started may still hold the other end.
                with contextlib.suppress(OSError):
                    channel.shutdown(socket.SHUT_RDWR)
                if self._receiving is not None:
                    self._receiving.join()

    def _receive(self, channel: socket.socket) -> None:
        """Receive the sockets that the child has opened, in a thread of its own."""
        with contextlib.suppress(OSError):
            while True:
                message, numbers, _, _ = socket.recv_fds(channel, _MOST_BYTES, _MOST_SOCKETS)
                if not message:
                    return
                before, self._sockets = self._sockets, [socket.socket(fileno=n) for n in numbers]
                self._bind = json.loads(message)
                _close(before, keep=self._sockets)

    def _watch(self, watcher: Watcher) -> None:
        while (path := watcher.wait()) is not None:
            self._changed.put(path)
            with self._lock, contextlib.suppress(OSError):
                if self._channel is not None:
                    self._channel.send(b"!", socket.MSG_DONTWAIT)

    def _wait_for_change(self, started: float) -> None:
        """Wait until code changes. A change after the child was `started` counts, too."""
        sys.stderr.write("The server starts again when a file changes.\n")
        while not self._changed.empty():
            # The report of the change that led to this child may come late.
            if _is_code(path := self._changed.get()) and _changed_since(path, started):
                return
        while True:
            # In short steps: on Windows, Ctrl-C does not interrupt a wait without a timeout.
            with contextlib.suppress(queue.Empty):
                if _is_code(self._changed.get(timeout=_SCAN_INTERVAL)):
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
            if self._ended_within(_KILL_AFTER):
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
    except OSError:  # It was deleted.
        return True


def _close(sockets: Iterable[socket.socket], keep: Iterable[socket.socket] = ()) -> None:
    """Close `sockets`, and remove the files of unix sockets unless one of `keep` has the same."""
    kept = {sock.getsockname() for sock in keep}
    for sock in sockets:
        name = sock.getsockname()
        if name not in kept and isinstance(name, str) and name:
            with contextlib.suppress(OSError):
                os.unlink(name)
        sock.close()


def run_as_parent(command: str) -> None:
    """Run the parent and exit, if this process is `manage.py COMMAND` with autoreload.

    Call it before models are imported. In a child, it connects to the parent and returns.
    """
    options = sys.argv[2:]
    if sys.argv[1:2] != [command]:
        return
    open_missing_streams()
    if is_child():
        parent_link()  # The child must notice the end of its parent from now on.
        return
    if any(option in options for option in ("--noreload", "--help", "-h", "--version")):
        return
    sys.exit(Parent().run())


# ---- The child ----------------------------------------------------------------------------


class ParentLink:
    """The connection of a child to its `Parent`. Without a parent, it does nothing.

    A thread receives from the parent. When the parent ends, it sends SIGTERM to this process.
    """

    def __init__(self) -> None:
        facts = json.loads(os.environ.pop(_VARIABLE, "{}"))
        #: The engine of the parent's `Watcher`; empty without a parent.
        self.engine: str = facts.get("engine", "")
        #: A file changed after this time may have been imported before the change; None: ignore it.
        self.since: float | None = facts.get("since")
        #: Set when the reloader has scanned the files: it notices every change from then on.
        self.scanned = threading.Event()
        #: Set when a file has changed.
        self.changed = threading.Event()
        self._sockets = list(
            zip(facts.get("bind", []), map(adopt_socket, facts.get("sockets", [])), strict=True)
        )
        self._channel: socket.socket | None = None
        if facts:
            self._channel = socket.socket(fileno=facts["channel"])
            self._channel.set_inheritable(False)  # Programs of the project must not hold it.
            threading.Thread(target=self._receive, name="threadwell-reload", daemon=True).start()

    def _receive(self) -> None:
        assert self._channel is not None
        with contextlib.suppress(OSError):
            while self._channel.recv(_MOST_BYTES):
                self.changed.set()
        os.kill(os.getpid(), signal.SIGTERM)

    def sockets(self, config: ServerConfig) -> list[socket.socket]:
        """Listening sockets for `config`: those of the previous child, and new ones for the rest.

        Raises `ConfigError` with an explanation if the system refuses one.
        """
        if self._channel is None:
            return open_sockets(config)
        before, self._sockets = self._sockets, []
        found = [(text, _pop_socket(before, text)) for text in config.bind.addresses]
        for _, sock in before:
            # The parent has the socket, too: `close` alone would not free the address.
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        sockets = [sock or open_socket_for(text, config.bind) for text, sock in found]
        with contextlib.suppress(OSError):  # The parent has just ended.
            names = json.dumps(config.bind.addresses).encode()
            socket.send_fds(self._channel, [names], [sock.fileno() for sock in sockets])
        return [adopt_socket(sock.detach()) for sock in sockets]


def _pop_socket(sockets: list[tuple[str, socket.socket]], text: str) -> socket.socket | None:
    """Remove the first of `sockets` that is bound to the address `text`, and return it."""
    for pair in sockets:
        if is_same_address(pair[0], text):
            sockets.remove(pair)
            return pair[1]
    return None


@functools.cache
def parent_link() -> ParentLink:
    """The connection of this process to its parent, made by the first call."""
    return ParentLink()


class QuickReloader(autoreload.StatReloader):
    """The reloader of Django, which also scans the files when the parent reports a change.

    Django assumes that a file has not changed between its import and the first scan. This class
    compares its time with the start of the process, because a module that fails to import is
    scanned late.

    Everything else is as in Django: which files are watched, the signals `autoreload_started` and
    `file_changed`, the reset of templates, and the folders that other apps add.
    """

    SLEEP_TIME = 0

    def __init__(self) -> None:
        super().__init__()
        self._seen: set[Path] = set()

    def tick(self) -> Iterator[None]:
        changed = parent_link().changed
        for _ in super().tick():
            parent_link().scanned.set()
            changed.wait(_SCAN_INTERVAL)
            changed.clear()
            yield

    def snapshot_files(self) -> Iterator[tuple[Path, float]]:
        since = parent_link().since
        for path, mtime in super().snapshot_files():
            if path not in self._seen:
                self._seen.add(path)
                if since is not None and _is_code(path) and since < mtime <= time.time():
                    logger.info("%s changed, reloading.", path)
                    sys.exit(_RELOAD_LATE)
            yield path, mtime


def run_child(serve: Callable[..., None], stop: Callable[[], object], **options: Any) -> None:
    """Run `serve` in a thread and the reloader of Django in this one, the main thread (blocking).

    At the end it calls `stop` and waits a moment for it. `options` are the arguments of `serve`.
    """
    signal.signal(signal.SIGTERM, _exit)
    reloader = autoreload.get_reloader()
    name = type(reloader).__name__
    if (
        type(reloader) is autoreload.StatReloader
    ):  # Otherwise, such as with Watchman, it is not replaced.
        reloader, name = QuickReloader(), parent_link().engine or name
    else:
        parent_link().scanned.set()
    logger.info("Watching for file changes with %s", name)
    try:
        with contextlib.suppress(KeyboardInterrupt):
            autoreload.start_django(reloader, serve, **options)
    finally:
        # In a thread, because the application may delay it.
        stopping = threading.Thread(target=stop, name="threadwell-stop", daemon=True)
        stopping.start()
        stopping.join(_STOP_TIMEOUT)
        exit_on_next_signal()
