"""A file with the process's number, and processes that become another user."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import stat
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from threadwell import ConfigError, ServerConfig, ThreadedServer, serve
from threadwell.worker.net.bind import open_socket, parse_bind
from threadwell.worker.net.bound_socket import BoundUnixSocket
from threadwell.worker.supervisor.user import find_identity
from threadwell.worker.system.pid_file import pid_file

from ..helpers.as_nobody import AsNobody, as_root, readable_by_all
from ..helpers.certificates import Authority
from ..helpers.supervised import APP, Load, Supervised, receive
from ..helpers.waiting import until

Start = Callable[..., Supervised]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(*arguments)`: a running command among the files of `tmp_path`."""
    (tmp_path / "application.py").write_text(APP.format(version=1))
    with contextlib.ExitStack() as stack:

        def run(*arguments: str, **options: Any) -> Supervised:
            command = ["application:app", "--bind", "127.0.0.1:0", *arguments]
            started = Supervised(options.pop("folder", tmp_path), *command, **options)
            stack.callback(started.close)
            return started

        yield run


# ---- The file -----------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["--workers", "2"], ["--reload"]])
def test_the_file_has_who_takes_signals(start: Start, tmp_path: Path, arguments: list[str]) -> None:
    path = tmp_path / "app.pid"
    server = start("--pid-file", str(path), *arguments)
    assert path.read_text() == f"{server.process.pid}\n"
    assert server.get()
    assert server.end() == 0
    assert not path.exists()


