"""The command in a process of its own."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import pytest

APP = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["PATH_INFO"].encode()]
"""


class Ended(NamedTuple):
    code: int
    out: str
    err: str


class Running:
    """The command in a process of its own, after its start message."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.message = ""
        for line in process.stdout:
            self.message += line
            if "Ctrl-C" in line:
                return
        pytest.fail(f"no start message: {process.stderr and process.stderr.read()}")

    @property
    def port(self) -> int:
        match = re.search(r":([0-9]+)(?: |$)", self.message.splitlines()[1])
        assert match
        return int(match[1])

    def get(self, path: str = "/", host: str = "127.0.0.1") -> str:
        with urllib.request.urlopen(f"http://{host}:{self.port}{path}", timeout=10) as response:
            text = response.read().decode()
        assert isinstance(text, str)
        return text

    def end(self, number: int = signal.SIGTERM) -> Ended:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=10)
        return Ended(self.process.returncode, out, err)


@contextmanager
def listening(family: int = socket.AF_INET, address: Any = ("127.0.0.1", 0)) -> Iterator[Any]:
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.bind(address)
        sock.listen()
        yield sock
