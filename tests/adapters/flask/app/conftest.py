"""Fixtures of the tests of `FlaskApp`."""

from __future__ import annotations

from pathlib import Path

import pytest

from .site import Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    """A fresh application."""
    return Site(tmp_path)
