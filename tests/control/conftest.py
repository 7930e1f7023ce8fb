"""What the tests of this folder share."""

from __future__ import annotations

import pytest

from ..helpers.metrics import App


@pytest.fixture
def app() -> App:
    return App()
