"""`flask serve`, as a user would run it, and in the words it answers mistakes with."""

from __future__ import annotations

import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import click
import pytest
from flask.cli import run_command

from threadwell.adapters.flask.command import serve
from threadwell.error_page import MARK
from threadwell.worker import OPTIONS

from ...helpers.certificates import Authority
from ...helpers.command import Command, command, get

HELLO = """
from flask import Flask

app = Flask(__name__)

@app.route("/")
def hello_world():
    return "<p>Hello, World!</p>"
"""

FACTS = """
import os, sys
import flask

def create_app(name="default"):
    app = flask.Flask(name)
    app.json.compact = True

    @app.get("/")
    def index():
        return {
            "name": app.name,
            "debug": app.debug,
            "thread": flask.request.environ["wsgi.multithread"],
            "loops": sorted({"asyncio", "watchfiles"} & set(sys.modules)),
            "main": os.environ.get("WERKZEUG_RUN_MAIN"),
            "secret": os.environ.get("SECRET", ""),
        }

    @app.get("/fail")
    def fail():
        local_of_the_view = 1
        raise ZeroDivisionError("on purpose")

    return app
"""

Start = Callable[..., Command]


def environment(**variables: str) -> dict[str, str]:
    own = {name: value for name, value in os.environ.items() if not name.startswith("FLASK")}
    return own | variables


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """`start(*arguments)` runs `flask` among the files of `tmp_path`."""
    (tmp_path / "hello.py").write_text(HELLO)
    (tmp_path / "facts.py").write_text(FACTS)
    with ExitStack() as stack:

        def run(*args: str, **options: Any) -> Command:
            options.setdefault("env", environment())
            return stack.enter_context(command(["-m", "flask", *args], tmp_path, **options))

        yield run


def test_the_quickstart(start: Start) -> None:
    running = start("--app", "hello", "serve", "--port", "0")
    url = running.url()
    assert "serves hello (flask)" in running.text
    assert get(url) == (200, "<p>Hello, World!</p>")
    text = running.end(signal.SIGINT)
    assert text.endswith("stopping\n")
    assert "Debug" not in text


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_static_files(start: Start, tmp_path: Path, debug: list[str]) -> None:
    files = tmp_path / "files"
    files.mkdir()
    (files / "known.txt").write_text("known")
    words = ["--port", "0", "--static", "/files=files"]
    running = start("--app", "hello", *debug, "serve", *words)
    url = running.url()
    (files / "new.txt").write_text("new")
    assert get(f"{url}/files/known.txt") == (200, "known")
    assert get(f"{url}/files/new.txt")[0] == (200 if debug else 404)
    assert get(url)[0] == 200
    running.end()


def test_help(start: Start) -> None:
    assert re.search(r"^  serve +Serve on threads", start("--help").ended(), re.MULTILINE)
    text = start("serve", "--help-all").ended()
    for param in (*run_command.params, *serve.params):
        if not getattr(param, "hidden", False):
            assert param.opts[0] in text


def test_every_option_of_run_and_of_the_table() -> None:
    flags = {flag for param in serve.params for flag in (*param.opts, *param.secondary_opts)}
    for param in run_command.params:
        assert {*param.opts, *param.secondary_opts} <= flags
    assert {option.flag for option in OPTIONS} <= flags
    names = [param.name for param in serve.params]
    assert len(names) == len(set(names))


def test_a_factory_with_arguments(start: Start) -> None:
    running = start("--app", "facts:create_app('own')", "serve", "-p", "0", "-h", "localhost")
    assert '"name":"own"' in get(running.url())[1]


def test_no_event_loop(start: Start) -> None:
    for args in ((), ("--debug",)):
        url = start("--app", "facts", *args, "serve", "-p", "0").url()
        assert '"loops":[]' in get(url)[1]


def test_app_run_is_guarded(start: Start, tmp_path: Path) -> None:
    (tmp_path / "guarded.py").write_text(HELLO + "\napp.run(port=1)\n")
    running = start("--app", "guarded", "serve", "-p", "0")
    assert get(running.url())[0] == 200


