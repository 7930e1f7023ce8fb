"""What the tests of this folder share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..helpers.control import STUCK
from ..helpers.metrics import App
from ..helpers.supervised import Start, starting


@pytest.fixture
def app() -> App:
    return App()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the control socket is."""
    return tmp_path / "control.sock"


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """The command with `STUCK` as its application."""
    with starting(tmp_path, STUCK) as run:
        yield run
