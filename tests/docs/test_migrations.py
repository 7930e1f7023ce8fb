"""The pages on other servers: the configurations that they show are accepted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from threadwell.cli import main

from .test_docs import DOCS

SERVERS = "gunicorn uwsgi waitress uvicorn daphne mod_wsgi runserver".split()
PAGES = [DOCS / "migrate" / f"{server}.md" for server in SERVERS]
_BLOCK = re.compile(r'^```toml title="threadwell.toml"\n(.*?)^```$', re.DOTALL | re.MULTILINE)
#: The folder that the pages have their applications in.
HOME = "/srv/app"

pages = pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])


@pages
def test_a_configuration_that_is_shown_can_be_used(
    page: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "static").mkdir()
    blocks = _BLOCK.findall(page.read_text("utf-8"))
    for number, text in enumerate(blocks):
        file = tmp_path / f"{number}.toml"
        file.write_text(text.replace(HOME, str(tmp_path)), "utf-8")
        assert main(["config", "show", "--config", str(file)]) == 0
        assert "workers = " in capsys.readouterr().out
    assert blocks or page.stem in ("waitress", "runserver")


@pages
def test_each_page_has_the_same_parts(page: Path) -> None:
    text = page.read_text("utf-8")
    assert "\n## What behaves differently\n" in text
    assert "\n## What has no counterpart\n" in text
