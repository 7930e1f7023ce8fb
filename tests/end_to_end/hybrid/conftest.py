"""Fixtures of the tests of hybrids."""

from __future__ import annotations

import pytest

from .both import Both


@pytest.fixture
def both() -> Both:
    return Both()
