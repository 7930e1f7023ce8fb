"""`--reload`: a process that keeps the sockets, and a child that is started anew."""

from __future__ import annotations

import itertools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from threadwell import cli
from threadwell.app_loader import app_folder

from ..helpers.command import Command, children, command, get
from ..helpers.waiting import until

APP = """
import os

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    if environ["PATH_INFO"] == "/stream":
        return stream()
    if environ["PATH_INFO"] == "/stuck":
        import time
        time.sleep(60)
    if environ["PATH_INFO"] == "/die":
        os._exit(7)
    if environ["PATH_INFO"] == "/environ":
        return [" ".join(os.environ).encode()]
    return [f"{os.getpid()} VERSION".encode()]

def stream():
    import time
    for number in range(600):
        yield b"%d\\n" % number
        time.sleep(0.1)
"""

Start = Callable[..., Command]


def write(folder: Path, version: str, text: str = APP) -> None:
    """An app.py of `version`, each of another size: a stat of one second may show nothing else.

    It is put there in one piece: a file that is empty first has changed twice.
    """
    (folder / "new.tmp").write_text(text.replace("VERSION", version))
    (folder / "new.tmp").replace(folder / "app.py")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(*arguments)` runs `threadwell --reload` in `tmp_path`, where app.py is."""
    write(tmp_path, "1")
    with ExitStack() as stack:

        def run(*args: str, **options: Any) -> Command:
            words = ["-m", "threadwell", "--reload", "--bind", "127.0.0.1:0", *args]
            return stack.enter_context(command(words, tmp_path, **options))

        yield run


def test_an_edit_is_served(start: Start, tmp_path: Path) -> None:
    running = start()
    url = running.url()
    assert "Restarts when a file changes (watchfiles)" in running.text
    pid, version = get(url)[1].split()
    assert version == "1"
    write(tmp_path, "22")
    assert running.until("has changed")[0]
    running.until("again")
    new, version = get(url)[1].split()
    assert version == "22"
    assert new != pid
    assert children(running.process.pid) == [int(new)]  # and no zombie
    text = running.end()
    assert text.count("app.py has changed: restarting") == 1
    assert text.endswith("stopping\n")
    assert not Path(f"/proc/{new}").exists()


def test_the_start_message_comes_after_a_change_before_the_first_serving(
    start: Start, tmp_path: Path
) -> None:
    write(tmp_path, "1", "print('imported', flush=True)\nimport time\ntime.sleep(600)\n")
    running = start()
    running.until("imported")
    write(tmp_path, "22")
    url = running.url()  # which waits for the end of the message
    assert "serves app:app (wsgi)" in running.text
    assert get(url)[1].endswith(" 22")
    write(tmp_path, "333")
    running.until("serves app:app again")


def test_without_watchfiles(start: Start, tmp_path: Path) -> None:
    (tmp_path / "hidden").mkdir()
    (tmp_path / "hidden" / "watchfiles.py").write_text("raise ImportError")
    running = start(env=os.environ | {"PYTHONPATH": str(tmp_path / "hidden")})
    url = running.url()
    assert "(stat)" in running.text
    write(tmp_path, "22")
    running.until("again")
    assert get(url)[1].endswith(" 22")


def test_who_connects_during_a_restart_waits(start: Start, tmp_path: Path) -> None:
    running = start()
    url = running.url()
    slow = APP.replace("import os", "import os, time; time.sleep(1)", 1)
    stop, answers = threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            answers.append(get(url))

    threads = [threading.Thread(target=ask) for _ in range(3)]
    write(tmp_path, "22", slow)
    running.until("has changed")
    # the old one may still answer some; none must be refused, or cut before it was accepted
    time.sleep(0.3)
    for thread in threads:
        thread.start()
    running.until("again")
    until(lambda: len(answers) > 3)
    stop.set()
    for thread in threads:
        thread.join()
    assert len(answers) > 3
    assert {status for status, _ in answers} == {200}
    assert answers[-1][1].endswith(" 22")


def test_open_streams_are_cut(start: Start, tmp_path: Path) -> None:
    running = start()
    url = running.url()
    host, port = url.removeprefix("http://").split(":")
    with ExitStack() as stack:
        for path in ("stream", "stream", "stuck"):
            client = stack.enter_context(socket.create_connection((host, int(port)), 30))
            client.sendall(f"GET /{path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            if path == "stream":
                assert client.recv(4096)
        started = time.monotonic()
        write(tmp_path, "22")
        running.until("again")
        assert time.monotonic() - started < 10
        assert get(url)[1].endswith(" 22")


def test_a_syntax_error_is_survived(start: Start, tmp_path: Path) -> None:
    running = start()
    url = running.url()
    write(tmp_path, "x", "def app(:")
    running.until("SyntaxError")
    running.until("the server ended with code 2; it starts again when a file changes")
    assert children(running.process.pid) == []
    write(tmp_path, "333")
    running.until("again")
    assert get(url)[1].endswith(" 333")


def test_broken_at_the_start(start: Start, tmp_path: Path) -> None:
    write(tmp_path, "x", "def app(:")
    running = start()
    running.until("it starts again when a file changes")
    write(tmp_path, "22")
    assert get(running.url())[1].endswith(" 22")
    assert running.end().endswith("stopping\n")


def test_the_code_of_a_child_that_failed_is_kept(start: Start, tmp_path: Path) -> None:
    write(tmp_path, "x", "def app(:")
    running = start()
    running.until("it starts again when a file changes")
    assert running.end(signal.SIGINT, code=2).endswith("stopping\n")


def test_a_child_that_dies(start: Start, tmp_path: Path) -> None:
    running = start()
    url = running.url()
    with pytest.raises(OSError, match=r".+"):
        get(url + "/die")
    running.until("the server ended with code 7; it starts again")
    write(tmp_path, "22")
    running.until("again")
    pid = int(get(url)[1].split()[0])
    os.kill(pid, signal.SIGKILL)
    running.until("the server ended by SIGKILL; it starts again")


def test_a_module_elsewhere(start: Start, tmp_path: Path) -> None:
    elsewhere = tmp_path.parent / f"{tmp_path.name}-elsewhere"
    elsewhere.mkdir()
    (elsewhere / "reloaded_helper.py").write_text("NAME = 'one'")
    write(tmp_path, "1", APP.replace("import os", "import os\nimport reloaded_helper", 1))
    running = start(env=os.environ | {"PYTHONPATH": str(elsewhere)})
    url = running.url()
    assert get(url)[0] == 200
    names = itertools.count()

    def edited() -> object:
        # what the child has imported is looked up now and then, and not noticed before
        (elsewhere / "reloaded_helper.py").write_text(f"NAME = {next(names)}")
        return running.has_said("reloaded_helper.py has changed", 1.5)

    until(edited)
    running.until("again")


def test_patterns(start: Start, tmp_path: Path) -> None:
    extra = tmp_path.parent / f"{tmp_path.name}.toml"
    running = start(
        "--reload-include", "*.html", "--reload-exclude", "made*", "--reload-extra", str(extra)
    )
    running.url()
    (tmp_path / "made.py").write_text("1")
    time.sleep(0.5)
    (tmp_path / "page.html").write_text("1")
    running.until("page.html has changed")
    running.until("again")
    extra.write_text("1")
    running.until(r"\.toml has changed")
    running.until("again")
    assert "made.py" not in running.text


def test_folders(start: Start, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    running = start("--reload-dir", "one")
    running.url()
    (tmp_path / "other.py").write_text("1")
    time.sleep(0.5)
    (tmp_path / "one" / "a.py").write_text("1")
    running.until("one/a.py has changed")
    assert "other.py" not in running.text


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_parent_alone_ends_both(start: Start, number: int) -> None:
    running = start()
    pid = int(get(running.url())[1].split()[0])
    running.end(number)
    assert not Path(f"/proc/{pid}").exists()


def test_ctrl_c_in_a_terminal_reaches_both(start: Start) -> None:
    running = start(start_new_session=True)
    pid = int(get(running.url())[1].split()[0])
    os.killpg(running.process.pid, signal.SIGINT)
    assert "Traceback" not in running.ended()
    assert not Path(f"/proc/{pid}").exists()


def test_a_child_without_its_parent_ends(start: Start) -> None:
    running = start()
    url = running.url()
    pid = int(get(url)[1].split()[0])
    running.process.kill()
    running.process.wait()
    until(lambda: not runs(pid))
    with pytest.raises(OSError, match=r".+"):
        get(url)


def runs(pid: int) -> bool:
    """Whether the process does; whoever adopts orphans here may not bury them."""
    try:
        return not Path(f"/proc/{pid}/stat").read_text().split(") ")[1].startswith("Z")
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_what_the_application_starts_knows_nothing_of_it(start: Start) -> None:
    assert "THREADWELL_RELOADER" not in get(start().url() + "/environ")[1]


def test_the_server_meets_no_event_loop(start: Start, tmp_path: Path) -> None:
    write(
        tmp_path,
        "1",
        APP + "\nimport sys, atexit\natexit.register(lambda: print("
        "'loop:', 'asyncio' in sys.modules, 'watchfiles' in sys.modules, flush=True))\n",
    )
    running = start()
    get(running.url())
    assert "loop: False False" in running.end()


def test_unix_socket(start: Start, tmp_path: Path) -> None:
    words = ["-m", "threadwell", "--reload", "--bind", "unix:s"]
    with command(words, tmp_path) as running:
        running.until("unix:")
        running.until("Ctrl-C")
        write(tmp_path, "22")
        running.until("again")
        assert (tmp_path / "s").exists()
        running.end()
        assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--reload-include", "*.x"], "*.x: this is for --reload, which was not given; add it"),
        (["--reload-dir", "."], ".: this is for --reload, which was not given; add it"),
        (
            ["--reload", "--reload-dir", "absent"],
            "--reload-dir: there is no folder absent; check the path",
        ),
        (
            ["--reload", "--bind", "nonsense"],
            "--bind: 'nonsense' is not an address; PORT, HOST:PORT, [IPV6]:PORT, unix:/PATH,"
            " unix:@NAME and fd://N are understood",
        ),
    ],
)
def test_one_line(
    args: list[str],
    line: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write(tmp_path, "1")
    monkeypatch.chdir(tmp_path)
    assert cli.main(args) == 2
    assert capsys.readouterr().err == f"threadwell: {line}\n"


def test_a_busy_port_is_one_line(tmp_path: Path) -> None:
    write(tmp_path, "1")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = ["-m", "threadwell", "--reload", "--bind", f"127.0.0.1:{taken.getsockname()[1]}"]
        done = subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "is in use" in done.stderr


def test_where_the_application_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "inner"
    folder.mkdir()
    (folder / "app.py").write_text("1")
    assert app_folder(None) == []
    assert app_folder("module:app") == []
    assert app_folder("package.module") == []
    assert app_folder("inner/app.py:create('a:b')") == [str(folder)]
    assert app_folder("inner/app:app") == [str(folder)]
    assert app_folder("inner") == [str(folder)]
    assert app_folder("app.py", "inner") == [str(folder)]
    assert app_folder("absent.py", "inner") == [str(tmp_path)]
