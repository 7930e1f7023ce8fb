"""Several processes: signals, reloads and replacements, and that they lose nothing."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from threadwell import serve as serve_here
from threadwell.worker import ConfigError
from threadwell.worker.config import gil_enabled

from ..helpers.certificates import Authority
from ..helpers.supervised import APP, Load, Start, receive, starting, write
from ..helpers.waiting import until
from ..helpers.wire_client import refuses


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(*arguments)`: the command with `app.py`, on a free port, with two workers."""
    with starting(tmp_path, APP.format(version="old")) as run:
        yield run


def alive(pid: int) -> bool:
    """Whether the process runs; one that was orphaned may wait long to be reaped."""
    try:
        return status_of(pid)[0] != "Z"
    except FileNotFoundError:
        return False


def status_of(pid: int) -> list[str]:
    """The state of a process, its parent, and more: see proc_pid_stat(5)."""
    return Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()


both = pytest.mark.parametrize("extra", [(), ("--preload",)], ids=["each-imports", "preload"])


# ---- Beginning and end --------------------------------------------------------------------


@both
def test_workers_serve_and_end_with_the_supervisor(start: Start, extra: tuple[str, ...]) -> None:
    server = start("app:app", "--threads", "3", *extra)
    message = "".join(server.lines)
    assert "serves app:app (wsgi)\n" in message
    assert "  2 workers of 3 threads, " in message
    workers = server.ready_workers()
    assert len(set(workers)) == 2
    assert server.process.pid not in workers
    version, pid, multiprocess = server.get().split()
    assert (version, multiprocess) == ("old", "True")
    assert int(pid) in workers
    assert server.end() == 0
    assert server.said("stopping") == 1
    assert not any(alive(worker) for worker in workers)


@both
def test_a_request_in_flight_is_answered_at_the_end(
    start: Start, tmp_path: Path, extra: tuple[str, ...]
) -> None:
    write(
        tmp_path,
        "import os, pathlib, time\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    pid = str(os.getpid())\n"
        "    if environ['PATH_INFO'] == '/pid':\n"
        "        return [pid.encode()]\n"
        "    pathlib.Path('begun').write_text(pid)\n"
        "    while not pathlib.Path('go').exists(): time.sleep(0.005)\n"
        "    return [b'late answer']\n",
    )
    server = start(*extra)
    begun = tmp_path / "begun"

    def same_worker() -> socket.socket:
        while True:
            sock = socket.create_connection(("127.0.0.1", server.port), 20)
            sock.sendall(b"GET /pid HTTP/1.1\r\nHost: x\r\n\r\n")
            if receive(sock)[1].decode() == begun.read_text():
                return sock
            sock.close()

    with socket.create_connection(("127.0.0.1", server.port), 20) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: begun.exists() and begun.read_text())
        with same_worker() as idle:
            server.send(signal.SIGINT)
            until(lambda: refuses(server.port))
            assert idle.recv(1) == b""  # from then on the worker knows, too
        (tmp_path / "go").touch()
        head, body = receive(client)
    assert body == b"late answer"
    assert b"Connection: close" in head
    assert server.end(0) == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_impatience_cuts(start: Start, tmp_path: Path, number: int) -> None:
    write(
        tmp_path,
        "import time\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    while True:\n"
        "        yield b'.'\n"
        "        time.sleep(0.01)\n",
    )
    server = start("--graceful-timeout", "600")
    with socket.create_connection(("127.0.0.1", server.port), 20) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(100)
        if number == signal.SIGINT:
            server.send(number)
            server.await_line("stopping")
        assert server.end(number) == 0


@both
def test_workers_do_not_outlive_their_supervisor(start: Start, extra: tuple[str, ...]) -> None:
    server = start(*extra)
    workers = server.ready_workers()
    port = server.port
    server.end(signal.SIGKILL)
    until(lambda: not any(alive(worker) for worker in workers))
    assert refuses(port)


@both
def test_an_application_that_cannot_be_imported(
    start: Start, tmp_path: Path, extra: tuple[str, ...]
) -> None:
    write(tmp_path, "raise RuntimeError('no database')\n")
    server = start(*extra, ready=False)
    assert server.end(0) == 2
    assert server.said("Traceback") == 1
    assert server.lines[-1] == (
        "threadwell: app failed while it was imported: RuntimeError: no database\n"
    )


def test_a_mistake_of_the_user_has_no_traceback(start: Start) -> None:
    server = start("nowhere:app", ready=False)
    assert server.end(0) == 2
    assert server.said("Traceback") == 0
    assert server.lines[-1].startswith("threadwell: there is no module 'nowhere'")


