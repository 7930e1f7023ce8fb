"""examples/django as its README runs it, and pages of Django's in a browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from ..helpers.command import command
from ..helpers.django_project import PASSWORD, Project, environment, url_of

EXAMPLE = Path(__file__).parent.parent.parent / "examples" / "django"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")


def manage(*words: str, **variables: str) -> None:
    subprocess.run(
        [sys.executable, "manage.py", *words],
        cwd=EXAMPLE,
        env=environment(**variables),
        check=True,
        timeout=50,
    )


@pytest.fixture(scope="module")
def example(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of the example, served by `manage.py runserver_fast`."""
    data = {"DATA_DIR": str(tmp_path_factory.mktemp("data"))}
    manage("migrate", "-v0", **data)
    words = "createsuperuser --noinput --username admin --email a@example.org -v0"
    manage(*words.split(), DJANGO_SUPERUSER_PASSWORD=PASSWORD, **data)
    words = "manage.py runserver_fast 127.0.0.1:0"
    with command(words.split(), EXAMPLE, env=environment(**data)) as running:
        yield url_of(running)
        running.end()


@pytest.fixture
def client(example: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=example, trust_env=False, timeout=20) as client:
        yield client


def test_form_upload_session_and_api(client: httpx.Client) -> None:
    assert client.post("/", data={"text": "forged"}).status_code == 403
    client.get("/")
    form = {"text": "<Zoë>", "csrfmiddlewaretoken": client.cookies["csrftoken"]}
    content = os.urandom(300_000)
    page = client.post(
        "/", data=form, files={"attachment": ("a.bin", content)}, follow_redirects=True
    )
    assert "The note is kept." in page.text
    assert "&lt;Zoë&gt;" in page.text
    assert "1 of them by you" in page.text
    notes = client.get("/api/notes").json()["notes"]
    assert notes[0]["text"] == "<Zoë>"
    download = client.get(f"/notes/{notes[0]['id']}/file")
    assert download.content == content
    assert "attachment" in download.headers["Content-Disposition"]
    assert client.get("/notes/999/file").status_code == 404


def test_events_and_static_files(client: httpx.Client) -> None:
    with client.stream("GET", "/events") as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        line = next(response.iter_lines())
        assert line.startswith('data: {"notes": ')
    assert client.get("/static/notes/style.css").headers["Content-Type"] == "text/css"


def test_production_settings(tmp_path: Path) -> None:
    env = environment(DEBUG="0", SECRET_KEY="x" * 60, ALLOWED_HOSTS="*", DATA_DIR=str(tmp_path))
    code = """
from django.conf import settings
from threadwell.cli import main
main(["check", "config.wsgi"])
print(settings.DATABASES)
settings.DEBUG = True
main(["check", "config.wsgi"])
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=EXAMPLE,
        env={
            **env,
            "DJANGO_SETTINGS_MODULE": "config.settings",
            "DATABASE_URL": "postgresql://me:p%40ss@db.example:5433/notes",
        },
        capture_output=True,
        text=True,
        check=True,
        timeout=50,
    )
    for part in ("'NAME': 'notes'", "'PASSWORD': 'p@ss'", "'HOST': 'db.example'", "'PORT': 5433"):
        assert part in done.stdout
    told = re.findall(r"\((wsgi.*)\) and its settings are fine", done.stdout)
    assert told == ["wsgi", "wsgi, DEBUG is on"]


# ---- In a browser ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    # httpbin wants another greenlet on 3.11, and free-threaded 3.13 has no wheels of it
    reason = "playwright cannot be installed beside the rest for this Python"
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    with playwright.sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A page, in which nothing may go wrong unseen."""
    page = browser.new_page(viewport={"width": 1000, "height": 700})
    problems: list[str] = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("requestfailed", lambda request: problems.append(f"failed: {request.url}"))
    page.on("response", lambda r: problems.append(r.url) if r.status >= 400 else None)
    yield page
    page.wait_for_load_state()
    page.goto("about:blank")  # it ends the stream, which is no problem
    page.close()
    # a stream that is left, and a page that became a download, count as failed
    assert [text for text in problems if not text.endswith(("/events", "/file"))] == []


def follow(place: Any) -> None:
    """Click on what leads to another page, once all of this one is there: what is cut off fails."""
    place.wait_for()
    place.page.wait_for_load_state()
    place.click()


def style(page: Any, selector: str, name: str) -> str:
    script = f"element => getComputedStyle(element).getPropertyValue('{name}')"
    return str(page.locator(selector).first.evaluate(script))


@needs_chromium
def test_the_page_in_a_browser(example: str, page: Any, tmp_path: Path) -> None:
    page.goto(example)
    assert style(page, "body", "background-color") == "rgb(250, 248, 242)"
    assert style(page, "h1", "color") == "rgb(0, 102, 85)"
    assert style(page, "form", "display") == "grid"
    count = int(page.locator("#count").inner_text())
    (tmp_path / "a.txt").write_text("a file")
    page.get_by_label("Text").fill("from a browser")
    page.get_by_label("Attachment").set_input_files(tmp_path / "a.txt")
    page.get_by_role("button", name="Keep").click()
    page.get_by_text("The note is kept.").wait_for()
    assert page.locator("#count").inner_text() == str(count + 1)
    with page.expect_download() as download:
        page.get_by_role("link", name="its file").first.click()
    assert Path(download.value.path()).read_text() == "a file"
    # the stream tells this page of what another visitor does
    with httpx.Client(base_url=example, trust_env=False) as other:
        other.get("/")
        token = other.cookies["csrftoken"]
        other.post("/", data={"text": "elsewhere", "csrfmiddlewaretoken": token})
    page.wait_for_function(f"document.getElementById('count').textContent == '{count + 2}'")
    keep(page, "example")


@needs_chromium
def test_the_admin_in_a_browser(example: str, page: Any) -> None:
    page.goto(f"{example}/admin/")
    page.get_by_label("Username").fill("admin")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Log in").click()
    page.get_by_role("heading", name="Site administration").wait_for()
    assert style(page, "#header", "background-color") == "rgb(65, 118, 144)"
    assert style(page, "#content-main", "float") == "left"
    follow(page.get_by_role("link", name="Notes").last)
    follow(page.get_by_role("link", name="Add note").last)
    page.get_by_label("Text").fill("from the admin")
    follow(page.get_by_role("button", name="Save", exact=True))
    page.get_by_text("was added successfully").wait_for()
    assert style(page, ".messagelist .success", "display") == "block"
    keep(page, "admin")


@needs_chromium
def test_the_welcome_page_in_a_browser(page: Any, tmp_path: Path) -> None:
    with Project(tmp_path, plain=True).serve("--noreload") as running:
        page.goto(url_of(running))
        page.get_by_role("heading", name="The install worked successfully!").wait_for()
        assert style(page, "main", "text-align") == "center"
        keep(page, "welcome")
        running.end()


@needs_chromium
def test_its_own_tests_run_on_threadwell(browser: Any, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    done = subprocess.run(
        words,
        cwd=EXAMPLE,
        env=environment(DATA_DIR=str(tmp_path)),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def keep(page: Any, name: str) -> None:
    """Save a picture where `SCREENSHOTS` says, for who wants to look."""
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        page.screenshot(path=Path(folder) / f"django-{name}.png")
