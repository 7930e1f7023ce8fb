"""What mkdocs needs to show the pages of the repository as a site; see mkdocs.yml.

The pages are written for GitHub as well. Two things differ there: links to files outside docs/, and
diagrams in mermaid, whose program a site would have to load from another host. The API reference
is read from the source, and the folders of the source have other names than the packages.
"""

from __future__ import annotations

import posixpath
import re
import shutil
import tempfile
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

from mkdocs.plugins import event_priority

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parent.parent

#: Pages that have most words of the others. A search should find the others first.
_FOR_FEW = ("index.md", "api.md", "architecture.md", "reference-api.md", "applications.md")

_OUTSIDE = re.compile(r"\[([^\]]+)\]\((\.\./[^)\s]+)\)")
_OPTION = re.compile(r"^\| (none|`[^`]+`) \| (`\w+`) \| (`\w+`) \| (.*)$", re.MULTILINE)
_FLAG = re.compile(r"<code>(--[\w-]+)</code>")
_DIAGRAM = re.compile(r"^```mermaid\nstateDiagram-v2\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_STEP = re.compile(r"^\s*(\S+) --> ([^\s:]+)", re.MULTILINE)
_BOX = re.compile(r"^\s*state (\w+) \{\n(.*?)\n\s*\}", re.DOTALL | re.MULTILINE)


#: The package as it is installed: the name of a folder in it, and where the folder is.
_FOLDERS = {"": "src/threadwell", "worker": "worker", "adapters": "adapters"}
_sources = tempfile.TemporaryDirectory(prefix="threadwell-docs-")


@event_priority(100)  # before mkdocstrings takes its configuration
def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Let mkdocstrings read the source under the names of the installed package."""
    for name, folder in _FOLDERS.items():
        target = Path(_sources.name) / "threadwell" / name
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / folder, target, dirs_exist_ok=True, ignore=ignored)
    config.plugins["mkdocstrings"].config.handlers["python"]["paths"] = [_sources.name]
    return config


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """`markdown` without what only GitHub shows."""
    if page.file.src_uri in _FOR_FEW:
        page.meta["search"] = {"boost": 0.3}
    if page.file.src_uri == "settings.md":
        markdown = settings(markdown)
    return _DIAGRAM.sub(_table, linked(markdown, page.file.src_uri))


def on_page_content(html: str, **_: object) -> str:
    """`html` whose flags are not broken after their dashes."""
    return _FLAG.sub(r'<code class="option">\1</code>', html)


def settings(markdown: str) -> str:
    """The settings page with the three names of an option below each other, and a link to it."""

    def replace(match: re.Match[str]) -> str:
        flag, keyword, variable, rest = match.groups()
        anchor = keyword.strip("`").replace("_", "-")
        names = [each.strip("`") for each in (flag, keyword, variable) if each != "none"]
        shown = "<br>".join(f'<code class="option">{_breakable(name)}</code>' for name in names)
        return f'| <a id="{anchor}"></a>{shown} | {rest}'

    short = markdown.replace("| flag | keyword | variable |", "| flag, keyword, variable |")
    return _OPTION.sub(replace, short.replace("|---|---|---|---|---|", "|---|---|---|"))


def _breakable(name: str) -> str:
    return name.replace("_", "_<wbr>").replace("-", "-<wbr>").replace("-<wbr>-<wbr>", "--")


def linked(markdown: str, page: str) -> str:
    """`markdown` with links to files outside docs/ as links to the repository, or as text."""
    home = repository()

    def replace(match: re.Match[str]) -> str:
        text, target = match.groups()
        path = posixpath.normpath(posixpath.join("docs", posixpath.dirname(page), target))
        if path.startswith("docs/"):
            return match[0]
        return f"[{text}]({home}/blob/HEAD/{path})" if home else f"{text} (`{path}`)"

    return _OUTSIDE.sub(replace, markdown)


def repository() -> str:
    """The address of the repository in pyproject.toml, or nothing."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    urls = {name.lower(): url for name, url in project.get("urls", {}).items()}
    return str(urls.get("repository") or urls.get("source") or "").rstrip("/")


def _table(match: re.Match[str]) -> str:
    """A state diagram as a table of the steps."""
    diagram = match[1]
    boxes = {name: body.split() for name, body in _BOX.findall(diagram)}
    steps: dict[str, list[str]] = {}
    for source, target in _STEP.findall(diagram):
        steps.setdefault(source, []).append(target)
    lines = ["| state | may be followed by |", "|---|---|"]
    for source, targets in steps.items():
        name = "*the beginning*" if source == "[*]" else _named(source, boxes)
        following = ["*the end*" if each == "[*]" else f"`{each}`" for each in targets]
        lines.append(f"| {name} | {', '.join(following)} |")
    return "\n".join(["", *lines, ""])


def _named(state: str, boxes: dict[str, list[str]]) -> str:
    if state in boxes:
        return f"`{state}`: each of {', '.join(f'`{each}`' for each in boxes[state])}"
    return f"`{state}`"
