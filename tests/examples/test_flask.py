"""The Flask example, served by `flask serve`, clicked through by a browser."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..helpers.browser import chromium, needs_browser
from ..helpers.command import Command, command, get

ROOT = Path(__file__).parent.parent.parent
EXAMPLE = ROOT / "examples" / "flask"
PATIENCE = 30


@pytest.fixture
def running() -> Iterator[Command]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("FLASK")}
    words = ["-m", "flask", "--app", "examples/flask/app.py", "serve", "--threads", "1", "-p", "0"]
    with command(words, ROOT, env=env) as running:
        yield running


def test_pages(running: Command) -> None:
    url = running.url()
    for path, text in (
        ("/", "<h1>A Flask application</h1>"),
        ("/upload", "multipart/form-data"),
        ("/clock", "EventSource"),
        ("/chat", "WebSocket"),
    ):
        status, page = get(url + path)
        assert (status, text in page) == (200, True)


def test_readme_names_every_page() -> None:
    readme = (EXAMPLE / "README.md").read_text("utf-8")
    for path in ("/upload", "/clock", "/ticks", "/chat"):
        assert f"`{path}" in readme


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    with chromium(tmp_path / "profile") as driver:
        yield driver


class Page:
    """What a person sees and does."""

    def __init__(self, browser: Any) -> None:
        from selenium.common.exceptions import StaleElementReferenceException
        from selenium.webdriver.common.by import By
        from selenium.webdriver.support.ui import WebDriverWait

        self.browser = browser
        self._by = By
        # what was found may be of the page that is just being left
        left = [StaleElementReferenceException]
        self._wait = WebDriverWait(browser, PATIENCE, ignored_exceptions=left)

    def text(self, name: str) -> str:
        text: str = self.browser.find_element(self._by.ID, name).text
        return text

    def until(self, name: str, text: str) -> None:
        self._wait.until(lambda _: text in self.text(name))

    def follow(self, link: str, heading: str) -> None:
        self.browser.find_element(self._by.LINK_TEXT, link).click()
        self._wait.until(lambda _: self.heading() == heading)

    def heading(self) -> str:
        text: str = self.browser.find_element(self._by.TAG_NAME, "h1").text
        return text

    def press(self) -> None:
        self.browser.find_element(self._by.TAG_NAME, "button").click()

    def write(self, name: str, text: str) -> None:
        self.browser.find_element(self._by.ID, name).send_keys(text)


@needs_browser
@pytest.mark.timeout(150)
def test_in_a_browser(running: Command, browser: Any, tmp_path: Path) -> None:
    page = Page(browser)
    url = running.url()
    browser.get(url)
    assert page.heading() == "A Flask application"
    # a file that is too large for memory
    file = tmp_path / "file.bin"
    file.write_bytes(b"0123456789" * 50_000)
    page.follow("Upload", "Upload a file")
    page.press()
    page.until("problem", "Choose a file first.")
    page.write("choose", str(file))
    page.press()
    page.until("file", "file.bin has 500000 bytes")
    # a clock, in a window that stays open
    page.follow("Clock", "A clock")
    browser.get(browser.current_url + "?pause=0.05")
    page._wait.until(lambda _: int(page.text("ticks")) > 5)
    clock = browser.current_window_handle
    # two who talk to each other
    windows = []
    for _ in range(2):
        browser.switch_to.new_window("tab")
        browser.get(url + "/chat")
        page.until("state", "Connected.")
        windows.append(browser.current_window_handle)
    page.write("text", "Can you hear me?")
    page.press()
    page.until("said", "Can you hear me?")
    browser.switch_to.window(windows[0])
    page.until("said", "Can you hear me?")
    # all the while the clock goes on, and the server has one thread for pages
    browser.switch_to.window(clock)
    ticks = int(page.text("ticks"))
    page._wait.until(lambda _: int(page.text("ticks")) > ticks)
    assert "Traceback" not in running.end(signal.SIGINT)
    browser.switch_to.window(windows[1])
    page.until("state", "Closed with 1001.")
