"""The command: what it understands, what it says, and how it ends."""

from __future__ import annotations

import errno
import logging
import os
import platform
import re
import signal
import socket
import ssl
import subprocess
import sys
import sysconfig
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from threadwell import (
    Server,
    ServerConfig,
    __version__,
    binding,
    cli,
    process_setup,
    single_process,
)
from threadwell.banner import gil_advice, start_message
from threadwell.worker import OPTIONS

from .certificates import PASSWORD, Authority

APP = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["PATH_INFO"].encode()]
"""


class Ended(NamedTuple):
    code: int
    out: str
    err: str


class Running:
    """The command in a process of its own, after its start message."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        self.message = ""
        for line in process.stdout:
            self.message += line
            if "Ctrl-C" in line:
                return
        pytest.fail(f"no start message: {process.stderr and process.stderr.read()}")

    @property
    def port(self) -> int:
        match = re.search(r":([0-9]+)(?: |$)", self.message.splitlines()[1])
        assert match
        return int(match[1])

    def get(self, path: str = "/", host: str = "127.0.0.1") -> str:
        with urllib.request.urlopen(f"http://{host}:{self.port}{path}", timeout=10) as response:
            text = response.read().decode()
        assert isinstance(text, str)
        return text

    def end(self, number: int = signal.SIGTERM) -> Ended:
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=10)
        return Ended(self.process.returncode, out, err)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Running]]:
    """`start(*arguments)` runs the command among the files of `tmp_path`, with `app.py` there."""
    (tmp_path / "app.py").write_text(APP)
    with ExitStack() as stack:

        def run(*args: str, python: tuple[str, ...] = (), **options: Any) -> Running:
            command = [sys.executable, *python, "-m", "threadwell", *args]
            process = subprocess.Popen(
                command,
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                **options,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return Running(process)

        yield run


@pytest.fixture
def fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Iterator[Callable[..., str]]:
    """`fails(*arguments)` is the one line of an error, without its beginning."""
    (tmp_path / "app.py").write_text(APP)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    monkeypatch.setattr(single_process, "raise_descriptor_limit", lambda: None)
    monkeypatch.setattr(single_process, "configure_logging", lambda level: None)
    before, handler = set(sys.modules), signal.getsignal(signal.SIGTERM)

    def run(*args: str) -> str:
        assert cli.main(args) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("threadwell: ")
        assert err.endswith("\n")
        assert err.count("\n") == 1
        return err.removeprefix("threadwell: ").rstrip("\n")

    yield run
    signal.signal(signal.SIGTERM, handler)
    for name in set(sys.modules) - before:
        if name in ("app", "later", "asgi"):
            del sys.modules[name]


@contextmanager
def listening(family: int = socket.AF_INET, address: Any = ("127.0.0.1", 0)) -> Iterator[Any]:
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.bind(address)
        sock.listen()
        yield sock


# ---- It serves ----------------------------------------------------------------------------


def test_start_message_and_stop(start: Callable[..., Running]) -> None:
    server = start("app:app", "--bind", "127.0.0.1:0", "--threads", "2")
    gil = "GIL on" if getattr(sys, "_is_gil_enabled", lambda: True)() else "GIL off"
    assert server.message == (
        f"threadwell {__version__} serves app:app (wsgi)\n"
        f"  http://127.0.0.1:{server.port}\n"
        f"  2 threads, Python {platform.python_version()}, {gil}\n"
        "  Ctrl-C stops it\n"
    )
    assert server.get("/there") == "/there"
    assert server.end(signal.SIGINT) == (0, "stopping\n", "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_right_after_the_start_message(start: Callable[..., Running], number: int) -> None:
    assert start("--bind", "127.0.0.1:0").end(number) == (0, "stopping\n", "")


def test_console_script(tmp_path: Path) -> None:
    script = Path(sysconfig.get_path("scripts")) / "threadwell"
    result = subprocess.run([script, "--version"], capture_output=True, text=True, check=True)
    assert result.stdout == f"threadwell {__version__}\n"
    result = subprocess.run(
        [script, "xyzzy:app"], capture_output=True, text=True, cwd=tmp_path, check=False
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"threadwell: there is no module 'xyzzy' in {tmp_path}")


def test_no_event_loop(start: Callable[..., Running], tmp_path: Path) -> None:
    watch = "import atexit, sys\natexit.register(lambda: print('asyncio' in sys.modules))\n"
    (tmp_path / "app.py").write_text(watch + APP)
    server = start("--bind", "127.0.0.1:0", "--access-log", os.devnull)
    assert server.get("/x") == "/x"
    assert server.end() == (0, "stopping\nFalse\n", "")


def test_request_in_flight_is_answered(start: Callable[..., Running], tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import sys\n"
        "def app(environ, start_response):\n"
        "    print('asked', flush=True)\n"
        "    sys.stdin.readline()\n"
        "    start_response('200 OK', [])\n"
        "    return [b'late']\n"
    )
    server = start("--bind", "127.0.0.1:0", stdin=subprocess.PIPE)
    assert server.process.stdout is not None
    assert server.process.stdin is not None
    with socket.create_connection(("127.0.0.1", server.port), 10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert server.process.stdout.readline() == "asked\n"
        server.process.send_signal(signal.SIGTERM)
        assert server.process.stdout.readline() == "stopping\n"
        server.process.stdin.write("go on\n")
        server.process.stdin.flush()
        answer = b"".join(iter(lambda: client.recv(4096), b""))
    assert answer.endswith(b"late")
    assert server.process.wait(10) == 0


def test_second_signal_is_not_patient(start: Callable[..., Running], tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import time\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    while True:\n"
        "        yield b'.'\n"
        "        time.sleep(0.01)\n"
    )
    server = start("--bind", "127.0.0.1:0", "--graceful-timeout", "50")
    assert server.process.stdout is not None
    with socket.create_connection(("127.0.0.1", server.port), 10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.recv(4096)
        server.process.send_signal(signal.SIGINT)
        assert server.process.stdout.readline() == "stopping\n"
        assert server.end(signal.SIGINT).code == 0


@pytest.mark.parametrize(("graceful", "number"), [("0.2", signal.SIGTERM), ("60", signal.SIGINT)])
def test_threads_of_the_application_do_not_hold_the_process(
    start: Callable[..., Running], tmp_path: Path, graceful: str, number: int
) -> None:
    """Its end comes with the timeout, or soon after a second signal."""
    (tmp_path / "app.py").write_text(
        "import asyncio, threading\n"
        "async def app(scope, receive, send):\n"
        "    if scope['type'] == 'lifespan':\n"
        "        raise NotImplementedError\n"
        "    await asyncio.to_thread(hang)\n"
        "def hang():\n"
        "    print('asked', flush=True)\n"
        "    threading.Event().wait()\n"
    )
    server = start("--bind", "127.0.0.1:0", "--graceful-timeout", graceful)
    assert server.process.stdout is not None
    with socket.create_connection(("127.0.0.1", server.port), 10) as client:
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert server.process.stdout.readline() == "asked\n"
        if number == signal.SIGINT:
            server.process.send_signal(number)
            assert server.process.stdout.readline() == "stopping\n"
        ended = server.end(number)
    assert ended.code == 0
    assert re.search("took too long to end; still running: (asyncio|uvloop)_0", ended.err)
    assert "Traceback" not in ended.err


def test_a_log_that_hangs_does_not_hold_the_process(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    (tmp_path / "app.py").write_text(
        "import logging, threading\n"
        "class Stuck(logging.Handler):\n"
        "    def emit(self, record):\n"
        "        if 'too long' in record.getMessage():\n"
        "            threading.Event().wait()\n"
        "logging.getLogger('threadwell').addHandler(Stuck())\n"
        "threading.Thread(target=threading.Event().wait).start()\n" + APP
    )
    server = start("--bind", "127.0.0.1:0", "--graceful-timeout", "0")
    assert server.end() == (0, "stopping\n", "")


def test_threads_of_the_application_that_end_in_time(
    start: Callable[..., Running], tmp_path: Path
) -> None:
    work = "import sys, threading\nthreading.Thread(target=sys.stdin.readline).start()\n"
    goodbye = "import atexit\natexit.register(print, 'done')\n"
    (tmp_path / "app.py").write_text(work + goodbye + APP)
    server = start("--bind", "127.0.0.1:0", stdin=subprocess.PIPE)
    server.process.send_signal(signal.SIGTERM)
    assert server.process.stdout is not None
    assert server.process.stdin is not None
    assert server.process.stdout.readline() == "stopping\n"
    server.process.stdin.write("go on\n")
    server.process.stdin.flush()
    assert server.process.communicate(timeout=10) == ("done\n", "")
    assert server.process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_at_the_very_end_is_no_error(
    start: Callable[..., Running], tmp_path: Path, number: int
) -> None:
    goodbye = "import atexit, sys\natexit.register(sys.stdin.readline)\n"
    (tmp_path / "app.py").write_text(goodbye + "atexit.register(print, 'end', flush=True)\n" + APP)
    server = start("--bind", "127.0.0.1:0", stdin=subprocess.PIPE)
    server.process.send_signal(signal.SIGINT)
    assert server.process.stdout is not None
    assert server.process.stdin is not None
    assert server.process.stdout.readline() == "stopping\n"
    assert server.process.stdout.readline() == "end\n"
    server.process.send_signal(number)
    server.process.stdin.write("go on\n")
    server.process.stdin.flush()
    assert server.process.communicate(timeout=10) == ("", "")
    assert server.process.returncode == 0


def test_sync_app_and_interface(start: Callable[..., Running], tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "from threadwell import Response\n"
        "def app(*args):\n"
        "    return Response(200, [], args[0].path.encode())\n"
    )
    server = start("--bind", "127.0.0.1:0", "--interface", "sync")
    assert "(sync)" in server.message
    assert server.get("/sync") == "/sync"


def test_environment_variables(start: Callable[..., Running]) -> None:
    settings = {
        "THREADWELL_APP": "app:app",
        "THREADWELL_BIND": "127.0.0.1:0 localhost:0",
        "THREADWELL_THREADS": "1",
        "THREADWELL_ACCESS_LOG": "-",
        "THREADWELL_LOG_FORMAT": "%m %U %>s",
    }
    server = start(env=os.environ | settings)
    assert server.message.count("http://") == 2
    assert "  1 thread, " in server.message
    server.get("/logged")
    # the line is written behind the answer, and so perhaps behind the signal
    assert sorted(server.end().out.splitlines()) == ["GET /logged 200", "stopping"]


def test_access_log_is_off_unless_asked_for(start: Callable[..., Running]) -> None:
    server = start("--bind", "127.0.0.1:0")
    server.get()
    assert server.end() == (0, "stopping\n", "")


def test_errors_are_logged_on_stderr(start: Callable[..., Running], tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("def app(environ, start_response):\n    1 / 0\n")
    server = start("--bind", "127.0.0.1:0")
    with pytest.raises(urllib.error.HTTPError) as caught:
        server.get()
    caught.value.close()
    err = server.end().err
    assert "ERROR" in err
    assert "ZeroDivisionError" in err


@pytest.mark.parametrize("spelling", ["0:0", "[::]:0", "http://127.0.0.1:0/", "0"])
def test_bind_spellings(start: Callable[..., Running], spelling: str) -> None:
    if "[" in spelling and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    server = start("--bind", spelling)
    assert server.get("/x", "[::1]" if "[" in spelling else "127.0.0.1") == "/x"
    everywhere = spelling in ("0:0", "[::]:0")
    assert everywhere == ("on every other address" in server.message)


@pytest.mark.parametrize("spelling", ["*:0", "[::]:0"])
def test_all_of_ipv6_is_announced_with_an_ipv4_address_that_works(
    start: Callable[..., Running], spelling: str
) -> None:
    if not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    server = start("--bind", spelling)
    place = server.message.splitlines()[1].strip()
    assert place == (
        f"http://127.0.0.1:{server.port} and http://[::1]:{server.port}"
        " (and on every other address of this machine)"
    )
    for host in ("127.0.0.1", "[::1]"):
        assert server.get("/x", host) == "/x"


def test_unix_socket(start: Callable[..., Running], tmp_path: Path) -> None:
    server = start("--bind", "unix:here.sock")
    assert "  unix:here.sock\n" in server.message
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.connect(str(tmp_path / "here.sock"))
        client.sendall(b"GET /u HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert b"".join(iter(lambda: client.recv(4096), b"")).endswith(b"/u")
    assert server.end().code == 0
    assert not (tmp_path / "here.sock").exists()


def test_inherited_socket(start: Callable[..., Running]) -> None:
    with listening() as sock:
        server = start("--bind", f"fd://{sock.fileno()}", pass_fds=[sock.fileno()])
        assert server.port == sock.getsockname()[1]
        assert server.get("/fd") == "/fd"


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit there")
def test_descriptor_limit_is_raised(start: Callable[..., Running], tmp_path: Path) -> None:
    import resource

    (tmp_path / "app.py").write_text(
        "import resource\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [repr(resource.getrlimit(resource.RLIMIT_NOFILE)).encode()]\n"
    )
    limits = (64, 4096)
    server = start(
        "--bind",
        "127.0.0.1:0",
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, limits),
    )
    assert server.get() == "(4096, 4096)"


def test_where_there_is_no_posix(tmp_path: Path) -> None:
    """As on Windows: the modules can be imported, and what is missing is told in a line."""
    (tmp_path / "app.py").write_text(APP)
    script = Path(__file__).parent / "apps" / "without_posix.py"
    command = [sys.executable, "-W", "error", str(script)]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, **pipes) as process:  # type: ignore[call-overload]
        try:
            message = Running(process).message
            assert message.startswith("2\n2\n2\n2\n2\nthreadwell ")
            site, metrics = (url.rstrip() for url in re.findall(r"http:\S+\s", message))
            for url, expected in ((f"{site}/hello", "/hello"), (metrics, "threadwell_ready 1")):
                with urllib.request.urlopen(url, timeout=10) as response:
                    assert expected in response.read().decode()
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=10)
        finally:
            process.kill()
    assert (process.returncode, out) == (0, "stopping\n")
    assert re.findall(r"^threadwell: (--[\w-]+): this system ", err, re.MULTILINE) == (
        "--workers --bind --user --reuse-port --access-log".split()
    )
    assert err.count("\n") == 5
    assert len((tmp_path / "log").read_text().splitlines()) == 1


def test_nobody_reads_the_start_message(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "threadwell", "--bind", "unix:s"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=write, stderr=subprocess.PIPE) as process:
        os.close(write)
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            while client.connect_ex(str(tmp_path / "s")):
                assert process.poll() is None
            client.sendall(b"GET /u HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
            assert b"".join(iter(lambda: client.recv(4096), b"")).endswith(b"/u")
        process.terminate()
        assert process.communicate(timeout=10)[1] == b""
        assert process.returncode == 0


def test_application_sees_to_its_own_logging(start: Callable[..., Running], tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import logging\n"
        "logging.getLogger('threadwell').addHandler(logging.FileHandler('own.log'))\n"
        "def app(environ, start_response):\n    1 / 0\n"
    )
    server = start("--bind", "127.0.0.1:0")
    with pytest.raises(urllib.error.HTTPError) as caught:
        server.get()
    caught.value.close()
    assert server.end().err == ""
    assert "ZeroDivisionError" in (tmp_path / "own.log").read_text()


def test_disabled_logger_is_enabled(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("threadwell")
    monkeypatch.setattr(logger, "disabled", True)
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "propagate", True)
    level = logger.level
    try:
        process_setup.configure_logging("warning")
        assert (logger.disabled, logger.propagate, logger.level) == (False, False, logging.WARNING)
        process_setup.configure_logging("debug")  # it has a handler now
        assert (len(logger.handlers), logger.level) == (1, logging.WARNING)
    finally:
        logger.setLevel(level)


# ---- It does not --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["ap:app"], "there is no module 'ap' in {here} nor on the path; did you mean app?"),
        (["app:ap"], "app has no attribute 'ap'; did you mean app:app?"),
        (
            ["app:__name__"],
            "app:__name__ is of type str and cannot be called; an application is a"
            " WSGI callable or a SyncApp",
        ),
        (["app", "--threads", "x"], "--threads: 'x' is not a whole number; see threadwell --help"),
        (
            ["app", "--threads", "-1"],
            "--threads: '-1' is below the least, 0; see threadwell --help",
        ),
        (
            ["app", "--limit-body", "10X"],
            "--limit-body: '10X' is not a whole number of bytes; see threadwell --help",
        ),
        (
            ["app", "--poller", "magic"],
            "--poller: 'magic' is not one of auto, epoll, kqueue, queue; see threadwell --help",
        ),
        (["app", "--log-format", "%Z"], "--log-format: '%Z' is not known"),
        (
            ["app", "--access-log", "no/where", "--bind", "0"],
            "--access-log: no/where: No such file or directory",
        ),
        (
            ["app", "--app-dir", "none"],
            "Invalid value for '--app-dir': Directory 'none' does not exist; see threadwell --help",
        ),
        (
            ["app", "--bind", "here"],
            "--bind: 'here' is no address; PORT, HOST:PORT, [IPV6]:PORT, unix:/PATH and fd://N are"
            " understood",
        ),
        (["app", "--bind", "1:99999"], "--bind: '1:99999': a port is at most 65535"),
        (["app", "--bind", "fd://99999"], "--bind: file descriptor 99999 is not an open socket"),
        (
            ["app", "--bind", "unix:no/where"],
            "--bind: there is no folder for no/where; make it first",
        ),
        (
            ["app", "--bind", "unix:app.py"],
            "--bind: cannot listen on app.py: the path exists and is no socket",
        ),
        (
            ["app", "--bind", "192.0.2.1:8000"],
            "--bind: 192.0.2.1 is no address of this machine; try --bind 0.0.0.0:8000, which is all"
            " of them",
        ),
        (
            ["app", "--bind", "no.such.host.invalid:80"],
            "--bind: no address is known for the host 'no.such.host.invalid'",
        ),
    ],
)
def test_one_line(fails: Callable[..., str], tmp_path: Path, args: list[str], line: str) -> None:
    assert fails(*args) == line.format(here=tmp_path)


def test_poller_of_another_system(fails: Callable[..., str]) -> None:
    other = "kqueue" if sys.platform == "linux" else "epoll"
    assert f"this system has no {other}" in fails("app", "--poller", other, "--bind", "0")


def test_click_errors_are_one_line(fails: Callable[..., str]) -> None:
    assert re.fullmatch(
        r"No such option.*--thread\b.*--threads.*; see threadwell --help",
        fails("app", "--thread", "3"),
    )
    assert "extra argument" in fails("app", "more")
    assert "requires an argument" in fails("app", "--threads")
    assert "'uwsgi' is not one of" in fails("app", "--interface", "uwsgi")


@pytest.mark.parametrize(
    "args",
    [
        ["--backlog", "1000000000000", "--bind", "0"],
        ["--bind", "a" * 70 + ":80"],
        ["--bind", "a..b:80"],
        ["--bind", "9" * 5000],
        ["--bind", "unix:" + "x" * 300],
    ],
    ids=lambda args: args[0] + " " + args[1][:9],
)
def test_nonsense_that_only_the_system_refuses(fails: Callable[..., str], args: list[str]) -> None:
    assert fails("app", *args).startswith(args[0] + ": ")


def test_busy_port_names_a_free_one(fails: Callable[..., str]) -> None:
    with listening() as sock:
        port = sock.getsockname()[1]
        line = fails("app", "--bind", f"127.0.0.1:{port}")
    found = re.fullmatch(
        rf"--bind: 127\.0\.0\.1:{port} is in use; stop what listens there, or try"
        r" --bind 127\.0\.0\.1:([0-9]+)",
        line,
    )
    assert found
    with listening(address=("127.0.0.1", int(found[1]))):
        assert int(found[1]) != port


def test_second_bind_busy_leaves_no_socket(fails: Callable[..., str], tmp_path: Path) -> None:
    with listening(socket.AF_UNIX, str(tmp_path / "busy")), listening() as free:
        port = free.getsockname()[1]
        free.close()
        line = fails("app", "--bind", f"127.0.0.1:{port}", "--bind", "unix:busy")
        assert line == "--bind: another server listens on busy; stop it, or give another path"
        with listening(address=("127.0.0.1", port)):
            pass


@pytest.mark.parametrize(
    ("number", "text", "line"),
    [
        (
            errno.EACCES,
            "127.0.0.1:80",
            "this user may not listen on 127.0.0.1:80; try --bind 127.0.0.1:8080",
        ),
        (
            errno.EACCES,
            "unix:/x/s",
            "this user may not create /x/s; give a path in a folder of its own",
        ),
        (
            errno.EAFNOSUPPORT,
            "[::1]:80",
            "this machine has no addresses like ::1; try --bind 127.0.0.1:80",
        ),
        (errno.EIO, "[::1]:80", f"cannot listen on [::1]:80: {os.strerror(errno.EIO)}"),
    ],
)
def test_what_the_system_may_say(
    fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch, number: int, text: str, line: str
) -> None:
    def refuse(*_args: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(binding, "open_socket", refuse)
    assert fails("app", "--bind", text) == f"--bind: {line}"


def test_an_asgi_app_beside_another(fails: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "asgi.py").write_text("async def app(scope, receive, send): ...")
    line = fails("asgi:app", "--asgi", "asgi:app")
    assert line.startswith("asgi:app: --asgi goes beside a WSGI application")


def test_wrong_marker(fails: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "later.py").write_text(APP + "app.threadwell_interface = 'later'")
    assert fails("later") == (
        "later:app: threadwell_interface is 'later'; it may be sync, wsgi or asgi"
    )


def test_users_code_fails_with_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("import xyzzy")
    result = subprocess.run(
        [sys.executable, "-m", "threadwell"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (2, "")
    *trace, last = result.stderr.splitlines()
    assert trace[0] == "Traceback (most recent call last):"
    assert "app.py" in trace[1]
    assert last.startswith("threadwell: app failed while it was imported: ModuleNotFoundError")


# ---- Options, and help --------------------------------------------------------------------


def test_help_shows_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for option in OPTIONS:
        assert (f" {option.flag} " in text) is not option.secret
        if option.secret:
            continue
        assert " ".join(option.help.split()) in text
    assert "[bytes, default: 256M]" in text
    assert "[seconds, default: 75]" in text
    assert "[default: 127.0.0.1:8000]" in text
    assert text.index("Where:") < text.index("Threads:") < text.index("Timeouts:")


def test_no_option_is_lost_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    command = cli._command()
    seen: dict[str, Any] = {}
    command.callback = lambda **options: seen.update(options)
    command.main(["app"], standalone_mode=False)
    defaults = {option.name: option.default for option in OPTIONS}
    assert {name: seen[name] for name in defaults} == defaults
    for option in OPTIONS:
        if option.type is bool:
            command.main([option.flag], standalone_mode=False)
            assert seen[option.name] is True
            continue
        value = option.choices[-1] if option.choices else "7000" if not option.multiple else "x:1"
        wanted = option.convert(value)
        if option.secret:
            monkeypatch.setenv(f"THREADWELL_{option.name.upper()}", value)
            command.main([], standalone_mode=False)
        else:
            command.main([option.flag, value], standalone_mode=False)
        assert seen[option.name] == wanted
        config = ServerConfig.from_options(**{option.name: seen[option.name]})
        assert getattr(getattr(config, option.group), option.attribute) == wanted


def test_shell_completion(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_THREADWELL_COMPLETE", "bash_complete")
    for typed, offered in (
        ("--poller e", "plain,epoll"),
        ("--workers a", "plain,auto"),
        ("--certfile c", "file,c"),
        ("ap", "file,ap"),
        ("--threads 1", ""),
    ):
        monkeypatch.setenv("COMP_WORDS", f"threadwell {typed}")
        monkeypatch.setenv("COMP_CWORD", str(len(typed.split())))
        with pytest.raises(SystemExit):
            cli.main([])
        assert capsys.readouterr().out.strip() == offered


# ---- TLS ----------------------------------------------------------------------------------


def test_https_from_flags_and_environment(start: Callable[..., Running], tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    cert, key = authority.issue("server")
    server = start(
        *("--bind", "127.0.0.1:0", "--certfile", str(cert)),
        env=os.environ
        | {
            "THREADWELL_KEYFILE": str(authority.encrypted(key)),
            "THREADWELL_KEYFILE_PASSWORD": PASSWORD,
        },
    )
    assert f"  https://127.0.0.1:{server.port}\n" in server.message
    url = f"https://127.0.0.1:{server.port}/there"
    with urllib.request.urlopen(url, timeout=10, context=authority.trusting()) as response:
        assert response.read() == b"/there"
    assert server.end() == (0, "stopping\n", "")


def test_adhoc_says_whom_to_trust(start: Callable[..., Running], tmp_path: Path) -> None:
    pytest.importorskip("trustme", reason="trustme has no wheels here", exc_type=ImportError)
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    server = start("--bind", "127.0.0.1:0", "--cert", "adhoc", env=os.environ | home)
    path = Path(server.message.partition("they trust the one in\n  ")[2].partition("\n")[0])
    trusting = ssl.create_default_context(cafile=path)
    url = f"https://127.0.0.1:{server.port}/there"
    with urllib.request.urlopen(url, timeout=10, context=trusting) as response:
        assert response.read() == b"/there"
    assert server.end() == (0, "stopping\n", "")
    for where in ("XDG_CACHE_HOME", "HOME"):
        home[where] = os.devnull
    server = start("--bind", "127.0.0.1:0", "--cert", "adhoc", env=os.environ | home)
    assert "generated for this run" in server.message
    assert server.end() == (0, "stopping\n", "")


def test_mistakes_with_certificates(
    fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certfile = "--certfile", "none.pem", "--bind", "127.0.0.1:0"
    assert fails(*certfile) == "--certfile: there is no file none.pem; check the path"
    assert fails("--keyfile", "x") == "--keyfile: there is no certificate; give certfile too"
    assert fails(*certfile, "--cert", "adhoc").startswith("--cert: adhoc makes a certificate, and")
    assert fails("--cert", "xyzzy").startswith("--cert: 'xyzzy' is not one of adhoc")
    typed = fails(*certfile, "--keyfile-password", PASSWORD)
    assert typed.startswith("--keyfile-password: every user can see a command line")
    assert PASSWORD not in typed
    assert fails("--bind", "https://127.0.0.1:0").startswith("--bind: https://127.0.0.1:0 needs")
    monkeypatch.setenv("THREADWELL_KEYFILE_PASSWORD", PASSWORD)
    assert fails().startswith("THREADWELL_KEYFILE_PASSWORD: there is no certificate; give")


def test_no_password_is_asked_for(fails: Callable[..., str], tmp_path: Path) -> None:
    """OpenSSL would, on the terminal; here there is one, and nobody at it."""
    pty = pytest.importorskip("pty")
    authority = Authority(tmp_path / "authority")
    cert, key = authority.issue("server")
    terminal, ours = pty.openpty()
    command = [sys.executable, "-m", "threadwell", "--bind", "127.0.0.1:0", "--certfile", str(cert)]
    try:
        done = subprocess.run(
            [*command, "--keyfile", str(authority.encrypted(key))],
            cwd=tmp_path,
            stdin=ours,
            capture_output=True,
            text=True,
            start_new_session=True,
            timeout=20,
            check=False,
        )
    finally:
        os.close(terminal)
        os.close(ours)
    assert done.returncode == 2
    assert "is encrypted; give keyfile_password_file" in done.stderr


# ---- The start message --------------------------------------------------------------------


def test_gil_switched_on_again_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threadwell.banner.gil_enabled", lambda: True)
    monkeypatch.setattr(sysconfig, "get_config_var", {"Py_GIL_DISABLED": 1}.get)
    monkeypatch.delenv("PYTHON_GIL", raising=False)
    advice = " ".join(gil_advice())
    assert "RuntimeWarning above names the module" in advice
    assert "PYTHON_GIL=0" in advice
    server = Server(lambda request: None, ServerConfig())
    assert start_message(server, "app:app", "sync").splitlines()[-3:] == [
        "  " + line for line in [*gil_advice(), "Ctrl-C stops it"]
    ]
    monkeypatch.setenv("PYTHON_GIL", "1")
    assert gil_advice() == []
    monkeypatch.delenv("PYTHON_GIL")
    monkeypatch.setattr("threadwell.banner.gil_enabled", lambda: False)
    assert gil_advice() == []
