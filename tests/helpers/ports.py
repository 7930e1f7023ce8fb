"""Ports for what must be told one."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path

_LEAST = 10_000
_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")


def free_port() -> int:
    """A port that is free, and stays so: the kernel gives it to none that asks for any."""
    # where it cannot be read, those that IANA has for it begin here
    end = int(_RANGE.read_text().split()[0]) if _RANGE.exists() else 49_152
    while True:
        port = _LEAST + secrets.randbelow(end - _LEAST)
        try:
            socket.create_server(("0.0.0.0", port)).close()
        except OSError:
            continue
        return port
