"""`Watcher` reports when a source file was created, changed or deleted.

With watchfiles (the extra `reload`) it gets file-change notifications from the operating system.
Without, it compares the files a few times a second. watchfiles imports asyncio, so create a
`Watcher` in a process that does not serve.
"""

from __future__ import annotations

import contextlib
import fnmatch
import logging
import os
import queue
import sys
import sysconfig
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .worker.system.threads import start_thread

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    #: For each path: modification time, size and inode; all 0 if there is no file.
    Snapshot = dict[str, tuple[int, int, int]]

log = logging.getLogger("threadwell")

#: The values of `Watcher.engine`.
ENGINES = ("watchfiles", "stat")

# Folders with files that are not edited. Names that begin with a dot are ignored, too, and virtual
# environments, which this file marks.
_IGNORED = frozenset({"__pycache__", "node_modules", "site-packages", "dist-packages"})
_VENV_MARK = "pyvenv.cfg"
# The least pause in seconds between two scans.
_INTERVAL = 0.25
# The least pause as a multiple of the scan before it: scans take at most 10 % of the time.
_PAUSE_FACTOR = 9
# Milliseconds until watchfiles notices `stop_event`, and until it considers a burst complete.
_STOP_LATENCY = 100
_QUIET = 50
# Seconds that the constructor waits at most for the first scan.
_START_TIMEOUT = 5.0


