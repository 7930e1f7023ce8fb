"""Fixtures of the tests of metrics."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ..helpers.metrics import App


@pytest.fixture
def app() -> Iterator[App]:
    app = App()
    yield app
    app.gate.set()
