"""The servers that are measured, and how each is started, watched and ended."""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
#: Threads of a worker, everywhere.
THREADS = 4
#: More connections than any measure opens.
CONNECTIONS = 20_000
#: Under callgrind on a busy machine, a start takes a minute.
PATIENCE = 180.0

Command = Callable[[int, int, int], list[str]]


@dataclass(frozen=True)
class Kind:
    """A server. `command` takes the port, the threads and the workers."""

    name: str
    package: str
    command: Command
    #: Whether SIGHUP gives it a new application.
    reloads: bool = False
    #: Whether a connection can wait for a further request.
    keeps_alive: bool = True
    #: Packages beside it that it needs.
    needs: tuple[str, ...] = ()
    #: Whether it is measured without being asked for.
    standard: bool = True

    def is_installed(self) -> bool:
        return all(importlib.util.find_spec(name) for name in (self.package, *self.needs))

    def version(self) -> str:
        return importlib.metadata.version(self.package)


def _threadwell(port: int, threads: int, workers: int) -> list[str]:
    command = ["-m", "threadwell", "served:app", "--bind", f"127.0.0.1:{port}"]
    command += ["--threads", str(threads), "--limit-connections", str(CONNECTIONS)]
    return [*command, *(["--workers", str(workers)] if workers > 1 else [])]


def _hybrid(port: int, threads: int, workers: int) -> list[str]:
    return [*_threadwell(port, threads, workers), "--asgi", "served:unused"]


def _gunicorn(worker_class: str) -> Command:
    def command(port: int, threads: int, workers: int) -> list[str]:
        words = ["-m", "gunicorn", "served:app", "-k", worker_class, "-b", f"127.0.0.1:{port}"]
        words += ["-w", str(workers), "--keep-alive", "75", "--log-level", "error"]
        words += ["--worker-connections", str(CONNECTIONS)]
        return [*words, *(["--threads", str(threads)] if worker_class == "gthread" else [])]

    return command


def _waitress(port: int, threads: int, workers: int) -> list[str]:  # noqa: ARG001
    words = ["-m", "waitress", f"--threads={threads}", f"--listen=127.0.0.1:{port}"]
    # its select() takes no descriptor over 1024
    words += [f"--connection-limit={CONNECTIONS}", "--asyncore-use-poll", "--channel-timeout=300"]
    return [*words, "served:app"]


def _granian(port: int, threads: int, workers: int) -> list[str]:
    words = ["-m", "granian", "--interface", "wsgi", "--port", str(port), "--no-ws"]
    words += ["--workers", str(workers), "--blocking-threads", str(threads)]
    # by default it takes as many connections as the backlog, 1024
    words += ["--backlog", str(CONNECTIONS), "--backpressure", str(CONNECTIONS)]
    return [*words, "--log-level", "error", "served:app"]


def _granian_1(port: int, threads: int, workers: int) -> list[str]:  # noqa: ARG001
    return _granian(port, 1, workers)


def _uvicorn(port: int, threads: int, workers: int) -> list[str]:  # noqa: ARG001
    words = ["-m", "uvicorn", "served:bridged", "--port", str(port), "--workers", str(workers)]
    words += ["--interface", "asgi3", "--timeout-keep-alive", "75"]
    return [*words, "--log-level", "error", "--no-access-log"]


def _hypercorn(port: int, threads: int, workers: int) -> list[str]:  # noqa: ARG001
    words = ["-m", "hypercorn", "wsgi:served:app", "-b", f"127.0.0.1:{port}", "-w", str(workers)]
    return [*words, "--keep-alive", "75", "--log-level", "error"]


def _script(name: str) -> Command:
    def command(port: int, threads: int, workers: int) -> list[str]:  # noqa: ARG001
        return [str(HERE / "serve.py"), name, str(port), str(threads)]

    return command


KINDS = (
    Kind("threadwell", "threadwell", _threadwell, reloads=True),
    Kind("threadwell, ASGI beside", "threadwell", _hybrid, standard=False),
    Kind("gunicorn gthread", "gunicorn", _gunicorn("gthread"), reloads=True),
    Kind(
        "gunicorn sync",
        "gunicorn",
        _gunicorn("sync"),
        reloads=True,
        keeps_alive=False,
    ),
    Kind("waitress", "waitress", _waitress),
    Kind("granian", "granian", _granian, reloads=True),
    # with the GIL, one thread costs less where the application does not wait
    Kind("granian, 1 thread", "granian", _granian_1, reloads=True),
    Kind("uvicorn + a2wsgi", "uvicorn", _uvicorn, reloads=True, needs=("a2wsgi",)),
    Kind("hypercorn", "hypercorn", _hypercorn),
    Kind("cheroot", "cheroot", _script("cheroot")),
    Kind("bjoern", "bjoern", _script("bjoern")),
)


class Process:
    """A running server, with all processes that it has started."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self._log = log

    def pids(self) -> list[int]:
        """The ids of the process and of those below it."""
        children: dict[int, list[int]] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    parent = int(_stat(int(entry.name))[1])
                    children.setdefault(parent, []).append(int(entry.name))
        found = [self.process.pid]
        for pid in found:
            found += children.get(pid, [])
        return found

    def cpu_seconds(self) -> float:
        """The CPU time of all of them, in user and in kernel mode."""
        ticks = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                ticks += sum(map(int, _stat(pid)[11:13]))
        return ticks / os.sysconf("SC_CLK_TCK")

    def resident(self) -> int:
        """The resident memory of all of them, in KiB. What they share is counted in each."""
        total = 0
        for pid in self.pids():
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{pid}/status").read_text()
                found = re.search(r"VmRSS:\s+([0-9]+)", text)
                total += int(found[1]) if found else 0
        return total

    def said(self) -> str:
        """What the server has printed."""
        return self._log.read_text(errors="replace")

    def kill(self) -> None:
        """End all processes at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def end(self) -> None:
        """End all processes, politely first: strace writes what it has counted."""
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(25)
                break
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name: the state, the parent, and so on."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


class DidNotStart(Exception):
    """A server has ended before it listened, or has not listened in time."""


@contextlib.contextmanager
def running(
    kind: Kind,
    app: str,
    *,
    threads: int = THREADS,
    workers: int = 1,
    tool: Sequence[str] = (),
    python: str = sys.executable,
) -> Iterator[Process]:
    """Start `kind` with an application of apps.py, under `tool`; end it after the block.

    Raises `DidNotStart`.
    """
    port = 0 if kind.package == "threadwell" else _free_port()
    environment = {
        **os.environ,
        "BENCHMARK_APP": app,
        "BENCHMARK_THREADS": str(threads),
        "PYTHONPATH": os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH")])),
        "PYTHONDONTWRITEBYTECODE": "1",
        "PYTHONHASHSEED": "0",
        "PYTHONUNBUFFERED": "1",
    }
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        with log.open("wb") as out:
            process = subprocess.Popen(
                [*tool, python, *kind.command(port, threads, workers)],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        server = Process(process, port, log)
        try:
            _wait(server)
            yield server
        finally:
            server.end()


def _free_port() -> int:
    """A port that was free a moment ago, for servers that cannot say which one they got."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def _wait(server: Process) -> None:
    """Until it listens."""
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until:
        if server.process.poll() is not None:
            break
        if not server.port:
            found = re.search(r"http://127\.0\.0\.1:([0-9]+)", server.said())
            server.port = int(found[1]) if found else 0
        if server.port:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", server.port), 1).close()
                return
        time.sleep(0.02)
    raise DidNotStart(server.said()[-2000:])
