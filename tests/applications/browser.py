"""A headless Chromium of Debian's, driven by selenium."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PATIENCE = 60


@contextlib.contextmanager
def chromium(folder: Path) -> Iterator[Any]:
    """A browser with its profile in `folder`. Skips the step where there is none."""
    from selenium import webdriver

    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip("Debian's chromium and chromium-driver are not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    for argument in (
        "--headless=new",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-dev-shm-usage",
        "--window-size=1200,1000",
        f"--user-data-dir={folder / 'profile'}",
        # only the application is to be asked for anything
        "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
    ):
        options.add_argument(argument)
    browser = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()


def element(browser: Any, selector: str) -> Any:
    """The first element of a CSS selector, once it can be seen."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support import expected_conditions
    from selenium.webdriver.support.wait import WebDriverWait

    located = expected_conditions.visibility_of_element_located((By.CSS_SELECTOR, selector))
    return WebDriverWait(browser, PATIENCE).until(located)


def until(browser: Any, condition: Any) -> Any:
    """Wait until `condition(browser)` is true; what it returns."""
    from selenium.common.exceptions import StaleElementReferenceException
    from selenium.webdriver.support.wait import WebDriverWait

    ignored = [StaleElementReferenceException]
    return WebDriverWait(browser, PATIENCE, ignored_exceptions=ignored).until(condition)


def errors(browser: Any, url: str) -> list[str]:
    """What the browser has complained of, as far as `url` is concerned; not its own favicon."""
    return [
        entry["message"]
        for entry in browser.get_log("browser")
        if entry["level"] == "SEVERE"
        and url in entry["message"]
        and "favicon.ico" not in entry["message"]
    ]
