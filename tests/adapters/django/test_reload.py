"""Autoreload of `runserver_fast`: Django's reloader, under a parent that keeps the sockets."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ...helpers.command import Command, children, command, get
from ...helpers.django_project import APP, MODELS, URLS, VIEWS, Project, environment, url_of
from ...helpers.ports import free_port
from ...helpers.waiting import until

BROKEN = "def broken(:\n"
AGAIN = r"Quit the server with CONTROL-C\."
WAITS = "The server starts again when a file changes"

# What django-watchfiles, django-tailwind and others hook into.
HOOKS = """
from django.apps import AppConfig
from django.utils.autoreload import autoreload_started, file_changed


class HooksConfig(AppConfig):
    name = "hooks"

    def ready(self):
        autoreload_started.connect(started)
        file_changed.connect(changed)


def started(sender, **_):
    print("hook: started", flush=True)
    sender.watch_dir("hooks/assets", "*.css")
    files = sender.snapshot_files

    def looked():
        yield from files()
        print("hook: looked\\n", end="", flush=True)

    sender.snapshot_files = looked


def changed(sender, file_path, **_):
    if file_path.suffix == ".css":
        print("hook: built", file_path.name, flush=True)
        return True
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("project"))


@pytest.fixture
def project(original: Project, tmp_path: Path) -> Project:
    return original.copy(tmp_path / "copy")


@contextlib.contextmanager
def watched(project: Project, *words: str, settings: str = "") -> Iterator[tuple[Command, str]]:
    """The command with autoreload, and its URL; after the block no process of it is left."""
    with project.serve(*words, settings=settings) as running:
        yield running, url_of(running)
        pids = [running.process.pid, *children(running.process.pid)]
        running.end()
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]


def version(url: str) -> tuple[int, str]:
    """The process that serves, and its version of the view."""
    status, text = get(f"{url}/version")
    assert status == 200
    return int(text.split()[0]), text.split()[1]


def test_a_day_of_a_developer(project: Project) -> None:
    with watched(project) as (running, url):
        first, name = version(url)
        assert name == "one"

        # an edit: new code, another process, the same port, and no zombie
        project.write("mysite/views.py", VIEWS.replace("one", "two"))
        running.until("views.py changed, reloading")
        running.until(AGAIN)
        second, name = version(url)
        assert (name, second != first) == ("two", True)
        assert children(running.process.pid) == [second]

        # a template: at once, and by the same process
        assert get(f"{url}/page") == (200, "page one")
        project.write("templates/page.html", "page two")
        until(lambda: get(f"{url}/page")[1] == "page two")
        assert get(f"{url}/page") == (200, "page two")
        assert version(url) == (second, "two")

        # what is broken and mended again; each time the port is kept, and clients wait
        mended = VIEWS.replace("one", "three")
        for file, good in (
            ("mysite/views.py", mended),
            ("mysite/urls.py", URLS),
            ("notes/models.py", MODELS),
            ("mysite/settings.py", project.file("mysite/settings.py").read_text()),
        ):
            project.write(file, BROKEN)
            running.until("SyntaxError")
            if file in ("notes/models.py", "mysite/settings.py"):
                running.until(WAITS)
                assert children(running.process.pid) == []
            project.write(file, good)
            running.until(AGAIN)
            assert version(url)[1] == "three", file


@pytest.mark.parametrize("place", ["first", "last"])
def test_broken_at_the_start(project: Project, place: str) -> None:
    settings = ""
    if place == "last":
        settings = f"INSTALLED_APPS.remove({APP!r}); INSTALLED_APPS.append({APP!r})"
    project.write("notes/models.py", BROKEN)
    with project.serve(settings=settings) as running:
        running.until("SyntaxError")
        running.until(WAITS)
        project.write("notes/models.py", MODELS)
        assert get(url_of(running) + "/version")[0] == 200
        running.end()


def test_a_bad_setting_is_waited_for(project: Project) -> None:
    text = project.file("mysite/settings.py").read_text()
    with watched(project) as (running, url):
        project.write("mysite/settings.py", text + "THREADWELL = {'treads': 2}\n")
        running.until("threadwell.E001")
        project.write("mysite/settings.py", text + "THREADWELL = {'threads': 2}\n")
        running.until("threadwell .* 2 threads")
        assert version(url)
        assert "Traceback" not in running.text


