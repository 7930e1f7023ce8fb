"""The command does not serve: each mistake is one line that helps."""

from __future__ import annotations

import errno
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from threadwell import (
    ServerConfig,
    binding,
)
from threadwell.worker.assembly import check

from .running import APP, listening


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
            "--threads: '-1' is less than the minimum, 0; see threadwell --help",
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
            "--bind: 'here' is not an address; PORT, HOST:PORT, [IPV6]:PORT, unix:/PATH,"
            " unix:@NAME and fd://N are understood",
        ),
        (["app", "--bind", "1:99999"], "--bind: '1:99999': a port is at most 65535"),
        (["app", "--bind", "fd://99999"], "--bind: file descriptor 99999 is not an open socket"),
        (
            ["app", "--bind", "unix:no/where"],
            "--bind: there is no folder for no/where; create it",
        ),
        (
            ["app", "--bind", "unix:app.py"],
            "--bind: cannot listen on app.py: the path exists and is not a socket",
        ),
        (
            ["app", "--bind", "192.0.2.1:8000"],
            "--bind: 192.0.2.1 is not an address of this machine; try --bind 0.0.0.0:8000, which is"
            " all of them",
        ),
        (
            ["app", "--bind", "no.such.host.invalid:80"],
            "--bind: no address is known for the host 'no.such.host.invalid'",
        ),
    ],
)
def test_one_line(fails: Callable[..., str], tmp_path: Path, args: list[str], line: str) -> None:
    assert fails(*args) == line.format(here=tmp_path)


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--workers", "3000"], "--workers: '3000' is more than the maximum, 1000"),
        (["--threads", "100000"], "--threads: '100000' is more than the maximum, 10000"),
        (["--loops", "1001"], "--loops: '1001' is more than the maximum, 1000"),
        (
            ["--bind", "8000", "--metrics-bind", "localhost:8000"],
            "--metrics-bind: localhost:8000 is an address of bind already; give another",
        ),
        (
            ["--bind", "0:8000", "--bind", "127.0.0.1:8000"],
            "--bind: 127.0.0.1:8000 is an address of bind already; give another",
        ),
        (
            ["--bind", "unix:sock", "--metrics-bind", "unix:./sock"],
            "--metrics-bind: unix:./sock is an address of bind already; give another",
        ),
        (
            ["--bind", "http://:8000", "--bind", "https://:8000"],
            "--bind: https://:8000 is an address of bind already; give another",
        ),
    ],
)
@pytest.mark.parametrize("command", [[], ["check"]])
def test_numbers_and_addresses_that_cannot_be_meant(
    fails: Callable[..., str], command: list[str], args: list[str], line: str
) -> None:
    assert fails(*command, "app:app", *args).startswith(line)


def test_addresses_that_go_together() -> None:
    binds = ["127.0.0.1:0", "127.0.0.1:0", "0.0.0.0:8000", "[::]:8000", "unix:a", "unix:b"]
    check(ServerConfig.from_options(bind=binds, metrics_bind=["127.0.0.1:8001"]))


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


def test_a_wsgi_app_beside_another(fails: Callable[..., str]) -> None:
    assert fails("app:app", "--asgi", "app:app") == (
        "app:app cannot be called with (scope, receive, send), as an ASGI application is; it looks"
        " like a WSGI application"
    )


def test_an_interface_that_it_does_not_have(fails: Callable[..., str]) -> None:
    assert fails("app:app", "--interface", "sync") == (
        "app:app cannot be called with (request), as a SyncApp is; it looks like a WSGI application"
    )


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        (
            "mysite.setings",
            "and there is no module mysite.setings; did you mean mysite.settings?",
        ),
        (
            "mysit.settings.local",
            "and there is no module mysit; did you mean mysite.settings.local?",
        ),
        (
            "other.settings",
            "and there is no module other; it names a module, such as mysite.settings",
        ),
    ],
)
def test_settings_of_django_that_are_not_there(tmp_path: Path, settings: str, line: str) -> None:
    (tmp_path / "mysite").mkdir()
    (tmp_path / "mysite" / "__init__.py").touch()
    (tmp_path / "mysite" / "settings.py").write_text("SECRET_KEY = 'x'")
    (tmp_path / "mysite" / "wsgi.py").write_text(
        "from django.core.wsgi import get_wsgi_application\napplication = get_wsgi_application()"
    )
    result = subprocess.run(
        [sys.executable, "-m", "threadwell", "mysite.wsgi"],
        cwd=tmp_path,
        env=os.environ | {"DJANGO_SETTINGS_MODULE": settings},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == f"threadwell: DJANGO_SETTINGS_MODULE is {settings!r}, {line}\n"


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