def test_workers_that_end_before_they_are_ready(start: Start, tmp_path: Path) -> None:
    write(tmp_path, "import os\nos._exit(7)\n")
    server = start(ready=False)
    assert server.end(0) == 3
    assert "ended with code 7 before it was ready" in server.lines[-1]


def test_what_the_application_wants_done_at_its_end(start: Start, tmp_path: Path) -> None:
    write(
        tmp_path,
        APP.format(version="old")
        + "import atexit, sys\n"
        + "def bye(): os.write(1, b'bye %r\\n' % ('asyncio' in sys.modules))\n"
        + "atexit.register(bye)\n",
    )
    server = start()
    server.get()
    assert server.end() == 0
    assert server.said("bye False") == 2, "".join(server.lines)


def test_the_file_of_a_unix_socket(start: Start, tmp_path: Path) -> None:
    server = start("--bind", "unix:here.sock")
    server.send(signal.SIGHUP)
    server.await_line("The new application is served")
    server.await_line("with code 0", 2)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(tmp_path / "here.sock"))
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert receive(client)[1].startswith(b"old ")
    assert server.end() == 0
    assert not (tmp_path / "here.sock").exists()


def test_several_sockets_of_all_kinds(start: Start, tmp_path: Path) -> None:
    """Both families, and a unix socket with permissions where a stale one was."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
    binds = ["127.0.0.1:0", f"unix:{path}", *(["*:0"] if socket.has_dualstack_ipv6() else [])]
    arguments = [word for bind in binds for word in ("--bind", bind)]
    server = start(*arguments, "--unix-permissions", "660")
    places: list[tuple[int, Any]] = [(socket.AF_UNIX, str(path))]
    for host, port in re.findall(r"http://(\[.*?\]|[^\s:]+):(\d+)", "".join(server.lines)):
        family = socket.AF_INET6 if "[" in host else socket.AF_INET
        places.append((family, (host.strip("[]"), int(port))))
    assert len(places) == (4 if len(binds) == 3 else 2)
    for turn in range(2):
        for family, place in places:
            with socket.socket(family, socket.SOCK_STREAM) as client:
                client.settimeout(20)
                client.connect(place)
                client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert receive(client)[1].startswith(b"old ")
        assert stat.S_IMODE(path.stat().st_mode) == 0o660
        if turn == 0:
            server.send(signal.SIGHUP)
            server.await_line("The new application is served")
            server.await_line("with code 0", 2)
    assert server.end() == 0
    assert not path.exists()


# ---- Reload -------------------------------------------------------------------------------


@both
def test_reloads_lose_nothing(start: Start, tmp_path: Path, extra: tuple[str, ...]) -> None:
    server = start(*extra)
    with Load(server.port) as load:
        for turn in range(1, 6):
            load.more()
            write(tmp_path, APP.format(version=f"v{turn}"))
            server.send(signal.SIGHUP)
            server.await_line("The new application is served", turn)
            load.more()
        server.await_line("with code 0", 10)  # the workers of five generations
    assert not load.failures
    assert server.get().split()[0] == "v5"


@both
def test_a_new_application_that_fails_leaves_the_old_one(
    start: Start, tmp_path: Path, extra: tuple[str, ...]
) -> None:
    server = start(*extra)
    before = server.ready_workers()
    write(tmp_path, "import nothing_like_this\n")
    server.send(signal.SIGHUP)
    server.await_line("The new application is not served; the old one keeps serving: app failed")
    assert server.said("Traceback") == 1
    assert server.get().split()[0] == "old"
    assert server.ready_workers() == before
    write(tmp_path, APP.format(version="mended"))
    server.send(signal.SIGHUP)
    server.await_line("The new application is served")
    until(lambda: server.get().split()[0] == "mended")
    assert server.end() == 0


FREEZE_COUNT = """
import gc
print("imported", flush=True)
def app(environ, start_response):
    start_response("200 OK", [])
    return [str(gc.get_freeze_count()).encode()]
