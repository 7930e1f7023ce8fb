"""A service manager's protocols, spoken with the protocol itself."""

from __future__ import annotations

import contextlib
import os
import queue
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from threadwell import ThreadedServer
from threadwell.worker import Bind, ConfigError
from threadwell.worker.net.bind import open_socket, parse_bind, url_of
from threadwell.worker.system.systemd import Notifier, inherited_sockets

from ..helpers.supervised import APP, Supervised, receive
from ..helpers.waiting import until


class Manager:
    """A service manager: it listens all the time, or who speaks would have to wait for it."""

    def __init__(self, path: Path) -> None:
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._sock.bind(str(path))
        self._said: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()
        self.environment = {"NOTIFY_SOCKET": str(path)}

    def _listen(self) -> None:
        while said := self._sock.recv(4096).decode():
            self._said.put(said)

    def hear(self, wanted: str, patience: float = 20) -> dict[str, str]:
        """The next words that have `wanted`, such as `READY=1`; `patience` is for any words."""
        while True:
            lines = self._said.get(timeout=patience).split("\n")
            if wanted in lines:
                return dict(line.split("=", 1) for line in lines)

    def close(self) -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.sendto(b"", self.environment["NOTIFY_SOCKET"])
        self._thread.join()
        self._sock.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    with contextlib.closing(Manager(tmp_path / "notify")) as made:
        yield made


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "app.py").write_text(APP.format(version="old"))
    return tmp_path


# ---- How the service is -------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["1", "2"])
def test_ready_alive_and_stopping(manager: Manager, folder: Path, workers: str) -> None:
    environment = {**manager.environment, "WATCHDOG_USEC": "400000"}
    arguments = ("--bind", "127.0.0.1:0", "--workers", workers)
    server = Supervised(folder, *arguments, env=environment)
    try:
        assert manager.hear("READY=1")["MAINPID"] == str(server.process.pid)
        for _ in range(3):
            manager.hear("WATCHDOG=1")
        server.send(signal.SIGTERM)
        manager.hear("STOPPING=1")
        assert server.end(0) == 0
    finally:
        server.close()


def test_a_single_process_that_takes_no_requests_is_silent(manager: Manager, folder: Path) -> None:
    (folder / "app.py").write_text(
        "import pathlib, time\n"
        "def app(environ, start_response):\n"
        "    pathlib.Path('begun').touch()\n"
        "    while not pathlib.Path('go').exists(): time.sleep(0.005)\n"
        "    start_response('200 OK', [])\n"
        "    return [b'well']\n"
    )
    environment = {**manager.environment, "WATCHDOG_USEC": "2000000"}
    server = Supervised(folder, "--bind", "127.0.0.1:0", "--threads", "1", env=environment)
    try:
        manager.hear("WATCHDOG=1")
        with socket.create_connection(("127.0.0.1", server.port), 20) as client:
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            until((folder / "begun").exists)
            with pytest.raises(queue.Empty):
                while True:  # the manager would have lost its patience twice
                    manager.hear("WATCHDOG=1", 4)
            (folder / "go").touch()
            assert receive(client)[1] == b"well"
            manager.hear("WATCHDOG=1")
    finally:
        server.close()


def test_reloading(manager: Manager, folder: Path) -> None:
    server = Supervised(folder, "--bind", "127.0.0.1:0", "--workers", "2", env=manager.environment)
    try:
        manager.hear("READY=1")
        server.send(signal.SIGHUP)
        since = int(manager.hear("RELOADING=1")["MONOTONIC_USEC"])
        assert since <= time.monotonic() * 1e6
        manager.hear("READY=1")
        # the old application goes on: that is ready, too
        (folder / "app.py").write_text("1 / 0\n")
        server.send(signal.SIGHUP)
        manager.hear("RELOADING=1")
        manager.hear("READY=1")
    finally:
        server.close()


