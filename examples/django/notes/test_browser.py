"""The page in a browser, on pytest-django's `live_server`."""

import os
import shutil
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page, expect, sync_playwright

from .models import Note

# Playwright runs an event loop in this thread; Django would not let it use the database.
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "true"


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox"]
        )
        yield chromium.new_page()
        chromium.close()


def test_a_note_is_kept(live_server, page: Page) -> None:
    page.goto(live_server.url)
    page.get_by_label("Text").fill("written in a browser")
    page.get_by_role("button", name="Keep").click()
    expect(page.locator(".message")).to_have_text("The note is kept.")
    expect(page.get_by_role("listitem")).to_have_text("written in a browser")
    assert Note.objects.get().text == "written in a browser"
    # another one comes by the stream
    Note.objects.create(text="written elsewhere")
    expect(page.locator("#count")).to_have_text("2")