def test_variables_and_flaskenv(start: Start, tmp_path: Path) -> None:
    (tmp_path / ".flaskenv").write_text(
        "FLASK_APP=facts\nFLASK_SERVE_THREADS=1\nFLASK_SERVE_PORT=0\nSECRET=in the file\n"
    )
    running = start("serve", env=environment(FLASK_SERVE_ACCESS_LOG="-"))
    url = running.url()
    assert "1 thread," in running.text
    assert '"secret":"in the file"' in get(url)[1]
    assert '"GET / HTTP/1.1" 200' in running.end()


def test_options_of_the_table(start: Start, tmp_path: Path) -> None:
    running = start(
        "--app", "hello", "serve", "--bind", "unix:s", "--bind", "127.0.0.1:0", "--threads", "3",
        "--access-log", "log", "--log-format", "%m %U",
    )  # fmt: skip
    get(running.url())
    assert "unix:" in running.text
    assert "3 threads" in running.text
    running.end()
    assert (tmp_path / "log").read_text() == "GET /\n"


def test_without_threads(start: Start) -> None:
    running = start("--app", "hello", "serve", "-p", "0", "--without-threads")
    running.url()
    assert "1 thread," in running.text


# ---- Debug ---------------------------------------------------------------------------------


def test_without_debug_there_is_no_debugger(start: Start) -> None:
    running = start("--app", "facts", "serve", "-p", "0")
    url = running.url()
    status, page = get(url + "/fail")
    assert status == 500
    assert "on purpose" not in page
    assert get(url + "/console")[0] == 404
    resource = get(url + "/?__debugger__=yes&cmd=resource&f=debugger.js")
    assert resource[0] == 200
    assert '"main":null' in resource[1]
    assert "PIN" not in running.end()