def test_addresses_change_while_it_runs(project: Project) -> None:
    port = free_port()
    path = project.folder / "s"
    text = project.file("mysite/settings.py").read_text()

    def bind(*addresses: str) -> None:
        project.write("mysite/settings.py", f"{text}THREADWELL = {{'bind': {addresses!r}}}\n")

    bind(f"127.0.0.1:{port}")
    with command(["manage.py", "runserver_fast"], project.folder, env=environment()) as running:
        assert url_of(running) == f"http://127.0.0.1:{port}"
        bind(f"127.0.0.1:{port}", f"unix:{path}")
        running.until(f"server at unix:{path}$")
        running.until(AGAIN)
        # the same port on all addresses: the old socket must be gone
        bind(f"0.0.0.0:{port}")
        running.until(rf"server at http://127.0.0.1:{port}/ \(and on every other")
        running.until(AGAIN)
        assert version(f"http://127.0.0.1:{port}")
        until(lambda: not path.exists())  # the parent removes it, beside the child that serves
        bind(f"unix:{path}")
        running.until(f"server at unix:{path}$")
        running.until(AGAIN)
        project.write("mysite/views.py", VIEWS.replace("one", "two"))
        running.until("reloading")
        running.until(AGAIN)
        assert path.exists()
        running.end()
        assert not path.exists()


def test_who_connects_meanwhile_waits(project: Project) -> None:
    with watched(project) as (running, url):
        old = version(url)[0]
        project.write("mysite/views.py", "import time; time.sleep(0.7)" + VIEWS.replace("one", "2"))
        running.until("reloading")
        # what the old one has accepted it answers, if it can in a moment
        while old in children(running.process.pid):
            time.sleep(0.01)
        answers: list[tuple[int, str]] = []
        threads = [threading.Thread(target=lambda: answers.append(version(url))) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(answers) == len(threads)
        assert {name for _, name in answers} == {"2"}


def test_open_streams_do_not_delay_it(
    project: Project, record_property: Callable[[str, object], None]
) -> None:
    with watched(project) as (running, url), contextlib.ExitStack() as stack:
        host, port = re.findall(r"//(.*):(\d+)", url)[0]
        for _ in range(3):
            client = stack.enter_context(socket.create_connection((host, int(port)), 20))
            client.sendall(b"GET /stream HTTP/1.1\r\nHost: localhost\r\n\r\n")
            assert client.recv(1000).startswith(b"HTTP/1.1 200")
        before = version(url)[0]
        started = time.monotonic()
        project.write("mysite/views.py", VIEWS.replace("one", "two"))
        running.until("reloading")
        noticed = time.monotonic() - started
        while before in children(running.process.pid):  # it has a moment for what is in flight
            assert time.monotonic() - started < 20
        assert version(url)[0] != before
        seconds = time.monotonic() - started
        record_property("seconds", f"{noticed:.2f} to notice, {seconds:.2f} until an answer")
        assert seconds < 10


def test_apps_that_hook_into_it(project: Project) -> None:
    for name in ("hooks/__init__.py", "hooks/assets/a.css"):
        project.file(name).parent.mkdir(exist_ok=True)
        project.write(name, "")
    project.write("hooks/apps.py", HOOKS)
    with watched(project, settings="INSTALLED_APPS += ['hooks']") as (running, url):
        running.until("hook: looked")  # it does every second
        assert "hook: started" in running.text
        pid = version(url)[0]
        project.write("hooks/assets/a.css", "p {}")
        running.until("hook: built a.css")
        assert version(url)[0] == pid


OTHER_RELOADER = """
import time
from django.apps import AppConfig
from django.utils import autoreload


class Reloader(autoreload.StatReloader):
    SLEEP_TIME = 0.1

    def tick(self):
        looks = super().tick()
        yield next(looks)
        print("it has looked at the files\\n", end="", flush=True)
        yield from looks


class HooksConfig(AppConfig):
    name = "hooks"
    autoreload.get_reloader = Reloader
"""


def test_another_reloader_is_kept(project: Project) -> None:
    project.write("hooks/__init__.py", "")
    project.write("hooks/apps.py", OTHER_RELOADER)
    with watched(project, settings="INSTALLED_APPS += ['hooks']") as (running, url):
        assert "Watching for file changes with Reloader" in running.text
        if "it has looked" not in running.text:
            running.until("it has looked")
        project.write("mysite/views.py", VIEWS.replace("one", "two"))
        running.until("reloading")
        running.until(AGAIN)
        assert version(url)[1] == "two"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_process_is_left(project: Project, number: int) -> None:
    with project.serve() as running:
        child = version(url_of(running))[0]
        assert children(running.process.pid) == [child]
        if number == signal.SIGINT:
            os.killpg(running.process.pid, number)  # as a terminal does
        else:
            os.kill(running.process.pid, number)
        text = running.ended(-number if number == signal.SIGKILL else 0)
        end = time.monotonic() + 20
        status = Path(f"/proc/{child}/stat")
        # it may be buried between the opening of its file and the reading, too
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            # whoever adopts orphans here may not bury them
            while status.read_text().rpartition(") ")[2][0] != "Z":
                assert time.monotonic() < end
                time.sleep(0.02)
        assert "Traceback" not in text
        assert "Exception ignored" not in text
