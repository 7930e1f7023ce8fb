"""django-cms: a content management system on Django, used with its forms and by a browser."""

from __future__ import annotations

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import requests

from .application import Application, Server, Site
from .browser import chromium, element, errors
from .environments import Environment
from .web_forms import Browser

SETTINGS = """
ALLOWED_HOSTS = ["127.0.0.1"]
INSTALLED_APPS = [
    "threadwell.adapters.django",
    *INSTALLED_APPS,
    "django.contrib.sites",
    "cms",
    "menus",
    "treebeard",
    "sekizai",
    "djangocms_text",
]
MIDDLEWARE = [
    *MIDDLEWARE,
    "django.middleware.locale.LocaleMiddleware",
    "cms.middleware.user.CurrentUserMiddleware",
    "cms.middleware.page.CurrentPageMiddleware",
    "cms.middleware.toolbar.ToolbarMiddleware",
    "cms.middleware.language.LanguageCookieMiddleware",
]
TEMPLATES[0]["DIRS"] = ["templates"]
TEMPLATES[0]["OPTIONS"]["context_processors"] += [
    "django.template.context_processors.i18n",
    "sekizai.context_processors.sekizai",
    "cms.context_processors.cms_settings",
]
SITE_ID = 1
LANGUAGE_CODE = "en"
LANGUAGES = [("en", "English"), ("de", "Deutsch")]
CMS_TEMPLATES = [("page.html", "Page")]
CMS_CONFIRM_VERSION4 = True
X_FRAME_OPTIONS = "SAMEORIGIN"
"""
URLS = """
from django.conf.urls.i18n import i18n_patterns
from django.contrib import admin
from django.contrib.staticfiles.urls import staticfiles_urlpatterns
from django.urls import include, path

urlpatterns = [
    *staticfiles_urlpatterns(),
    *i18n_patterns(path("admin/", admin.site.urls), path("", include("cms.urls"))),
]
"""
TEMPLATE = """
{% load cms_tags sekizai_tags %}<!doctype html><html><head><title>{% page_attribute "title" %}
</title>{% render_block "css" %}</head><body>{% cms_toolbar %}{% placeholder "content" %}
{% render_block "js" %}</body></html>
"""


def prepare(environment: Environment, folder: Path) -> None:
    """A new project with its user."""
    environment.run(folder, "django-admin", "startproject", "mysite", ".")
    with (folder / "mysite" / "settings.py").open("a") as settings:
        settings.write(SETTINGS)
    (folder / "mysite" / "urls.py").write_text(URLS)
    (folder / "templates").mkdir()
    (folder / "templates" / "page.html").write_text(TEMPLATE.strip())
    environment.run(folder, "python", "manage.py", "migrate")
    words = ["createsuperuser", "--noinput", "--username", "ada", "--email", "ada@example.org"]
    password = {"DJANGO_SUPERUSER_PASSWORD": "secret"}
    environment.run(folder, "python", "manage.py", *words, **password)


APPLICATION = Application(
    name="django-cms",
    distribution="django-cms",
    requirements=["django-cms>=5,<6", "djangocms-text>=0.9", "gunicorn>=23"],
    servers={
        "threadwell": Server("threadwell mysite.wsgi:application --bind 127.0.0.1:{port}"),
        "threadwell (runserver_fast)": Server("python manage.py runserver_fast 127.0.0.1:{port}"),
        "gunicorn": Server("gunicorn mysite.wsgi --threads 8 --bind 127.0.0.1:{port}"),
        "runserver": Server("python manage.py runserver 127.0.0.1:{port}"),
    },
    prepare=prepare,
)


def signed_in(site: Site) -> Browser:
    """A session of the administrator."""
    browser = Browser()
    login = f"{site.url}/en/admin/login/?next=/en/admin/"
    answer = browser.submit(login, "username", username="ada", password="secret")
    assert answer.url == f"{site.url}/en/admin/"
    return browser


def test_login(site: Site) -> None:
    """Log in, with a wrong password first; a redirect to the client's language."""
    wrong = Browser().submit(
        f"{site.url}/en/admin/login/", "username", username="ada", password="no"
    )
    assert "Please enter the correct username and password" in wrong.text
    assert "django CMS" in signed_in(site).get(f"{site.url}/en/admin/", timeout=60).text
    german = requests.get(
        f"{site.url}/admin/", headers={"Accept-Language": "de"}, allow_redirects=False, timeout=60
    )
    assert (german.status_code, german.headers["Location"]) == (302, "/de/admin/")


def test_pages(site: Site) -> None:
    """Write a page with a text in its placeholder, and visit it; 404 for another."""
    browser = signed_in(site)
    pages = f"{site.url}/en/admin/cms/pagecontent"
    for title, slug in (("Start", "start"), ("Über uns", "about")):
        done = browser.submit(f"{pages}/add/?language=en", "title", title=title, slug=slug)
        assert done.url == f"{pages}/?language=en", done.text
    tree = browser.get(f"{pages}/get-tree/?language=en", timeout=60).text
    editors = re.findall(r'href="(/en/admin/cms/placeholder/object/\d+/edit/\d+/)"', tree)
    assert len(editors) == 2
    editor = browser.get(site.url + editors[1], timeout=60).text
    placeholder = re.search(r"cms-placeholder-(\d+)", editor)
    assert placeholder
    where = f"placeholder_id={placeholder[1]}&cms_path=/en/about/&plugin_language=en"
    add = f"{site.url}/en/admin/cms/placeholder/add-plugin/?{where}&plugin_type=TextPlugin"
    added = browser.submit(f"{add}&plugin_position=1", "body", body="<p>Grüße</p>")
    assert added.status_code == 200
    page = requests.get(f"{site.url}/en/about/", timeout=60)
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "<title>Über uns\n</title>" in page.text
    assert "<p>Grüße</p>" in page.text
    assert requests.get(f"{site.url}/en/no/", timeout=60).status_code == 404


def test_browser(site: Site) -> None:
    """A browser logs in, sees the toolbar on the page, and the list of pages."""
    with chromium(site.folder) as browser:
        browser.get(f"{site.url}/en/admin/")
        element(browser, "#id_username").send_keys("ada")
        element(browser, "#id_password").send_keys("secret")
        element(browser, "input[type=submit]").click()
        element(browser, "#user-tools")
        browser.get(f"{site.url}/en/about/?toolbar_on")
        element(browser, ".cms-toolbar")
        browser.get(f"{site.url}/en/admin/cms/pagecontent/?language=en")
        element(browser, ".cms-pagetree-jstree, .cms-pagetree")
        assert errors(browser, site.url) == []


def test_at_once(site: Site) -> None:
    """100 requests of 8 clients with sessions."""
    cookies = signed_in(site).cookies.get_dict()

    def status(_: int) -> int:
        return requests.get(f"{site.url}/en/about/", cookies=cookies, timeout=120).status_code

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(status, range(100))) == {200}


def test_end(site: Site) -> None:
    """SIGTERM ends it."""
    site.end()
