"""The real applications of tests/applications: run only if asked for, and all in their table."""

from __future__ import annotations

import importlib
import subprocess
import sys

import pytest

from ..applications.application import Application
from .test_docs import ROOT

FOLDER = ROOT / "tests" / "applications"
MODULES = sorted(path.stem for path in FOLDER.glob("test_*.py"))


def collected(*words: str) -> list[str]:
    """The modules of tests/applications of which pytest collects a test."""
    words = ("-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *words)
    done = subprocess.run(
        [sys.executable, *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    lines = (line.partition("::")[0] for line in done.stdout.splitlines() if "::" in line)
    return sorted({line.removeprefix("tests/applications/")[:-3] for line in lines})


def test_they_are_opt_in() -> None:
    assert collected("tests/applications") == []
    assert collected("tests/applications", "-m", "applications") == MODULES


@pytest.mark.parametrize("module", MODULES)
def test_they_are_in_the_table(module: str) -> None:
    found = importlib.import_module(f"tests.applications.{module}").APPLICATION
    assert isinstance(found, Application)
    page = (ROOT / "docs" / "applications.md").read_text("utf-8")
    assert f"| {found.name} " in page
