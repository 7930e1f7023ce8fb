"""The files of the repository, for tests that build from them."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent.parent


def tracked() -> list[str]:
    """The files that git knows."""
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("this is not a git checkout")
    done = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"git does not list the files: {done.stderr}")
    return [name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


def copy_tracked(folder: Path) -> None:
    """Copy these files into `folder`, with their permissions."""
    for name in tracked():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, target)
