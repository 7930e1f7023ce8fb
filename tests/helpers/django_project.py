"""A project as `django-admin startproject` makes it, with threadwell in it, and its commands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from contextlib import AbstractContextManager
from pathlib import Path

from .command import Command, command

APP = "threadwell.adapters.django"
RUNSERVER_APP = "threadwell.adapters.django.runserver"
PASSWORD = "correct horse"

# Options that Django has given `runserver`, and pytest's of ours; `threadwell` has none of them.
DJANGO_OPTIONS = (
    "--noreload",
    "--nothreading",
    "--nostatic",
    "--insecure",
    "--skip-checks",
    "--no-color",
    "--ipv6",
)

VIEWS = """
import os
import time

from django.http import HttpResponse, StreamingHttpResponse


def version(request):
    return HttpResponse(f"{os.getpid()} one")


def stream(request):
    def events():
        for number in range(600):
            yield f"data: {number}\\n\\n"
            time.sleep(0.1)

    return StreamingHttpResponse(events(), content_type="text/event-stream")


def slow(request):
    print("slow began", flush=True)
    time.sleep(0.7)
    return HttpResponse("slow")


def fail(request):
    raise LookupError("the secret")
"""

URLS = """
from django.contrib import admin
from django.urls import path
from django.views.generic import TemplateView

from . import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("version", views.version),
    path("stream", views.stream),
    path("slow", views.slow),
    path("fail", views.fail),
    path("page", TemplateView.as_view(template_name="page.html")),
]
"""

MODELS = """
from django.db import models


class Note(models.Model):
    class Meta:
        managed = False
"""


def environment(settings: str = "", **variables: str) -> dict[str, str]:
    """The environment of a command; `settings` is code that runs at the end of the settings."""
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("THREADWELL_")},
        "PYTHONUNBUFFERED": "1",
        "MORE_SETTINGS": settings,
        **variables,
    }


class Project:
    """A project in `folder`, migrated, with an app `notes` and the user `admin`."""

    def __init__(self, folder: Path, *, plain: bool = False) -> None:
        self.folder = folder
        django_admin = [sys.executable, "-m", "django", "startproject", "mysite", "."]
        subprocess.run(django_admin, cwd=folder, check=True, timeout=60)
        settings = self.file("mysite/settings.py")
        text = settings.read_text()
        text = text.replace("INSTALLED_APPS = [", f'INSTALLED_APPS = [\n    "{APP}",', 1)
        if not plain:
            text = text.replace('"DIRS": []', '"DIRS": [BASE_DIR / "templates"]')
            text = text.replace("'DIRS': []", "'DIRS': [BASE_DIR / 'templates']")
            text += 'INSTALLED_APPS += ["notes"]\n'
            self.write("notes/__init__.py", "")
            self.write("notes/models.py", MODELS)
            self.write("mysite/views.py", VIEWS)
            self.write("mysite/urls.py", URLS)
            self.write("templates/page.html", "page one")
        settings.write_text(
            text
            + "STATIC_ROOT = BASE_DIR / 'collected'\nimport os\n"
            + "exec(os.environ.get('MORE_SETTINGS', ''))\n"
        )
        self.manage("migrate", "-v0")
        self.manage(
            *"createsuperuser --noinput --username admin --email a@example.org -v0".split(),
            env=environment(DJANGO_SUPERUSER_PASSWORD=PASSWORD),
        )

    def copy(self, folder: Path) -> Project:
        """The same project, in `folder`, which is made."""
        shutil.copytree(self.folder, folder)
        copied = object.__new__(Project)
        copied.folder = folder
        return copied

    def file(self, name: str) -> Path:
        """The path of a file of the project."""
        return self.folder / name

    def write(self, name: str, text: str) -> None:
        """Write a file of the project at once, as a good editor does."""
        path = self.file(name)
        path.parent.mkdir(exist_ok=True)
        (path.parent / "~").write_text(text)
        (path.parent / "~").replace(path)

    def manage(
        self, *words: str, code: int = 0, env: dict[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A command of manage.py that ends by itself, with `code`."""
        done = subprocess.run(
            [sys.executable, "manage.py", *words],
            cwd=self.folder,
            capture_output=True,
            text=True,
            timeout=50,
            env=env or environment(),
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done

    def serve(
        self, *words: str, name: str = "runserver_fast", settings: str = "", **variables: str
    ) -> AbstractContextManager[Command]:
        """`manage.py runserver_fast`, in a process group of its own."""
        if not any(word.startswith(("--bind", "unix:", "127.", "[")) for word in words):
            words = ("127.0.0.1:0", *words)
        return command(
            ["manage.py", name, *words],
            self.folder,
            env=environment(settings, **variables),
            start_new_session=True,
        )


def url_of(running: Command) -> str:
    """Where it listens, once it has said so, and how to stop it."""
    url = running.until(r"Starting .*server at (https?://\S+)/")[1]
    running.until(r"Quit the server with CONTROL-C\.")
    return url


def one_line(text: str) -> str:
    """`text`, which is asserted to be one line."""
    assert re.fullmatch(r"[^\n]+\n", text), text
    return text.rstrip("\n")
