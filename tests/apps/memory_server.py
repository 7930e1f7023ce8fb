"""Takes uploads and says by how much the process grew: `VmHWM` in KiB, before and after."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from threadwell import ThreadedServer


def peak() -> int:
    """The largest resident size so far, in KiB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1])
    raise RuntimeError("no VmHWM")


def upload(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Count the body's bytes, and add them up."""
    before, size, total = peak(), 0, 0
    stream = environ["wsgi.input"]
    while block := stream.read(64 * 1024):
        size += len(block)
        total += sum(block[::4096])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{size} {total} {before} {peak()}".encode()]


def main() -> None:
    """Serve until standard input ends."""
    with ThreadedServer(upload, bind="127.0.0.1:0", threads=2) as server:
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
