"""Gradio: an ASGI application that streams events, used by gradio_client and by a browser."""

from __future__ import annotations

import re

import requests

from .application import Application, Server, Site
from .browser import chromium, element, errors, until

APPLICATION = Application(
    name="Gradio",
    distribution="gradio",
    requirements=["gradio>=5,<7"],
    servers={
        "threadwell": Server(
            "threadwell {projects}/gradio_app.py:app --bind 127.0.0.1:{port}",
        ),
        "uvicorn": Server(
            "uvicorn --app-dir {projects} --port {port} gradio_app:app",
            exit_code=-15,
        ),
        "its own (launch)": Server(
            "python {projects}/gradio_app.py {port}",
            exit_code=-15,
        ),
    },
    environ={"GRADIO_ANALYTICS_ENABLED": "False", "HF_HUB_OFFLINE": "1"},
)


def test_client(site: Site) -> None:
    """gradio_client: a call, a stream of 5 events, 4 clients at once, a file of 5 MB, a file
    back, an error of the application."""
    assert site.client("gradio_ui_client.py") == {
        "greet": "Hello Ada",
        "stream": ["1 of 5", "2 of 5", "3 of 5", "4 of 5", "5 of 5"],
        "many": [[f"Hello {number}" for number in range(5)]] * 4,
        "size": 5_000_000,
        "shout": "LOUD",
        "error": "on purpose",
    }


def test_files(site: Site) -> None:
    """The page, and a stylesheet of it, which Gradio's own middleware compresses (brotli)."""
    page = requests.get(site.url, timeout=60)
    assert page.status_code == 200
    assert '"title":"Demo"' in page.text
    sheet = re.search(r'href="\.?(/[^"]+\.css)"', page.text)
    assert sheet
    compressed = requests.get(
        site.url + sheet[1], headers={"Accept-Encoding": "br"}, stream=True, timeout=60
    )
    assert (compressed.status_code, compressed.headers["Content-Encoding"]) == (200, "br")
    plain = requests.get(site.url + sheet[1], headers={"Accept-Encoding": "identity"}, timeout=60)
    assert plain.headers["Content-Type"] == "text/css; charset=utf-8"
    assert 0 < len(compressed.raw.read(decode_content=False)) < len(plain.content) / 2


def test_browser(site: Site) -> None:
    """A browser types a name, gets a greeting, and sees a stream of events end."""
    with chromium(site.folder) as browser:
        browser.get(site.url)
        element(browser, "#name textarea, #name input").send_keys("Ada")
        element(browser, "#greet").click()
        box = element(browser, "#greeting textarea, #greeting input")
        until(browser, lambda _: box.get_attribute("value") == "Hello Ada")
        element(browser, "#count").click()
        counted = element(browser, "#counted textarea, #counted input")
        until(browser, lambda _: counted.get_attribute("value") == "5 of 5")
        assert browser.title == "Demo"
        assert errors(browser, site.url) == []


def test_end(site: Site) -> None:
    """SIGTERM ends it."""
    site.end()
