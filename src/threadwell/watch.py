"""`Watcher`: tells when a source file was created, changed or deleted.

With watchfiles (the extra `reload`) the system tells; without it the files are looked at a few
times a second. watchfiles imports asyncio, so watch in a process that does not serve.
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

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    Seen = dict[str, tuple[int, int, int]]

log = logging.getLogger("threadwell")

#: What `Watcher.engine` may be.
ENGINES = ("watchfiles", "stat")

# Directories whose files nobody edits; those that begin with a dot are left out too, and virtual
# environments, by the file that marks them.
_IGNORED = frozenset({"__pycache__", "node_modules", "site-packages", "dist-packages"})
_VENV_MARK = "pyvenv.cfg"
# Seconds between two looks, if the looking is quick: else it may take a tenth of the time.
_INTERVAL = 0.25
_REST = 9
# Milliseconds: how soon watchfiles lets go when it is told to, and how long a burst may be quiet.
_PATIENCE = 100
_QUIET = 50
# Seconds that the constructor waits for the watching to have begun.
_BEGIN = 5.0


class Watcher:
    """Watches the files below `roots`, which are folders or files.

    Below a folder it watches what matches one of `include` and none of `exclude`: shell patterns
    for the name, for the path seen from the root, or for the whole path. Folders that match
    `exclude`, hidden ones, `__pycache__`, `node_modules` and virtual environments are left out.
    Elsewhere it watches what `add_sources` was given, and the sources of what this process has
    imported, if not of an installed package, unless they match `exclude`. Always watched are
    `extra_files`, and of a folder among them all that is in it. None of them need exist.

    What happens after the constructor has returned is noticed; with `since`, in the seconds of
    `time.time`, also that a file has changed since then. `engine` is how: `watchfiles` or `stat`;
    the one named is used if it can be, and for `auto` the best. Every method may be called from
    any thread. It has a thread of its own until `close`.
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
        self._found: queue.SimpleQueue[Path | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._begun = threading.Event()
        self._modules: tuple[int, frozenset[str]] = (0, frozenset())
        self._sources: frozenset[str] = frozenset()
        #: What those were when they were added.
        self._at_first: Seen = {}
        self._extra |= {os.path.abspath(file) for file in extra_files}
        self._watchfiles = None if engine == "stat" or not self._roots else _import_watchfiles()
        self.engine = "stat" if self._watchfiles is None else "watchfiles"
        self._thread = threading.Thread(target=self._run, name="threadwell-watch", daemon=True)
        self._thread.start()
        self._begun.wait(_BEGIN)
        if since is not None and (path := self._changed_since(since)) is not None:
            self._found.put(path)

    def wait(self, timeout: float | None = None) -> Path | None:
        """Block until a watched file was created, changed or deleted, and return its path.

        None after `timeout` seconds, or when the watcher is closed. Of changes that come within
        a moment one is named.
        """
        if self._closed.is_set():
            return None
        try:
            path = self._found.get(timeout=timeout)
        except queue.Empty:
            return None
        if path is None:
            self._found.put(None)  # for the others who wait
        return path

    def add_sources(self, files: Iterable[str | os.PathLike[str]]) -> None:
        """Watch `files` too: what another process, that is to be restarted, has imported.

        What happens after this has returned is noticed.
        """
        sources = self._elsewhere(os.path.abspath(file) for file in files)
        # replaced and not changed: the thread may be going through the old ones
        self._at_first = self._stat(sources) | self._at_first
        self._sources |= sources

    def close(self) -> None:
        """Watch no more; whoever waits gets None. A second call does nothing."""
        self._closed.set()
        self._found.put(None)
        if self._thread is not threading.current_thread():
            self._thread.join()

    # ---- The thread -----------------------------------------------------------------------

    def _run(self) -> None:
        if self._watchfiles is not None:
            try:
                self._listen(self._watchfiles)
            except Exception as error:
                # too many folders for the kernel, or a root that went away
                log.warning("watchfiles cannot watch (%s): looking at the files instead", error)
        if not self._closed.is_set():
            self.engine = "stat"
            self._look(self._all_files)

    def _listen(self, watchfiles: Any) -> None:
        """Let the system tell of the roots, and look at the few files elsewhere."""
        before = self._stat(self._files_elsewhere())
        looked = time.monotonic()
        for changes in watchfiles.watch(
            *self._roots,
            watch_filter=None,
            step=_QUIET,
            rust_timeout=_PATIENCE,
            yield_on_timeout=True,
            stop_event=self._closed,
            raise_interrupt=False,
            ignore_permission_denied=True,
        ):
            self._begun.set()
            found = next((path for _, path in sorted(changes) if self._concerns(path)), None)
            if found is None and time.monotonic() - looked >= _INTERVAL:
                before, found = self._compare(before, self._files_elsewhere())
                looked = time.monotonic()
            if found is not None:
                self._found.put(Path(found))

    def _look(self, files: Any) -> None:
        before = self._stat(files())
        self._begun.set()
        pause = _INTERVAL
        while not self._closed.wait(pause):
            started = time.monotonic()
            before, found = self._compare(before, files())
            if found is not None:
                self._found.put(Path(found))
            pause = max(_INTERVAL, (time.monotonic() - started) * _REST)

    def _changed_since(self, moment: float) -> Path | None:
        for path in self._all_files():
            with contextlib.suppress(OSError):
                if os.stat(path).st_mtime > moment:
                    return Path(path)
        return None

    def _compare(self, before: Seen, files: Iterable[str]) -> tuple[Seen, str | None]:
        """What is there now, and a path for which that is something else than before."""
        now = self._stat(files)
        before = {path: self._at_first[path] for path in self._at_first.keys() & now} | before
        if now == before:
            return now, None
        changed = (
            path
            for path in sorted(before.keys() | now.keys())
            if now.get(path) != before.get(path) and self._is_news(path, before, now)
        )
        return now, next(changed, None)

    def _is_news(self, path: str, before: Seen, now: Seen) -> bool:
        if path not in before:  # created; but the file of a new module is only looked at anew
            return any(_is_below(path, folder) for folder in (*self._roots, *self._extra - {path}))
        return path in now or not os.path.exists(path)

    def _stat(self, files: Iterable[str]) -> Seen:
        seen: Seen = {}
        for path in files:
            try:
                status = os.stat(path)
            except OSError:
                seen[path] = (0, 0, 0)  # as good as any other: it is not there
            else:
                seen[path] = (status.st_mtime_ns, status.st_size, status.st_ino)
        return seen

    # ---- Which files ----------------------------------------------------------------------

    def _all_files(self) -> Iterator[str]:
        for root in self._roots:
            for path in _walk(root, lambda folder, root=root: self._enters(folder, root)):
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
        """Those of `files` that are not below a root, nor excluded."""
        return frozenset(
            path
            for path in files
            if not self._root_of(path) and not _matches(path, os.path.dirname(path), self._exclude)
        )

    def _concerns(self, path: str) -> bool:
        """Whether a change of `path`, which is below a root, counts."""
        root = self._root_of(path)
        if not root:
            return False
        folder = os.path.dirname(path)
        if self._extra and not self._extra.isdisjoint((path, *map(str, Path(path).parents))):
            return True
        while len(folder) > len(root):
            if not self._enters(folder, root):
                return False
            folder = os.path.dirname(folder)
        if not os.path.isdir(path):
            return self._matches(path, root)
        # a folder that was renamed: nothing is said of the files in it
        inside = _walk(path, lambda folder: self._enters(folder, root))
        return self._enters(path, root) and any(self._matches(file, root) for file in inside)

    def _root_of(self, path: str) -> str:
        return next((root for root in self._roots if _is_below(path, root)), "")

    def _enters(self, folder: str, root: str) -> bool:
        return not _is_ignored(folder) and not _matches(folder, root, self._exclude)

    def _matches(self, path: str, root: str) -> bool:
        return _matches(path, root, self._include) and not _matches(path, root, self._exclude)


def module_files(modules: dict[str, Any]) -> Iterator[str]:
    """The sources of `modules` that somebody may be editing: not those of installed packages."""
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
    """The files below `top`; folders that `enters` refuses are left out, and links to folders."""
    try:
        entries = list(os.scandir(top))
    except OSError:  # gone meanwhile, or not ours to read
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
    """`folders` without those that are within another one."""
    kept: list[str] = []
    for folder in sorted(set(folders)):
        if not any(_is_below(folder, other) for other in kept):
            kept.append(folder)
    return kept
