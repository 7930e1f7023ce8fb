"""The tutorials: each file is written, and each command run, as the page says."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ..helpers.tutorial import tutorial
from .test_docs import DOCS

PAGES = sorted((DOCS / "tutorials").glob("*.md"))

pytest.importorskip("trustme", reason="for --cert adhoc; it is in dev")
pytestmark = [
    pytest.mark.skipif(not shutil.which("bash") or not shutil.which("curl"), reason="needs curl"),
    pytest.mark.timeout(240),
]


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_tutorial(page: Path, tmp_path: Path) -> None:
    with tutorial(tmp_path) as reader:
        reader.follow(page.read_text("utf-8"))
    assert reader.commands > 8