def test_an_abstract_address(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(20)
        name = f"threadwell-test-{os.getpid()}"
        sock.bind("\0" + name)
        monkeypatch.setenv("NOTIFY_SOCKET", "@" + name)
        Notifier().ready("well")
        assert sock.recv(4096).decode().split("\n")[:2] == ["READY=1", "STATUS=well"]


def test_nobody_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    notifier = Notifier()
    assert notifier.interval == 0
    for word in (notifier.reloading, notifier.stopping, notifier.alive):
        word()


def test_a_watchdog_of_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere")
    monkeypatch.setenv("WATCHDOG_USEC", "1000000")
    assert Notifier().interval == 0.5
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert Notifier().interval == 0
    Notifier().ready("nobody hears it, and that is no harm")


# ---- Sockets that it has opened -----------------------------------------------------------


@pytest.mark.parametrize("workers", ["1", "2"])
def test_socket_activation(folder: Path, workers: str) -> None:
    """As systemd does it: the descriptors from 3 on, and the process in LISTEN_PID."""
    launcher = (
        "import os, sys\n"
        "os.dup2(int(sys.argv[1]), 3)\n"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='1')\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'threadwell', *sys.argv[2:]])\n"
    )
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        port = sock.getsockname()[1]
        command = [sys.executable, "-c", launcher, str(sock.fileno()), "--workers", workers]
        with (
            subprocess.Popen(
                command, cwd=folder, pass_fds=[sock.fileno()], stdout=subprocess.PIPE
            ) as process,
            socket.create_connection(("127.0.0.1", port), 20) as client,  # before it is there
        ):
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            answer = b"".join(iter(lambda: client.recv(4096), b""))
            assert process.stdout is not None
            output = ""
            while "Ctrl-C" not in output:
                line = process.stdout.readline().decode()
                assert line, output
                output += line
            process.terminate()
            process.communicate(timeout=20)
    assert b"\r\n\r\nold " in answer
    assert f"http://127.0.0.1:{port}" in output
    assert process.returncode == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_several_sockets_with_names(folder: Path, workers: str) -> None:
    """Their order counts; their names are for the manager, and the application sees neither."""
    (folder / "app.py").write_text(
        "import os\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [repr([name for name in os.environ if 'LISTEN' in name]).encode()]\n"
    )
    launcher = (
        "import fcntl, os, sys\n"
        "given = [fcntl.fcntl(int(fd), fcntl.F_DUPFD, 10) for fd in sys.argv[1:3]]\n"
        "moved = [os.dup2(fd, place) for place, fd in enumerate(given, 3)]\n"
        "os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS='2', LISTEN_FDNAMES='a:b')\n"
        "os.execv(sys.executable, [sys.executable, '-m', 'threadwell', *sys.argv[3:]])\n"
    )
    with (
        socket.create_server(("127.0.0.1", 0)) as tcp,
        socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as unix,
    ):
        unix.bind(str(folder / "s"))
        unix.listen()
        port = tcp.getsockname()[1]
        fds = [tcp.fileno(), unix.fileno()]
        command = [sys.executable, "-c", launcher, *map(str, fds), "--workers", workers]
        with subprocess.Popen(
            command, cwd=folder, pass_fds=fds, stdout=subprocess.PIPE, text=True
        ) as process:
            for sock in (tcp, unix):
                with socket.socket(sock.family, socket.SOCK_STREAM) as client:
                    client.settimeout(20)
                    client.connect(sock.getsockname())
                    client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    answer = b"".join(iter(lambda client=client: client.recv(4096), b""))
                    assert answer.endswith(b"\r\n\r\n[]")
            assert process.stdout is not None
            output = ""
            while "Ctrl-C" not in output:
                output += (line := process.stdout.readline())
                assert line, output
            process.terminate()
            process.communicate(timeout=20)
    assert f"http://127.0.0.1:{port}" in output
    assert f"unix:{folder}/s" in output
    assert process.returncode == 0
    assert (folder / "s").exists(), "the manager's, and not ours to remove"


