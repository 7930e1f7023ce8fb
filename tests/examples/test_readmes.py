"""The examples run, as their READMEs say, and answer."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@contextmanager
def running(example: str) -> Iterator[str]:
    """The URL of an example, served by a process of its own."""
    command = [sys.executable, "-m", "threadwell", f"examples/{example}", "--bind", "127.0.0.1:0"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            lines = iter(process.stdout.readline, "")
            yield next(line.strip() for line in lines if line.strip().startswith("http://"))
        finally:
            process.terminate()
            assert process.wait(10) == 0


@pytest.fixture(scope="module")
def wsgi() -> Iterator[str]:
    with running("wsgi") as url:
        yield url


@pytest.fixture(scope="module")
def sync_app() -> Iterator[str]:
    with running("sync_app") as url:
        yield url


def get(url: str, data: bytes | None = None) -> tuple[str, str]:
    """The content type, and the text."""
    with urllib.request.urlopen(url, data, timeout=10) as response:
        return response.headers["Content-Type"], response.read().decode()


@pytest.mark.parametrize("example", ["wsgi", "sync_app"])
def test_readme_names_the_command_and_every_path(example: str) -> None:
    folder = ROOT / "examples" / example
    readme = (folder / "README.md").read_text()
    assert f"threadwell examples/{example}" in readme
    paths = re.findall(r'\("(?:GET|POST)", "([^"]+)"\)', (folder / "app.py").read_text())
    assert len(paths) == 5
    assert all(re.search(rf"[` ]{path}[`?]", readme) for path in paths)


def test_wsgi_pages(wsgi: str) -> None:
    assert "<h1>A plain WSGI application</h1>" in get(wsgi)[1]
    assert "PATH_INFO = '/environ'" in get(wsgi + "/environ?a=1")[1]
    assert "QUERY_STRING = 'a=1'" in get(wsgi + "/environ?a=1")[1]
    assert get(wsgi + "/stream?to=3&pause=0.01")[1] == "1\n2\n3\n"


def test_wsgi_download(wsgi: str) -> None:
    file = ROOT / "examples" / "wsgi" / "app.py"
    assert get(wsgi + "/download") == ("text/x-python; charset=utf-8", file.read_text())


def test_wsgi_form_is_echoed_and_escaped(wsgi: str) -> None:
    form = urllib.parse.urlencode({"name": "<Zoë>"}).encode()
    assert "<dt>name</dt><dd>&lt;Zoë&gt;</dd>" in get(wsgi + "/form", form)[1]


@pytest.mark.parametrize(
    ("path", "status"), [("/nothing", 404), ("/stream?to=x", 400), ("/form", 404)]
)
def test_wsgi_refusals(wsgi: str, path: str, status: int) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(wsgi + path)
    with caught.value:
        assert caught.value.code == status


def test_sync_app_pages(sync_app: str) -> None:
    assert "<h1>A SyncApp</h1>" in get(sync_app)[1]
    content_type, text = get(sync_app + "/request?a=1&a=2")
    facts = json.loads(text)
    assert content_type == "application/json"
    assert facts["query"] == {"a": ["1", "2"]}
    assert f"http://{facts['server'][0]}:{facts['server'][1]}" == sync_app
    assert ["host", sync_app.removeprefix("http://")] in facts["headers"]


def test_sync_app_streams_and_files(sync_app: str) -> None:
    content_type, text = get(sync_app + "/events?to=2&pause=0.01")
    assert (content_type, text) == ("text/event-stream", "data: 1\n\ndata: 2\n\n")
    file = ROOT / "examples" / "sync_app" / "app.py"
    assert get(sync_app + "/source")[1] == file.read_text()


def test_sync_app_echo(sync_app: str) -> None:
    request = urllib.request.Request(
        sync_app + "/echo", b"\x00hello", {"Content-Type": "text/x-test"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        assert response.headers["Content-Type"] == "text/x-test"
        assert response.read() == b"\x00hello"


@pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed")
def test_wsgi_example_in_a_browser(wsgi: str, tmp_path: Path) -> None:
    assert CHROMIUM is not None
    options = (
        "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run"
        " --disable-background-networking --disable-component-update --disable-sync"
        " --dump-dom"
    ).split()
    profile = f"--user-data-dir={tmp_path}"
    page = subprocess.run(
        [CHROMIUM, *options, profile, wsgi], capture_output=True, text=True, timeout=50, check=True
    ).stdout
    assert "<h1>A plain WSGI application</h1>" in page
    # the stream came into the page's frame
    assert '<p id="counter">1, 2, 3, 4, 5: all there.</p>' in page
