"""The command as root, with workers of the user nobody."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from .supervised import Supervised

ROOT = Path(__file__).resolve().parent.parent.parent

as_root = pytest.mark.skipif(
    not hasattr(os, "getuid") or os.getuid() != 0, reason="only root may become another user"
)


@contextlib.contextmanager
def readable_by_all(application: str) -> Iterator[Path]:
    """A folder with threadwell and `application.py` that any user of this machine can read."""
    folder = Path(tempfile.mkdtemp(prefix="threadwell-"))
    folder.chmod(0o755)
    try:
        package = folder / "threadwell"
        hidden = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / "src" / "threadwell", package, ignore=hidden)
        shutil.copytree(ROOT / "worker", package / "worker", ignore=hidden)
        shutil.copytree(ROOT / "adapters", package / "adapters", ignore=hidden)
        for name in ("h11", "click", "typing_extensions"):
            spec = importlib.util.find_spec(name)
            if spec is not None and spec.origin is not None:
                origin = Path(spec.origin)
                if origin.name == "__init__.py":
                    shutil.copytree(origin.parent, folder / name, ignore=hidden)
                else:
                    shutil.copy(origin, folder)
        (folder / "application.py").write_text(application)
        yield folder
    finally:
        shutil.rmtree(folder)


def interpreter() -> str:
    """A Python that every user can run."""
    check = ["-c", "import sys, ssl; assert sys.version_info >= (3, 11)"]
    for path in (sys.executable, "/usr/bin/python3"):
        with contextlib.suppress(OSError, subprocess.CalledProcessError):
            subprocess.run([path, *check], check=True, user=65534)
            return path
    pytest.skip("no Python here can be run by another user")


class AsNobody(Supervised):
    """`threadwell application:app --user nobody`, in a folder of `readable_by_all`."""

    def __init__(self, folder: Path, *arguments: str, ready: bool = True) -> None:
        command = [interpreter(), "-m", "threadwell", "application:app", "--log-level", "debug"]
        self.start(
            [*command, "--user", "nobody", *arguments], folder, env={"PYTHONPATH": str(folder)}
        )
        if ready:
            self.await_line("Ctrl-C")
