"""The documentation as a site: mkdocs builds it without a warning, and it needs no other host."""

from __future__ import annotations

import functools
import http.server
import os
import re
import subprocess
import sys
import threading
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from threadwell.worker import OPTIONS

from ..helpers.browser import chromium, needs_browser
from ..helpers.waiting import until
from .test_docs import ROOT

pytest.importorskip("mkdocs", reason="mkdocs is in the extra docs, which dev has")
# The first test builds the site, and another starts a browser.
pytestmark = pytest.mark.timeout(300)

#: What a browser loads by itself.
_LOADED = re.compile(
    r"""<(?:script|img|iframe|source)\b[^>]*\bsrc=["']?([^"'\s>]+)"""
    r"""|<link\b(?=[^>]*\brel=["']?(?:stylesheet|icon|preconnect|preload))[^>]*"""
    r"""\bhref=["']?([^"'\s>]+)"""
)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built site."""
    target = tmp_path_factory.mktemp("site")
    words = (sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(target))
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(
        words, cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return target


def test_every_page_is_built(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").with_suffix("")
        folder = name.parent if name.name == "index" else name
        assert (site / folder / "index.html").exists()


def test_it_loads_nothing_from_another_host(site: Path) -> None:
    found = 0
    for page in site.rglob("*.html"):
        for match in _LOADED.finditer(page.read_text("utf-8")):
            address = match[1] or match[2]
            assert not re.match(r"(?:\w+:)?//", address), f"{page}: {address}"
            found += 1
    assert found > 50


def test_diagrams_need_no_program(site: Path) -> None:
    page = (site / "architecture" / "index.html").read_text("utf-8")
    assert "mermaid" not in page
    assert "may be followed by" in page


def test_each_option_has_an_anchor(site: Path) -> None:
    page = (site / "settings" / "index.html").read_text("utf-8")
    for option in OPTIONS:
        assert f'id="{option.name.replace("_", "-")}"' in page


def test_no_link_leaves_the_site_by_a_path(site: Path) -> None:
    """A link to a file of the repository that is no page would be broken there."""
    for page in site.rglob("index.html"):
        for target in re.findall(r'<a [^>]*href="?([^"\s>]+)', page.read_text("utf-8")):
            path = target.partition("#")[0]
            if path and "://" not in path and not path.startswith("mailto:"):
                there = (page.parent / path).resolve()
                assert there.exists(), f"{page}: {target}"
                assert there.is_relative_to(site.resolve()), f"{page}: {target}"


class _Files(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


@pytest.fixture(scope="module")
def address(site: Path) -> Iterator[str]:
    """Where the site is served."""
    handler = functools.partial(_Files, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()
        thread.join()


#: What a reader looks for, and the page that should be among the first that are found.
SEARCHES = {
    "chunked upload limit": "security/",
    "nginx": "proxies/",
    "SIGHUP": "signals/",
    "how many threads": "threads-and-workers/",
    "PORT": "platforms/",
    "431": "security/",
}


def first_pages(browser: Any, address: str) -> list[str]:
    """The first three pages that the search shows at the moment."""
    script = "return [...document.querySelectorAll('.md-search-result__link')].map(a => a.href)"
    found = [re.sub(r"[?#].*", "", link) for link in browser.execute_script(script)]
    return [link.removeprefix(address) for link in dict.fromkeys(found)][:3]


@needs_browser
@pytest.mark.parametrize(("words", "page"), SEARCHES.items(), ids=list(SEARCHES))
def test_a_search_finds_it(browser: Any, address: str, words: str, page: str) -> None:
    browser.get(f"{address}?q={urllib.parse.quote(words)}")
    until(lambda: page in first_pages(browser, address), 60)


def test_the_front_page_leads_there(site: Path) -> None:
    text = (site / "index.html").read_text("utf-8")
    for page in SEARCHES.values():
        assert re.search(rf'href="?{page}', text)
