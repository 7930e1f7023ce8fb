"""Live tests of a Django project's own, on threadwell; and django-prodserver.

Each project is a folder, and each run of its tests a process: Django is set up once in a process.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

import pytest

from ...helpers.command import command, get

pytest.importorskip("django")

# a whole run of pytest is within some of them
pytestmark = pytest.mark.timeout(120)

SETTINGS = """
import os
from pathlib import Path

BASE = Path(__file__).parent
SECRET_KEY = "for tests only"
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
    "threadwell.adapters.django",
    "things",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
]
ROOT_URLCONF = "things.urls"
WSGI_APPLICATION = "wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
DATABASES = {"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": BASE / "db"}}
if os.environ.get("IN_FILE"):
    DATABASES["default"]["TEST"] = {"NAME": BASE / "test-db"}
STATIC_URL = "/static/"
STATIC_ROOT = BASE / "collected"
MEDIA_URL = "/media/"
MEDIA_ROOT = BASE / "media"
CACHES = {"default": {"BACKEND": "django.core.cache.backends.filebased.FileBasedCache",
                      "LOCATION": BASE / "cache"}}
USE_TZ = True
GREETING = "hello"
"""

URLS = """
import threading

from django.conf import settings
from django.core.cache import cache
from django.db import connection
from django.http import HttpResponse, JsonResponse, StreamingHttpResponse
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from things.models import Thing

gone = threading.Event()


def index(request):
    return JsonResponse({"things": sorted(Thing.objects.values_list("name", flat=True)),
                         "user": request.user.get_username(),
                         "in_memory": connection.is_in_memory_db()})


@csrf_exempt
def add(request):
    Thing.objects.create(name=request.POST["name"])
    return HttpResponse("added", status=201)


def greet(request):
    return HttpResponse(f"{settings.GREETING} {type(cache._connections[cache._alias]).__name__}")


def fail(request):
    Thing.objects.count()
    raise LookupError("in the view")


def endless(request):
    def blocks():
        try:
            while True:
                Thing.objects.count()
                yield b"x" * 65536
        finally:
            gone.set()
    return StreamingHttpResponse(blocks())


urlpatterns = [path("", index), path("add", add), path("greet", greet), path("fail", fail),
               path("endless", endless)]
"""

CHECKS = """
import http.client
import json
import threading
import urllib.error
import urllib.parse
import urllib.request
from contextlib import closing

from things import urls
from things.models import Thing


def get(url, cookie=""):
    request = urllib.request.Request(url, headers={"Cookie": cookie})
    with urllib.request.urlopen(request, timeout=20) as answer:
        assert answer.headers["Server"] == "threadwell"
        return answer.read().decode()


def add(url, name):
    data = urllib.parse.urlencode({"name": name}).encode()
    with urllib.request.urlopen(f"{url}/add", data, timeout=20) as answer:
        assert answer.status == 201


def both_ways(url):
    Thing.objects.create(name="from the test")
    assert json.loads(get(url))["things"] == ["from the test"]
    add(url, "from the client")
    assert Thing.objects.filter(name="from the client").exists()


def many_threads(url):
    def work(number):
        for turn in range(4):
            add(url, f"{number} {turn}")
    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(json.loads(get(url))["things"]) == Thing.objects.count() == 16


def kept_alive(url):
    with closing(http.client.HTTPConnection(url.partition("//")[2], timeout=20)) as client:
        client.connect()
        sock = client.sock
        for _ in range(3):
            client.request("GET", "/greet")
            client.getresponse().read()
            assert client.sock is sock


def failing(url):
    try:
        get(f"{url}/fail")
    except urllib.error.HTTPError as error:
        with error:
            assert error.code == 500
    else:
        raise AssertionError("no error")
    get(f"{url}/greet")


def broken_pipe(url):
    urls.gone.clear()
    answer = urllib.request.urlopen(f"{url}/endless", timeout=20)
    answer.read(10)
    answer.close()
    assert urls.gone.wait(20)
    get(f"{url}/greet")


def not_found(url):
    try:
        get(url)
    except urllib.error.HTTPError as error:
        with error:
            assert error.code == 404
    else:
        raise AssertionError("it is there")
"""

PYTEST = """
import json
import os
import urllib.request

import pytest

import checks
from things.models import Thing


def test_isolation_before(live_server):
    assert Thing.objects.count() == 0
    checks.both_ways(live_server.url)


def test_isolation_after(live_server):
    assert Thing.objects.count() == 0
    checks.both_ways(live_server.url)


def test_transactional(transactional_db, live_server):
    checks.many_threads(live_server.url)


def test_login(live_server, client, django_user_model):
    client.force_login(django_user_model.objects.create_user("somebody"))
    cookie = f"sessionid={client.cookies['sessionid'].value}"
    assert '"user": "somebody"' in checks.get(live_server.url, cookie)