"""


def test_preload_imports_once_and_freezes(start: Start, tmp_path: Path) -> None:
    write(tmp_path, FREEZE_COUNT)
    server = start("--preload", "--workers", "3")
    assert len(server.ready_workers()) == 3
    assert server.said("imported") == 1
    if gil_enabled():
        assert int(server.get()) > 1000


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="Linux tells what is open")
def test_no_worker_has_what_was_sent_for_another(start: Start) -> None:
    """The fork server may receive the descriptors for several workers before it forks one."""
    server = start("--preload", "--workers", "4")
    workers = server.ready_workers()
    assert len(workers) == 4

    def descriptors() -> list[int]:
        return [len(os.listdir(f"/proc/{pid}/fd")) for pid in workers]

    until(lambda: len(set(descriptors())) == 1)


@pytest.mark.skipif(gil_enabled(), reason="with a GIL it saves more than it costs")
@pytest.mark.parametrize("options", [("--workers", "1"), ("--workers", "2"), ("--preload",)])
def test_nothing_is_frozen_without_a_gil(
    start: Start, tmp_path: Path, options: tuple[str, ...]
) -> None:
    """CPython would not make it immortal, and all threads would count references to it."""
    write(tmp_path, FREEZE_COUNT)
    assert int(start(*options).get()) == 0


def test_a_template_that_dies_is_replaced(start: Start) -> None:
    server = start("--preload", "--workers", "1")
    (worker,) = server.ready_workers()
    template = int(status_of(worker)[1])
    assert template != server.process.pid
    os.kill(template, signal.SIGKILL)
    server.await_line("the template")
    assert server.get().split()[1] == str(worker)
    os.kill(worker, signal.SIGKILL)
    server.await_line("is ready", 2)
    assert server.get().split()[1] != str(worker)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_new_certificate_drops_nobody(start: Start, tmp_path: Path, workers: str) -> None:
    authority = Authority(tmp_path / "ca")
    files = {}
    for name in ("old", "new"):
        cert, key = authority.issue(name)
        files[name] = cert.read_text() + key.read_text()
    (tmp_path / "both.pem").write_text(files["old"])
    server = start("--certfile", "both.pem", "--workers", workers)
    with Load(server.port, 4, authority.trusting()) as load:
        load.more(20)
        assert len(load.certificates) == 1
        (tmp_path / "both.pem").write_text("nonsense")
        server.send(signal.SIGHUP)
        server.await_line("the old one")
        load.more(20)
        (tmp_path / "both.pem").write_text(files["new"])
        server.send(signal.SIGHUP)
        server.await_line("is served" if workers == "2" else "The certificate was reloaded")
        if workers == "2":
            until(lambda: len(load.certificates) == 2)
            server.await_line("with code 0", 2)  # nobody is left who has the old one
        load.more(20)
    assert not load.failures
    context = authority.trusting()
    with (
        socket.create_connection(("127.0.0.1", server.port), 20) as raw,
        context.wrap_socket(raw, server_hostname="127.0.0.1") as client,
    ):
        shown = ssl.DER_cert_to_PEM_cert(client.getpeercert(binary_form=True) or b"")
    assert shown in files["new"]


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "for this run"])
def test_all_workers_show_one_made_up_certificate(start: Start, tmp_path: Path, kept: bool) -> None:
    pytest.importorskip("trustme", reason="trustme has no wheels here", exc_type=ImportError)
    (tmp_path / "file").touch()  # no folder can be made in it
    home = {"HOME": str(tmp_path / ("home" if kept else "file")), "XDG_CACHE_HOME": ""}
    server = start("--cert", "adhoc", env=home)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    with Load(server.port, 8, context) as load:
        load.reach(2)
        server.send(signal.SIGHUP)
        server.await_line("The new application is served")
        server.await_line("with code 0", 2)
        load.reach(4)
    assert not load.failures
    assert len(load.certificates) == 1


# ---- Replacement --------------------------------------------------------------------------


@both
def test_a_killed_worker_costs_what_was_in_it(start: Start, extra: tuple[str, ...]) -> None:
    server = start(*extra)
    killed = []
    with Load(server.port) as load:
        for turn in range(1, 4):
            load.more()
            killed.append(server.ready_workers()[-1])
            os.kill(killed[-1], signal.SIGKILL)
            server.await_line("was ended by SIGKILL", turn)
            server.await_line("is ready", 2 + turn)
            load.more()
    # a connection that was new when its worker was killed does not know whose it was
    assert set(load.losers) <= {0, *killed}
    assert len(load.losers) <= len(killed) * load.clients
    assert server.end() == 0


def test_a_worker_is_replaced_after_its_requests(start: Start) -> None:
    server = start("--workers", "1", "--max-requests", "40", "--max-requests-jitter", "10")
    with Load(server.port) as load:
        server.await_line("requests", 3)
        server.await_line("with code 0", 2)
    assert not load.failures
    assert server.said("Replacing worker") >= 3


def test_a_worker_that_has_grown_is_replaced(start: Start, tmp_path: Path) -> None:
    write(
        tmp_path,
        "kept = []\n"
        "def app(environ, start_response):\n"
        "    if environ['PATH_INFO'] == '/grow': kept.append(b'x' * (200 << 20))\n"
        "    start_response('200 OK', [])\n"
        "    return [str(len(kept)).encode()]\n",
    )
    server = start("--workers", "1", "--max-rss", "200M")
    assert server.get("/grow") == "1"
    server.await_line("MiB of memory")
    server.await_line("with code 0")
    assert server.get() == "0"


def test_sigterm_replaces_a_worker(start: Start) -> None:
    server = start()
    first = server.ready_workers()[0]
    with Load(server.port) as load:
        load.more()
        os.kill(first, signal.SIGTERM)
        server.await_line("it got SIGTERM")
        server.await_line("with code 0")
        load.more()
    assert not load.failures
    assert not alive(first)
    assert len(server.ready_workers()) == 3


def test_a_worker_that_hangs_is_replaced_and_may_yet_finish(start: Start, tmp_path: Path) -> None:
    write(
        tmp_path,
        "import pathlib, time\n"
        "def app(environ, start_response):\n"
        "    if environ['PATH_INFO'] == '/hang':\n"
        "        pathlib.Path('go').exists() or pathlib.Path('begun').touch()\n"
        "        while not pathlib.Path('go').exists(): time.sleep(0.005)\n"
        "    start_response('200 OK', [])\n"
        "    return [b'well']\n",
    )
    server = start("--workers", "1", "--threads", "2", "--worker-timeout", "1", "--preload")
    answers: list[str] = []
    threads = [
        threading.Thread(target=lambda: answers.append(server.get("/hang"))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    server.await_line("it has taken no request for")
    server.await_line("is ready", 2)
    assert server.get() == "well"
    (tmp_path / "go").touch()
    for thread in threads:
        thread.join(20)
    assert answers == ["well", "well"]
    server.await_line("with code 0")
    assert server.said("Replacing") == 1


def test_one_long_request_is_no_reason(start: Start, tmp_path: Path) -> None:
    write(
        tmp_path,
        "import time\n"
        "def app(environ, start_response):\n"
        "    if environ['PATH_INFO'] == '/slow': time.sleep(3)\n"
        "    start_response('200 OK', [])\n"
        "    return [b'well']\n",
    )
    server = start("--threads", "2", "--worker-timeout", "1.5")
    assert server.get("/slow") == "well"
    assert server.said("Replacing") == 0


def test_a_worker_that_does_not_run_is_replaced(start: Start) -> None:
    server = start("--worker-timeout", "1.5", "--graceful-timeout", "0.2")
    first = server.ready_workers()[0]
    os.kill(first, signal.SIGSTOP)
    server.await_line("it has taken no request for")
    server.await_line("is ready", 3)
    server.get()
    until(lambda: server.said(f"(process {first}) was ended by SIGKILL"))


def test_one_worker_more_and_one_less(start: Start) -> None:
    server = start("--workers", "1", "--preload")
    server.send(signal.SIGTTIN)
    server.await_line("is ready", 2)
    server.send(signal.SIGTTOU)
    server.await_line("with code 0")
    server.send(signal.SIGTTOU)  # one is the least
    server.send(signal.SIGHUP)
    server.await_line("The new application is served")
    assert len(server.ready_workers()) == 3


def test_broken_code_met_by_a_replacement(start: Start, tmp_path: Path) -> None:
    """The successor cannot be started: what is there serves on, and it is tried less and less."""
    server = start()
    write(tmp_path, "raise RuntimeError('broken')\n")
    first = server.ready_workers()[0]
    os.kill(first, signal.SIGTERM)
    server.await_line("broken", 4)
    assert server.said("Traceback") == 1
    assert alive(first)
    write(tmp_path, APP.format(version="mended"))
    server.await_line("is ready", 3)
    server.await_line("with code 0")
    assert server.end() == 0


# ---- Logs ---------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["1", "2"])
def test_usr1_opens_the_access_log_again(start: Start, tmp_path: Path, workers: str) -> None:
    server = start("--access-log", "log", "--workers", workers)
    server.get("/before")
    until(lambda: "/before" in (tmp_path / "log").read_text())
    (tmp_path / "log").rename(tmp_path / "log.1")
    server.send(signal.SIGUSR1)
    until((tmp_path / "log").exists)
    # each worker opens it for itself
    until(lambda: server.get("/after") and (tmp_path / "log").read_text())
    assert "/before" in (tmp_path / "log.1").read_text()


def title_of(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0].decode()


@pytest.mark.skipif(sys.platform != "linux", reason="titles by /proc")
def test_titles(start: Start) -> None:
    pytest.importorskip("setproctitle")
    server = start("--workers", "2")
    assert title_of(server.process.pid) == "threadwell: supervisor [app:app]"
    assert {title_of(pid) for pid in server.ready_workers()} == {"threadwell: worker [app:app]"}
    server = start("--workers", "1")
    assert title_of(server.process.pid) == "threadwell: server [app:app]"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_script_that_asks_for_an_upgrade_does_not_end_a_server(
    start: Start, workers: str
) -> None:
    server = start("--workers", workers)
    server.send(signal.SIGUSR2)
    server.await_line("SIGUSR2 is ignored")
    assert server.get()
    assert server.end() == 0


@both
def test_a_supervisor_that_is_killed_leaves_nobody_who_imports(
    start: Start, tmp_path: Path, extra: tuple[str, ...]
) -> None:
    # not one long sleep: a signal that comes just before its system call does not wake it
    write(
        tmp_path,
        "import os, pathlib, time\n"
        "pathlib.Path(f'pid-{os.getpid()}').touch()\n"
        "for _ in range(600): time.sleep(0.1)\n",
    )
    server = start("--workers", "1", "--max-requests", "9", *extra, ready=False)
    until(lambda: list(tmp_path.glob("pid-*")))
    (pid,) = (int(path.name[4:]) for path in tmp_path.glob("pid-*"))
    server.send(signal.SIGUSR1)  # this is no reason
    server.end(signal.SIGKILL)
    until(lambda: not alive(pid))


@both
def test_an_application_with_many_open_files(
    start: Start, tmp_path: Path, extra: tuple[str, ...]
) -> None:
    write(
        tmp_path,
        "files = [open('app.py') for _ in range(1100)]\n" + APP.format(version="full"),
    )
    server = start("--workers", "1", "--max-requests", "9", *extra, start_new_session=True)
    assert server.get().split()[0] == "full"
    os.killpg(server.process.pid, signal.SIGTERM)  # the template too, which heeds it not
    assert server.end(0) == 0
    assert not server.said("ERROR")


def test_signals_of_scripts_do_not_end_a_process_that_starts(start: Start, tmp_path: Path) -> None:
    write(
        tmp_path,
        "import asyncio, pathlib\n"
        "async def app(scope, receive, send):\n"
        "    await receive()\n"
        "    pathlib.Path('begun').touch()\n"
        "    while not pathlib.Path('go').exists(): await asyncio.sleep(0.005)\n"
        "    await send({'type': 'lifespan.startup.complete'})\n"
        "    await receive()\n"
        "    await send({'type': 'lifespan.shutdown.complete'})\n",
    )
    server = start("--workers", "1", "--pid-file", "pid", ready=False)
    until((tmp_path / "begun").exists)
    assert (tmp_path / "pid").exists()
    server.send(signal.SIGHUP)
    server.send(signal.SIGUSR1)
    server.send(signal.SIGUSR2)
    (tmp_path / "go").touch()
    server.await_line("Ctrl-C")
    assert server.end() == 0


def test_lines_of_several_processes_are_whole(start: Start, tmp_path: Path) -> None:
    server = start("--access-log", "log", "--log-format", "%m %U %>s %P")
    with Load(server.port) as load:
        load.more(500)
    assert server.end() == 0
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == load.answers
    workers = {str(pid) for pid in server.ready_workers()}
    for line in lines:
        method, path, status, pid = line.split(" ")
        assert (method, path, status) == ("GET", "/", "200")
        assert pid in workers


# ---- From Python --------------------------------------------------------------------------


def test_a_server_object_is_one_process() -> None:
    from threadwell import ThreadedServer

    with pytest.raises(ConfigError, match=r"workers: .*serve\(\)"):
        ThreadedServer(lambda environ, start_response: [], workers=2)


def test_threads_and_forks_do_not_go_together() -> None:
    over = threading.Event()
    thread = threading.Thread(target=over.wait)
    thread.start()
    try:
        with pytest.raises(RuntimeError, match="forks"):
            serve_here("nothing:app", workers=2, bind="127.0.0.1:0")
    finally:
        over.set()
        thread.join()


def test_serve_with_workers(tmp_path: Path) -> None:
    write(tmp_path, APP.format(version="old"))
    code = (
        "import threadwell, sys\n"
        "threadwell.serve('app:app', workers=2, bind='unix:here.sock', quiet=True)\n"
        "print('served', 'app' in sys.modules)\n"
    )
    command = [sys.executable, "-W", "error", "-c", code]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, text=True) as process:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(20)
            # the file is there a moment before it is listened at
            until(lambda: client.connect_ex(str(tmp_path / "here.sock")) == 0)
            client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
            assert receive(client)[1].startswith(b"old ")
        process.terminate()
        assert process.communicate(timeout=20)[0] == "served False\n"
        assert process.returncode == 0
