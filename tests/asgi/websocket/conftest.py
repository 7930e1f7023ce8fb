"""What holds for every test of WebSockets."""

from __future__ import annotations

from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that an application failed on was unexpected, unless a test says so."""
    yield
    unexpected = [each for each in caplog.records if "internal error" in each.getMessage()]
    assert unexpected == []
