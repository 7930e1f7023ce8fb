"""ASGI applications in several processes: reloads, replacements, and loops that hang."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..helpers.asgi_tools import UPGRADE
from ..helpers.supervised import Load, Start, Supervised, receive, starting, write
from ..helpers.waiting import until

APP = """
import asyncio, os, pathlib, time
VERSION = {version!r}

def say(what):
    os.write(1, f"{{what}} {{os.getpid()}}\\n".encode())

async def lifespan(receive, send):
    for phase in ("startup", "shutdown"):
        message = await receive()
        assert message["type"] == "lifespan." + phase
        say(phase)
        await send({{"type": f"lifespan.{{phase}}.complete"}})

async def page(send):
    headers = [(b"content-type", b"text/plain")]
    await send({{"type": "http.response.start", "status": 200, "headers": headers}})
    body = f"{{VERSION}} {{os.getpid()}}".encode()
    await send({{"type": "http.response.body", "body": body}})

async def stream(send, go):
    await send({{"type": "http.response.start", "status": 200, "headers": []}})
    await send({{"type": "http.response.body", "body": b"first ", "more_body": True}})
    while not pathlib.Path(go).exists():
        await asyncio.sleep(0.01)
    await send({{"type": "http.response.body", "body": b"last"}})

async def talk(receive, send):
    await receive()
    await send({{"type": "websocket.accept"}})
    message = await receive()
    say(message["type"])

async def app(scope, receive, send):
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    elif scope["type"] == "websocket":
        await talk(receive, send)
    elif scope["path"] == "/stream":
        await stream(send, "go")
    elif scope["path"] == "/hang":
        say("hangs")
        while not pathlib.Path("go").exists():
            time.sleep(0.01)
        await page(send)
    else:
        await page(send)
"""

both = pytest.mark.parametrize("extra", [(), ("--preload",)], ids=["each-imports", "preload"])


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with starting(tmp_path, APP.format(version="old")) as run:
        yield run


def said_by(server: Supervised, what: str) -> list[int]:
    """The processes that have said `what`."""
    found = re.findall(rf"^{what} (\d+)$", "".join(server.lines), re.MULTILINE)
    return sorted(map(int, found))


def ask(server: Supervised, path: str, fields: str = "") -> socket.socket:
    """A connection on which a request was sent."""
    client = socket.create_connection(("127.0.0.1", server.port), 20)
    client.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n{fields}\r\n".encode())
    return client


def refused(port: int) -> bool:
    """Whether nothing listens any more."""
    try:
        socket.create_connection(("127.0.0.1", port), 20).close()
    except ConnectionRefusedError:
        return True
    return False


# ---- Reload -------------------------------------------------------------------------------


@both
def test_reloads_lose_nothing_and_each_worker_has_its_lifespan(
    start: Start, tmp_path: Path, extra: tuple[str, ...]
) -> None:
    server = start("--loops", "1", *extra)  # each would have a lifespan
    with Load(server.port) as load:
        for turn in range(1, 4):
            load.more()
            write(tmp_path, APP.format(version=f"v{turn}"))
            server.send(signal.SIGHUP)
            server.await_line("The new application is served", turn)
            load.more()
        server.await_line("with code 0", 6)
    assert not load.failures
    assert server.get().split()[0] == "v3"
    assert server.end() == 0
    workers = sorted(server.ready_workers())
    assert len(set(workers)) == 8
    assert said_by(server, "startup") == workers
    assert said_by(server, "shutdown") == workers


def test_what_is_open_across_a_reload_ends_well(start: Start, tmp_path: Path) -> None:
    """A stream goes on to its end; a WebSocket, which has none, is told to come back."""
    server = start("--workers", "1", "--preload")
    with ask(server, "/stream") as stream, ask(server, "/", UPGRADE) as chat:
        data = b""
        while b"first" not in data:
            data += stream.recv(4096)
        talked = b""
        while b"\r\n\r\n" not in talked:
            talked += chat.recv(4096)
        server.send(signal.SIGHUP)
        server.await_line("The new application is served")
        # while the stream is still under way
        closing = talked.partition(b"\r\n\r\n")[2] + b"".join(iter(lambda: chat.recv(4096), b""))
        assert (closing[0], closing[2:4]) == (0x88, b"\x03\xf4"), "1012, service restart"
        server.await_line("websocket.disconnect")
        (tmp_path / "go").touch()
        data += b"".join(iter(lambda: stream.recv(4096), b""))
    assert data.endswith(b"4\r\nlast\r\n0\r\n\r\n")
    server.await_line("with code 0")


def test_a_lifespan_that_fails_leaves_the_old_application(start: Start, tmp_path: Path) -> None:
    server = start()
    before = server.ready_workers()
    failing = 'return await send({"type": "lifespan.startup.failed", "message": "no database"})'
    write(tmp_path, APP.format(version="new").replace("say(phase)", failing))
    server.send(signal.SIGHUP)
    server.await_line("The new application is not served; the old one keeps serving")
    assert server.said("no database")
    assert server.get().split()[0] == "old"
    assert server.ready_workers() == before


# ---- Replacement --------------------------------------------------------------------------


def test_worn_workers_are_replaced(start: Start) -> None:
    server = start("--max-requests", "300")
    with Load(server.port) as load:
        server.await_line("Replacing worker", 2)
        server.await_line("with code 0", 2)
        load.more()
    assert not load.failures
    assert server.end() == 0


def test_terminated_and_killed_workers_are_replaced(start: Start) -> None:
    server = start()
    with Load(server.port) as load:
        load.more()
        os.kill(server.ready_workers()[-1], signal.SIGTERM)
        server.await_line("it got SIGTERM")
        server.await_line("is ready", 3)
        load.more()
        assert not load.failures
        killed = server.ready_workers()[-1]
        os.kill(killed, signal.SIGKILL)
        server.await_line("was ended by SIGKILL")
        load.more()
    assert set(load.losers) <= {0, killed}
    assert len(load.losers) <= load.clients
    assert server.end() == 0


@pytest.mark.parametrize("loops", [1, 2])
def test_a_loop_that_hangs(start: Start, tmp_path: Path, loops: int) -> None:
    """Even where another loop of the same process serves."""
    server = start("--workers", "1", "--preload", "--loops", str(loops), "--worker-timeout", "1.5")
    (first,) = server.ready_workers()
    with ask(server, "/hang") as client:
        server.await_line("hangs")
        server.await_line("it has taken no request for")
        server.await_line("is ready", 2)
        until(lambda: int(server.get().split()[1]) != first)
        (tmp_path / "go").touch()
        assert receive(client)[1].split()[1] == str(first).encode()
    server.await_line("with code 0")
    assert server.said("Replacing") == 1


HYBRID = """
import os

