"""`manage.py runserver_fast` and its `runserver`, in projects that `startproject` has made."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from ...helpers.command import Command, get
from ...helpers.django_project import (
    APP,
    DJANGO_OPTIONS,
    PASSWORD,
    RUNSERVER_APP,
    Project,
    environment,
    one_line,
    url_of,
)
from ...helpers.ports import free_port

# call_command many times in one process: a server starts, says where, and stops.
TRY = """
import json, os, sys
import django

os.environ["DJANGO_SETTINGS_MODULE"] = "mysite.settings"
django.setup()
from django.conf import settings
from django.core.management import call_command
from threadwell.worker import Server

found = []

def serve_forever(self, started):
    self.start()
    found.append({"urls": self.urls, "threads": self.config.thread_count(),
                  "graceful": self.config.timeouts.graceful})
    self.stop()

Server.serve_forever = serve_forever
for words, variables, setting in json.load(sys.stdin):
    settings.THREADWELL = setting
    os.environ.update(variables)
    try:
        call_command("runserver_fast", *words, "--noreload", "--skip-checks",
                     stdout=open(os.devnull, "w"))
    except Exception as error:
        found.append(f"{type(error).__name__} {getattr(error, 'returncode', 0)}: {error}")
    for name in variables:
        del os.environ[name]
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("plain"), plain=True)


@pytest.fixture(scope="module")
def server(plain: Project) -> Iterator[tuple[Command, str]]:
    """The command with nothing but an address, autoreload and all."""
    with plain.serve() as running:
        yield running, url_of(running)


@pytest.fixture
def session() -> Iterator[requests.Session]:
    with requests.Session() as session:
        session.trust_env = False
        yield session


def login(session: requests.Session, url: str) -> requests.Response:
    session.get(f"{url}/admin/login/")
    form = {
        "username": "admin",
        "password": PASSWORD,
        "csrfmiddlewaretoken": session.cookies["csrftoken"],
        "next": "/admin/",
    }
    return session.post(f"{url}/admin/login/", form)


# ---- What a developer sees ------------------------------------------------------------------


def test_the_welcome_page_and_a_login(server: tuple[Command, str], session: Any) -> None:
    running, url = server
    assert "The install worked successfully!" in session.get(url).text
    styles = session.get(f"{url}/static/admin/css/base.css")
    assert (styles.status_code, styles.headers["Content-Type"]) == (200, "text/css")
    assert "Site administration" in login(session, url).text
    running.until(r'^\[\d\d/\w{3}/\d{4} \d\d:\d\d:\d\d\] "GET / HTTP/1.1" 200 \d+$')
    running.until(r'"POST /admin/login/ HTTP/1.1" 302 0')
    assert session.get(f"{url}/static/absent.css").status_code == 404


def test_what_is_said_at_the_start(server: tuple[Command, str]) -> None:
    running, _url = server
    if "WARNING: DEBUG is on" not in running.text:
        running.until("WARNING: DEBUG is on")
    text = running.text
    for line in (
        "Performing system checks...",
        "System check identified no issues (0 silenced).",
        "using settings 'mysite.settings'",
    ):
        assert line in text
    assert re.search(r"threadwell \S+, \d+ threads, GIL (on|off)", text)
    assert "Watching for file changes with watchfiles" in text
    assert "\x1b[" not in text


@pytest.mark.parametrize("option", ["", "--no-color", "NO_COLOR"])
def test_colours_on_a_terminal(plain: Project, option: str) -> None:
    ours, theirs = pty.openpty()
    words = [sys.executable, "manage.py", "runserver_fast", "127.0.0.1:0", "--noreload"]
    variables = {"NO_COLOR": "1"} if option == "NO_COLOR" else {}
    if not option:
        variables["DJANGO_COLORS"] = "dark;http_not_found=red"
    with subprocess.Popen(
        [*words, *([option] if option.startswith("--") else [])],
        cwd=plain.folder,
        env=environment(**variables),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    ) as process:
        os.close(theirs)
        with open(ours, encoding="utf-8", errors="replace") as terminal:
            text = ""
            try:
                for line in terminal:
                    text += line
                    if found := re.search(r"server at (http://\S+)/", line):
                        url = found[1]
                    if "WARNING" in line:
                        assert get(f"{url}/absent")[0] == 404
                    if "absent" in line and "HTTP" in line:
                        break
            finally:
                process.terminate()
                assert process.wait(20) == 0
    assert ("\x1b[" in line) is (not option)
    assert ("\x1b[" in text) is (not option)


