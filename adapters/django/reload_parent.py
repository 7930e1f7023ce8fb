"""The parent of Django's autoreload: it keeps the sockets and survives broken code.

It starts children, keeps their sockets and watches the folders of the project. It imports no code
of the project, beyond what Django had imported when the parent began. While a child has failed, it
answers with an error page.
"""

from __future__ import annotations

import contextlib
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
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from django.core.management.base import CommandParser
from django.utils import autoreload

from threadwell.binding import open_socket_for
from threadwell.error_page import serve_error
from threadwell.process_setup import USAGE_ERROR, say, start_thread
from threadwell.reload import GRACE, this_command
from threadwell.watch import Watcher
from threadwell.worker import ConfigError, Server, ServerConfig

if TYPE_CHECKING:
    from types import FrameType

#: The environment variable that tells a child how to reach its parent.
VARIABLE = "THREADWELL_DJANGO_RELOADER"
# The exit code of a child that asks for the next one (django.utils.autoreload.trigger_reload).
_RELOAD = 3
#: The same, for a change that came before the first scan of the child.
RELOAD_LATE = 4
#: Seconds between two scans of all files, as in `StatReloader` of Django.
SCAN_INTERVAL = 1.0
#: The most bytes that are received at once.
MOST_BYTES = 65536

# Seconds that a child gets to end by itself, because a Ctrl-C in a terminal reaches it, too.
_TERMINAL_GRACE = 1.0
# Seconds until a child that was told to end is killed.
_KILL_AFTER = 2.0
# Seconds for the look at an error that the child could not report.
_LOOK_TIMEOUT = 10.0
# The most sockets that a child can send to its parent.
_MOST_SOCKETS = 64
# The files that the parent watches. The child scans all others every `SCAN_INTERVAL`.
_PATTERNS = ("*.py", "*.html")

#: The messages have the level that the project has set for those of Django about autoreload.
logger = logging.getLogger("django.utils.autoreload")


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


