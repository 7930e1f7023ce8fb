"""The scripts of tests/apps in processes of their own."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from threadwell.worker.lifecycle import LifecycleEvent, StreamClosed

APPS = Path(__file__).parent.parent / "apps"


class StreamsEnded:
    """A lifecycle collector: `event` is set when a stream has given its place back."""

    def __init__(self) -> None:
        self.event = threading.Event()

    def record(self, event: LifecycleEvent) -> None:
        """See `LifecycleCollector`."""
        if isinstance(event, StreamClosed):
            self.event.set()


def descriptors() -> int:
    """How many file descriptors this process has open."""
    return len(list(Path("/proc/self/fd").iterdir()))


class Script:
    """A running helper script. It prints its port first, and serves until its input ends."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        self._process = process
        line = process.stdout.readline()
        if not line.strip():
            raise AssertionError(f"it did not start: {process.communicate()[1]}")
        self.port = int(line)

    @property
    def url(self) -> str:
        """Where it is reached."""
        return f"http://127.0.0.1:{self.port}"

    def finish(self) -> str:
        """Let it end; what it printed after its port. Asserts that it ended well and quietly."""
        out, err = self._process.communicate(timeout=20)
        assert self._process.returncode == 0, err
        assert err == ""
        return out


@contextlib.contextmanager
def script(name: str, *arguments: str, **environ: str) -> Iterator[Script]:
    """The script `name` of tests/apps, with warnings as errors; ended after the block.

    `environ` is added to its environment.
    """
    command: list[Any] = [sys.executable, "-W", "error", APPS / name]
    with subprocess.Popen(
        [*command, *arguments],
        env={**os.environ, **environ},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield Script(process)
        finally:
            if process.poll() is None and process.stdin is not None and process.stdin.closed:
                process.wait(20)
            elif process.poll() is None:
                process.kill()
