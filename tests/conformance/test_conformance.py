"""scripts/conformance: its command line, its corpus of requests, and the page that it writes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from threadwell import ThreadedServer

ROOT = Path(__file__).resolve().parents[2]
SERVED = ROOT / "conformance" / "served"


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run Python at the root of the repository."""
    command = [sys.executable, *arguments]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=55, check=False
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (
            ["--server", "nonsense"],
            "no server begins with nonsense. There are: threadwell, asyncio",
        ),
        (["--part", "99.*"], "no cases are 99.*. There are: 1.* 2.*"),
        (["--suite", "nonsense"], "invalid choice: 'nonsense'"),
    ],
)
def test_mistakes(arguments: list[str], said: str) -> None:
    done = python("scripts/conformance", *arguments)
    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.parametrize("name", ["wsgi", "asgi"])
def test_the_corpus(
    name: str, serve: Callable[..., ThreadedServer], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(SERVED)
    import applications  # type: ignore[import-not-found]

    server = serve(getattr(applications, name))
    script = "import json; from conformance import http1; print(json.dumps(http1.run({})))"
    done = python("-c", script.format(server.port))
    result = json.loads(done.stdout)
    assert {file: wrong for file, wrong in result["valid"].items() if wrong} == {}
    assert set(result["invalid"].values()) == {"refused"}


RESULTS: dict[str, Any] = {
    "autobahn": {
        "one": {
            "version": "1.0",
            "result": {"cases": {"1.1.1": ["OK", "OK"], "3.2": ["FAILED", "UNCLEAN"]}},
        }
    },
    "http1": {
        "one": {
            "version": "1.0",
            "result": {
                "valid": {"001_host": "", "002_host": "another path"},
                "invalid": {"001_host_missing": "taken", "002_cr": "refused", "003_lf": "silent"},
            },
        }
    },
    "http2": {"one": {"version": "1.0", "result": {"get": 2000}}},
}


def test_the_page() -> None:
    call = f"page.page({RESULTS!r}, {{'CPython': '3'}}, {{'two': 'gone'}})"
    script = f"from conformance import page; print({call})"
    lines = python("-c", script).stdout.splitlines()
    assert "| one 1.0 | 1 | 0 | 0 | 0 | 1 | 1 | 515 |" in lines
    assert "* one, FAILED: 3.2" in lines
    assert "* one, not clean: 3.2" in lines
    assert "| one 1.0 | 1 of 2 | 1 | 1 | 1 | 1 | 0 | 0 | 0 | 0 | 0 | 0 | 0 |" in lines
    assert "| one 1.0 | 2000 | not run | not run |" in lines
    assert "* **two**: gone." in lines