def test_sockets_are_taken_once_and_by_whom_they_are_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LISTEN_FDS", "1")
    monkeypatch.setenv("LISTEN_PID", str(os.getpid() + 1))
    assert inherited_sockets(10) == []
    monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
    monkeypatch.setenv("LISTEN_FDS", "\u00b2")
    assert inherited_sockets(10) == []
    monkeypatch.setenv("LISTEN_FDS", "0")
    assert inherited_sockets(10) == []
    assert "LISTEN_PID" not in os.environ


@pytest.mark.parametrize(
    ("what", "problem"),
    [("file", "is not an open"), ("datagrams", "is not a stream"), ("connection", "cannot listen")],
)
def test_descriptors_that_are_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, what: str, problem: str
) -> None:
    one, other = socket.socketpair()
    with (
        open(tmp_path / "file", "w") as file,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock,
        one,
        other,
    ):
        fd = {"file": file, "datagrams": sock, "connection": one}[what].fileno()
        monkeypatch.setattr("threadwell.worker.system.systemd._FIRST_DESCRIPTOR", fd)
        monkeypatch.setenv("LISTEN_PID", str(os.getpid()))
        monkeypatch.setenv("LISTEN_FDS", "1")
        with pytest.raises(ConfigError, match=f"LISTEN_FDS: file descriptor {fd} {problem}"):
            inherited_sockets(10)


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone has abstract names")
def test_an_abstract_socket() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as sock:
        sock.bind(f"\0threadwell-test-{os.getpid()}")
        sock.listen()
        assert url_of("http", sock.getsockname()) == f"unix:@threadwell-test-{os.getpid()}"


def test_a_server_that_hangs_keeps_its_unix_socket(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as sock, contextlib.ExitStack() as stack:
        sock.bind(path)
        sock.listen(0)
        with contextlib.suppress(BlockingIOError):
            while True:  # until its backlog is full
                client = stack.enter_context(socket.socket(socket.AF_UNIX))
                client.setblocking(False)
                client.connect(path)
        with pytest.raises(OSError, match="another server listens there"):
            open_socket(parse_bind(f"unix:{path}"), 5)


# ---- What else can be said of a socket ----------------------------------------------------


@pytest.mark.parametrize(("given", "mode"), [("600", 0o600), ("0666", 0o666), ("0o770", 0o770)])
def test_permissions_of_a_unix_socket(tmp_path: Path, given: str, mode: int) -> None:
    path = tmp_path / "s"
    address = parse_bind(f"unix:{path}")
    with open_socket(address, 5, Bind(unix_permissions=given)):
        assert stat.S_IMODE(path.stat().st_mode) == mode


@pytest.mark.parametrize("given", ["rw", "888", "7", "07777"])
def test_permissions_that_are_none(tmp_path: Path, given: str) -> None:
    address = parse_bind(f"unix:{tmp_path}/s")
    with pytest.raises(ConfigError, match=r"unix_permissions: .* such as 660"):
        open_socket(address, 5, Bind(unix_permissions=given))
    assert not (tmp_path / "s").exists()


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
@pytest.mark.parametrize("turn", [1, -1])
def test_both_families_by_a_socket_each(turn: int) -> None:
    with socket.create_server(("", 0)) as sock:
        port = sock.getsockname()[1]
    binds = (f"0.0.0.0:{port}", f"[::]:{port}")[::turn]
    with ThreadedServer(app, bind=binds):
        for host in ("127.0.0.1", "::1"):
            with socket.create_connection((host, port), 20) as client:
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert receive(client)[1] == b"well"


def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [])
    return [b"well"]


def test_two_servers_share_a_port() -> None:
    with ThreadedServer(app, bind="127.0.0.1:0", reuse_port=True) as first:
        with ThreadedServer(app, bind=f"127.0.0.1:{first.port}", reuse_port=True) as second:
            assert second.port == first.port
        with pytest.raises(OSError, match="in use"):
            ThreadedServer(app, bind=f"127.0.0.1:{first.port}").start()
