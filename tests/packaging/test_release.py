"""scripts/release in a repository of its own: a mistake ends it; otherwise it makes the tag."""

from __future__ import annotations

import datetime
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ..helpers.source_tree import copy_tracked

TODAY = datetime.datetime.now(datetime.UTC).date().isoformat()
VERSION = "7.8.9"
Run = Callable[..., subprocess.CompletedProcess[str]]


def git(folder: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=nobody", "-c", "user.email=nobody@example.com", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stdout


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "a state")


@pytest.fixture
def ready(tmp_path: Path) -> Path:
    """A copy of the repository, prepared for the release of `VERSION`."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    folder = tmp_path / "copy"
    copy_tracked(folder)
    version = folder / "src" / "threadwell" / "version.py"
    version.write_text(re.sub(r'"[\d.]+"', f'"{VERSION}"', version.read_text()))
    changelog = folder / "CHANGELOG.md"
    text = changelog.read_text("utf-8").replace("## [Unreleased]", f"## [{VERSION}] - {TODAY}")
    changelog.write_text(f"{text}[{VERSION}]: https://example.com/{VERSION}\n", "utf-8")
    git(folder, "init", "--quiet")
    git(folder, "config", "user.name", "nobody")
    git(folder, "config", "user.email", "nobody@example.com")
    commit(folder)
    return folder


def release(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/release", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_all_in_order_makes_both_archives_and_the_tag(ready: Path) -> None:
    pytest.importorskip("build", reason="build is not installed")
    done = release(ready, VERSION, "--tests", f"{sys.executable} -c ''")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.endswith(
        f"== Everything is ready. This uploads it: git push origin v{VERSION}\n"
    )
    assert git(ready, "tag", "--list").split() == [f"v{VERSION}"]
    assert {path.name for path in (ready / "dist").iterdir()} == {
        f"threadwell-{VERSION}.tar.gz",
        f"threadwell-{VERSION}-py3-none-any.whl",
    }
    assert git(ready, "status", "--porcelain") == ""
    again = release(ready, VERSION)
    assert (again.returncode, again.stderr) == (
        1,
        f"scripts/release: the tag v{VERSION} exists already\n",
    )


def add_a_file(folder: Path) -> None:
    (folder / "left").write_text("")


def change(name: str, old: str, new: str) -> Callable[[Path], None]:
    """A commit that replaces `old` in the file `name`."""

    def act(folder: Path) -> None:
        path = folder / name
        text = path.read_text("utf-8")
        assert old in text
        path.write_text(text.replace(old, new), "utf-8")
        commit(folder)

    return act


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (add_a_file, "the tree is not clean; commit or remove:\n?? left"),
        (
            change("src/threadwell/version.py", VERSION, "7.8.8"),
            f"src/threadwell/version.py says 7.8.8, not {VERSION}",
        ),
        (
            change("CHANGELOG.md", TODAY, "2001-02-03"),
            f'the newest section of CHANGELOG.md is not "## [{VERSION}] - {TODAY}"',
        ),
        (
            change(
                "CHANGELOG.md", f"## [{VERSION}]", f"## [Unreleased]\n\n* new\n\n## [{VERSION}]"
            ),
            'CHANGELOG.md has changes under "Unreleased"',
        ),
        (
            change("CHANGELOG.md", f"\n[{VERSION}]: ", "\n[other]: "),
            f"CHANGELOG.md has no link at its end for [{VERSION}]",
        ),
    ],
    ids=["tree", "version", "date", "unreleased", "link"],
)
def test_a_mistake_ends_it(ready: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(ready)
    done = release(ready, VERSION, "--tests", "false")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"scripts/release: {message}\n"
    assert git(ready, "tag", "--list") == ""


def test_tests_that_fail_end_it(ready: Path) -> None:
    done = release(ready, VERSION, "--tests", "false")
    assert (done.returncode, done.stderr) == (
        1,
        "scripts/release: false has failed with code 1\n",
    )
    assert not (ready / "dist").exists()


def test_a_version_has_three_numbers(ready: Path) -> None:
    done = release(ready, "7.8")
    assert done.stderr == "scripts/release: '7.8' is not a version like 1.2.0 or 1.2.0rc1\n"