def test_warnings_that_are_not_wanted_and_migrations(project: Project) -> None:
    name = str(project.folder / "other.sqlite3")
    with project.serve(
        settings=f"DATABASES['default']['NAME'] = {name!r}", DJANGO_RUNSERVER_HIDE_WARNING="true"
    ) as running:
        url_of(running)
        assert "unapplied migration(s)" in running.text
        assert "WARNING: DEBUG" not in running.end()


def test_checks_may_be_skipped(project: Project) -> None:
    with project.serve("--skip-checks", "--noreload", "--nostatic") as running:
        url = url_of(running)
        assert "Performing system checks" not in running.text
        assert "Watching" not in running.text
        assert get(f"{url}/static/admin/css/base.css")[0] == 404
        running.end(signal.SIGINT)


def test_two_addresses_and_an_access_log(project: Project) -> None:
    path = project.folder / "s"
    words = ["--bind", "127.0.0.1:0", "--bind", f"unix:{path}", "--access-log", "-", "--threads=3"]
    with project.serve(*words) as running:
        url = running.until(r"server at (http://\S+)/")[1]
        running.until(f"server at unix:{path}$")
        running.until("3 threads")
        assert get(f"{url}/version")[0] == 200
        running.until(r'^127.0.0.1 - - \[.*\] "GET /version HTTP/1.1" 200 \d+ "-" "Python')
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(20)
            client.connect(str(path))
            client.sendall(b"GET /version HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200")
        running.end()
        assert not path.exists()
    assert '"GET /version HTTP/1.1" 200 8\n' not in running.text  # runserver's own line


# ---- What can be typed ----------------------------------------------------------------------


