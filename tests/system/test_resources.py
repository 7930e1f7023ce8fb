"""What this process has: descriptors."""

from __future__ import annotations

import sys

import pytest

from threadwell.worker.system.resources import connection_limit


def test_the_limit_is_as_asked_or_leaves_the_application_some_descriptors(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    resource = pytest.importorskip("resource")
    assert connection_limit(7) == 7
    for allowed, limit in ((1024, 768), (100, 75), (1_000_000, 999_744)):
        monkeypatch.setattr(resource, "getrlimit", lambda kind, n=allowed: (n, n))
        assert connection_limit(0) == limit


def test_the_limit_of_windows_select(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "resource", None)
    assert [connection_limit(asked) for asked in (0, 7, 9999)] == [500, 7, 500]
