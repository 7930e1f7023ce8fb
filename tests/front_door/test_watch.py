"""Files that are watched: with watchfiles and without, what counts and what does not."""

from __future__ import annotations

import importlib
import itertools
import os
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h11
import pytest

from threadwell import watch
from threadwell.watch import ENGINES, Watcher

from ..helpers.waiting import until

Watch = Callable[..., Watcher]

LONG = 20
# What does not count is told apart by what does: this file is changed afterwards.
MARK = "mark.py"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project, with a path that has no links in it."""
    root = tmp_path.resolve() / "project"
    (root / "package").mkdir(parents=True)
    for name in ("app.py", "package/views.py", "style.css"):
        (root / name).write_text("1\n")
    return root


@pytest.fixture(params=ENGINES)
def watching(request: pytest.FixtureRequest) -> Iterator[Watch]:
    """`watching(*roots, **options)`: a watcher of either engine, closed after the test."""
    watchers: list[Watcher] = []

    def start(*roots: Path, **options: Any) -> Watcher:
        watcher = Watcher(roots, engine=request.param, **options)
        watchers.append(watcher)
        return watcher

    yield start
    for watcher in watchers:
        watcher.close()
        assert not watcher._thread.is_alive()


def settled(watcher: Watcher, found: Path | None) -> Path | None:
    """`found`, once nothing more of the same burst comes."""
    while watcher.wait(0.6) is not None:
        pass
    return found


def test_a_file_is_changed_created_and_deleted(watching: Watch, folder: Path) -> None:
    watcher = watching(folder)
    file = folder / "package" / "views.py"
    file.write_text("22\n")
    assert settled(watcher, watcher.wait(LONG)) == file
    new = folder / "package" / "new.py"
    new.write_text("1\n")
    assert settled(watcher, watcher.wait(LONG)) == new
    file.unlink()
    assert watcher.wait(LONG) == file


def test_a_folder_of_its_own_is_new(watching: Watch, folder: Path) -> None:
    watcher = watching(folder)
    other = folder.parent / "other"
    other.mkdir()
    (other / "inside.py").write_text("1\n")
    other.rename(folder / "moved")
    found = watcher.wait(LONG)
    assert found is not None
    assert found.is_relative_to(folder / "moved")


def test_an_editor_that_replaces_the_file(watching: Watch, folder: Path) -> None:
    watcher = watching(folder)
    copy = folder / "app.py~"
    copy.write_text("1\n")
    copy.replace(folder / "app.py")
    assert watcher.wait(LONG) == folder / "app.py"


@pytest.mark.parametrize(
    "name",
    [
        "style.css",
        ".hidden/a.py",
        ".git/a.py",
        "__pycache__/a.py",
        "node_modules/deep/a.py",
        "venv/a.py",
        "lib/site-packages/a.py",
    ],
)
def test_what_does_not_count(watching: Watch, folder: Path, name: str) -> None:
    (folder / "venv").mkdir()
    (folder / "venv" / "pyvenv.cfg").write_text("")
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    watcher = watching(folder)
    file.write_text("22\n")
    assert watcher.wait(0.6) is None
    (folder / MARK).write_text("1\n")
    assert watcher.wait(LONG) == folder / MARK


def test_patterns(watching: Watch, folder: Path) -> None:
    watcher = watching(
        folder, include=("*.py", "*.css"), exclude=("generated*", "package/*", "*/skip/*")
    )
    (folder / "skip").mkdir()
    for name in ("generated.py", "package/views.py", "skip/a.py"):
        (folder / name).write_text("22\n")
    assert watcher.wait(0.6) is None
    (folder / "style.css").write_text("22\n")
    assert watcher.wait(LONG) == folder / "style.css"


def test_extra_files_and_folders(watching: Watch, folder: Path) -> None:
    elsewhere = folder.parent / "elsewhere"
    (elsewhere / "texts").mkdir(parents=True)
    settings, text = elsewhere / "settings.toml", elsewhere / "texts" / "a.txt"
    (elsewhere / "not.py").write_text("1\n")
    watcher = watching(folder, extra_files=[settings, elsewhere / "texts"])
    (elsewhere / "not.py").write_text("22\n")
    assert watcher.wait(0.6) is None
    settings.write_text("created")
    assert watcher.wait(LONG) == settings
    settings.unlink()
    assert watcher.wait(LONG) == settings
    text.write_text("created")
    assert watcher.wait(LONG) == text


def test_extra_file_below_a_root(watching: Watch, folder: Path) -> None:
    (folder / ".hidden").mkdir()
    file = folder / ".hidden" / "a.toml"
    watcher = watching(folder, extra_files=[file])
    file.write_text("created")
    assert settled(watcher, watcher.wait(LONG)) == file


def test_sources_that_are_added_later(watching: Watch, folder: Path) -> None:
    file, excluded = folder.parent / "later.py", folder.parent / "generated.py"
    for source in (file, excluded):
        source.write_text("1\n")
    watcher = watching(folder, exclude=("generated.py", "views.py"))
    watcher.add_sources([file, excluded, folder / "package" / "views.py"])
    excluded.write_text("22\n")
    (folder / "package" / "views.py").write_text("22\n")
    assert watcher.wait(0.6) is None  # it is no change that it is watched now
    file.write_text("22\n")
    assert watcher.wait(LONG) == file


def test_a_source_that_changes_as_soon_as_it_is_added(watching: Watch, folder: Path) -> None:
    file = folder.parent / "later.py"
    file.write_text("1\n")
    watcher = watching(folder)
    watcher.add_sources([file])
    file.write_text("22\n")
    assert watcher.wait(LONG) == file


def test_a_single_file_as_a_root(watching: Watch, folder: Path) -> None:
    watcher = watching(folder / "style.css", folder / "absent.py")
    (folder / "app.py").write_text("22\n")
    (folder / "absent.py").write_text("22\n")
    assert watcher.wait(LONG) == folder / "absent.py"


def test_imported_modules_count(
    watching: Watch, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = folder.parent / "elsewhere"
    elsewhere.mkdir()
    file = elsewhere / "watched_module_of_a_test.py"
    file.write_text("1\n")
    monkeypatch.syspath_prepend(str(elsewhere))
    watcher = watching(folder)
    importlib.import_module(file.stem)
    try:
        assert watcher.wait(0.8) is None
        sizes, found = itertools.count(2), []

        def changed() -> Path | None:
            # what is imported is looked up now and then, and not noticed before
            file.write_text("2" * next(sizes))
            found.append(watcher.wait(0.8))
            return found[-1]

        until(changed)
        assert settled(watcher, found[-1]) == file
    finally:
        del sys.modules[file.stem]
    # it is there still, and only not imported any more
    assert watcher.wait(0.8) is None


def test_installed_modules_do_not_count() -> None:
    files = list(watch.module_files({"pytest": pytest, "os": os, "h11": h11}))
    assert files == []
    assert list(watch.module_files({"watch": watch})) == [watch.__file__]


def test_timeout(watching: Watch, folder: Path) -> None:
    watcher = watching(folder)
    assert watcher.wait(0) is None
    assert watcher.wait(0.05) is None


def test_close_wakes_all_who_wait(watching: Watch, folder: Path) -> None:
    watcher = watching(folder)
    results: list[Path | None] = []
    threads = [threading.Thread(target=lambda: results.append(watcher.wait())) for _ in range(3)]
    for thread in threads:
        thread.start()
    watcher.close()
    watcher.close()
    for thread in threads:
        thread.join(LONG)
    assert results == [None] * 3
    assert watcher.wait() is None


def test_without_watchfiles(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "watchfiles", None)
    watcher = Watcher([folder])
    try:
        assert watcher.engine == "stat"
        (folder / "app.py").write_text("22\n")
        assert watcher.wait(LONG) == folder / "app.py"
    finally:
        watcher.close()


def test_watchfiles_that_fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import watchfiles

    def refuse(*_args: Any, **_options: Any) -> Any:
        raise OSError("OS file watch limit reached")

    monkeypatch.setattr(watchfiles, "watch", refuse)
    watcher = Watcher([folder])
    try:
        assert watcher.engine == "stat"
        (folder / "app.py").write_text("22\n")
        assert watcher.wait(LONG) == folder / "app.py"
    finally:
        watcher.close()


def test_watchfiles_is_used_if_it_is_there(folder: Path) -> None:
    watcher = Watcher([folder])
    try:
        assert watcher.engine == "watchfiles"
    finally:
        watcher.close()


def test_watchdog_is_never_imported() -> None:
    assert "watchdog" not in Path(watch.__file__).read_text("utf-8")
