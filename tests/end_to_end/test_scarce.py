"""The system has no more threads, processes or descriptors: the server serves with what it gets,
or ends with one line and an exit code."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from threadwell import ThreadedServer

from ..helpers.supervised import Supervised

# Before the command runs: threads whose name `refused` matches cannot be started.
NO_THREADS = """
import re, threading
start, refused = threading.Thread.start, {pattern!r}
def limited(thread):
    if re.fullmatch(refused, thread.name):
        raise RuntimeError("can't start new thread")
    start(thread)
threading.Thread.start = limited
"""
NO_FORK = """
import os
def fork():
    raise BlockingIOError(11, "Resource temporarily unavailable")
os.fork = fork
"""
NO_SOCKETPAIR = """
import socket
def socketpair(*arguments):
    raise OSError(24, "Too many open files")
socket.socketpair = socketpair
"""
NO_EPOLL = """
import select
def epoll(*arguments):
    raise OSError(24, "Too many open files")
select.epoll = epoll
"""
NO_PAGES = """
import mmap
class mmap_(mmap.mmap):
    def __new__(cls, *arguments, **options):
        raise OSError(12, "Cannot allocate memory")
mmap.mmap = mmap_
"""
WSGI = """
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"well"]
"""
ASGI = """
async def app(scope, receive, send):
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"well"})
"""
RUN = "import sys; from threadwell.cli import main; sys.exit(main())"
BIND = ("--bind", "127.0.0.1:0")


def command(scarcity: str, *arguments: str) -> list[str]:
    return [sys.executable, "-c", scarcity + RUN, "app:app", *BIND, *arguments]


ENDS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "threads": (NO_THREADS.format(pattern=".*"), WSGI, ()),
    "loop": (NO_THREADS.format(pattern=".*"), ASGI, ()),
    "loop-without-pairs": (NO_SOCKETPAIR, ASGI, ()),
    "metrics": (NO_THREADS.format(pattern=".*metrics"), WSGI, ("--metrics-bind", "127.0.0.1:0")),
    "access-log": (NO_THREADS.format(pattern=".*log"), WSGI, ("--access-log", "log")),
    "queue-poller": (NO_THREADS.format(pattern=".*distr.*"), WSGI, ("--poller", "queue")),
    "poller": (NO_EPOLL, WSGI, ()),
    "pairs": (NO_SOCKETPAIR, WSGI, ()),
    "fork": (NO_FORK, WSGI, ("--workers", "2")),
    "template": (NO_FORK, WSGI, ("--workers", "2", "--preload")),
    "supervisor": (NO_SOCKETPAIR, WSGI, ("--workers", "2")),
    "workers": (NO_THREADS.format(pattern="threadwell-0"), WSGI, ("--workers", "2")),
    "pages": (NO_PAGES, WSGI, ("--workers", "2", "--metrics-bind", "127.0.0.1:0")),
    "page": (NO_PAGES, WSGI, ("--metrics-bind", "127.0.0.1:0")),
    "hybrid": (NO_THREADS.format(pattern=".*loop-0"), WSGI, ("--asgi", "other:app")),
}


@pytest.mark.parametrize(("scarcity", "app", "arguments"), ENDS.values(), ids=ENDS)
def test_what_cannot_be_had_ends_the_start(
    tmp_path: Path, scarcity: str, app: str, arguments: tuple[str, ...]
) -> None:
    (tmp_path / "app.py").write_text(app)
    (tmp_path / "other.py").write_text(ASGI)
    done = subprocess.run(
        command(scarcity, *arguments),
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode in (2, 3), done.stderr
    assert "serves" not in done.stdout
    assert "Traceback" not in done.stderr
    assert re.search("start|the server cannot continue", done.stderr.splitlines()[-1])


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    made: list[Supervised] = []

    def start(scarcity: str, app: str, *arguments: str) -> Supervised:
        (tmp_path / "app.py").write_text(app)
        server = Supervised.__new__(Supervised)
        server.start(command(scarcity, *arguments), tmp_path)
        made.append(server)
        server.await_line("Ctrl-C")
        return server

    yield start
    for server in made:
        server.close()


def test_fewer_threads_serve(run: Callable[..., Supervised]) -> None:
    scarcity = NO_THREADS.format(pattern="threadwell-[3-9]")
    server = run(scarcity, WSGI, "--threads", "8")
    for _ in range(5):
        assert server.get() == "well"
    server.await_line("Only 3 of 8 threads serve")
    assert server.end() == 0
    assert not server.said("Traceback")


@pytest.mark.parametrize("app", [WSGI, ASGI], ids=["threads", "loop"])
@pytest.mark.parametrize("workers", [(), ("--workers", "2")], ids=["one", "workers"])
def test_the_end_needs_no_thread(
    run: Callable[..., Supervised], app: str, workers: tuple[str, ...]
) -> None:
    scarcity = NO_THREADS.format(pattern="threadwell-(stop|end)")
    server = run(scarcity, app, *workers)
    assert server.get() == "well"
    assert server.end(signal.SIGTERM) == 0
    assert not server.said("Traceback")


def test_a_server_whose_threads_have_ended_is_not_ready(
    serve: Callable[..., ThreadedServer],
) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [])
        return [b"well"]

    server = serve(app, threads=1)
    assert server.unready_reason() == ""
    server.pools[0].stop()  # as a bug would
    assert server._thread is not None
    server._thread.join(20)
    assert server.failed
    assert server.unready_reason() == "nothing serves"


def test_a_command_whose_threads_have_ended_ends(run: Callable[..., Supervised]) -> None:
    bug = """
from threadwell.worker.threads.pool import ThreadPool
pools, ready = [], ThreadPool.wait_until_ready
ThreadPool.wait_until_ready = lambda pool: pools.append(pool) or ready(pool)
"""
    # behind the answer, so that it is whole
    app = (
        WSGI.replace('[b"well"]', 'Body([b"well"])')
        + """
import __main__

class Body(list):
    def close(self):
        __main__.pools[0].stop()
"""
    )
    server = run(bug, app, "--threads", "2")
    assert server.get() == "well"
    assert server.end(0) == 70