def test_it_stays_over_reloads_and_kills_of_workers(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "app.pid"
    server = start("--pid-file", str(path), "--workers", "2")
    before = path.stat().st_ino
    server.send(signal.SIGHUP)
    server.await_line("The new application is served")
    os.kill(server.ready_workers()[-1], signal.SIGKILL)
    until(lambda: len(server.ready_workers()) == 5)
    assert path.read_text() == f"{server.process.pid}\n"
    assert path.stat().st_ino == before
    assert server.end() == 0
    assert not path.exists()


def test_one_that_was_left_behind_is_taken_over(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "app.pid"
    # of a living process, but not of a server: numbers come again
    path.write_text(f"{os.getpid()}\n")
    server = start("--pid-file", str(path))
    assert path.read_text() == f"{server.process.pid}\n"
    server.process.kill()
    server.end()
    assert path.exists()
    server = start("--pid-file", str(path), "--workers", "2")
    assert path.read_text() == f"{server.process.pid}\n"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_one_that_is_held_is_not(start: Start, tmp_path: Path, workers: str) -> None:
    path = tmp_path / "app.pid"
    first = start("--pid-file", str(path))
    sock = tmp_path / "app.sock"
    arguments = ["--pid-file", str(path), "--bind", f"unix:{sock}", "--workers", workers]
    second = start(*arguments, ready=False)
    assert second.process.wait(20) == 2
    second.end()
    assert second.said(
        f"--pid-file: {path} belongs to process {first.process.pid}, which is running"
    )
    assert len(second.lines) == 1
    assert not sock.exists()
    assert path.read_text() == f"{first.process.pid}\n"


def test_it_is_not_written_where_nothing_is_bound(start: Start, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as busy:
        place = f"127.0.0.1:{busy.getsockname()[1]}"
        path = tmp_path / "app.pid"
        server = start("--pid-file", str(path), "--bind", place, ready=False)
        assert server.process.wait(20) == 2
        server.end()
        assert not path.exists()


def test_a_file_that_somebody_else_has_replaced_is_left(tmp_path: Path) -> None:
    path = tmp_path / "app.pid"
    with pid_file(str(path)):
        path.unlink()
        path.write_text("another")
    assert path.read_text() == "another"


def test_where_it_cannot_be_written(tmp_path: Path) -> None:
    with (
        pytest.raises(ConfigError, match=r"pid_file: .* cannot be written: No such file"),
        pid_file(str(tmp_path / "nowhere" / "app.pid")),
    ):
        pass


@pytest.mark.parametrize("kind", ["link", "dangling", "hard link", "text", "fifo"])
def test_what_is_no_pid_file_is_not_overwritten(tmp_path: Path, kind: str) -> None:
    path, victim = tmp_path / "app.pid", tmp_path / "victim"
    victim.write_text("" if kind == "hard link" else "precious")
    if kind == "link":
        path.symlink_to(victim)
    elif kind == "dangling":
        path.symlink_to(tmp_path / "new")
    elif kind == "hard link":
        path.hardlink_to(victim)
    elif kind == "text":
        path.write_text("precious")
    else:
        os.mkfifo(path)
    with pytest.raises(ConfigError, match=r"pid_file: .*app.pid "), pid_file(str(path)):
        pass
    assert victim.read_text() == ("" if kind == "hard link" else "precious")
    assert not (tmp_path / "new").exists()
    assert path.is_symlink() or path.exists()
    if kind == "text":
        assert path.read_text() == "precious"


@as_root
def test_a_pid_file_of_another_user_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "app.pid"
    path.write_text("1")
    os.chown(path, 65534, 65534)
    with pytest.raises(ConfigError, match="it belongs to another user"), pid_file(str(path)):
        pass
    assert path.read_text() == "1"


def test_a_server_object_writes_none() -> None:
    with pytest.raises(ConfigError, match="pid_file: a process may have several"):
        ThreadedServer(print, interface="wsgi", pid_file="app.pid")
    with pytest.raises(ConfigError, match="user: a server object serves in this process"):
        ThreadedServer(print, interface="wsgi", user="root")


# ---- The user -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"user": "nobody-knows"}, "user: there is no user nobody-knows"),
        ({"group": "nobody-knows"}, "group: there is no group nobody-knows"),
        ({"user": "987654"}, "group: no user has the number 987654"),
        ({"user": "9" * 40}, "user: there is no user 999"),
        ({"group": "9" * 40}, "group: there is no group 999"),
    ],
)
def test_who_does_not_exist(options: dict[str, Any], said: str) -> None:
    settings = ServerConfig.from_options(**options).processes
    with pytest.raises(ConfigError, match=said):
        find_identity(settings)


def test_who_is_meant() -> None:
    def found(**options: str) -> tuple[int, int, str]:
        identity = find_identity(ServerConfig.from_options(**options).processes)
        assert identity is not None
        return identity.uid, identity.gid, identity.name

    assert found(user="root") == (0, 0, "root")
    assert found(user="0", group="12345") == (0, 12345, "root")
    assert found(user="54321", group="12345") == (54321, 12345, "")
    assert found(group="12345") == (os.getuid(), 12345, "")
    assert find_identity(ServerConfig().processes) is None


@pytest.mark.skipif(os.getuid() == 0, reason="root may")
def test_who_is_not_root_stays_as_it_is() -> None:
    with pytest.raises(ConfigError, match="only root may become another user"):
        serve("module:app", user="root", bind="127.0.0.1:0")


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder with threadwell and an application in it that any user of this machine can read."""
    with readable_by_all(WHO) as folder:
        yield folder


WHO = """
import os
def app(environ, start_response):
    with open("/proc/self/status") as file:
        ids = {line.split(":")[0]: line.split()[1:] for line in file if line[:3] in WANTED}
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{IMPORTED_BY} {os.getpid()} {ids} {os.environ.get('HOME')}".encode()]
WANTED = ("Uid", "Gid", "Gro")
IMPORTED_BY = os.getuid()
"""


@as_root
@pytest.mark.parametrize("preload", [[], ["--preload"]])
def test_the_application_is_imported_and_run_by_the_user(
    public: Path, tmp_path: Path, preload: list[str]
) -> None:
    path = tmp_path / "app.pid"  # in a folder of root's
    server = AsNobody(public, "--bind", "127.0.0.1:0", "--pid-file", str(path), *preload)
    try:
        answer = server.get()
        assert answer.startswith("65534 ")
        assert f"'Uid': {['65534'] * 4}" in answer
        assert f"'Gid': {['65534'] * 4}" in answer
        assert "'Groups': ['65534']" in answer
        assert answer.endswith("/nonexistent")
        assert path.read_text() == f"{server.process.pid}\n"
    finally:
        assert server.end() == 0
    assert not path.exists()


@as_root
def test_a_key_of_root_s_is_read_again_by_a_reload(public: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    cert, key = authority.issue("server")
    assert stat.S_IMODE(tmp_path.parent.stat().st_mode) & 0o077 == 0  # nobody else reads here
    server = AsNobody(
        public, "--bind", "127.0.0.1:0", "--certfile", str(cert), "--keyfile", str(key)
    )
    try:
        with Load(server.port, clients=2, context=authority.trusting()) as load:
            load.more(5)
            authority.issue("server")
            server.send(signal.SIGHUP)
            server.await_line("The new application is served")
            until(lambda: len(load.certificates) == 2)
        assert not load.failures
    finally:
        assert server.end() == 0


def _link(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def _hard_link(path: Path, victim: Path) -> None:
    path.hardlink_to(victim)


@pytest.mark.parametrize("replace", [_link, _hard_link])
def test_what_has_taken_the_place_of_a_unix_socket_is_left(
    tmp_path: Path, replace: Callable[[Path, Path], None]
) -> None:
    path, victim = tmp_path / "s", tmp_path / "victim"
    with socket.socket(socket.AF_UNIX) as other:  # of another server
        other.bind(str(victim))
        victim.chmod(0o600)
        sock = open_socket(parse_bind(f"unix:{path}"), 5)
        assert isinstance(sock, BoundUnixSocket)
        path.unlink()
        replace(path, victim)
        with sock:
            with pytest.raises(OSError, match=r"replaced|symbolic"):
                sock.give_to(os.getuid(), os.getgid())
            with pytest.raises(OSError, match=r"replaced|symbolic"):
                sock.set_mode(0o666)
        assert stat.S_IMODE(victim.stat().st_mode) == 0o600
        assert path.exists(), "it was removed"
        path.unlink()


def test_a_link_is_not_replaced_by_a_socket(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "victim"))
    path.symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="not a socket"):
        open_socket(parse_bind(f"unix:{path}"), 5)
    assert path.is_symlink()


@as_root
def test_a_unix_socket_is_the_user_s(public: Path) -> None:
    path = public / "app.sock"
    server = AsNobody(public, "--bind", f"unix:{path}", "--unix-permissions", "660")
    try:
        assert (path.stat().st_uid, path.stat().st_gid) == (65534, 65534)
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(20)
            client.connect(str(path))
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert receive(client)[1].startswith(b"65534 ")
    finally:
        assert server.end() == 0
    assert not path.exists()


@as_root
def test_only_a_group(start: Start) -> None:
    server = start("--group", "12345")
    status = Path(f"/proc/{server.ready_workers()[0]}/status").read_text()
    assert "Gid:\t" + "\t".join(["12345"] * 4) in status
    assert "Uid:\t0" in status


@as_root
def test_metrics_and_logs_of_workers_that_are_somebody_else(public: Path) -> None:
    (public / "logs").mkdir()
    os.chown(public / "logs", 65534, 65534)
    log = public / "logs" / "access.log"
    arguments = ["--metrics-bind", "127.0.0.1:0", "--access-log", str(log), "--workers", "2"]
    server = AsNobody(public, "--bind", "127.0.0.1:0", *arguments)
    try:
        assert server.get().startswith("65534 ")
        until(lambda: log.exists() and log.read_text().count("\n") == 1)
        assert log.stat().st_uid == 65534
        place = re.search(r"http://\S+:(\d+)/metrics", "".join(server.lines))
        assert place
        url = f"http://127.0.0.1:{place[1]}/metrics"
        with urllib.request.urlopen(url, timeout=20) as response:
            assert re.search(r"^threadwell_requests\S* 1", response.read().decode(), re.MULTILINE)
    finally:
        assert server.end() == 0
