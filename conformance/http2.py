"""HTTP/2: h2spec, and a load by h2load that each request of must succeed."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

#: The requests of a load.
REQUESTS = 2000
_LOAD = ("--requests", str(REQUESTS), "--clients", "8", "--max-concurrent-streams", "32")
_BODY = 64 * 1024
_MOST = 300.0

Result = dict[str, Any]


def missing() -> dict[str, str]:
    """The programs that are not on this machine, and why each suite is skipped."""
    found = {}
    if shutil.which("h2spec") is None:
        found["h2spec"] = (
            "h2spec is not on the path: it is a Go program in no package index, Debian or npm; "
            "`go install github.com/summerwind/h2spec/cmd/h2spec@latest` makes it"
        )
    if shutil.which("h2load") is None:
        found["h2load"] = "h2load is not on the path: Debian has it in nghttp2-client"
    return found


def run(port: int, work: Path) -> Result:
    """What a server on `port` makes of the suites that are there."""
    found: Result = {}
    if shutil.which("h2load") is not None:
        body = work / "body"
        body.write_bytes(b"x" * _BODY)
        found["get"] = _succeeded(port)
        found["post"] = _succeeded(port, "--data", str(body))
    if shutil.which("h2spec") is not None:
        found["h2spec"] = _h2spec(port)
    return found


def _succeeded(port: int, *arguments: str) -> int:
    command = ["h2load", *_LOAD, *arguments, f"https://127.0.0.1:{port}/"]
    match = re.search(r"(\d+) succeeded", _output(command))
    return int(match[1]) if match else 0


def _h2spec(port: int) -> str:
    command = ["h2spec", "--tls", "--insecure", "--host", "127.0.0.1", "--port", str(port)]
    match = re.search(r"\d+ tests, \d+ passed, \d+ skipped, \d+ failed", _output(command))
    return match[0] if match else "did not end"


def _output(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, timeout=_MOST, check=False)
    except subprocess.TimeoutExpired:
        return ""
    return (done.stdout + done.stderr).decode("utf-8", "replace")