def sync_app(request):
    if request.path in ("/hang", "/stream"):
        return None
    from threadwell import Response
    return Response(200, [], b"old %d" % os.getpid())

sync_app.threadwell_interface = "sync"
"""


def test_the_loop_of_a_hybrid_that_hangs(start: Start, tmp_path: Path) -> None:
    """The threads beside it are well, and yet."""
    (tmp_path / "pages.py").write_text(HYBRID)
    server = start(
        *("pages:sync_app", "--asgi", "app:app"),
        *("--workers", "1", "--preload", "--worker-timeout", "1.5"),
    )
    (first,) = server.ready_workers()
    with ask(server, "/hang") as client:
        server.await_line("hangs")
        assert server.get() == f"old {first}"
        server.await_line("it has taken no request for")
        server.await_line("is ready", 2)
        (tmp_path / "go").touch()
        assert receive(client)[1].split()[1] == str(first).encode()
    server.await_line("with code 0")


@both
@pytest.mark.parametrize(
    "signals", [(signal.SIGTERM, signal.SIGTERM), (signal.SIGQUIT,)], ids=["twice", "quit"]
)
def test_the_loop_of_a_hybrid_is_cut(
    start: Start, tmp_path: Path, extra: tuple[str, ...], signals: tuple[int, ...]
) -> None:
    """A second SIGTERM, or SIGQUIT, ends a stream on the loop, and then the lifespan."""
    (tmp_path / "pages.py").write_text(HYBRID)
    server = start("pages:sync_app", "--asgi", "app:app", *extra)
    workers = sorted(server.ready_workers())
    with ask(server, "/stream") as client:
        data = b""
        while b"first" not in data:
            data += client.recv(4096)
        for number in signals:
            server.send(number)
            server.await_line("stopping")
            until(lambda: refused(server.port))
        assert server.end(0) == 0
        with contextlib.suppress(ConnectionResetError):
            data += b"".join(iter(lambda: client.recv(4096), b""))
    assert not data.endswith(b"0\r\n\r\n")
    assert said_by(server, "startup") == said_by(server, "shutdown") == workers
    assert not server.said("SIGKILL")


def test_a_loop_that_waits_is_well(start: Start, tmp_path: Path) -> None:
    server = start("--worker-timeout", "1.5")
    with ask(server, "/stream") as client:
        data = client.recv(4096)
        # three looks of the supervisor, without a request
        for _ in range(3):
            threading.Event().wait(1)
        assert server.said("Replacing") == 0
        (tmp_path / "go").touch()
        while not data.endswith(b"4\r\nlast\r\n0\r\n\r\n"):
            more = client.recv(4096)
            assert more, data
            data += more


# ---- A start that takes too long ----------------------------------------------------------


@both
@pytest.mark.parametrize("where", ["import", "lifespan"])
def test_a_new_application_that_is_never_ready(
    start: Start, tmp_path: Path, extra: tuple[str, ...], where: str
) -> None:
    server = start("--start-timeout", "3", *extra)
    before = server.ready_workers()
    hang = "import time\ndef wait_for_ever():\n    time.sleep(1000)\n"
    app = APP.format(version="new")
    if where == "import":
        write(tmp_path, f"{hang}wait_for_ever()\n{app}")
    else:
        write(tmp_path, hang + app.replace("say(phase)", "wait_for_ever()"))
    server.send(signal.SIGHUP)
    server.await_line("The new application is not served; the old one keeps serving: ")
    (told,) = (line for line in server.lines if "is not served" in line)
    assert "was not ready within 3 seconds; give more with start_timeout" in told
    assert server.said("in wait_for_ever"), "".join(server.lines)
    assert server.said("Timeout (0:00:03)!") == 1, "the text of one process"
    assert server.get().split()[0] == "old"
    assert server.ready_workers() == before
    write(tmp_path, APP.format(version="mended"))
    server.send(signal.SIGHUP)
    server.await_line("The new application is served")
    assert server.end() == 0


def test_an_application_that_is_never_ready(start: Start, tmp_path: Path) -> None:
    write(tmp_path, "import time\ntime.sleep(1000)\n")
    server = start("--start-timeout", "0.5", ready=False)
    assert server.end(0) == 2
    assert "was not ready within 0.5 seconds" in server.lines[-1]