class Watcher:
    """Watches files below `roots`, which are folders or files.

    Below a folder, it watches the files that match one of `include` and none of `exclude`. These
    are shell patterns for the name, for the path relative to the root, or for the whole path. It
    skips folders that match `exclude`, hidden folders, `__pycache__`, `node_modules` and virtual
    environments.

    Elsewhere, it watches the modules that this process has imported, except those of installed
    packages, and the files of `add_sources`, except those that match `exclude`. It always watches
    `extra_files`; a folder among them stands for all files in it. No path need exist.

    Every change after the constructor has returned is reported. With `since`, a time of
    `time.time`, a file that has changed after it is reported, too. `engine` is `watchfiles`,
    `stat`, or `auto` for the best one; if watchfiles is not usable, `stat` is used.

    Raises `OSError` if no thread can be started.

    Any thread may call any method. The watcher has a thread of its own until `close`.
    """

    def __init__(
        self,
        roots: Iterable[str | os.PathLike[str]],
        *,
        include: Iterable[str] = ("*.py",),
        exclude: Iterable[str] = (),
        extra_files: Iterable[str | os.PathLike[str]] = (),
        engine: str = "auto",
        since: float | None = None,
    ) -> None:
        self._include = tuple(include)
        self._exclude = tuple(exclude)
        paths = [os.path.abspath(root) for root in roots]
        self._roots = _outermost(path for path in paths if os.path.isdir(path))
        self._extra: set[str] = {path for path in paths if not os.path.isdir(path)}
        self._changes: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._started = threading.Event()
        self._modules: tuple[int, frozenset[str]] = (0, frozenset())
        self._sources: frozenset[str] = frozenset()
        #: The state of `_sources` when they were added.
        self._first_snapshot: Snapshot = {}
        self._extra |= {os.path.abspath(file) for file in extra_files}
        self._watchfiles = None if engine == "stat" or not self._roots else _import_watchfiles()
        self.engine = "stat" if self._watchfiles is None else "watchfiles"
        self._thread = threading.Thread(target=self._run, name="threadwell-watch", daemon=True)
        start_thread(self._thread)
        self._started.wait(_START_TIMEOUT)
        if since is not None and (path := self._changed_since(since)) is not None:
            self._changes.put(path)

    def wait(self, timeout: float | None = None) -> Path | None:
        """Block until a watched file was created, changed or deleted; return its path.

        Returns None after `timeout` seconds, and when the watcher is closed. Of several changes
        within a moment, it returns one.
        """
        if self._closed.is_set():
            return None
        try:
            path = self._changes.get(timeout=timeout)
        except queue.Empty:
            return None
        if path is None:
            self._changes.put(None)  # For other threads that wait.
        return path

    def add_sources(self, files: Iterable[str | os.PathLike[str]]) -> None:
        """Watch `files`, too: those that the process to be restarted has imported.

        Every change after this method has returned is reported.
        """
        sources = self._elsewhere(os.path.abspath(file) for file in files)
        # New objects: the thread may be iterating over the old ones.
        self._first_snapshot = self._stat(sources) | self._first_snapshot
        self._sources |= sources

    def close(self) -> None:
        """Stop. Threads in `wait` get None. A second call does nothing."""
        self._closed.set()
        self._changes.put(None)
        if self._thread is not threading.current_thread():
            self._thread.join()

    # ---- The thread -----------------------------------------------------------------------

    def _run(self) -> None:
        if self._watchfiles is not None:
            try:
                self._use_watchfiles(self._watchfiles)
            except Exception as error:
                # There are too many folders for the kernel, or a root was deleted.
                log.warning("watchfiles cannot watch (%s): polling the files instead", error)
        if not self._closed.is_set():
            self.engine = "stat"
            self._poll(self._all_files)

    def _use_watchfiles(self, watchfiles: Any) -> None:
        """Get notifications for the roots, and compare the few files elsewhere."""
        before = self._stat(self._files_elsewhere())
        compared = time.monotonic()
        for changes in watchfiles.watch(
            *self._roots,
            watch_filter=None,
            step=_QUIET,
            rust_timeout=_STOP_LATENCY,
            yield_on_timeout=True,
            stop_event=self._closed,
            raise_interrupt=False,
            ignore_permission_denied=True,
        ):
            self._started.set()
            found = next((path for _, path in sorted(changes) if self._is_watched(path)), None)
            if found is None and time.monotonic() - compared >= _INTERVAL:
                before, found = self._compare(before, self._files_elsewhere())
                compared = time.monotonic()
            if found is not None:
                self._changes.put(Path(found))

    def _poll(self, files: Any) -> None:
        before = self._stat(files())
        self._started.set()
        pause = _INTERVAL
        while not self._closed.wait(pause):
            started = time.monotonic()
            before, found = self._compare(before, files())
            if found is not None:
                self._changes.put(Path(found))
            pause = max(_INTERVAL, (time.monotonic() - started) * _PAUSE_FACTOR)

    def _changed_since(self, moment: float) -> Path | None:
        for path in self._all_files():
            with contextlib.suppress(OSError):
                if os.stat(path).st_mtime > moment:
                    return Path(path)
        return None

    def _compare(self, before: Snapshot, files: Iterable[str]) -> tuple[Snapshot, str | None]:
        """The snapshot of `files` now, and a path that differs from `before`, if there is one."""
        now = self._stat(files)
        before = {
            path: self._first_snapshot[path] for path in self._first_snapshot.keys() & now
        } | before
        if now == before:
            return now, None
        changed = (
            path
            for path in sorted(before.keys() | now.keys())
            if now.get(path) != before.get(path) and self._is_change(path, before, now)
        )
        return now, next(changed, None)

    def _is_change(self, path: str, before: Snapshot, now: Snapshot) -> bool:
        if path not in before:  # It is new, or belongs to a module that was imported since.
            return any(_is_below(path, folder) for folder in (*self._roots, *self._extra - {path}))
        return path in now or not os.path.exists(path)

    def _stat(self, files: Iterable[str]) -> Snapshot:
        seen: Snapshot = {}
        for path in files:
            try:
                status = os.stat(path)
            except OSError:
                seen[path] = (0, 0, 0)
            else:
                seen[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
        return seen

    # ---- The watched files ----------------------------------------------------------------

    def _all_files(self) -> Iterator[str]:
        for root in self._roots:
            for path in _walk(root, lambda folder, root=root: self._includes_folder(folder, root)):
                if self._matches(path, root):
                    yield path
        yield from self._extra_files()
        yield from self._sources
        yield from self._module_files()

    def _files_elsewhere(self) -> Iterator[str]:
        """The watched files that are not below a root."""
        yield from (path for path in self._extra_files() if not self._root_of(path))
        yield from self._sources
        yield from self._module_files()

    def _extra_files(self) -> Iterator[str]:
        for path in self._extra:
            if os.path.isdir(path):
                yield from _walk(path, lambda folder: not _is_ignored(folder))
            else:
                yield path

    def _module_files(self) -> frozenset[str]:
        modules = sys.modules.copy()
        if len(modules) != self._modules[0]:
            self._modules = (len(modules), self._elsewhere(module_files(modules)))
        return self._modules[1]

    def _elsewhere(self, files: Iterable[str]) -> frozenset[str]:
        """Those of `files` that are neither below a root nor excluded."""
        return frozenset(
            path
            for path in files
            if not self._root_of(path) and not _matches(path, os.path.dirname(path), self._exclude)
        )

    def _is_watched(self, path: str) -> bool:
        """Whether to report a change of `path`, which is below a root."""
        root = self._root_of(path)
        if not root:
            return False
        folder = os.path.dirname(path)
        if self._extra and not self._extra.isdisjoint((path, *map(str, Path(path).parents))):
            return True
        while len(folder) > len(root):
            if not self._includes_folder(folder, root):
                return False
            folder = os.path.dirname(folder)
        if not os.path.isdir(path):
            return self._matches(path, root)
        # A folder was renamed: there are no notifications for the files in it.
        inside = _walk(path, lambda folder: self._includes_folder(folder, root))
        return self._includes_folder(path, root) and any(
            self._matches(file, root) for file in inside
        )

    def _root_of(self, path: str) -> str:
        return next((root for root in self._roots if _is_below(path, root)), "")

    def _includes_folder(self, folder: str, root: str) -> bool:
        return not _is_ignored(folder) and not _matches(folder, root, self._exclude)

    def _matches(self, path: str, root: str) -> bool:
        return _matches(path, root, self._include) and not _matches(path, root, self._exclude)


def module_files(modules: dict[str, Any]) -> Iterator[str]:
    """The source files of `modules`, except those of installed packages."""
    for module in modules.values():
        file = getattr(module, "__file__", None)
        if not isinstance(file, str) or not file.endswith(".py") or not os.path.isabs(file):
            continue
        if not file.startswith(_INSTALLED) and not _IGNORED.intersection(file.split(os.sep)):
            yield file


_INSTALLED = tuple(
    os.path.join(path, "") for path in {sysconfig.get_path("stdlib"), os.path.dirname(os.__file__)}
)


def _import_watchfiles() -> Any:
    try:
        import watchfiles
    except ImportError:
        return None
    return watchfiles


def _walk(top: str, enters: Any) -> Iterator[str]:
    """The files below `top`. It does not follow links, and skips folders that `enters` refuses."""
    try:
        entries = list(os.scandir(top))
    except OSError:  # It was deleted, or this user cannot read it.
        return
    for entry in entries:
        try:
            is_folder = entry.is_dir(follow_symlinks=False)
        except OSError:
            continue
        if not is_folder:
            yield entry.path
        elif enters(entry.path):
            yield from _walk(entry.path, enters)


def _is_ignored(folder: str) -> bool:
    name = os.path.basename(folder)
    if name.startswith(".") or name in _IGNORED:
        return True
    return os.path.exists(os.path.join(folder, _VENV_MARK))


def _matches(path: str, root: str, patterns: tuple[str, ...]) -> bool:
    if not patterns:
        return False
    spellings = (os.path.basename(path), os.path.relpath(path, root), path)
    return any(fnmatch.fnmatch(text, pattern) for pattern in patterns for text in spellings)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(os.path.join(folder, ""))


def _outermost(folders: Iterable[str]) -> list[str]:
    """`folders` without those that are below another one."""
    kept: list[str] = []
    for folder in sorted(set(folders)):
        if not any(_is_below(folder, other) for other in kept):
            kept.append(folder)
    return kept
