"""The tutorials: each file is written, and each command run, as the page says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ..helpers.tutorial import tutorial
from .test_docs import DOCS, ROOT

PAGES = sorted((DOCS / "tutorials").glob("*.md"))

pytest.importorskip("trustme", reason="for --cert adhoc; it is in dev")
pytestmark = [
    pytest.mark.skipif(not shutil.which("bash") or not shutil.which("curl"), reason="needs curl"),
    pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc"),
    pytest.mark.timeout(900),
]
pages = pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])


@pages
def test_tutorial(page: Path, tmp_path: Path) -> None:
    with tutorial(tmp_path) as reader:
        reader.follow(page.read_text("utf-8"))
    assert reader.commands > 8


@pages
@pytest.mark.applications
def test_tutorial_in_a_fresh_environment(
    page: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """With `-m applications`: everything is installed from the package index."""
    if "applications" not in (request.config.getoption("markexpr") or ""):
        pytest.skip("only with -m applications, as it needs the package index")
    source = tmp_path / "source"
    ignored = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for folder in ("src", "worker", "adapters"):
        shutil.copytree(ROOT / folder, source / folder, ignore=ignored)
    for file in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    with tutorial(tmp_path, source) as reader:
        reader.follow(page.read_text("utf-8"))
