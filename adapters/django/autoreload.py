"""Autoreload of Django, with a parent process that keeps the sockets and survives broken code.

    parent: Parent      starts children, keeps their sockets, watches the folders of the project
                        (`reload_parent`)
    child: run_child    the reloader of Django in the main thread, the server in another thread,
                        as with `runserver`

Django starts no other command than `runserver` if the project cannot be imported. So the parent
begins when `ThreadwellConfig` is made, before any model is imported. A child that exits with code 3
asks for the next child. A child that fails has met broken code; the next one waits for a change.

A socket pair connects the two. The child sends its listening sockets over it, and the error that
keeps it from serving: the parent serves a page with it until the child ends, or until a change. The
parent sends one byte for each changed file, so that the reloader of Django scans the files at once
instead of within a second. When the parent ends, its end closes, and the child ends, too.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from django.utils import autoreload

from threadwell.binding import adopt_socket, is_same_address, open_socket_for, open_sockets
from threadwell.process_setup import (
    USAGE_ERROR,
    exit_on_next_signal,
    open_missing_streams,
    start_thread,
)

from .options import values_of
from .reload_parent import (
    MOST_BYTES,
    RELOAD_LATE,
    SCAN_INTERVAL,
    VARIABLE,
    Parent,
    exit_at_once,
    is_code,
    logger,
)

if TYPE_CHECKING:
    from threadwell.worker import ServerConfig

# Seconds that a child waits for its server to stop.
_STOP_TIMEOUT = 0.5
# The thread in which Django runs the command of a child.
_DJANGO_THREAD = "django-main-thread"


def is_child() -> bool:
    """Whether this process was started by a reloader."""
    return os.environ.get(autoreload.DJANGO_AUTORELOAD_ENV) == "true"


def run_as_parent(
    command: str, find_config: Callable[[Sequence[str]], ServerConfig], *, debug: bool
) -> None:
    """Run the parent and exit, if this process is `manage.py COMMAND` with autoreload.

    Call it before models are imported. In a child, it connects to the parent and returns. `debug`
    is the setting DEBUG, without which there is no autoreload. `find_config` returns the
    configuration that the options of the command make, and raises `ConfigError`.
    """
    options = sys.argv[2:]
    if sys.argv[1:2] != [command]:
        return
    if is_child():
        open_missing_streams()
        parent_link().report_failures(debug=debug)
        return
    if debug and not any(word in options for word in ("--noreload", "--help", "-h", "--version")):
        open_missing_streams()
        sys.exit(Parent(functools.partial(find_config, options)).run())


# ---- The child ----------------------------------------------------------------------------


class ParentLink:
    """The connection of a child to its `Parent`. Without a parent, it does nothing.

    A thread receives from the parent. When the parent ends, it sends SIGTERM to this process.
    """

    def __init__(self) -> None:
        facts = json.loads(os.environ.pop(VARIABLE, "{}"))
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
        self._lock = threading.Lock()  # guards sending
        self._channel: socket.socket | None = None
        if facts:
            self._channel = socket.socket(fileno=facts["channel"])
            self._channel.set_inheritable(False)  # Programs of the project must not hold it.
            start_thread(
                threading.Thread(target=self._receive, name="threadwell-reload", daemon=True)
            )

    def _receive(self) -> None:
        assert self._channel is not None
        with contextlib.suppress(OSError):
            while self._channel.recv(MOST_BYTES):
                self.changed.set()
        os.kill(os.getpid(), signal.SIGTERM)

    def report_failures(self, *, debug: bool) -> None:
        """From now on, report an exception that ends the main thread, or that of the command.

        `debug` is the setting DEBUG, without which the parent shows no error.
        """
        self._send({"debug": debug})
        main_hook, thread_hook = sys.excepthook, threading.excepthook

        def ended(
            kind: type[BaseException], error: BaseException, trace: TracebackType | None
        ) -> None:
            # First, because the hook may fail: standard error may be a file on a full disk.
            self.report_error("".join(traceback.format_exception(kind, error, trace)))
            main_hook(kind, error, trace)

        def thread_ended(facts: threading.ExceptHookArgs) -> None:
            if facts.thread is not None and facts.thread.name == _DJANGO_THREAD:
                lines = traceback.format_exception(
                    facts.exc_type, facts.exc_value, facts.exc_traceback
                )
                self.report_error("".join(lines))
            thread_hook(facts)

        sys.excepthook, threading.excepthook = ended, thread_ended

    def report_error(self, text: str) -> None:
        """Tell the parent why this process does not serve. Any thread may call it."""
        self._send({"error": text})

    def _send(self, report: dict[str, Any], sockets: Sequence[socket.socket] = ()) -> None:
        if self._channel is None:
            return
        data = json.dumps(report).encode() + b"\n"
        with self._lock, contextlib.suppress(OSError):  # The parent has just ended.
            if sockets:  # They go with the first byte.
                socket.send_fds(self._channel, [data[:1]], [sock.fileno() for sock in sockets])
                data = data[1:]
            self._channel.sendall(data)

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
        self._send({"options": values_of(config)}, sockets)
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
    """The connection of this process to its parent, made by the first call.

    Exits with an explanation if the system refuses a thread.
    """
    try:
        return ParentLink()
    except OSError as error:
        sys.stderr.write(f"Error: the server cannot start: {error}\n")
        sys.exit(USAGE_ERROR)


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
            changed.wait(SCAN_INTERVAL)
            changed.clear()
            yield

    def snapshot_files(self) -> Iterator[tuple[Path, float]]:
        since = parent_link().since
        for path, mtime in super().snapshot_files():
            if path not in self._seen:
                self._seen.add(path)
                if since is not None and is_code(path) and since < mtime <= time.time():
                    logger.info("%s changed, reloading.", path)
                    sys.exit(RELOAD_LATE)
            yield path, mtime


def run_child(serve: Callable[..., None], stop: Callable[[], object], **options: Any) -> None:
    """Run `serve` in a thread and the reloader of Django in this one, the main thread (blocking).

    At the end it calls `stop` and waits a moment for it. `options` are the arguments of `serve`.
    """
    signal.signal(signal.SIGTERM, exit_at_once)
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
        with contextlib.suppress(RuntimeError):  # The system has no thread left.
            stopping.start()
            stopping.join(_STOP_TIMEOUT)
        exit_on_next_signal()
