"""Static files by options and commands, and mistakes in them."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from threadwell import ConfigError, ServerConfig, ThreadedServer
from threadwell.worker.static.folders import check_static

from ..helpers.supervised import APP, Supervised
from ..helpers.waiting import until
from .applications import CSS, app

Serve = Callable[..., ThreadedServer]


# ---- Commands -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        ([], False),
        (["--static-refresh"], True),
        (["--reload"], True),
        (["--reload", "--no-static-refresh"], False),
        (["--workers", "2"], False),
    ],
)
def test_a_command_that_serves_files(
    tmp_path: Path, folder: Path, arguments: list[str], seen: bool
) -> None:
    (tmp_path / "application.py").write_text(APP.format(version=1))
    words = ["application:app", "--bind", "127.0.0.1:0", "--static", "/static=files", *arguments]
    server = Supervised(tmp_path, *words)
    try:
        (folder / "new.txt").write_text("new")
        assert server.get("/static/style.css") == CSS.decode()
        assert server.get().startswith("1 ")
        if seen:
            assert server.get("/static/new.txt") == "new"
        else:
            with pytest.raises(urllib.error.HTTPError, match="404") as caught:
                server.get("/static/new.txt")
            caught.value.close()
    finally:
        server.end()


@pytest.mark.parametrize("arguments", [[], ["--workers", "2"]])
def test_a_folder_without_an_application(
    tmp_path: Path, folder: Path, arguments: list[str]
) -> None:
    (folder / "index.html").write_text("the first page")
    server = Supervised(tmp_path, "--bind", "127.0.0.1:0", "--static", "/=files", *arguments)
    try:
        assert server.said("serves /=files (static files)") == 1
        assert server.get() == "the first page"
        assert server.get("/style.css") == CSS.decode()
        with pytest.raises(urllib.error.HTTPError, match="404") as caught:
            server.get("/nothing")
        caught.value.close()
    finally:
        server.end()


def test_a_folder_beside_an_application_that_is_found(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "app.py").write_text(APP.format(version=1))
    server = Supervised(tmp_path, "--bind", "127.0.0.1:0", "--static", "/=files")
    try:
        assert server.get("/style.css") == CSS.decode()
        assert server.get().startswith("1 ")
    finally:
        server.end()


def test_a_folder_without_an_application_is_checked(tmp_path: Path, folder: Path) -> None:
    words = [sys.executable, "-m", "threadwell", "check", "--static", "/=files"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "/=files and its settings are fine\n"


def test_a_reload_reads_the_folders_again(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "application.py").write_text(APP.format(version=1))
    words = ["application:app", "--bind", "127.0.0.1:0", "--static", "/static=files"]
    server = Supervised(tmp_path, *words, "--workers", "2")
    try:
        (folder / "new.txt").write_text("new")
        server.send(signal.SIGHUP)
        server.await_line("The new application is served")
        until(lambda: answered(f"http://127.0.0.1:{server.port}/static/new.txt"))
    finally:
        server.end()


def answered(url: str) -> bool:
    """Whether it is 200; the old workers may take a connection yet."""
    try:
        with urllib.request.urlopen(url, timeout=20) as response:
            return bool(response.status == 200)
    except urllib.error.HTTPError as error:
        error.close()
        return False


def test_what_threadwell_needs_for_it() -> None:
    script = (
        "import sys; sys.modules['whitenoise'] = None\n"
        "from threadwell.cli import main\n"
        "sys.exit(main(['app', '--static', '/static=.']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    wanted = "threadwell: --static: whitenoise is missing; pip install whitenoise\n"
    assert done.stderr == wanted


# ---- What is wrong with it ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"static": "static"}, "'static' is not of the form /static=FOLDER"),
        ({"static": "/static"}, "is not of the form"),
        ({"static": "/static="}, "is not of the form"),
        ({"static": "/a/../b=."}, "not a plain path"),
        ({"static": "/a%20b=."}, "not a plain path"),
        ({"static": "/static=/not/there"}, "there is no folder /not/there"),
        ({"static": f"/static={__file__}"}, "is a file; give the folder"),
        ({"static": "/=/"}, "the root of the file system"),
        ({"static": "/static=.", "static_immutable": "("}, "is not a regular expression"),
    ],
)
def test_mistakes(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match="static") as caught:
        check_static(ServerConfig.from_options(**options).static)
    assert said in str(caught.value)


def test_options_of_nothing(serve: Serve) -> None:
    for option in ({"static_index": "index.html"}, {"static_max_age": 1}):
        with pytest.raises(ConfigError, match="no folder is served; give static too"):
            serve(app, **option)
    serve(app, static_refresh=True)  # as --reload has it
