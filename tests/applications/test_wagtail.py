"""Wagtail: a content management system on Django, used with its forms and by a browser."""

from __future__ import annotations

import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

from .application import Application, Server, Site
from .browser import chromium, element, errors
from .environments import Environment
from .web_forms import Browser

MODELS = """
from django.db import models
from wagtail.admin.panels import FieldPanel
from wagtail.fields import RichTextField
from wagtail.models import Page


class HomePage(Page):
    body = RichTextField(blank=True)
    content_panels = [*Page.content_panels, FieldPanel("body")]
"""


def prepare(environment: Environment, folder: Path) -> None:
    """A new project with its user."""
    environment.run(folder, "wagtail", "start", "mysite", ".")
    (folder / "home" / "models.py").write_text(MODELS)
    (folder / "home" / "templates" / "home" / "home_page.html").write_text(
        "{% load wagtailcore_tags %}<h1>{{ page.title }}</h1>{{ page.body|richtext }}"
    )
    with (folder / "mysite" / "settings" / "dev.py").open("a") as settings:
        settings.write('INSTALLED_APPS.insert(0, "threadwell.adapters.django")\n')
        settings.write("WAGTAIL_ENABLE_UPDATE_CHECK = False\n")
    environment.run(folder, "python", "manage.py", "makemigrations", "home")
    environment.run(folder, "python", "manage.py", "migrate")
    words = ["createsuperuser", "--noinput", "--username", "ada", "--email", "ada@example.org"]
    password = {"DJANGO_SUPERUSER_PASSWORD": "secret"}
    environment.run(folder, "python", "manage.py", *words, **password)


APPLICATION = Application(
    name="Wagtail",
    distribution="wagtail",
    requirements=["wagtail>=7,<8", "gunicorn>=23"],
    servers={
        "threadwell": Server("threadwell mysite.wsgi:application --bind 127.0.0.1:{port}"),
        "threadwell (runserver_fast)": Server("python manage.py runserver_fast 127.0.0.1:{port}"),
        "gunicorn": Server("gunicorn mysite.wsgi --threads 8 --bind 127.0.0.1:{port}"),
        "runserver": Server("python manage.py runserver 127.0.0.1:{port}"),
    },
    prepare=prepare,
)


def image(side: int) -> bytes:
    """A PNG, a square of noise."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + data))
        return struct.pack(">I", len(data)) + kind + data + checksum

    rows = b"".join(
        b"\0" + bytes((at * at * side) % 251 for at in range(3 * side)) for _ in range(side)
    )
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows, 0)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + body


def signed_in(site: Site) -> Browser:
    """A session of the administrator."""
    browser = Browser()
    answer = browser.submit(
        f"{site.url}/admin/login/", "username", username="ada", password="secret"
    )
    assert answer.url == f"{site.url}/admin/"
    return browser


def test_login(site: Site) -> None:
    """Log in, with a wrong password first; without a login the admin redirects."""
    assert requests.get(f"{site.url}/admin/", timeout=60).url.endswith("/admin/login/?next=/admin/")
    wrong = Browser().submit(f"{site.url}/admin/login/", "username", username="ada", password="no")
    assert "username and password didn" in wrong.text
    assert "Wagtail" in signed_in(site).get(f"{site.url}/admin/", timeout=60).text


def test_pages(site: Site) -> None:
    """Write, publish, find and visit a page; 404 for another."""
    browser = signed_in(site)
    body = '{"blocks": [{"key": "a", "text": "Grüße", "type": "unstyled", "depth": 0,'
    body += ' "inlineStyleRanges": [], "entityRanges": []}], "entityMap": {}}'
    add = f"{site.url}/admin/pages/add/home/homepage/3/"
    done = browser.submit(
        add, "title", title="Über uns", slug="about", body=body, action__publish="x"
    )
    assert "has been created and published" in done.text or "published" in done.text
    page = requests.get(f"{site.url}/about/", timeout=60)
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "<h1>Über uns</h1>" in page.text
    assert "Grüße</p>" in page.text
    found = browser.get(f"{site.url}/admin/pages/search/?q=uns", timeout=60)
    assert "Über uns" in found.text
    assert requests.get(f"{site.url}/no/", timeout=60).status_code == 404


def test_uploads(site: Site) -> None:
    """Upload an image of 3 MB, and get it, and a rendition that Pillow makes."""
    browser = signed_in(site)
    content = image(1000)
    files = {"file": ("noise.png", io.BytesIO(content), "image/png")}
    done = browser.submit(f"{site.url}/admin/images/add/", "title", files=files, title="Noise")
    assert done.url == f"{site.url}/admin/images/"
    listed = browser.get(f"{site.url}/admin/images/", timeout=60).text
    rendition = listed.split('src="/media/', 1)[1].split('"', 1)[0]
    small = browser.get(f"{site.url}/media/{rendition}", timeout=60)
    assert (small.status_code, small.content[:4]) == (200, b"\x89PNG")
    original = browser.get(f"{site.url}/media/original_images/noise.png", timeout=60)
    assert original.content == content


def test_at_once(site: Site) -> None:
    """100 requests of 8 clients with sessions."""
    browser = signed_in(site)
    cookies = browser.cookies.get_dict()

    def status(_: int) -> int:
        return requests.get(f"{site.url}/admin/", cookies=cookies, timeout=120).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(status, range(100))) == {200}


def test_browser(site: Site) -> None:
    """A browser logs in, opens the editor of a page, with its scripts and styles, and types."""
    with chromium(site.folder) as browser:
        browser.get(f"{site.url}/admin/")
        element(browser, "#id_username").send_keys("ada")
        element(browser, "#id_password").send_keys("secret")
        element(browser, "button[type=submit]").click()
        element(browser, ".w-sidebar, .sidebar")
        browser.get(f"{site.url}/admin/pages/add/home/homepage/3/")
        element(browser, "#id_title").send_keys("Typed")
        element(browser, ".public-DraftEditor-content").send_keys("words")
        assert "words" in element(browser, ".public-DraftEditor-content").text
        assert errors(browser, site.url) == []


def test_end(site: Site) -> None:
    """SIGTERM ends it."""
    site.end()
