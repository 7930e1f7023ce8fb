"""A fixture: any command that serves."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .serving import APP, ASGI, COMMANDS, DJANGO, FLASK, Serving


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Serving]]:
    """`start(name, *arguments)` runs that one of `COMMANDS`; `before` is what runs it."""
    (tmp_path / "app.py").write_text(APP)
    (tmp_path / "asgi_app.py").write_text(ASGI)
    (tmp_path / "site_of_flask.py").write_text(FLASK)
    (tmp_path / "manage.py").write_text(DJANGO)
    path = tmp_path / "sock"
    (tmp_path / "serving.py").write_text(
        f"from app import app\nfrom threadwell import serve\nserve(app, bind='unix:{path}')\n"
    )
    with contextlib.ExitStack() as stack:

        def run(
            name: str, *arguments: str, before: list[str] | None = None, **options: Any
        ) -> Serving:
            words = [*(before or [sys.executable]), *COMMANDS[name]]
            if name != "serve":
                words += ["--bind", f"unix:{path}", *arguments]
            process = subprocess.Popen(words, cwd=tmp_path, **options)
            stack.enter_context(process)
            stack.callback(process.kill)
            return Serving(process, path)

        yield run
