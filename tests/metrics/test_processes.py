"""Metrics of several processes: they stay right when processes end."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ..helpers.metrics import HERE, Numbers, fetch, metrics_url
from ..helpers.supervised import APP, Supervised
from ..helpers.waiting import until
from ..helpers.wire_client import Client


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Supervised]]:
    with contextlib.ExitStack() as stack:

        def started(*arguments: str, app: str = APP, **options: Any) -> Supervised:
            (tmp_path / "app.py").write_text(app.format(version="1"))
            command = ["app:app", "--bind", HERE, "--metrics-bind", HERE, *arguments]
            return stack.enter_context(
                contextlib.closing(Supervised(tmp_path, *command, **options))
            )

        yield started


@pytest.mark.parametrize("preload", [[], ["--preload"]])
def test_nothing_goes_down_when_workers_end(start: Callable[..., Supervised], preload: Any) -> None:
    server = start("--workers", "2", *preload)
    url = metrics_url(server)
    for _ in range(10):
        server.get()
    until(lambda: Numbers(url)["requests_total", "GET", "2xx"] == 10)
    victim = server.ready_workers()[0]
    os.kill(victim, signal.SIGKILL)
    until(lambda: len(server.ready_workers()) == 3)
    server.send(signal.SIGHUP)
    server.await_line("The new application is served")
    server.get()
    until(lambda: Numbers(url)["worker_ends_total", "drained"] == 2)
    until(lambda: Numbers(url)["requests_total", "GET", "2xx"] == 11)
    numbers = Numbers(url)
    assert numbers["worker_starts_total"] == 5
    assert numbers["worker_ends_total", "signal"] == 1
    assert numbers["reloads_total"] == 1
    assert numbers["workers"] == numbers["workers_wanted"] == 2
    assert numbers["connections_opened_total"] == 11
    until(lambda: Numbers(url)["threads", "total"] == 16)
    assert len([key for key in numbers.samples if key[0] == "resident_memory_bytes"]) == 2
    assert server.end() == 0


def test_why_workers_are_replaced(start: Callable[..., Supervised]) -> None:
    server = start("--workers", "1", "--max-requests", "3")
    url = metrics_url(server)
    for _ in range(3):
        server.get()
    until(lambda: Numbers(url)["worker_replacements_total", "max_requests"] == 1)
    until(lambda: Numbers(url)["worker_ends_total", "drained"] == 1)
    until(lambda: len(server.ready_workers()) == 2)
    os.kill(server.ready_workers()[-1], signal.SIGTERM)
    until(lambda: Numbers(url)["worker_replacements_total", "signal"] == 1)


def test_it_is_alive_but_not_ready_until_a_worker_is(
    start: Callable[..., Supervised], tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    slow = f"""
import os, time
while not os.path.exists({str(gate)!r}):
    time.sleep(0.01)
{APP}"""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        # its number is known before the server says it, and nobody else can have it meanwhile
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        given = listening.fileno()
        arguments = ("--metrics-bind", f"fd://{given}", "--workers", "2")
        server = start(*arguments, app=slow, ready=False, pass_fds=[given])
    assert fetch(url, "/healthz")[0] == 200
    assert fetch(url, "/readyz") == (503, "starting\n")
    gate.touch()
    until(lambda: fetch(url, "/readyz") == (200, "ready\n"))
    server.await_line("Ctrl-C")
    gate.unlink()
    for pid in server.ready_workers():
        os.kill(pid, signal.SIGKILL)
    until(lambda: fetch(url, "/readyz") == (503, "no worker serves\n"))
    assert fetch(url, "/healthz")[0] == 200
    gate.touch()
    until(lambda: fetch(url, "/readyz")[0] == 200)


def test_not_ready_while_the_workers_drain(start: Callable[..., Supervised]) -> None:
    server = start("--workers", "2", "--drain-idle", "10")
    url = metrics_url(server)
    with socket.create_connection(("127.0.0.1", server.port), 10) as sock:
        client = Client(sock)
        client.get()
        server.send(signal.SIGTERM)
        until(lambda: fetch(url, "/readyz") == (503, "draining\n"))
        assert fetch(url, "/healthz")[0] == 200
        # a moment after the answer
        until(lambda: Numbers(url)["requests_total", "GET", "2xx"] == 1)
    assert server.end(0) == 0


def test_a_worker_keeps_no_connection_of_the_supervisors_open(
    start: Callable[..., Supervised],
) -> None:
    """A fork copies descriptors: a copy left open would leave the client waiting for the end."""
    server = start("--workers", "2")
    host, port = metrics_url(server).removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), 10) as sock:
        client = Client(sock)
        assert client.get("/healthz").status == 200
        os.kill(server.ready_workers()[0], signal.SIGKILL)
        until(lambda: len(server.ready_workers()) == 3)  # forked while this was open
        assert client.get("/healthz", headers="Connection: close\r\n").status == 200
        assert client.closed()
    worker = server.ready_workers()[-1]
    links, mine = _links(worker), _links(server.process.pid)
    listening = _inode_of_listener(int(port))
    assert listening in mine
    assert listening not in links


def _links(pid: int) -> set[str]:
    """What the descriptors of a process are; it may be closing one."""
    found = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):
            found.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    return found


def _inode_of_listener(port: int) -> str:
    with open("/proc/net/tcp") as table:
        for line in table:
            fields = line.split()
            if fields[1].endswith(f":{port:04X}") and fields[3] == "0A":
                return f"socket:[{fields[9]}]"
    raise AssertionError("nobody listens")


def test_a_bad_address_is_a_users_mistake(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP.format(version="1"))
    for more in ([], ["--workers", "2"]):
        arguments = ["app:app", "--bind", HERE, "--metrics-bind", "192.0.2.77:9100", *more]
        server = Supervised(tmp_path, *arguments, ready=False)
        assert server.process.wait(20) == 2
        server.end()
        assert len(server.lines) == 1
        assert "metrics_bind: cannot listen on 192.0.2.77:9100" in server.lines[0].replace("-", "_")
