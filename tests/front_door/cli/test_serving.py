"""The command serves: what it says, what signals do, and how it ends."""

from __future__ import annotations

import logging
import os
import platform
import re
import signal
import socket
import subprocess
import sys
import sysconfig
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from threadwell import (
    Server,
    ServerConfig,
    __version__,
    process_setup,
)
from threadwell.banner import gil_advice, start_message
from threadwell.worker.config.groups import Log

from .running import APP, Running, listening

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
    script = Path(__file__).parent.parent.parent / "apps" / "without_posix.py"
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
        process_setup.configure_logging(Log(level="warning"))
        assert (logger.disabled, logger.propagate, logger.level) == (False, False, logging.WARNING)
        process_setup.configure_logging(Log(level="debug"))  # it has a handler now
        assert (len(logger.handlers), logger.level) == (1, logging.WARNING)
    finally:
        logger.setLevel(level)


# ---- The start message --------------------------------------------------------------------


def test_gil_switched_on_again_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("threadwell.banner.gil_enabled", lambda: True)
    monkeypatch.setattr(sys, "version", f"{sys.version} free-threading build")
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
