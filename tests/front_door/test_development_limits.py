"""The development commands take what `runserver` and `flask run` take."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ..system.conftest import start
from ..system.serving import Serving

__all__ = ["start"]  # a fixture


@pytest.mark.parametrize(
    ("name", "arguments", "status"),
    [
        ("reload", [], b"200"),
        ("reload", ["--limit-field-size", "8190"], b"431"),
        ("flask debug", [], b"200"),
        ("django", [], b"200"),
        ("django reload", [], b"200"),
        ("threads", [], b"431"),
        ("flask", [], b"431"),
    ],
)
def test_many_cookies(
    start: Callable[..., Serving], name: str, arguments: list[str], status: bytes
) -> None:
    server = start(name, *arguments)
    with server.begin("/", f"Cookie: {'x' * 60000}\r\n") as sock:
        assert sock.recv(12) == b"HTTP/1.1 " + status
