"""The asynchronous examples, run as their READMEs say, by a client and by a browser."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.sync.client import connect as connect_websocket

from ..helpers.browser import chromium, needs_browser

needs_fastapi = pytest.mark.skipif(
    importlib.util.find_spec("fastapi") is None, reason="fastapi is not installed"
)

EXAMPLES = Path(__file__).parent.parent.parent / "examples"


@contextlib.contextmanager
def running(folder: str, *command: str) -> Iterator[str]:
    """The URL of a process that serves in `folder`; it must end well when it is told to."""
    with subprocess.Popen(
        [sys.executable, *command],
        cwd=EXAMPLES / folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = ""
        try:
            for line in process.stdout:
                said += line
                if match := re.search(r"http://127\.0\.0\.1:\d+", line):
                    yield match[0]
                    break
            else:
                raise AssertionError(said)
        finally:
            process.terminate()
            assert process.wait(20) == 0


THREADWELL = ("-m", "threadwell", "--bind", "127.0.0.1:0")
HYBRIDS = {
    "runserver_fast": ("manage.py", "runserver_fast", "127.0.0.1:0", "--noreload"),
    "threadwell": (*THREADWELL, "wsgi:application", "--asgi", "asgi:application"),
}


def websocket(url: str, path: str) -> Any:
    return connect_websocket(url.replace("http", "ws", 1) + path, proxy=None)


@needs_fastapi
def test_fastapi() -> None:
    with running("asgi", *THREADWELL) as url, httpx.Client(base_url=url) as client:
        assert "<h1>FastAPI on threadwell</h1>" in client.get("/").text
        assert client.get("/notes").json() == []
        with client.stream("GET", "/events?pause=0.01") as events:
            lines = events.iter_lines()
            assert next(lines) == "data: 0"
            added = httpx.post(url + "/notes", json={"text": "one"})
            assert (added.status_code, added.json()) == (201, {"text": "one"})
            assert next(line for line in lines if line) == "data: 1"
        with websocket(url, "/shout") as ws:
            ws.send("hey")
            assert json.loads(ws.recv(10)) == {"shouted": "HEY", "notes": 1}
        assert client.get("/notes").json() == ["one"]
        assert client.post("/notes", json={}).status_code == 422
        assert client.get("/openapi.json").status_code == 200


@pytest.mark.parametrize("command", HYBRIDS)
def test_two_tabs_chat(command: str) -> None:
    with running("hybrid", *HYBRIDS[command]) as url, httpx.Client(base_url=url) as client:
        assert "<h1>Chat</h1>" in client.get("/").text
        assert client.get("/elsewhere").headers["location"] == "/elsewhere/"
        with (
            websocket(url, "/ws/lobby/") as first,
            websocket(url, "/ws/lobby/") as second,
            websocket(url, "/ws/elsewhere/") as other,
        ):
            first.send(json.dumps({"message": "hello"}))
            assert json.loads(second.recv(10)) == {"message": "hello"}
            assert json.loads(first.recv(10)) == {"message": "hello"}
            other.send(json.dumps({"message": "alone"}))
            assert json.loads(other.recv(10)) == {"message": "alone"}


def test_an_asynchronous_view_runs_on_the_loop() -> None:
    with (
        running("hybrid", *HYBRIDS["runserver_fast"]) as url,
        httpx.Client(base_url=url) as client,
        client.stream("GET", "/clock/") as clock,
    ):
        ticks = [line for line in clock.iter_lines() if line]
        assert ticks == [f"data: {number}" for number in range(1, 11)]
        assert client.get("/").status_code == 200


# ---- In a browser ----------------------------------------------------------------------------


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[Any]:
    with chromium(tmp_path / "profile") as driver:
        yield driver


def comes(browser: Any, selector: str, text: str) -> None:
    """Wait until the element that `selector` finds says `text`."""
    from selenium.webdriver.support.ui import WebDriverWait

    def says(driver: Any) -> bool:
        return text in driver.find_element("css selector", selector).text

    WebDriverWait(browser, 20).until(says)


def type_into(browser: Any, selector: str, text: str) -> None:
    browser.find_element("css selector", selector).send_keys(text + "\n")


@needs_fastapi
@needs_browser
@pytest.mark.timeout(150)
def test_fastapi_in_a_browser(browser: Any) -> None:
    with running("asgi", *THREADWELL) as url:
        browser.get(url)
        comes(browser, "#count", "0")
        type_into(browser, "#text", "a note")
        comes(browser, "#count", "1")
        type_into(browser, "#words", "hello")
        comes(browser, "#shouted", "HELLO")
        # with the stream and the WebSocket still open the server ends in time


@needs_browser
@pytest.mark.timeout(150)
def test_two_tabs_in_a_browser(browser: Any) -> None:
    with running("hybrid", *HYBRIDS["runserver_fast"]) as url:
        tabs = [browser.current_window_handle]
        browser.get(url)
        comes(browser, "#clock", "10")
        browser.switch_to.new_window("tab")
        tabs.append(browser.current_window_handle)
        browser.get(url)
        comes(browser, "#clock", "1")
        type_into(browser, "#message", "hello from the second")
        comes(browser, "#log", "hello from the second")
        browser.switch_to.window(tabs[0])
        comes(browser, "#log", "hello from the second")
        type_into(browser, "#message", "hello yourself")
        browser.switch_to.window(tabs[1])
        comes(browser, "#log", "hello yourself")
