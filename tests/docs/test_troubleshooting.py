"""The page of messages quotes what the source says, and leaves no warning of the log out."""

from __future__ import annotations

import ast
import difflib
import re
from collections.abc import Iterator
from pathlib import Path

from .test_docs import DOCS, MODULES, ROOT

PAGE = (DOCS / "troubleshooting.md").read_text("utf-8")
_SEVERE = ("warning", "error", "exception", "critical")


def text_of(node: ast.AST) -> str:
    """The text that `node` builds, with `…` for what is only known at run time."""
    return " ".join(re.sub(r"%[-+.\d]*[sdrgf]", "…", _raw(node)).split())


def _raw(node: ast.AST) -> str:
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_raw, node.values))
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else "…"


def nodes() -> Iterator[tuple[Path, ast.AST]]:
    for name in MODULES:
        path = ROOT / name
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            yield path, node


def quoted() -> list[str]:
    """The messages of the page: the first column of its tables."""
    cells = re.findall(r"^\| (`.+?`) \| ", PAGE, re.MULTILINE)
    return [text for cell in cells for text in re.findall(r"`([^`]+)`", cell)]


def test_each_message_is_in_the_source() -> None:
    known = {text_of(node) for _, node in nodes() if isinstance(node, ast.Constant | ast.JoinedStr)}
    source = "\n".join(known)
    found = quoted()
    assert len(found) > 150
    missing = [text for text in found if " ".join(text.strip("…").split()) not in source]
    assert not {text: difflib.get_close_matches(text, known, 1, 0.4) for text in missing}


def test_each_warning_of_the_log_is_on_the_page() -> None:
    parts = [text.strip("…") for text in quoted()]
    missing = []
    for path, node in nodes():
        if (
            not isinstance(node, ast.Call)
            or not isinstance(node.func, ast.Attribute)
            or not node.args
        ):
            continue
        if node.func.attr in _SEVERE and ast.unparse(node.func.value) == "log":
            text = text_of(node.args[0])
            if len(re.findall(r"[a-z]+", text)) > 2 and not any(part in text for part in parts):
                missing.append(f"{path.name}:{node.lineno}: {text}")
    assert not missing
