"""Fixtures of the tests of the command: one that serves, and one that fails."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from threadwell import (
    cli,
    single_process,
)

from .running import APP, Running


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """`start(*arguments)` runs the command among the files of `tmp_path`, with `app.py` there."""
    (tmp_path / "app.py").write_text(APP)
    with ExitStack() as stack:

        def run(*args: str, python: tuple[str, ...] = (), **options: Any) -> Running:
            command = [sys.executable, *python, "-m", "threadwell", *args]
            process = subprocess.Popen(
                command,
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                **options,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return Running(process)

        yield run


@pytest.fixture
def fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., str]]:
    """`fails(*arguments)` is the one line of an error, without its beginning."""
    (tmp_path / "app.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(single_process, "raise_descriptor_limit", lambda: None)
    monkeypatch.setattr(single_process, "configure_logging", lambda level: None)
    before, handler = set(sys.modules), signal.getsignal(signal.SIGTERM)

    def run(*args: str) -> str:
        assert cli.main(args) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("threadwell: ")
        assert err.endswith("\n")
        assert err.count("\n") == 1
        return err.removeprefix("threadwell: ").rstrip("\n")

    yield run
    signal.signal(signal.SIGTERM, handler)
    for name in set(sys.modules) - before:
        if name in ("app", "later", "asgi"):
            del sys.modules[name]
