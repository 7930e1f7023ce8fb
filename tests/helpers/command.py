"""Commands in processes of their own, and what they print as they go."""

from __future__ import annotations

import contextlib
import os
import queue
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

PATIENCE = 30


class Command:
    """A running command; what it prints, on both streams, is collected in `text`."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.text = ""
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put("")

    def until(self, pattern: str) -> re.Match[str]:
        """Wait for a line in which `pattern` is found."""
        found = self.has_said(pattern, PATIENCE)
        assert found, f"{pattern!r} is not in what was printed:\n{self.text}"
        return found

    def has_said(self, pattern: str, seconds: float) -> re.Match[str] | None:
        """The same, or None if no such line comes within `seconds`."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(queue.Empty):
                line = self._lines.get(timeout=0.5)
                if not line:
                    break
                self.text += line
                if found := re.search(pattern, line):
                    return found
        return None

    def url(self) -> str:
        """Where it listens, once it has said so and how to stop it."""
        url = self.until(r"(https?://\S+)")[1]
        self.until("Ctrl-C")
        return url

    def end(self, number: int = signal.SIGTERM, code: int = 0) -> str:
        """Send it a signal; what it has printed, when it has ended with `code`."""
        self.process.send_signal(number)
        return self.ended(code)

    def ended(self, code: int = 0) -> str:
        """Wait for its end, with `code`; what it has printed."""
        assert self.process.wait(PATIENCE) == code, self.rest()
        return self.rest()

    def rest(self) -> str:
        """What it has printed, once nothing more can come."""
        self._reader.join(PATIENCE)
        with contextlib.suppress(queue.Empty):
            while True:
                self.text += self._lines.get_nowait()
        return self.text


@contextlib.contextmanager
def command(words: Sequence[str | Path], folder: Path, **options: Any) -> Iterator[Command]:
    """`python words...`, run in `folder`; killed after the block if it runs still."""
    # Bytecode is told from its source by the second and the size: a test may write a module twice
    # within one, with as many characters.
    env = {**(options.pop("env", None) or os.environ), "PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        [sys.executable, *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=env,
        **options,
    ) as process:
        running = Command(process)
        try:
            yield running
        finally:
            if process.poll() is None:
                process.kill()
            process.wait()
            running.rest()


def get(url: str, timeout: float = PATIENCE) -> tuple[int, str]:
    """The status, and the text."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


def children(pid: int) -> list[int]:
    """The processes that `pid` has started and not buried yet, by Linux."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # the thread has just ended
            found += [int(word) for word in (task / "children").read_text().split()]
    return found
