"""`python -m threadwell.django`, for a project that knows nothing of threadwell."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ...helpers.command import command, get
from ...helpers.django_project import environment, url_of

MODULE = ("-m", "threadwell.django")
VIEW = "from django.http import HttpResponse\ndef page(request): return HttpResponse({!r})\n"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A project as `startproject` makes it, with one page."""
    words = [sys.executable, "-m", "django", "startproject", "mysite", "."]
    subprocess.run(words, cwd=tmp_path, check=True, timeout=60)
    (tmp_path / "mysite/views.py").write_text(VIEW.format("one"))
    (tmp_path / "mysite/urls.py").write_text(
        "from django.urls import path\nfrom . import views\n"
        "urlpatterns = [path('page', views.page)]\n"
    )
    return tmp_path


def fails(folder: Path, *words: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, *MODULE, *words],
        cwd=folder,
        env={**environment(), **variables},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    return done.stderr


def test_it_serves_and_reloads(site: Path) -> None:
    words = [*MODULE, "127.0.0.1:0", "--threads", "3"]
    with command(words, site, env=environment(), start_new_session=True) as running:
        url = url_of(running)
        assert "3 threads" in running.text
        assert get(f"{url}/page") == (200, "one")
        (site / "mysite/views.py").write_text("oops")
        running.until("NameError: name 'oops' is not defined")
        (site / "mysite/views.py").write_text(VIEW.format("two"))
        url = url_of(running)
        assert get(f"{url}/page") == (200, "two")
        running.end()
    settings = (site / "mysite/settings.py").read_text()
    assert "threadwell" not in settings


def test_it_serves_with_several_processes(site: Path) -> None:
    words = [*MODULE, "--bind", "127.0.0.1:0", "--workers", "2", "--noreload"]
    with command(words, site, env=environment(), start_new_session=True) as running:
        url = running.url()
        assert "2 workers" in running.text
        assert get(f"{url}/page") == (200, "one")
        running.end()


def test_the_variable_wins_over_manage_py(site: Path) -> None:
    (site / "mysite/production.py").write_text(
        "from .settings import *\nDEBUG, ALLOWED_HOSTS = False, ['*']\n"
    )
    env = environment(DJANGO_SETTINGS_MODULE="mysite.production")
    with command([*MODULE, "127.0.0.1:0"], site, env=env, start_new_session=True) as running:
        url = url_of(running)
        assert "using settings 'mysite.production'" in running.text
        assert get(f"{url}/page") == (200, "one")
        running.end()


def test_a_project_that_lists_the_app_is_served_as_well(site: Path) -> None:
    with (site / "mysite/settings.py").open("a") as file:
        file.write("INSTALLED_APPS.insert(0, 'threadwell.adapters.django.apps.ThreadwellConfig')\n")
    with command([*MODULE, "127.0.0.1:0"], site, env=environment(), start_new_session=True) as it:
        assert get(f"{url_of(it)}/page") == (200, "one")
        it.end()


def test_mistakes(site: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    assert fails(site, DJANGO_SETTINGS_MODULE="mysite.setings") == (
        "threadwell: DJANGO_SETTINGS_MODULE is 'mysite.setings', and there is no module"
        " mysite.setings; did you mean mysite.settings?\n"
    )
    assert fails(site, "--thrads", "3") == (
        "python -m threadwell.django runserver_fast: unrecognized arguments: --thrads; did you"
        " mean --threads?\n"
    )
    (site / "manage.py").write_text("print('hello')\n")
    assert fails(site) == (
        "threadwell: manage.py does not set DJANGO_SETTINGS_MODULE; set the variable\n"
    )
    empty = tmp_path_factory.mktemp("empty")
    assert fails(empty) == (
        f"threadwell: there is no manage.py in {os.path.realpath(empty)}, and"
        " DJANGO_SETTINGS_MODULE is not set; change to the folder of manage.py, or set the"
        " variable\n"
    )
