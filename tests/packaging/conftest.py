"""The two archives of a release, built once from a copy of the tracked files."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from ..helpers.source_tree import copy_tracked


class Archives(NamedTuple):
    """What `python -m build` makes."""

    sdist: Path
    wheel: Path


@pytest.fixture(scope="session")
def archives(tmp_path_factory: pytest.TempPathFactory) -> Archives:
    """The sdist, and the wheel that is built from it."""
    pytest.importorskip("build", reason="build is not installed")
    source = tmp_path_factory.mktemp("source")
    copy_tracked(source)
    dist = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(dist), str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return Archives(next(dist.glob("*.tar.gz")), next(dist.glob("*.whl")))