def test_settings(live_server, settings):
    assert checks.get(live_server + "/greet") == "hello FileBasedCache"
    settings.GREETING = "good day"
    settings.CACHES = {"default": {"BACKEND": "django.core.cache.backends.dummy.DummyCache"}}
    assert checks.get(live_server + "/greet") == "good day DummyCache"


def test_settings_again(live_server):
    assert checks.get(live_server + "/greet") == "hello FileBasedCache"


def test_static(live_server):
    assert checks.get(live_server + "/static/a.css") == "a {}"
    assert checks.get(live_server + "/media/a.txt") == "media"
    checks.not_found(live_server + "/static/b.css")
    checks.not_found(live_server + "/media/b.txt")


def test_connections(live_server):
    checks.kept_alive(live_server.url)
    checks.failing(live_server.url)
    checks.broken_pipe(live_server.url)


def test_database(live_server):
    told = json.loads(checks.get(live_server.url))
    assert told["in_memory"] is ("IN_FILE" not in os.environ)


@pytest.mark.django_db
def test_a_server_of_its_own(threadwell_server):
    def app(environ, start_response):
        start_response("200 OK", [("X-Kind", "wsgi")])
        return [b"hello"]
    first, second = threadwell_server(app), threadwell_server(app, threads=1)
    assert first.port != second.port
    for server in (first, second):
        with urllib.request.urlopen(server.urls[0], timeout=20) as answer:
            assert answer.read() == b"hello"
"""

UNITTEST = """
import socket

from django.contrib.auth import get_user_model
from django.contrib.staticfiles import testing
from django.db import connection
from django.test import override_settings

import checks
from threadwell.adapters.django.test import LiveServerTestCase, StaticLiveServerTestCase
from things.models import Thing


class LiveTest(LiveServerTestCase):
    host = "127.0.0.1"

    def test_both_ways(self):
        checks.both_ways(self.live_server_url)

    def test_both_ways_again(self):
        checks.both_ways(self.live_server_url)

    def test_threads(self):
        checks.many_threads(self.live_server_url)

    def test_connections(self):
        checks.kept_alive(self.live_server_url)
        checks.failing(self.live_server_url)
        checks.broken_pipe(self.live_server_url)

    def test_files(self):
        self.assertEqual(checks.get(f"{self.live_server_url}/static/b.css"), "b {}")
        checks.not_found(f"{self.live_server_url}/static/a.css")
        self.assertEqual(checks.get(f"{self.live_server_url}/media/a.txt"), "media")

    def test_overridden(self):
        with override_settings(GREETING="good day"):
            self.assertIn("good day", checks.get(f"{self.live_server_url}/greet"))

    def test_port(self):
        self.assertNotEqual(self.server_thread.port, 0)


class StaticTest(StaticLiveServerTestCase):
    def test_files(self):
        self.assertEqual(checks.get(f"{self.live_server_url}/static/a.css"), "a {}")
        checks.not_found(f"{self.live_server_url}/static/b.css")
        checks.both_ways(self.live_server_url)


class PortTest(LiveServerTestCase):
    host = "127.0.0.1"

    @classmethod
    def setUpClass(cls):
        with socket.create_server(("127.0.0.1", 0)) as taken:
            cls.port = taken.getsockname()[1]
            try:
                super().setUpClass()
            except OSError:
                pass
            else:
                raise AssertionError("two servers have one port")
        super().setUpClass()

    def test_port_is_the_one_that_was_wanted(self):
        self.assertEqual(self.live_server_url, f"http://127.0.0.1:{self.port}")
        checks.get(f"{self.live_server_url}/greet")


class EndTest(LiveServerTestCase):
    host = "127.0.0.1"

    @classmethod
    def doClassCleanups(cls):
        super().doClassCleanups()
        port = cls.server_thread.port
        with socket.socket() as probe:
            assert probe.connect_ex(("127.0.0.1", port)) != 0, "it listens still"
        for alias, shared in cls.server_thread.connections_override.items():
            assert not shared.allow_thread_sharing, alias

    def test_one(self):
        checks.both_ways(self.live_server_url)
