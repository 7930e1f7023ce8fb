"""The error page of `runserver_fast`, while the project is broken."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from ...helpers.command import children, get
from ...helpers.django_project import APP, RUNSERVER_APP, URLS, Project, url_of
from ...helpers.ports import free_port
from ...helpers.waiting import until

BROKEN = "def broken(:\n"
AGAIN = r"Quit the server with CONTROL-C\."
WAITS = "The server starts again when a file changes"
READY = """
from django.apps import AppConfig

class NotesConfig(AppConfig):
    name = "notes"

    def ready(self):
        RAISED
"""


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Project:
    return Project(tmp_path_factory.mktemp("project"))


@pytest.fixture
def project(original: Project, tmp_path: Path) -> Project:
    return original.copy(tmp_path / "copy")


#: Files, what is wrong in them, and what the page then says. `{}` is the text of the file.
MISTAKES = [
    ("mysite/views.py", BROKEN, "SyntaxError"),
    ("mysite/urls.py", "import absent_module", "No module named 'absent_module'"),
    ("notes/models.py", "import absent_module", "No module named 'absent_module'"),
    ("notes/apps.py", READY.replace("RAISED", "1 / 0"), "ZeroDivisionError"),
    ("mysite/settings.py", BROKEN, "SyntaxError"),
    ("mysite/settings.py", "import absent_module", "No module named 'absent_module'"),
    ("mysite/settings.py", "{}\nTHREADWELL = {{'treads': 2}}\n", "treads"),
    ("manage.py", BROKEN, "SyntaxError"),
]


@pytest.mark.parametrize(("name", "broken", "says"), MISTAKES)
def test_a_mistake_is_shown_until_it_is_mended(
    project: Project, name: str, broken: str, says: str
) -> None:
    project.write("notes/apps.py", READY.replace("RAISED", "pass"))
    with project.serve() as running:
        url = url_of(running)
        mended = project.file(name).read_text()
        project.write(name, broken.format(mended))
        status, text = shown(url, says)
        assert status == 500
        assert "The application cannot be loaded" in text
        project.write(name, mended)
        running.until(AGAIN)
        assert get(f"{url}/version")[0] == 200
        running.end()


def shown(url: str, says: str) -> tuple[int, str]:
    """What the server answers once it says so: until it has noticed, the old code answers."""
    answers = [(0, "")]

    def says_so() -> bool:
        with contextlib.suppress(OSError):  # a request of the old code was cut
            answers.append(get(f"{url}/version"))
        return says in answers[-1][1]

    until(says_so, 30)
    return answers[-1]


@pytest.mark.parametrize("name", ["runserver_fast", "runserver"])
@pytest.mark.parametrize("file", ["notes/models.py", "mysite/urls.py"])
def test_a_project_that_is_broken_from_the_beginning(
    project: Project, name: str, file: str
) -> None:
    mended = project.file(file).read_text()
    project.write(file, "import absent_module\n")
    settings = f"INSTALLED_APPS.insert(0, {RUNSERVER_APP!r})" if name == "runserver" else ""
    with project.serve(name=name, settings=settings) as running:
        url = running.until(r"(http://127\.0\.0\.1:\d+) shows the error, too")[1]
        status, text = get(f"{url}/version")
        assert status == 500
        assert "No module named 'absent_module'" in text
        project.write(file, mended)
        assert url_of(running) == url
        assert get(f"{url}/version")[0] == 200
        running.end()


def test_one_mistake_after_another(project: Project) -> None:
    """A change is noticed at once, also before Django has scanned the files of the child."""
    with project.serve() as running:
        url = url_of(running)
        for number in range(3):
            project.write("mysite/urls.py", f"import absent_{number}\n")
            assert shown(url, f"No module named 'absent_{number}'")[0] == 500
        project.write("mysite/urls.py", URLS)
        running.until(AGAIN)
        assert get(f"{url}/version")[0] == 200
        running.end()


def test_a_mistake_before_django_reaches_the_app(project: Project) -> None:
    last = f"INSTALLED_APPS.remove({APP!r}); INSTALLED_APPS.append({APP!r})"
    with project.serve(settings=last) as running:
        url = url_of(running)
        project.write("notes/__init__.py", BROKEN)
        running.until(WAITS)
        assert children(running.process.pid) == []
        assert "SyntaxError" in get(url)[1]
        project.write("notes/__init__.py", "")
        running.until(AGAIN)
        running.end()


def test_a_busy_port_ends_a_broken_project(project: Project) -> None:
    project.write("notes/models.py", BROKEN)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with project.serve(f"127.0.0.1:{port}") as running:
            assert re.search(rf"^Error: .*{port} is in use", running.ended(2), re.MULTILINE)


def test_a_usage_error_ends_a_broken_project(project: Project) -> None:
    project.write("notes/models.py", BROKEN)
    with project.serve("--threads", "many") as running:
        assert re.search(r"^Error: .*--threads", running.ended(2), re.MULTILINE)


def test_only_with_debug(project: Project) -> None:
    """A child without DEBUG has failed: clients are not answered, and connect later."""
    settings = project.file("mysite/settings.py").read_text()
    port = free_port()
    with project.serve(f"127.0.0.1:{port}") as running:
        url_of(running)
        project.write("mysite/settings.py", settings + "\nDEBUG, ALLOWED_HOSTS = False, ['*']\n")
        running.until("DEBUG is off")
        running.end()
    off = "DEBUG, ALLOWED_HOSTS = os.environ.get('RUN_MAIN') != 'true', ['*']"
    project.write("mysite/settings.py", f"{settings}\n{off}\n")
    project.write("notes/models.py", BROKEN)
    with project.serve(f"127.0.0.1:{port}") as running:
        running.until(WAITS)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        running.process.terminate()
        assert "shows the error" not in running.ended(0)


def test_the_page_speaks_tls(project: Project, tmp_path: Path) -> None:
    pytest.importorskip("trustme")
    cache = str(tmp_path / "cache")
    project.write("notes/models.py", BROKEN)
    with project.serve("--cert", "adhoc", XDG_CACHE_HOME=cache) as running:
        url = running.until(r"(https://127\.0\.0\.1:\d+) shows the error, too")[1]
        trusting = ssl.create_default_context(cafile=next(Path(cache).rglob("*ca.pem")))
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(url, timeout=30, context=trusting)
        with caught.value as answer:
            assert b"SyntaxError" in answer.read()
        running.end()
