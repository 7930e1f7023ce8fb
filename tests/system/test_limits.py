"""What the system limits: every command serves, or ends with one line and an exit code. It is never
there without serving."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ..helpers.as_nobody import as_root, interpreter, readable_by_all
from ..helpers.waiting import until
from .serving import APP, ASGI, COMMANDS, PATIENCE, Serving

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="other systems limit otherwise")

# Runs a command with a limit: its name, the number, the user, then the command.
LIMITED = """
import os, resource, sys
name, number, user = sys.argv[1:4]
if int(user):
    os.setgid(int(user))
    os.setuid(int(user))
if name == "AS":  # above what the interpreter has
    pages = int(open("/proc/self/statm").read().split()[0])
    number = int(number) * 2**20 + pages * os.sysconf("SC_PAGESIZE")
if name:
    resource.setrlimit(getattr(resource, "RLIMIT_" + name), (int(number), int(number)))
os.execv(sys.argv[4], sys.argv[4:])
"""
#: A user with no process of its own, so that the limit is for this test alone.
USER = 20_000 + os.getpid() % 20_000
# The commands whose interpreter every user can run: they need threadwell alone.
ALONE = ["threads", "workers", "asgi", "asgi workers", "reload"]
PIPES = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
REFUSED = "Too many open files|no thread can be started|Resource temporarily unavailable|memory"


def limited(name: str, number: int, user: int = 0, python: str = sys.executable) -> list[str]:
    """For `before`: Python with a limit."""
    return [python, "-c", LIMITED, name, str(number), str(user), python]


def answer(server: Serving) -> int:
    """The status of an answer. Raises `OSError` or `HTTPException` without one."""
    with server.connect() as sock:
        sock.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        response = http.client.HTTPResponse(sock)
        response.begin()
        return response.status


def outcome(server: Serving) -> tuple[int, str]:
    """The status of an answer, or 0 if the command has ended; and what it has printed."""
    statuses: list[int] = []

    def settled() -> bool:
        with contextlib.suppress(OSError, http.client.HTTPException):
            statuses.append(answer(server))
        return bool(statuses) or server.process.poll() is not None

    until(settled, 2 * PATIENCE)
    if server.process.poll() is None:
        server.process.send_signal(signal.SIGTERM)
    printed = server.process.communicate(timeout=PATIENCE)[0] or b""
    return (statuses or [0])[0], printed.decode()


def check(server: Serving, reason: str = REFUSED) -> bool:
    """Whether it has served. If not, it has ended with one line, which says the `reason`."""
    status, text = outcome(server)
    if not status:
        assert server.process.returncode in (2, 3), text
        assert "Traceback" not in text
        assert re.search(reason, text), text
    return bool(status)


# ---- Descriptors, memory, processes --------------------------------------------------------


@pytest.mark.parametrize("number", [9, 11, 40])
@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "serve"])
def test_few_descriptors(start: Callable[..., Serving], name: str, number: int) -> None:
    assert check(start(name, before=limited("NOFILE", number), **PIPES)) or number < 40


# Not what is just enough for the imports: when CPython has no memory left to begin a thread,
# `Thread.start` waits for that thread for ever.
@pytest.mark.parametrize("number", [8, 60])
@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "serve"])
def test_little_memory(start: Callable[..., Serving], name: str, number: int) -> None:
    """An import may fail in any library: then there may be a traceback, but the command ends."""
    server = start(name, before=limited("AS", number), **PIPES)
    status, text = outcome(server)
    assert status or server.process.returncode, text


@pytest.fixture
def alone(request: pytest.FixtureRequest) -> Iterator[Callable[..., Serving]]:
    """`alone(name, limit, number, *arguments)`: one of `ALONE` as `USER`, in a folder of root's."""
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(readable_by_all(""))
        (folder / "app.py").write_text(APP)
        (folder / "asgi_app.py").write_text(ASGI)
        (folder / "own").mkdir()
        os.chown(folder / "own", USER, USER)
        path = folder / "own" / "sock"

        def run(name: str, limit: str, number: int, *arguments: str) -> Serving:
            words = limited(limit, number, USER, interpreter()) + COMMANDS[name]
            if "--bind" not in arguments:
                arguments = ("--bind", f"unix:{path}", *arguments)
            environ = {**os.environ, "PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
            process = subprocess.Popen([*words, *arguments], cwd=folder, env=environ, **PIPES)
            stack.enter_context(process)
            stack.callback(process.kill)
            return Serving(process, path)

        yield run


@as_root
@pytest.mark.parametrize("number", [1, 2, 3, 5, 40])
@pytest.mark.parametrize("name", ALONE)
def test_few_processes_and_threads(alone: Callable[..., Serving], name: str, number: int) -> None:
    assert check(alone(name, "NPROC", number)) or number < 40


# ---- Disks ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*ALONE, "preload", "serve"])
def test_a_full_disk(start: Callable[..., Serving], name: str) -> None:
    """No file can be written, and the streams are files on that disk, too."""
    with open("/dev/full", "wb") as full:
        server = start(name, before=limited("FSIZE", 0), stdout=full, stderr=full)
        assert server.get() == b"hello"
        assert server.end() == 0


@pytest.mark.parametrize("name", ["flask", "flask debug", "django", "django reload"])
def test_a_full_disk_and_a_framework(start: Callable[..., Serving], name: str) -> None:
    """The framework writes to the streams, and may fail: then the command ends, or says so."""
    with open("/dev/full", "wb") as full:
        server = start(name, before=limited("FSIZE", 0), stdout=full, stderr=full)
        status, _ = outcome(server)
        assert status or server.process.returncode


@pytest.mark.parametrize("name", ["threads", "workers", "asgi", "flask", "django"])
@pytest.mark.parametrize("option", ["--access-log", "--pid-file"])
def test_a_file_on_a_full_disk(
    start: Callable[..., Serving], tmp_path: Path, name: str, option: str
) -> None:
    words = [option, str(tmp_path / "file")]
    server = start(name, *words, before=limited("FSIZE", 0), **PIPES)
    served = check(server, "File too large")
    assert served == (option == "--access-log")


@pytest.mark.parametrize("name", ["threads", "workers", "asgi", "reload", "flask"])
def test_no_room_for_a_certificate(
    start: Callable[..., Serving], tmp_path: Path, name: str
) -> None:
    pytest.importorskip("trustme")
    environ = {**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")}
    before = limited("FSIZE", 0)
    server = start(name, "--cert", "adhoc", before=before, env=environ, **PIPES)
    assert not check(server, "cert: adhoc needs a temporary file")


@as_root
@pytest.mark.parametrize("name", ALONE)
def test_a_folder_that_cannot_be_written(alone: Callable[..., Serving], name: str) -> None:
    assert check(alone(name, "", 0))


@as_root
@pytest.mark.parametrize("name", ["threads", "workers", "asgi", "asgi workers"])
@pytest.mark.parametrize("option", ["--pid-file", "--access-log", "--bind"])
def test_a_file_in_a_folder_that_cannot_be_written(
    alone: Callable[..., Serving], name: str, option: str
) -> None:
    value = "unix:file" if option == "--bind" else "file"
    assert not check(alone(name, "", 0, option, value), "file")
