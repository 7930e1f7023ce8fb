"""httpbin, unmodified, in a process of its own."""

from __future__ import annotations

import sys

import httpbin

from threadwell import ThreadedServer


def main() -> None:
    """Serve until standard input ends."""
    with ThreadedServer(httpbin.app, bind="127.0.0.1:0", threads=4) as server:
        sys.stdout.write(f"{server.port}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