def test_the_debugger_in_debug_mode(start: Start) -> None:
    running = start("--app", "facts", "--debug", "serve", "-p", "0", "-h", "0.0.0.0")
    url = running.url()
    pin = re.search(r"The debugger's PIN is (\S+)", running.text)
    assert pin
    status, page = get(url + "/fail")
    assert status == 500
    assert "ZeroDivisionError: on purpose" in page
    assert "EVALEX = true" in page
    running.until("^ZeroDivisionError: on purpose")  # printed behind the last block of the page
    secret = re.search(r'SECRET = "(\w+)"', page)
    assert secret
    auth = f"{url}/?__debugger__=yes&cmd=pinauth&pin={pin[1]}&s={secret[1]}"
    assert '"auth": true' in get(auth)[1]
    # only for clients on this machine
    request = urllib.request.Request(url + "/fail", headers={"X-Forwarded-For": "1.2.3.4"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=30)
    with caught.value:
        assert "on purpose" not in caught.value.read().decode()
    own = socket.gethostbyname(socket.gethostname())
    if not own.startswith("127."):
        assert get(f"http://{own}:{url.rpartition(':')[2]}/fail")[1] == "Internal Server Error\n"
    assert '"GET /fail HTTP/1.1" 500' in running.end()


def test_the_pin_comes_after_a_change_before_the_first_serving(
    start: Start, tmp_path: Path
) -> None:
    (tmp_path / "hello.py").write_text(
        "print('imported', flush=True)\nimport time\ntime.sleep(600)\n"
    )
    running = start("--app", "hello", "--debug", "serve", "-p", "0")
    running.until("imported")
    (tmp_path / "hello.py").write_text(HELLO)
    running.url()
    assert re.search(r"The debugger's PIN is (\S+)", running.text)


def test_no_debugger_behind_a_proxy(start: Start) -> None:
    running = start("--app", "facts", "--debug", "serve", "-p", "0", "--trusted-proxies", "unix")
    url = running.url()
    assert "PIN" not in running.text
    # of a proxy here that is not trusted the header is not told, but everybody comes from here
    request = urllib.request.Request(url + "/fail", headers={"X-Forwarded-For": "1.2.3.4"})
    for asked in (url + "/fail", request):
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(asked, timeout=30)
        with caught.value:
            assert "on purpose" not in caught.value.read().decode()
    running.end()


def test_debug_without_debugger_and_reloader(start: Start) -> None:
    running = start("--app", "facts", "--debug", "serve", "-p", "0", "--no-debugger", "--no-reload")
    url = running.url()
    assert "PIN" not in running.text
    assert "Restarts" not in running.text
    assert get(url + "/console")[0] == 404
    assert '"debug":true' in get(url)[1]


def test_debug_behind_the_command(start: Start) -> None:
    running = start("--app", "facts", "serve", "--debug", "-p", "0")
    url = running.url()
    assert '"debug":true' in get(url)[1]
    assert '"main":"true"' in get(url)[1]
    running.end()
    running = start("--app", "facts", "--debug", "serve", "--no-debug", "-p", "0")
    assert '"debug":false' in get(running.url())[1]


def test_an_edit_and_a_syntax_error(start: Start, tmp_path: Path) -> None:
    running = start("--app", "hello", "--debug", "serve", "-p", "0")
    url = running.url()
    began = time.monotonic()
    (tmp_path / "hello.py").write_text(HELLO.replace("World", "Everybody"))
    running.until("again")
    assert time.monotonic() - began < 10  # a second, where nothing else runs
    assert get(url)[1] == "<p>Hello, Everybody!</p>"
    (tmp_path / "hello.py").write_text(HELLO.replace("Flask(__name__)", "Flask(__name__"))
    running.until("again")
    for _ in range(2):
        status, page = get(url)
        assert status == 500
        assert "was never closed" in page
        assert "Werkzeug Debugger" in page
    (tmp_path / "hello.py").write_text(HELLO.replace("World", "mended"))
    running.until("again")
    assert get(url)[1] == "<p>Hello, mended!</p>"
    running.end(signal.SIGINT)


def test_broken_at_the_start(start: Start, tmp_path: Path) -> None:
    (tmp_path / "later.py").write_text("import absent_module_of_a_test")
    running = start("--app", "later", "--debug", "serve", "-p", "0")
    url = running.url()
    assert "absent_module_of_a_test" in get(url)[1]
    (tmp_path / "later.py").write_text(HELLO)
    running.until("again")
    assert get(url)[1] == "<p>Hello, World!</p>"


def test_the_page_of_a_broken_application_reloads_itself(start: Start, tmp_path: Path) -> None:
    (tmp_path / "later.py").write_text("import absent_module_of_a_test")
    running = start("--app", "later", "--debug", "serve", "-p", "0")
    url = running.url()
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(url, timeout=30)
    with caught.value as page:
        text = page.read().decode()
        assert "Werkzeug Debugger" in text
        assert f'<script nonce="{page.headers[MARK]}">' in text
    # another name may be one whose address a site has changed to that of this machine
    asked = urllib.request.Request(url, headers={"Host": "rebound.example"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(asked, timeout=30)
    with caught.value as page:
        assert "in the terminal of the server" in page.read().decode()
    (tmp_path / "later.py").write_text(HELLO)
    running.until("again")
    with urllib.request.urlopen(url, timeout=30) as mended:
        assert MARK not in mended.headers


def test_broken_without_the_debugger(start: Start, tmp_path: Path) -> None:
    (tmp_path / "later.py").write_text("import absent_module_of_a_test")
    running = start("--app", "later", "serve", "--reload", "-p", "0")
    status, text = get(running.url())
    assert status == 500
    assert text.startswith("The application cannot be loaded\n")
    assert "No module named 'absent_module_of_a_test'" in text


def test_extra_files_and_patterns(start: Start, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    extra = os.pathsep.join(["a.toml", "b.toml"])
    running = start(
        "--app", "hello", "serve", "-p", "0", "--reload",
        "--extra-files", extra, "--exclude-patterns", os.pathsep.join(["*/sub/*", "made*"]),
    )  # fmt: skip
    running.url()
    assert "PIN" not in running.text
    (tmp_path / "sub" / "a.py").write_text("1")
    (tmp_path / "made.py").write_text("1")
    time.sleep(0.5)
    (tmp_path / "b.toml").write_text("1")
    assert running.until(r"(\S+) has changed")[1] == "b.toml"
    running.until("again")


# ---- TLS -----------------------------------------------------------------------------------


def fetch(url: str, context: ssl.SSLContext) -> str:
    with urllib.request.urlopen(url, timeout=30, context=context) as response:
        text: str = response.read().decode()
        return text


def test_certificate_files(start: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    cert, key = authority.issue("site")
    running = start("--app", "hello", "serve", "-p", "0", "--cert", str(cert), "--key", str(key))
    assert fetch(running.url(), authority.trusting()) == "<p>Hello, World!</p>"


def test_an_ssl_context(start: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "ca")
    cert, key = authority.issue("site")
    (tmp_path / "mytls.py").write_text(
        "import ssl\ncontext = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)\n"
        f"context.load_cert_chain({str(cert)!r}, {str(key)!r})\n"
    )
    running = start("--app", "hello", "serve", "-p", "0", "--cert", "mytls:context")
    assert fetch(running.url(), authority.trusting()) == "<p>Hello, World!</p>"


def test_adhoc(start: Start, tmp_path: Path) -> None:
    pytest.importorskip("trustme")
    env = environment(XDG_CACHE_HOME=str(tmp_path / "cache"))
    running = start("--app", "hello", "--debug", "serve", "-p", "0", "--cert", "adhoc", env=env)
    url = running.url().replace("127.0.0.1", "localhost")
    assert url.startswith("https://")
    authority = next((tmp_path / "cache").rglob("*ca.pem"))
    context = ssl.create_default_context(cafile=authority)
    assert fetch(url, context) == "<p>Hello, World!</p>"


# ---- Mistakes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "line"),
    [
        (["--debugger"], "debugger: it lets clients run code, so it needs debug mode; add --debug"),
        (["--bind", "8000", "--port", "1"], "replaces --host and --port; leave them out"),
        (["--key", "x"], "key: it is for --cert, which was not given; add it"),
        (["--cert", "adhoc", "--key", "x"], "key: it is for a certificate file"),
        (["--cert", "x", "--certfile", "x"], "say it already; leave one of them out"),
        (["--cert", "absent.pem"], "absent.pem"),
        (["--without-threads", "--threads", "4"], "this is --threads 1; leave one of them out"),
        (["--extra-files", "x"], "extra-files, exclude-patterns: they are for --reload; add it"),
        (["--host", "nowhere.invalid"], "no address is known for the host 'nowhere.invalid'"),
        (["--log-format", "%Q"], "--log-format: "),
    ],
)
def test_one_line(tmp_path: Path, args: list[str], line: str) -> None:
    (tmp_path / "app.py").write_text(HELLO)
    done = flask("serve", *args, folder=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith("Error: ")
    assert line in done.stderr
    assert done.stderr.count("\n") == 1


def flask(*args: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "flask", *args],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )


def test_a_busy_port(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(HELLO)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        for flag in ("--reload", "--no-reload"):
            done = flask("serve", flag, "-p", str(taken.getsockname()[1]), folder=tmp_path)
            assert done.returncode == 2
            assert "is in use" in done.stderr
            assert done.stderr.count("\n") == 1


def test_no_application(tmp_path: Path) -> None:
    done = flask("serve", folder=tmp_path)
    assert done.returncode == 2
    assert "Could not locate a Flask application" in done.stderr


def test_an_application_that_fails(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("1 / 0")
    done = flask("serve", folder=tmp_path)
    assert done.returncode == 2
    assert "Traceback" in done.stderr
    assert done.stderr.endswith(
        "Error: the application cannot be imported: ZeroDivisionError: division by zero\n"
    )


def test_an_option_that_does_not_exist() -> None:
    context = click.Context(serve, auto_envvar_prefix="FLASK_SERVE")
    with pytest.raises(click.NoSuchOption):
        serve.parse_args(context, ["--worker-class", "x"])


# ---- Several processes --------------------------------------------------------------------


def test_workers_load_the_application_anew(start: Start, tmp_path: Path) -> None:
    running = start("--app", "hello", "serve", "--port", "0", "--workers", "2")
    url = running.url()
    assert "serves hello (flask)" in running.text
    assert "2 workers of " in running.text
    assert get(url) == (200, "<p>Hello, World!</p>")
    (tmp_path / "hello.py").write_text(HELLO.replace("World", "New World"))
    running.process.send_signal(signal.SIGHUP)
    deadline = time.monotonic() + 20
    while "New" not in get(url)[1]:
        assert time.monotonic() < deadline
    running.end(signal.SIGTERM)


def test_workers_and_an_application_that_fails(start: Start, tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    running = start("--app", "broken", "serve", "--port", "0", "--workers", "2")
    text = running.ended(2)
    assert text.count("Traceback") == 1
    assert "the application cannot be imported: ZeroDivisionError" in text


def test_workers_are_not_for_debugging(start: Start) -> None:
    arguments = ("--app", "hello", "--debug", "serve", "--workers", "2", "--port", "0")
    assert "workers: the reloader and the debugger" in start(*arguments).ended(2)
