"""The Autobahn suite: 517 cases of WebSockets (RFC 6455, RFC 7692), its fuzzing client."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# Its cases in parts: a part that takes too long costs that part alone.
PARTS = (
    *("1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"),
    *(f"12.{part}.*" for part in range(1, 6)),
    *(f"13.{part}.*" for part in range(1, 8)),
)
#: How many cases the parts have.
CASES = 517
# Seconds for a part. One of compression moves two gigabytes.
_MOST = 1800.0

Result = dict[str, Any]


def run(program: Path, port: int, work: Path, parts: Sequence[str] = PARTS) -> Result:
    """What a server on `port` makes of the cases: each case's two verdicts, and the parts that
    took too long. `program` is wstest, or kosoku."""
    cases: dict[str, list[str]] = {}
    late: list[str] = []
    for part in parts:
        folder = work / f"autobahn-{port}-{part.rstrip('.*')}"
        shutil.rmtree(folder, ignore_errors=True)
        command = _kosoku if program.name == "kosoku" else _wstest
        try:
            subprocess.run(
                command(program, port, folder, part),
                timeout=_MOST,
                cwd=work,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                check=False,
            )
        except subprocess.TimeoutExpired:
            late.append(part)
            continue
        index = folder / "index.json"
        if not index.exists():
            late.append(part)
            continue
        for found in json.loads(index.read_bytes()).values():
            cases |= {
                name: [case["behavior"], case["behaviorClose"]] for name, case in found.items()
            }
    return {"cases": cases, "late": late}


def _wstest(program: Path, port: int, folder: Path, part: str) -> list[str | Path]:
    folder.mkdir(parents=True)
    spec = {
        "outdir": str(folder),
        "servers": [{"agent": "server", "url": f"ws://127.0.0.1:{port}"}],
        "cases": [part],
        "exclude-cases": [],
        "exclude-agent-cases": {},
    }
    path = folder / "spec.json"
    path.write_text(json.dumps(spec), "utf-8")
    return [program, "--mode", "fuzzingclient", "--spec", path]


def _kosoku(program: Path, port: int, folder: Path, part: str) -> list[str | Path]:
    return [program, "--outdir", folder, "--include", part, f"127.0.0.1:{port}"]


def in_order(cases: list[str]) -> list[str]:
    """The names of cases, by their numbers."""
    return sorted(cases, key=lambda name: [int(part) for part in name.split(".")])
