"""What a module of real applications says of its own, and the server that runs it."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..helpers.ports import free_port
from .environments import Environment

HERE = Path(__file__).parent
PROJECTS = HERE / "projects"
CLIENTS = HERE / "clients"

_START = 90  # seconds: the first import of a large application compiles it
_CLIENT = 120
_END = 30

# the last line of a traceback that is no other one's cause
_ERROR = re.compile(
    r"^Traceback \(most recent.*\n(?:[ +|].*\n)+(\S.*)(?!.|\n\n(?:During|The above) )", re.MULTILINE
)


@dataclass(frozen=True)
class Server:
    """A server's command line, and its exit code after SIGTERM.

    The first word is a program of the application's environment. `{port}` stands for the port,
    `{projects}` for the folder of projects. The server runs in a folder of its own.
    """

    line: str
    exit_code: int = 0


@dataclass(frozen=True)
class Application:
    """An application, how it is installed and served.

    `servers` has threadwell, in one or several ways, and the usual servers of the application.
    `prepare` is called once, with the environment and a folder; each server runs in a copy of it.
    """

    name: str
    distribution: str
    requirements: Sequence[str]
    servers: Mapping[str, Server]
    prepare: Callable[[Environment, Path], None] | None = None
    environ: Mapping[str, str] = field(default_factory=dict)


class Site:
    """A running application: where it is reached, what it has logged, and what differs.

    One thread only.
    """

    def __init__(
        self,
        application: Application,
        server: str,
        environment: Environment,
        folder: Path,
    ) -> None:
        self.application = application
        self.server = server
        self.environment = environment
        self.folder = folder
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.differences: list[dict[str, str]] = []
        self.seconds: float | None = None
        self.exit_code: int | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._log = folder / "server.log"
        self.environ = {**os.environ, "PYTHONUNBUFFERED": "1", **application.environ}
        # what would let the application find this environment, or take itself for tested
        for name in ("VIRTUAL_ENV", "PYTHONPATH", "PYTEST_CURRENT_TEST", "PYTEST_VERSION"):
            self.environ.pop(name, None)
        # for programs that the application finds by name
        self.environ["PATH"] = f"{environment.bin}{os.pathsep}{self.environ['PATH']}"

    @property
    def ours(self) -> bool:
        """Whether threadwell serves it."""
        return self.server.startswith("threadwell")

    @property
    def log(self) -> str:
        """What the server has printed so far, on both streams."""
        return self._log.read_text("utf-8", "replace")

    def differs(
        self, what: str, found: object, usual: Mapping[str, object], ours: object, why: str
    ) -> None:
        """Assert that `found` is this server's value: `ours`, or that of `usual`.

        The difference goes into the table, with its reason.
        """
        expected = ours if self.ours else usual[self.server]
        assert found == expected, what
        self.differences.append({"what": what, "value": str(found), "why": why})

    def client(self, script: str, *arguments: str) -> Any:
        """Run `script` of the folder `clients` with the application's Python and the URL.

        Returns the JSON that it prints in its last line.
        """
        words: list[Any] = [self.environment.python, CLIENTS / script, self.url, *arguments]
        done = subprocess.run(
            words,
            env=self.environ,
            cwd=self.folder,
            check=False,
            capture_output=True,
            text=True,
            timeout=_CLIENT,
        )
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\nThe server:\n{self.log}"
        return json.loads(done.stdout.splitlines()[-1])

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Start the server; it is killed after the block if it runs still."""
        server = self.application.servers[self.server]
        program, *words = (
            word.format(port=self.port, projects=PROJECTS) for word in server.line.split()
        )
        with (
            self._log.open("wb") as log,
            subprocess.Popen(
                [self.environment.bin / program, *words],
                cwd=self.folder,
                env=self.environ,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            ) as process,
        ):
            try:
                self._wait_until_it_accepts(process)
                self._process = process
                yield
            finally:
                # with all that it has started
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def _wait_until_it_accepts(self, process: subprocess.Popen[bytes]) -> None:
        deadline = time.monotonic() + _START
        while True:
            assert process.poll() is None, f"it has ended: {self.log}"
            assert time.monotonic() < deadline, f"it does not accept: {self.log}"
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            time.sleep(0.05)

    def end(self, *expected_errors: str) -> None:
        """Stop it by SIGTERM; sets `exit_code` and `seconds`.

        Asserts the exit code, and that the log has no traceback but those of `expected_errors`,
        which are their last lines.
        """
        process = self._process
        assert process is not None
        begin = time.monotonic()
        process.terminate()
        self.exit_code = process.wait(_END)
        self.seconds = time.monotonic() - begin
        expected = self.application.servers[self.server].exit_code
        assert self.exit_code == expected, f"exit code {self.exit_code}: {self.log}"
        log = self.log
        errors = [error for error in _ERROR.findall(log) if error not in expected_errors]
        assert errors == [], log
