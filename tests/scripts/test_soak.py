"""scripts/soak, with as few requests as it can make."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).resolve().parents[2] / "scripts" / "soak"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts by /proc")


def soak(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SOAK, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)


@pytest.mark.parametrize("server", ["threads", "flask", "asgi", "hybrid", "asgi-http2"])
def test_nothing_stays(server: str) -> None:
    done = soak("--requests", "1", "--server", server)
    assert (done.returncode, done.stderr) == (0, "")
    assert f"\n{server}: " in done.stdout
    assert "the end:" in done.stdout


def test_a_server_that_is_not_known() -> None:
    done = soak("--server", "nonsense")
    assert done.returncode == 2
    assert "invalid choice: 'nonsense'" in done.stderr