class Parent:
    """Runs this command in a child, again whenever a child asks for it.

    `find_config` returns the configuration of this command. It is called for an error page if no
    child has opened sockets yet, and raises `ConfigError`.

    `run` belongs to the main thread. One thread watches files, and one receives from the child. The
    main thread touches what that one sets only when it has ended, with its child.
    """

    def __init__(self, find_config: Callable[[], ServerConfig]) -> None:
        self._find_config = find_config
        self._sockets: list[socket.socket] = []
        #: The configuration that has opened `_sockets`.
        self._config = ServerConfig()
        self._child: subprocess.Popen[bytes] | None = None
        self._changed: queue.SimpleQueue[Path] = queue.SimpleQueue()
        # Guards `_channel`: the watching thread must not send to a descriptor that was reused.
        self._lock = threading.Lock()
        self._channel: socket.socket | None = None
        self._receiving: threading.Thread | None = None
        #: Whether DEBUG was on in the last child that could read the settings.
        self._debug = True
        self._error_server: Server | None = None
        #: When the child has reported an error. It runs still if only its command has failed.
        self._failed_at: float | None = None
        #: The child was told to end, so that the next one is started.
        self._restarts = False
        #: Nothing can be served: an address cannot be opened, or the system has nothing left.
        self._cannot_listen = False

    def run(self) -> int:
        """Run children until a signal, or until one ends for good (blocking); the exit code."""
        signal.signal(signal.SIGTERM, exit_at_once)
        # A closed terminal ends the child, too, but perhaps later. nohup(1) ignores the signal.
        sighup = getattr(signal, "SIGHUP", None)
        if sighup is not None and signal.getsignal(sighup) is signal.SIG_DFL:
            signal.signal(sighup, exit_at_once)
        try:
            watcher = Watcher(project_folders(), include=_PATTERNS)
        except OSError as error:
            return _cannot_start(error)
        watching = threading.Thread(target=self._watch, args=(watcher,), daemon=True)
        try:
            start_thread(watching)
            return self._run_children(watcher.engine)
        except KeyboardInterrupt:
            with contextlib.suppress(KeyboardInterrupt):
                self._ended_within(_TERMINAL_GRACE)
            return 0  # As `runserver`.
        except OSError as error:
            return _cannot_start(error)
        finally:
            self._end_child()
            self._close_channel()  # This receives the sockets that the child has sent.
            self._stop_error_server()
            watcher.close()
            if watching.ident is not None:
                watching.join()
            _close(self._sockets)

    def _run_children(self, engine: str) -> int:
        """Run children until one ends for good; its exit code."""
        code = _RELOAD
        while code not in (0, USAGE_ERROR) and code >= 0:
            started = time.time()
            # Not twice in a row: a project may write some of its own code whenever it starts.
            since = None if code == RELOAD_LATE else started
            self._failed_at, self._restarts = None, False
            code = self._run_child({"engine": engine, "since": since})
            if self._restarts:
                code = _RELOAD
            if code not in (0, USAGE_ERROR, _RELOAD, RELOAD_LATE) and code >= 0:
                self._wait_for_change(started, code)
            self._stop_error_server()
            if self._cannot_listen:
                code = USAGE_ERROR
        return code

    # ---- The child ------------------------------------------------------------------------

    def _run_child(self, facts: dict[str, Any]) -> int:
        """Run one child and return its exit code. It gets `facts` in its environment."""
        environ = {**os.environ, autoreload.DJANGO_AUTORELOAD_ENV: "true"}
        if os.name == "nt":  # Windows cannot send sockets: they stay with the child.
            self._child = subprocess.Popen(this_command(), env=environ)
            return self._child.wait()
        channel, theirs = socket.socketpair()
        with theirs:
            numbers = [theirs.fileno(), *(sock.fileno() for sock in self._sockets)]
            bind = self._config.bind.addresses if self._sockets else ()
            facts = {**facts, "channel": numbers[0], "sockets": numbers[1:], "bind": bind}
            for number in numbers:
                os.set_inheritable(number, True)
            # As Django: the child gets the descriptors of this process, such as those of systemd.
            self._child = subprocess.Popen(
                this_command(), env={**environ, VARIABLE: json.dumps(facts)}, close_fds=False
            )
        with self._lock:
            self._channel = channel
        receiving = threading.Thread(target=self._receive, args=(channel,), daemon=True)
        start_thread(receiving)
        self._receiving = receiving
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
                receiving, self._receiving = self._receiving, None
                if receiving is not None:
                    receiving.join()

    def _receive(self, channel: socket.socket) -> None:
        """Receive what the child reports, as lines of JSON, in a thread of its own."""
        received, numbers = b"", []
        with contextlib.suppress(OSError):
            while True:
                data, more, _, _ = socket.recv_fds(channel, MOST_BYTES, _MOST_SOCKETS)
                if not data:
                    return
                numbers += more
                *lines, received = (received + data).split(b"\n")
                for line in lines:
                    report = json.loads(line)
                    if "options" in report:
                        self._take_sockets(report["options"], numbers)
                        numbers = []
                    elif "debug" in report:
                        self._debug = report["debug"]
                    else:
                        self._failed_at = time.time()
                        self._show_error(report["error"])

    def _take_sockets(self, options: dict[str, Any], numbers: Iterable[int]) -> None:
        before, self._sockets = self._sockets, [socket.socket(fileno=n) for n in numbers]
        self._config = ServerConfig.from_options(**options)
        _close(before, keep=self._sockets)

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

    # ---- Changes --------------------------------------------------------------------------

    def _watch(self, watcher: Watcher) -> None:
        while (path := watcher.wait()) is not None:
            self._changed.put(path)
            with self._lock, contextlib.suppress(OSError):
                if self._channel is None:
                    continue
                self._channel.send(b"!", socket.MSG_DONTWAIT)
                if not self._restarts and self._may_mend(path):
                    logger.info("%s changed, reloading.", path)
                    self._restarts = True
                    assert self._child is not None
                    self._child.terminate()

    def _may_mend(self, path: Path) -> bool:
        """Whether the child must be replaced after the change of `path`.

        The reloader of Django misses the change of a module that has failed to import, if the
        change comes before it has scanned the file.
        """
        return (
            self._failed_at is not None and is_code(path) and _changed_since(path, self._failed_at)
        )

    def _wait_for_change(self, started: float, code: int) -> None:
        """Wait until code changes. A change after the child was `started` counts, too.

        The child has ended with `code`. Meanwhile clients get an error page.
        """
        changed = self._has_changed_since(started)
        if not changed and self._error_server is None and not self._cannot_listen:
            self._show_error(_error_of_project() or f"The command has ended with code {code}.")
        if self._cannot_listen:
            return
        say("The server starts again when a file changes.", sys.stderr)
        while not changed:
            # In short steps: on Windows, Ctrl-C does not interrupt a wait without a timeout.
            with contextlib.suppress(queue.Empty):
                changed = is_code(self._changed.get(timeout=SCAN_INTERVAL))

    def _has_changed_since(self, moment: float) -> bool:
        """Whether code that has been reported as changed has changed since `moment`."""
        while not self._changed.empty():
            # The report of the change that led to this child may come late.
            if is_code(path := self._changed.get()) and _changed_since(path, moment):
                return True
        return False

    # ---- The error page -------------------------------------------------------------------

    def _show_error(self, text: str) -> None:
        """Answer all requests with a page that shows `text`, if DEBUG is on."""
        if not self._debug or os.name == "nt":  # On Windows, this process has no sockets.
            return
        is_first = not self._sockets
        if is_first and not self._listen():
            return
        self._stop_error_server()
        try:
            self._error_server = serve_error(text, self._config, self._sockets)
        except ConfigError as error:
            say(f"{error}", sys.stderr)
            return
        except OSError as error:
            self._give_up(f"the error page cannot be served: {error}")
            return
        if is_first:
            say(f"{self._error_server.urls[0]} shows the error, too.", sys.stderr)

    def _listen(self) -> bool:
        """Open the sockets of this command, because no child could. Returns whether it could."""
        opened: list[socket.socket] = []
        try:
            self._config = config = self._find_config()
            for text in config.bind.addresses:
                sock = open_socket_for(text, config.bind)
                # `_close` removes the file of a unix socket, not the object for it.
                opened.append(socket.socket(fileno=sock.detach()))
        except ConfigError as error:
            _close(opened)
            self._give_up(str(error))
            return False
        self._sockets = opened
        return True

    def _give_up(self, reason: str) -> None:
        """End the child, and let `run` return."""
        say(f"Error: {reason}", sys.stderr)
        self._cannot_listen = True
        if self._child is not None:
            self._child.terminate()

    def _stop_error_server(self) -> None:
        server, self._error_server = self._error_server, None
        if server is not None:
            server.stop(GRACE)


def _cannot_start(error: OSError) -> int:
    """Say that the system refuses a process, a thread or a descriptor; the exit code."""
    say(f"Error: autoreload cannot run: {error}", sys.stderr)
    return USAGE_ERROR


def _error_of_project() -> str:
    """The error of a project that cannot be set up: what `manage.py check` prints, or nothing.

    A child that fails before Django has reached this app cannot report its error.
    """
    command = this_command()
    words = sys.argv[1:]
    if command[-len(words) :] != words:
        return ""
    parser = CommandParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--pythonpath")  # `--settings` is in the environment already.
    path = parser.parse_known_args(words)[0].pythonpath
    command[-len(words) :] = ["check", *([] if path is None else ["--pythonpath", path])]
    environ = {**os.environ, autoreload.DJANGO_AUTORELOAD_ENV: "true"}
    try:
        done = subprocess.run(
            command,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            timeout=_LOOK_TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stderr.decode(errors="replace") if done.returncode else ""


def exit_at_once(_number: int, _frame: FrameType | None) -> NoReturn:
    """A signal handler that ends the process with code 0."""
    raise SystemExit(0)


def is_code(path: Path) -> bool:
    """Whether a change of `path` is one of code."""
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
