"""How processes come to their end, and who waits for them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..helpers.supervised import APP, Start, Supervised, starting, write
from ..helpers.waiting import until

BLOCKED = """
import threading
threading.Thread(target=threading.Event().wait, name="of-the-application").start()
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"well"]
"""
# One view leaves an orphan that has ended, the other says whether it still has its number.
ORPHANS = """
import os
def app(environ, start_response):
    start_response("200 OK", [])
    if environ["PATH_INFO"] == "/leave":
        reader, writer = os.pipe()
        if not (middle := os.fork()):
            if not (orphan := os.fork()):
                os._exit(0)
            os.write(writer, b"%d" % orphan)
            os._exit(0)
        os.waitpid(middle, 0)
        return [os.read(reader, 20)]
    try:
        os.kill(int(environ["QUERY_STRING"]), 0)
    except ProcessLookupError:
        return [b"reaped"]
    return [b"there"]
"""


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with starting(tmp_path, BLOCKED) as run:
        yield run


def test_threads_that_keep_a_worker_are_named(start: Start) -> None:
    server = start("app:app")
    server.send(signal.SIGTERM)
    server.await_line("waits for non-daemon threads", 2)
    assert server.said("of-the-application") == 2


def test_functions_of_atexit_that_keep_a_worker_are_named(tmp_path: Path) -> None:
    code = "import atexit, threading\natexit.register(threading.Event().wait)\n"
    with starting(tmp_path, code + APP.format(version="x")) as start:
        server = start("app:app", "--graceful-timeout", "1")
        server.send(signal.SIGTERM)
        server.await_line("waits for what the application has registered with atexit", 2)
        assert server.end(0) == 0


def namespaces() -> bool:
    """Whether this process may make a namespace for processes."""
    unshare = shutil.which("unshare")
    command = [unshare or "false", "--pid", "--fork", "true"]
    return unshare is not None and not subprocess.run(command, check=False).returncode


@pytest.mark.skipif(os.getuid() != 0 or not namespaces(), reason="root makes namespaces, on Linux")
@pytest.mark.parametrize("mode", [("--reload",), ("--workers", "2")])
def test_the_first_process_of_a_container_reaps_orphans(
    tmp_path: Path, mode: tuple[str, ...]
) -> None:
    write(tmp_path, ORPHANS)
    server = Supervised.__new__(Supervised)
    unshare = ["unshare", "--pid", "--fork", "--kill-child"]
    serve = [sys.executable, "-m", "threadwell", "app:app", "--bind", "127.0.0.1:0"]
    server.start([*unshare, *serve, *mode], tmp_path)
    try:
        server.await_line("Ctrl-C")
        orphan = server.get("/leave")
        until(lambda: server.get(f"/?{orphan}") == "reaped")
    finally:
        server.process.kill()
        server.end(0)