def attempts(project: Project, *tries: tuple[list[str], dict[str, str], Any]) -> list[Any]:
    done = subprocess.run(
        [sys.executable, "-c", TRY],
        cwd=project.folder,
        input=json.dumps(tries),
        capture_output=True,
        text=True,
        timeout=50,
        env=environment(),
        check=False,
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == len(tries)
    return found


def test_addresses(project: Project) -> None:
    port = free_port()
    unix = f"unix:{project.folder}/try"
    expected = {
        (str(port),): rf"http://127\.0\.0\.1:{port}",
        (f"0:{port}",): rf"http://127\.0\.0\.1:{port}",
        ("127.0.0.1:0",): r"http://127\.0\.0\.1:\d+",
        ("localhost:0",): r"http://127\.0\.0\.1:\d+",
        ("[::1]:0",): r"http://\[::1\]:\d+",
        ("localhost:0", "-6"): r"http://\[::1\]:\d+",
        ("0", "--ipv6"): r"http://\[::1\]:\d+",
        (unix,): unix,
        ("--bind", "127.0.0.1:0"): r"http://127\.0\.0\.1:\d+",
    }
    found = attempts(project, *((list(words), {}, {}) for words in expected))
    for (words, pattern), result in zip(expected.items(), found, strict=True):
        assert isinstance(result, dict), (words, result)
        assert re.fullmatch(pattern, result["urls"][0]), (words, result)


def test_what_wins(project: Project) -> None:
    port0 = ["127.0.0.1:0"]
    setting = {"threads": 2, "BIND": "127.0.0.1:0", "graceful_timeout": 9}
    variable = {"THREADWELL_THREADS": "3"}
    found = attempts(
        project,
        ([], {}, setting),
        ([], variable, setting),
        (["--threads=4"], variable, setting),
        (["--nothreading"], variable, setting),
        (port0, {}, {}),
        ([], {"THREADWELL_BIND": "127.0.0.1:0 [::1]:0"}, {"bind": "nonsense:1"}),
    )
    assert [each["threads"] for each in found[:4]] == [2, 3, 4, 1]
    assert found[0]["graceful"] == 9
    assert found[4]["graceful"] < 1  # a developer's: no open stream is waited for
    assert len(found[5]["urls"]) == 2


def test_mistakes_in_words(project: Project) -> None:
    mistakes = {
        ("8000x",): '"8000x" is not a valid port number or address:port pair.',
        ("127.0.0.1:0", "-6"): '"127.0.0.1" is not a valid IPv6 address.',
        ("8000", "--bind", "8001"): "an address was given twice: as an argument, and by --bind",
        ("--nothreading", "--threads", "2"): "--nothreading means one thread: give it, or --thr",
        ("--bind", "a:b"): "bind: 'a:b' is not an address; PORT, HOST:PORT,",
    }
    found = attempts(
        project,
        *((list(words), {}, {}) for words in mistakes),
        ([], {"THREADWELL_THREADS": "many"}, {}),
        (["127.0.0.1:0"], {}, {"treads": 2}),
        (["127.0.0.1:0"], {}, ["threads"]),
    )
    for expected, result in zip(mistakes.values(), found, strict=False):
        assert result.startswith(f"CommandError 2: {expected}"), result
    *_, variable, setting, table = found
    assert variable == "CommandError 2: THREADWELL_THREADS: 'many' is not a whole number"
    assert "setting THREADWELL: treads: there is no such option; did you mean threads?" in setting
    assert "THREADWELL is not a dictionary" in table


def test_mistakes_are_one_line(project: Project) -> None:
    def said(*words: str) -> str:
        return one_line(project.manage("runserver_fast", *words, code=2).stderr)

    assert said("--treads", "4", "--insecure") == (
        "manage.py runserver_fast: unrecognized arguments: --treads; did you mean --threads?"
    )
    assert said("--threads", "x", "--noreload").endswith("--threads: 'x' is not a whole number")


def test_a_busy_port_ends_it(project: Project) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for word in ("--noreload", "--skip-checks"):
            text = project.manage("runserver_fast", address, word, code=2).stderr
            line = text.splitlines()[-1]
            assert f"bind: {address} is in use; stop what listens there, or try --bind" in line
            assert "Traceback" not in text


def test_a_bad_setting_is_a_failed_check(project: Project) -> None:
    env = environment("THREADWELL = {'treads': 4}")
    for words in (["check"], ["runserver_fast", "127.0.0.1:0", "--noreload"]):
        text = project.manage(*words, env=env, code=1).stderr
        assert "(threadwell.E001) the setting THREADWELL: treads: there is no such option" in text
        assert "Traceback" not in text


def test_help_names_the_options_of_both(project: Project) -> None:
    text = project.manage("runserver_fast", "--help").stdout
    for option in (*DJANGO_OPTIONS, "--threads", "--keep-alive"):
        assert option in text
    assert text.startswith("usage: manage.py runserver_fast [options] [addrport]\n")
    lines = text.splitlines()
    for line in (
        "threadwell: Limits:",
        "  --threads NUMBER      Number of threads that run requests; 0 chooses 8, or",
        "  --limit-body SIZE     Maximum size of a request body. Beyond it the answer",
        "  --preload, --no-preload",
        "  --poller [auto|epoll|kqueue|queue]",
    ):
        assert line in lines
    assert "[seconds, default: 75]" in " ".join(text.split())


def test_a_switch_takes_no_value(project: Project) -> None:
    words = ("runserver_fast", "--noreload", "--no-reuse-port", "--proxy-hops", "x")
    error = one_line(project.manage(*words, code=2).stderr)
    assert error == ("manage.py runserver_fast: argument --proxy-hops: 'x' is not a whole number")


# ---- In production --------------------------------------------------------------------------

PRODUCTION = "DEBUG = False\nALLOWED_HOSTS = ['127.0.0.1']\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_without_debug(project: Project, number: int) -> None:
    words = ["--insecure"] if number == signal.SIGINT else []
    with project.serve(*words, settings=PRODUCTION) as running:
        url = url_of(running)
        text = running.until("DEBUG is off: no autoreload")[0]
        assert ("static files, by --insecure" in running.text) is bool(words), text
        assert get(f"{url}/static/admin/css/base.css")[0] == (200 if words else 404)
        status, page = get(f"{url}/fail")
        assert (status, "the secret" in page) == (500, False)
        answers: list[Any] = []
        asking = threading.Thread(target=lambda: answers.append(get(f"{url}/slow")))
        asking.start()
        running.until("slow began")
        running.end(number)
        asking.join()
    assert answers == [(200, "slow")]
    assert '"GET /slow' not in running.text  # request lines are the access log's


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_right_after_the_start(project: Project, number: int) -> None:
    with project.serve("--noreload") as running:
        url_of(running)
        running.end(number)


LAST = """
import atexit, time
def last():
    print("the last thing", flush=True)
    while not Path("go on").exists():
        time.sleep(0.01)
    Path("go on").unlink()
    print("is done", flush=True)
atexit.register(last)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_at_the_very_end_is_no_error(project: Project, number: int) -> None:
    with project.serve(settings=f"{PRODUCTION}from pathlib import Path{LAST}") as running:
        url_of(running)
        running.process.send_signal(signal.SIGINT)
        running.until("the last thing")
        running.process.send_signal(number)
        project.write("go on", "")
        text = running.ended()
    assert text.endswith("the last thing\nis done\n")


def test_hosts_are_needed(project: Project) -> None:
    text = project.manage("runserver_fast", env=environment("DEBUG = False"), code=1).stderr
    assert one_line(text).endswith("You must set settings.ALLOWED_HOSTS if DEBUG is False.")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="POSIX")
def test_workers(project: Project) -> None:
    with project.serve("--workers", "2", "--insecure", settings=PRODUCTION) as running:
        url = running.url()
        assert "2 workers" in running.text
        assert "but static files, by --insecure" in running.text
        before = {get(f"{url}/version")[1] for _ in range(4)}
        assert get(f"{url}/static/admin/css/base.css")[0] == 200
        running.process.send_signal(signal.SIGHUP)
        running.until("The new application is served")
        # the old workers may take a connection still, and then they are gone
        end = time.monotonic() + 20
        while get(f"{url}/version")[1] in before:
            assert time.monotonic() < end
        running.end()


def test_workers_name_the_asgi_application(project: Project) -> None:
    (project.folder / "channel.py").write_text("async def app(scope, receive, send): ...\n")
    more = "ASGI_APPLICATION = 'channel.app'"
    with project.serve("--workers", "2", settings=f"{PRODUCTION}\n{more}") as running:
        running.url()
        assert "channel.app serves WebSockets and asynchronous views" in running.text
        running.end()


def test_an_asgi_application_that_is_of_wsgi(project: Project) -> None:
    env = environment("ASGI_APPLICATION = 'mysite.wsgi.application'")
    said = project.manage("runserver_fast", "127.0.0.1:0", "--noreload", env=env, code=2).stderr
    assert said.splitlines()[-1] == (
        "CommandError: ASGI_APPLICATION: mysite.wsgi:application cannot be called with (scope,"
        " receive, send), as an ASGI application is; it looks like a WSGI application"
    )


def test_static_files_and_a_pid_file(project: Project, tmp_path: Path) -> None:
    files = tmp_path / "files"
    files.mkdir()
    words = ["--static", f"/media={files}"]
    with project.serve(*words) as running:
        url = url_of(running)
        (files / "new.txt").write_text("uploaded")  # autoreload looks each time
        assert get(f"{url}/media/new.txt") == (200, "uploaded")
        running.end()
    path = tmp_path / "app.pid"
    with project.serve(*words, "--noreload", "--pid-file", str(path)) as running:
        url = url_of(running)
        assert path.read_text() == f"{running.process.pid}\n"
        (files / "later.txt").write_text("not seen")
        assert get(f"{url}/media/new.txt") == (200, "uploaded")
        assert get(f"{url}/media/later.txt")[0] == 404
        running.end()
    assert not path.exists()
    said = project.manage("runserver_fast", "--pid-file", str(path), code=2).stderr
    assert (
        one_line(said)
        == "CommandError: pid_file: autoreload is for a single process; add --noreload"
    )


# ---- Beside others --------------------------------------------------------------------------

MIDDLEWARE = """
from mysite.wsgi import application as inner

def application(environ, start_response):
    def start(status, headers, *rest):
        return start_response(status, [*headers, ("X-Around", "yes")], *rest)
    return inner(environ, start)
"""


def test_wsgi_application(project: Project) -> None:
    project.write("mysite/around.py", MIDDLEWARE)
    for setting, expected in (("'mysite.around.application'", "yes"), ("None", None)):
        with project.serve("--noreload", settings=f"WSGI_APPLICATION = {setting}") as running:
            url = url_of(running)
            for path in ("version", "static/admin/css/base.css"):
                with urllib.request.urlopen(f"{url}/{path}", timeout=20) as response:
                    around = response.headers["X-Around"]
                    assert around == (expected if path == "version" else None)


def test_whitenoise(project: Project) -> None:
    settings = (
        "INSTALLED_APPS.insert(0, 'whitenoise.runserver_nostatic')\n"
        "MIDDLEWARE.insert(1, 'whitenoise.middleware.WhiteNoiseMiddleware')\n"
    )
    with project.serve("--noreload", settings=settings) as running:
        url = url_of(running) + "/static/admin/css/base.css"
        with urllib.request.urlopen(url, timeout=20) as response:
            # only whitenoise's answers have this one
            assert response.headers["Cache-Control"] == "max-age=0, public"
            assert b"--primary" in response.read()


RIVAL = """
from django.core.management.commands.runserver import Command as RunserverCommand

class Command(RunserverCommand):
    def inner_run(self, *args, **options):
        raise AssertionError("daphne serves")
"""


def with_apps(*names: str) -> str:
    return f"INSTALLED_APPS = {[*names]!r} + INSTALLED_APPS"


@pytest.fixture(scope="module")
def daphne(project: Project) -> Project:
    (project.folder / "daphne").mkdir()
    for name in ("daphne", "daphne/management", "daphne/management/commands"):
        project.write(f"{name}/__init__.py", "")
    project.write("daphne/management/commands/runserver.py", RIVAL)
    return project


def test_daphne_keeps_its_runserver(daphne: Project) -> None:
    with daphne.serve("--noreload", settings=with_apps("daphne")) as running:
        assert get(f"{url_of(running)}/version")[0] == 200


def test_runserver_is_replaced(daphne: Project) -> None:
    apps = with_apps("whitenoise.runserver_nostatic", RUNSERVER_APP, "daphne")
    with daphne.serve(name="runserver", settings=apps) as running:
        url = url_of(running)
        assert "threadwell.W001" in running.text
        assert get(f"{url}/version")[0] == 200
        # whitenoise has said --nostatic, and its middleware is not there
        assert get(f"{url}/static/admin/css/base.css")[0] == 404
        running.end()
    # both commands at once, and the one beside it
    with daphne.serve("--noreload", settings=apps) as running:
        assert get(f"{url_of(running)}/version")[0] == 200


def test_a_wrong_order_is_explained(daphne: Project) -> None:
    settings = f"INSTALLED_APPS += [{RUNSERVER_APP!r}]\n" + with_apps("daphne")
    text = daphne.manage("check", env=environment(settings), code=1).stderr
    for name in ("daphne", "django.contrib.staticfiles"):
        assert (
            f"(threadwell.E002) '{RUNSERVER_APP}' stands below '{name}' in INSTALLED_APPS" in text
        )
    assert APP in (daphne.folder / "mysite" / "settings.py").read_text()


def test_the_order_is_right(project: Project) -> None:
    for names in ([RUNSERVER_APP], ["whitenoise.runserver_nostatic", RUNSERVER_APP]):
        done = project.manage("check", env=environment(with_apps(*names)))
        assert "no issues" in done.stdout


def test_without_staticfiles(project: Project, tmp_path: Path) -> None:
    settings = (
        "INSTALLED_APPS = [n for n in INSTALLED_APPS if 'staticfiles' not in n and 'adm' not in n]"
        "\nROOT_URLCONF = 'mysite.bare'"
    )
    project.write("mysite/bare.py", URLS_BARE)
    with project.serve("--noreload", settings=settings) as running:
        assert get(f"{url_of(running)}/version")[0] == 200


URLS_BARE = """
from django.urls import path
from . import views
urlpatterns = [path("version", views.version)]
"""
