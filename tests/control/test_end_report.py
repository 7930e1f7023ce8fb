"""What a server that stops says: what it waits for, and what it has cut."""

from __future__ import annotations

import errno
import io
import os
import re
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from threadwell import ThreadedServer
from threadwell.worker.control.end_report import named, waited_for
from threadwell.worker.lifecycle import RunningRequest
from threadwell.worker.system.stacks import can_see_frames

from ..helpers.metrics import App
from ..helpers.supervised import Start, starting
from ..helpers.waiting import until
from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

APP = """
import threading
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/wait":
        print("inside", flush=True)
        threading.Event().wait()
    return [b"hello"]
"""
GET_WAIT = b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n"
# What stands for a request where threads cannot be looked at.
NAME = r"the request GET /wait since \d+ s" if can_see_frames() else "1 request"


def running(path: str, age: float, state: str = "running") -> RunningRequest:
    return RunningRequest(
        key=path, state=state, method="GET", path=path, client=("192.0.2.1", 5), request_id="",
        age=age, sent=0, thread="threadwell-1", ident=1,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("requests", "busy", "text"),
    [
        ([], 0, ""),
        ([], 2, "2 requests"),
        ([running("/a", 12.4)], 1, "the request GET /a since 12 s"),
        (
            [running("/a", 12), running("/s", 9, "streaming"), running("/b", 5)],
            3,
            "2 requests, the oldest GET /a since 12 s; 1 stream",
        ),
        ([running("/s", 9, "streaming"), running("/w", 5, "websocket")], 0, "2 streams"),
        ([running("/\x1b[2Ja", 1)], 1, r"the request GET /\x1b[2Ja since 1 s"),
    ],
)
def test_what_is_waited_for(requests: list[RunningRequest], busy: int, text: str) -> None:
    assert waited_for(requests, busy) == text


def test_not_all_are_named() -> None:
    assert named([running("/a", 5), running("/b", 1)]) == "GET /a since 5 s, GET /b since 1 s"
    assert named([running("/a", 5)] * 12).endswith("GET /a since 5 s and 2 more")


@pytest.fixture
def waiting(serve: Serve, connect: Connect, app: App) -> Iterator[ThreadedServer]:
    """A server with a request that stays until the gate of its application is opened."""
    server = serve(app, threads=2)
    connect(server).send(GET_WAIT)
    assert app.inside.acquire(timeout=10)
    yield server
    app.gate.set()


def said(caplog: pytest.LogCaptureFixture, pattern: str) -> bool:
    return any(re.fullmatch(pattern, record.message) for record in caplog.records)


def test_the_log_has_a_line_at_the_start_and_one_at_the_end(
    waiting: ThreadedServer, app: App, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    stopper = threading.Thread(target=waiting.stop)
    stopper.start()
    until(lambda: said(caplog, f"Waiting for {NAME}"))
    app.gate.set()
    stopper.join(20)
    assert said(caplog, "All requests have ended")
    assert len([each for each in caplog.records if each.message.startswith("Waiting")]) == 1


@pytest.mark.skipif(not can_see_frames(), reason="the log has numbers only")
def test_the_log_names_what_was_cut(
    waiting: ThreadedServer, app: App, caplog: pytest.LogCaptureFixture
) -> None:
    stopper = threading.Thread(target=waiting.stop)
    caplog.set_level("INFO")
    stopper.start()
    until(lambda: said(caplog, f"Waiting for {NAME}"))
    waiting.cut()
    stopper.join(20)
    assert said(caplog, r"The remaining requests were cut: GET /wait since \d+ s")


@pytest.mark.parametrize("terminal", ["xterm", "dumb"])
def test_a_terminal_shows_it(
    waiting: ThreadedServer, app: App, monkeypatch: pytest.MonkeyPatch, terminal: str
) -> None:
    monkeypatch.setenv("TERM", terminal)
    waiting.terminal = shown = io.StringIO()
    stopper = threading.Thread(target=waiting.stop)
    stopper.start()
    until(shown.getvalue)
    app.gate.set()
    stopper.join(20)
    line = f"waiting for {NAME}; Ctrl-C again cuts them"
    clear = "\r\x1b\\[K" if terminal == "xterm" else ""
    between = "" if terminal == "xterm" else "\n"
    assert re.fullmatch(f"(?:{clear}{line}{between})+\n", shown.getvalue())


def test_a_server_that_ends_at_once_says_nothing(
    serve: Serve, connect: Connect, app: App, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    server = serve(app)
    server.terminal = shown = io.StringIO()
    connect(server).get()
    server.stop()
    assert shown.getvalue() == ""
    assert not said(caplog, "Waiting .*|All requests .*")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with starting(tmp_path, APP) as run:
        yield run


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_command(start: Start, workers: str) -> None:
    server = start("--workers", workers, "--threads", "2")
    with socket.create_connection(("127.0.0.1", server.port), 20) as sock:
        sock.sendall(GET_WAIT)
        server.await_line("inside")
        server.send(signal.SIGTERM)
        server.await_line("Waiting for ")
        server.send(signal.SIGTERM)
        assert server.end(0) == 0
    waits = [line for line in server.lines if "Waiting for" in line]
    assert len(waits) == 1
    assert re.search(f"INFO Waiting for {NAME}\n$", waits[0])
    assert server.said("The remaining requests were cut: GET /wait since") == int(can_see_frames())


def test_a_server_ends_when_no_descriptor_is_left_to_import_the_report(
    serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "threadwell.worker.control.end_report"

    class Full:
        @staticmethod
        def find_spec(wanted: str, *_path: object) -> None:
            if wanted == name:
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    server = serve(App())
    assert connect(server).get().status == 200
    monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Full, *sys.meta_path])
    server.stop()  # raises nothing
    with pytest.raises(ConnectionRefusedError):
        connect(server)
