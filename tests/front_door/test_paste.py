"""PasteDeploy: the entry points, settings from ini files, and a real pserve."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from paste.deploy import loadserver

from threadwell import ConfigError
from threadwell.paste import parse_settings, server_runner

from ..helpers.supervised import Supervised

INI = """
[app:main]
paste.app_factory = application:factory

[server:main]
use = egg:threadwell
{settings}
"""
APP = """
import os
def factory(global_conf, **settings):
    def app(environ, start_response):
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [f"pasted {os.getpid()} {environ['wsgi.multiprocess']}".encode()]
    return app
"""


def test_texts_become_settings(tmp_path: Path) -> None:
    (tmp_path / "a b").mkdir()
    config = parse_settings(
        {
            "bind": "127.0.0.1:8001 [::1]:8001",
            "threads": " 7 ",
            "limit-body": "20M",
            "keep_alive": "12.5",
            "preload": "true",
            "static": f"\n/a={tmp_path / 'a b'}\n/b={tmp_path}\n",
        }
    )
    assert config.bind.addresses == ("127.0.0.1:8001", "[::1]:8001")
    assert config.threads.count == 7
    assert config.limits.body == 20 * 1024**2
    assert config.timeouts.keep_alive == 12.5
    assert config.processes.preload
    assert config.static.mounts == (f"/a={tmp_path / 'a b'}", f"/b={tmp_path}")


@pytest.mark.parametrize(
    ("settings", "bind"),
    [
        ({"host": "0.0.0.0", "port": "6543"}, "0.0.0.0:6543"),
        ({"host": "::1"}, "[::1]:8000"),
        ({"port": "6543"}, "127.0.0.1:6543"),
    ],
)
def test_host_and_port(settings: dict[str, str], bind: str) -> None:
    assert parse_settings(settings).bind.addresses == (bind,)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"thread": "8"}, "thread: there is no such option; did you mean threads?"),
        ({"threads": "many"}, "threads: 'many' is not a whole number"),
        ({"host": "x", "bind": "8000"}, "bind: it replaces host and port"),
    ],
)
def test_mistakes_in_an_ini_file(
    tmp_path: Path, settings: dict[str, str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = "\n".join(f"{key} = {value}" for key, value in settings.items())
    ini = tmp_path / "app.ini"
    ini.write_text(INI.format(settings=lines))
    with pytest.raises(SystemExit) as ended:
        loadserver(f"config:{ini}")
    assert ended.value.code == 2
    shown = capsys.readouterr().err
    assert shown.startswith(f"threadwell: {ini}: {said}")
    assert shown.count("\n") == 1


def test_a_runner_says_that_a_port_is_taken() -> None:
    def app(environ: Any, start_response: Any) -> list[bytes]:
        return []

    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = str(busy.getsockname()[1])
        with pytest.raises(ConfigError, match="is in use"):
            server_runner(app, {}, port=port)


class Pserve(Supervised):
    """pserve with an ini file that has `settings` for the server."""

    def __init__(self, folder: Path, *settings: str) -> None:
        (folder / "application.py").write_text(APP)
        (folder / "app.ini").write_text(INI.format(settings="\n".join(settings)))
        command = [sys.executable, "-m", "pyramid.scripts.pserve", "app.ini"]
        self.start(command, folder, env={"PYTHONPATH": str(folder)})
        self.await_line("Ctrl-C")


@pytest.mark.parametrize("workers", [1, 2])
def test_pserve(tmp_path: Path, workers: int) -> None:
    pytest.importorskip("pyramid")
    (tmp_path / "seen.txt").write_text("seen")
    server = Pserve(
        tmp_path, "port = 0", f"workers = {workers}", "static = /static=%(here)s", "threads = 3"
    )
    try:
        assert server.said("app.ini (wsgi)")
        assert server.said("3 threads")
        assert server.get().startswith("pasted ")
        assert server.get().endswith(str(workers > 1))
        assert server.get("/static/seen.txt") == "seen"
    finally:
        assert server.end(signal.SIGTERM) == 0


def test_pserve_ends_with_a_code_when_it_cannot_serve(tmp_path: Path) -> None:
    pytest.importorskip("pyramid")
    (tmp_path / "application.py").write_text(APP)
    (tmp_path / "app.ini").write_text(INI.format(settings="threads = 0.5"))
    command = [sys.executable, "-m", "pyramid.scripts.pserve", "app.ini"]
    done = subprocess.run(
        command, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert "threads: '0.5' is not a whole number" in done.stderr
    assert "Traceback" not in done.stderr
