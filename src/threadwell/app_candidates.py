"""The applications that files may have, for shell completion. Nothing is imported."""

from __future__ import annotations

import ast
import os
from pathlib import Path

from .app_loader import APP_NAMES, FACTORY_NAMES

# Functions and classes of frameworks that return an application.
_MAKERS = {
    "App", "Bottle", "FastAPI", "FastHTML", "Flask", "FlaskAPI", "Litestar", "Quart", "Sanic",
    "Starlette", "get_asgi_application", "get_wsgi_application", "make_wsgi_app",
}  # fmt: skip
_ARGUMENTS = (["environ", "start_response"], ["scope", "receive", "send"], ["request"])
# A completion must be quick: how much of a project is read at most.
_MOST_FILES = 300
_LARGEST_FILE = 500_000
_DEPTH = 2


def candidates(folder: str | os.PathLike[str], incomplete: str) -> list[str]:
    """Each `module:name` of the files below `folder` that `incomplete` may become.

    Behind a colon these are all public names of the module, else what looks like an application.
    """
    module, colon, name = incomplete.partition(":")
    found = []
    for path in _files(Path(folder)):
        dotted = _module_of(path, Path(folder))
        if dotted != module if colon else not dotted.startswith(module):
            continue
        for each, is_app in _names(path).items():
            if (is_app or colon) and each.startswith(name):
                found.append(f"{dotted}:{each}")
    return sorted(found)


def _files(folder: Path, depth: int = _DEPTH) -> list[Path]:
    found: list[Path] = []
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return []
    for entry in entries:
        if entry.name.endswith(".py") and entry.is_file():
            found.append(Path(entry.path))
        elif depth and _may_be_package(entry):
            found += _files(Path(entry.path), depth - 1)
        if len(found) >= _MOST_FILES:
            break
    return found[:_MOST_FILES]


def _may_be_package(entry: os.DirEntry[str]) -> bool:
    is_folder = entry.name.isidentifier() and entry.is_dir(follow_symlinks=False)
    return is_folder and not os.path.exists(os.path.join(entry.path, "pyvenv.cfg"))


def _module_of(path: Path, folder: Path) -> str:
    parts = path.relative_to(folder).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)


def _names(path: Path) -> dict[str, bool]:
    """The public names at the top of a module, and whether each looks like an application."""
    try:
        if path.stat().st_size > _LARGEST_FILE:
            return {}
        tree = ast.parse(path.read_bytes())
    except (OSError, SyntaxError, ValueError, RecursionError):
        return {}
    found: dict[str, bool] = {}
    for node in tree.body:
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name):
                arguments = [each.arg for each in node.args.args]
                found[name] = name in APP_NAMES + FACTORY_NAMES or arguments in _ARGUMENTS
            case ast.ClassDef(name=name):
                found[name] = False
            case ast.Assign(value=value):
                for target in node.targets:
                    if isinstance(target, ast.Name):
                        found[target.id] = target.id in APP_NAMES or _makes_app(value)
            case ast.AnnAssign(target=ast.Name(id=name), value=value):
                found[name] = name in APP_NAMES or _makes_app(value)
            case ast.ImportFrom(names=names):
                imported = [alias.asname or alias.name for alias in names]
                found |= {name: True for name in imported if name in APP_NAMES}
    return {name: is_app for name, is_app in found.items() if not name.startswith("_")}


def _makes_app(value: ast.expr | None) -> bool:
    if not isinstance(value, ast.Call):
        return False
    name = ast.unparse(value.func).rpartition(".")[2]
    return name in _MAKERS or name in FACTORY_NAMES
