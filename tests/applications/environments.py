"""A virtual environment for each application, made once and kept."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
# The server under test, with what it needs for WebSockets and HTTP/2.
THREADWELL = f"{ROOT}[asgi,h2]"
_MADE = "made-with.txt"


def folder() -> Path:
    """Where the environments are: `THREADWELL_APPLICATIONS`, or the user's cache."""
    if given := os.environ.get("THREADWELL_APPLICATIONS"):
        return Path(given)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "threadwell-applications"


class Environment:
    """The virtual environment of one application."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.bin = path / "bin"
        self.python = self.bin / "python"

    def run(self, folder: Path, *words: str, **environ: str) -> str:
        """Run a program of the environment in `folder`; what it prints on both streams.

        Raises `AssertionError`, with that, if its exit code is not 0.
        """
        done = subprocess.run(
            [self.bin / words[0], *words[1:]],
            cwd=folder,
            env={**os.environ, **environ},
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert done.returncode == 0, done.stdout
        return done.stdout

    def version(self, distribution: str) -> str:
        """The version of an installed distribution."""
        code = "import importlib.metadata, sys; print(importlib.metadata.version(sys.argv[1]))"
        words = [self.python, "-c", code, distribution]
        return subprocess.run(words, check=True, capture_output=True, text=True).stdout.strip()


def environment(name: str, requirements: Sequence[str]) -> Environment:
    """The environment `name` with threadwell, editable, and `requirements`.

    It is made anew if it was made with another Python or for other requirements. Raises
    `subprocess.CalledProcessError`, with pip's messages as its `output`, if they cannot be
    installed.
    """
    made_with = "\n".join([sys.version, str(ROOT), *requirements])
    result = Environment(folder() / name)
    note = result.path / _MADE
    if note.exists() and note.read_text() == made_with:
        return result
    shutil.rmtree(result.path, ignore_errors=True)
    words = [sys.executable, "-m", "venv", result.path]
    subprocess.run(words, check=True, capture_output=True, text=True)
    pip = [result.python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*pip, "--prefer-binary", "--editable", THREADWELL, *requirements],
        check=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    note.write_text(made_with)
    return result
