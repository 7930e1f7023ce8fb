"""NiceGUI: an ASGI application whose pages live in a WebSocket, used by a browser."""

from __future__ import annotations

import re

import requests

from ..helpers.waiting import until as happens
from .application import Application, Server, Site
from .browser import chromium, element, errors, until

APPLICATION = Application(
    name="NiceGUI",
    distribution="nicegui",
    requirements=["nicegui>=3,<4"],
    servers={
        "threadwell": Server(
            "threadwell {projects}/nicegui_app.py:app --bind 127.0.0.1:{port}",
        ),
        "uvicorn": Server(
            "uvicorn --app-dir {projects} --port {port} nicegui_app:app",
            exit_code=-15,
        ),
        "its own (ui.run)": Server(
            "python {projects}/nicegui_app.py {port}",
            exit_code=-15,
        ),
    },
)


def test_files(site: Site) -> None:
    """The page, and a script of it, compressed by GZipMiddleware."""
    page = requests.get(site.url, timeout=60)
    assert (page.status_code, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    script = re.search(r'"(/_nicegui/[^"]+\.js)"', page.text)
    assert script
    answer = requests.get(site.url + script[1], headers={"Accept-Encoding": "gzip"}, timeout=60)
    assert (answer.status_code, answer.headers["Content-Encoding"]) == (200, "gzip")


def test_browser(site: Site) -> None:
    """A browser: events in both directions over the WebSocket, a timer of the server, a script
    that the server runs in the browser."""
    with chromium(site.folder) as browser:
        browser.get(site.url)
        element(browser, ".name input, input.name").send_keys("Ada")
        element(browser, ".greet").click()
        until(browser, lambda _: element(browser, ".greeting").text == "Hello Ada")
        element(browser, ".ask").click()
        until(browser, lambda _: element(browser, ".answer").text == "42")
        until(browser, lambda _: int(element(browser, ".clock").text) > 5)
        assert requests.get(f"{site.url}/clients", timeout=60).json() == {"connected": 1}
        assert errors(browser, site.url) == []


def test_upload(site: Site) -> None:
    """A browser uploads 2 MB, and the page says so."""
    large = site.folder / "large.bin"
    large.write_bytes(bytes(2_000_000))
    with chromium(site.folder) as browser:
        browser.get(site.url)
        element(browser, ".upload")
        browser.find_element("css selector", ".upload input[type=file]").send_keys(str(large))
        until(browser, lambda _: element(browser, ".uploaded").text == "large.bin: 2000000")


def test_left(site: Site) -> None:
    """Browsers that have left are no longer connected."""

    def connected() -> object:
        return requests.get(f"{site.url}/clients", timeout=60).json()

    happens(lambda: connected() == {"connected": 0})


def test_end(site: Site) -> None:
    """SIGTERM ends it."""
    site.end()
