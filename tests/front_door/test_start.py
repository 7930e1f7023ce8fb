"""A plain start imports nothing that is not used: its time and memory are mostly imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ..helpers.command import command, get

#: Packages and modules, each with what it has below it.
UNUSED = [
    # of the standard library, and h11
    "asyncio",
    "difflib",
    "email",
    "encodings.idna",
    "h11",
    "importlib.metadata",
    "ipaddress",
    "json",
    "multiprocessing",
    "pkgutil",
    "platform",
    "queue",
    "random",
    "shutil",
    "ssl",
    "subprocess",
    "sysconfig",
    "tempfile",
    "tomllib",
    "unittest",
    "urllib",
    "zipfile",
    # of ours
    "threadwell.adapters.bridges",
    "threadwell.adapters.django",
    "threadwell.adapters.flask",
    "threadwell.gunicorn",
    "threadwell.multi_process",
    "threadwell.reload",
    "threadwell.watch",
    "threadwell.worker.asgi",
    "threadwell.worker.http2",
    "threadwell.worker.logs",
    "threadwell.worker.metrics",
    "threadwell.worker.polling.distributor",
    "threadwell.worker.proxies",
    "threadwell.worker.static",
    "threadwell.worker.supervisor",
    "threadwell.worker.tls.adhoc",
    "threadwell.worker.tls.session",
]
APP = """
import sys
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return ["\\n".join(sorted(sys.modules)).encode()]
"""


def below(names: list[str], loaded: set[str]) -> list[str]:
    """Those of `loaded` that are one of `names`, or below it."""
    return [
        module
        for module in sorted(loaded)
        if any(module == name or module.startswith(name + ".") for name in names)
    ]


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the portable parts are used")
def test_a_plain_start_imports_nothing_that_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(APP)
    words = ["-m", "threadwell", "hello:app", "--bind", "127.0.0.1:0"]
    with command(words, tmp_path) as running:
        status, text = get(running.url())
        running.end()
    assert status == 200
    # what this environment, click or pathlib (in Python 3.12) import for themselves is not ours
    imports = "import sys, click, logging, pathlib"
    bare = subprocess.run(
        [sys.executable, "-c", f"{imports}; print(*sys.modules, sep='\\n')"],
        check=True,
        capture_output=True,
        text=True,
    )
    loaded = set(text.split("\n"))
    assert "threadwell.worker.sync_worker" in loaded
    assert below(UNUSED, loaded - set(bare.stdout.split("\n"))) == []