"""

FILES = {
    "settings.py": SETTINGS,
    "wsgi.py": """
        import os
        from django.core.wsgi import get_wsgi_application
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
        application = get_wsgi_application()
        """,
    "manage.py": """
        import os, sys
        from django.core.management import execute_from_command_line
        os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
        execute_from_command_line(sys.argv)
        """,
    "things/__init__.py": "",
    "things/models.py": """
        from django.db import models

        class Thing(models.Model):
            name = models.CharField(max_length=50)
        """,
    "things/urls.py": URLS,
    "things/static/a.css": "a {}",
    "collected/b.css": "b {}",
    "media/a.txt": "media",
    "checks.py": CHECKS,
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        write(tmp_path / name, text)
    return tmp_path


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(textwrap.dedent(text).removeprefix("\n"))


def run(project: Path, *words: str, code: int = 0, **variables: str) -> str:
    result = subprocess.run(
        [sys.executable, "-W", "error", *words],
        cwd=project,
        check=False,
        env={**_clean(), **variables},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=100,
    )
    assert result.returncode == code, result.stdout
    return result.stdout


def _clean() -> dict[str, str]:
    """The environment without what this run of pytest has put there."""
    own = ("PYTEST_", "DJANGO_", "THREADWELL_", "COV_")
    return {name: value for name, value in os.environ.items() if not name.startswith(own)}


# without plugins that only take time to load
PYTEST_RUN = (
    "-m pytest -q -W error --ds=settings"
    " -p no:cacheprovider -p no:hypothesispytest -p no:anyio -p no:timeout"
).split()


# ---- pytest-django -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "ini", "variables"),
    [
        (["--threadwell-live-server"], "[pytest]\n", {}),
        (["-n2"], "[pytest]\nthreadwell_live_server = true\n", {"IN_FILE": "yes"}),
    ],
    ids=["option, in memory", "ini, in a file, by two processes"],
)
def test_pytest_django(
    words: Sequence[str], ini: str, variables: dict[str, str], project: Path
) -> None:
    write(project / "pytest.ini", ini)
    write(project / "test_live.py", PYTEST)
    output = run(project, *PYTEST_RUN, *words, "test_live.py", **variables)
    assert "10 passed" in output


def test_pytest_django_is_left_alone_otherwise(project: Path) -> None:
    write(project / "pytest.ini", "[pytest]\n")
    write(
        project / "test_live.py",
        """
        import urllib.request

        def test_it(live_server):
            with urllib.request.urlopen(live_server + "/greet", timeout=20) as answer:
                assert "WSGIServer" in answer.headers["Server"]
        """,
    )
    assert "1 passed" in run(project, *PYTEST_RUN, "test_live.py")


# ---- Django's own test runner --------------------------------------------------------------


@pytest.mark.parametrize("variables", [{}, {"IN_FILE": "yes"}], ids=["in memory", "in a file"])
def test_live_server_test_case(variables: dict[str, str], project: Path) -> None:
    write(project / "things" / "tests.py", UNITTEST)
    output = run(project, "manage.py", "test", **variables)
    assert "Ran 10 tests" in output
    assert "\nOK\n" in output
    # a failing view is told of, a client that has gone is not
    assert output.count("Traceback (most recent call last)") <= 1
    assert "Broken pipe" not in output


# ---- django-prodserver ---------------------------------------------------------------------


def prodserver(project: Path, arguments: object, *, more: str = "") -> None:
    with (project / "settings.py").open("a") as settings:
        settings.write(
            f"""
INSTALLED_APPS.append("django_prodserver")
PRODUCTION_PROCESSES = {{
    "web": {{
        "BACKEND": "threadwell.adapters.django.prodserver.ThreadwellServer",
        "ARGS": {arguments!r},
    }},
}}
{more}
"""
        )


@pytest.mark.parametrize(
    "arguments",
    [
        {"bind": "127.0.0.1:0", "threads": "2", "graceful-timeout": "3"},
        {"bind": ["127.0.0.1:0", "127.0.0.1:0"], "threads": 2, "graceful_timeout": 3},
        "--bind 127.0.0.1:0 --threads=2",
    ],
    ids=["strings", "values", "one string"],
)
def test_prodserver_serves(arguments: object, project: Path) -> None:
    pytest.importorskip("django_prodserver")
    prodserver(project, arguments)
    with command(["manage.py", "server", "web"], project, env=_clean()) as running:
        url = running.url()
        assert get(f"{url}/greet") == (200, "hello FileBasedCache")
        assert get(f"{url}/nowhere")[0] == 404
        assert "2 threads" in running.end(signal.SIGTERM)


@pytest.mark.parametrize(
    ("arguments", "more", "said"),
    [
        ({"threads": "many"}, "", "threads"),
        ({"bind": "127.0.0.1:x"}, "", "bind"),
        ({"thread": "2"}, "", "--thread"),
        ({"bind": "127.0.0.1:0"}, "WSGI_APPLICATION = 'nowhere.application'", "nowhere"),
        ({"bind": "127.0.0.1:0"}, "WSGI_APPLICATION = 'wsgi.app'", "app"),
        ({"bind": "127.0.0.1:0"}, "WSGI_APPLICATION = None", "WSGI_APPLICATION"),
    ],
)
def test_prodserver_mistakes(arguments: object, more: str, said: str, project: Path) -> None:
    pytest.importorskip("django_prodserver")
    prodserver(project, arguments, more=more)
    output = run(project, "manage.py", "server", "web", code=2)
    assert said in output
    assert "Traceback" not in output


def test_prodserver_on_a_port_that_is_taken(project: Path) -> None:
    pytest.importorskip("django_prodserver")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        prodserver(project, {"bind": f"127.0.0.1:{port}"})
        output = run(project, "manage.py", "server", "web", code=2)
    assert str(port) in output
    assert "Traceback" not in output
