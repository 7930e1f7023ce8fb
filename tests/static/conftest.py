"""Fixtures of the tests of static files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .applications import CSS, app, asgi_app


@pytest.fixture(params=["sync", "asgi"])
def each_app(request: pytest.FixtureRequest) -> Any:
    """An application of either kind: the files are the same in front of both."""
    return {"sync": app, "asgi": asgi_app}[request.param]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with files, beside a secret one."""
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "files"
    (folder / "docs").mkdir(parents=True)
    (folder / "docs" / "index.html").write_text("<h1>index</h1>")
    (folder / "style.css").write_bytes(CSS)
    (folder / "empty.txt").write_bytes(b"")
    (folder / "with blank ü.txt").write_text("named")
    (folder / "main.0123456789ab.js").write_text("1")
    (folder / "photo.202401020304.jpg").write_text("2")
    (folder / ".env").write_text("secret")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("secret")
    (folder / ".well-known").mkdir()
    (folder / ".well-known" / "security.txt").write_text("Contact: x")
    return folder
