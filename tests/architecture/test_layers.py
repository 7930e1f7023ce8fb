"""Which module may import which, and how large a module and a function may become.

The layers are those of docs/architecture.md. import-linter checks them too, on an installed
package (see pyproject.toml and scripts/test). This test needs no installation, counts every import
statement, those in functions and under `TYPE_CHECKING` included, and checks what import-linter
cannot express.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = next(path for path in Path(__file__).resolve().parents if (path / "pyproject.toml").exists())
FOLDERS = {
    "src/threadwell": "threadwell",
    "worker": "threadwell.worker",
    "adapters": "threadwell.adapters",
}

#: The packages and modules of `worker/`, highest first. Those on one line do not know each other.
WORKER_LAYERS = """
    supervisor
    server
    control
    metrics
    sync_worker
    assembly
    http2
    threads asgi
    interfaces static
    watchdog
    polling http1
    proxies
    deadlines
    connection logs
    lifecycle
    http tls
    request_id net
    config app_kind
    messages
    hijack
    system
    errors
"""
#: The modules of `adapters/` that are commands, or parts of one: above the front door.
COMMANDS = (
    "flask.command",
    "django.apps",
    "django.autoreload",
    "django.checks",
    "django.command",
    "django.management",
    "django.options",
    "django.prodserver",
    "django.reload_parent",
    "django.runserver",
    "django.workers",
)

MOST_ROOT_MODULES = 14
MOST_MODULE_LINES = 500
MOST_FUNCTION_LINES = 60

# Attributes with an underscore that the standard library and Django have to offer.
FOREIGN_ATTRIBUTES = {
    "_asdict", "_fields", "_make", "_replace",  # of named tuples
    "_exit", "_clear", "_run_exitfuncs", "_current_frames",  # of `os`, `atexit` and `sys`
    "_accept",  # of sockets
    "_actions",  # of `argparse.ArgumentParser`
    "_handler_class", "_should_handle", "_store",  # of Django's responses and handlers
}  # fmt: skip


class Import(NamedTuple):
    """One imported name: by which module, from which module, and the name if it is not one."""

    importer: str
    imported: str
    name: str


@cache
def modules() -> dict[str, Path]:
    """Every module of the package, and its file."""
    found = {}
    for folder, package in FOLDERS.items():
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT / folder).with_suffix("").parts
            found[".".join((package, *parts)).removesuffix(".__init__")] = path
    return found


@cache
def tree(module: str) -> ast.Module:
    return ast.parse(modules()[module].read_text("utf-8"))


def imports_of(module: str) -> Iterator[Import]:
    """The imports of `module` from this package, wherever they stand."""
    is_package = modules()[module].name == "__init__.py"
    for node in ast.walk(tree(module)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name in modules():
                    yield Import(module, alias.name, "")
        elif isinstance(node, ast.ImportFrom):
            source = node.module or ""
            if node.level:
                parts = module.split(".") + [""] * is_package
                source = ".".join([*parts[: -node.level], *filter(None, [node.module])])
            for alias in node.names:
                # `threadwell.worker` exports functions that have the names of their modules
                exported = source == "threadwell.worker" and alias.name in exported_names()
                if f"{source}.{alias.name}" in modules() and not exported:
                    yield Import(module, f"{source}.{alias.name}", "")
                elif source in modules():
                    yield Import(module, source, alias.name)


@cache
def all_imports() -> tuple[Import, ...]:
    return tuple(found for module in modules() for found in imports_of(module))


def unit_of(module: str) -> str:
    """What has a layer: an entry of `worker/`, or all of the front door, adapters or commands."""
    if module.startswith("threadwell.worker."):
        return module.split(".")[2]
    if module.startswith("threadwell.adapters."):
        inner = module.removeprefix("threadwell.adapters.")
        is_command = any(inner == name or inner.startswith(name + ".") for name in COMMANDS)
        return "commands" if is_command else "adapters"
    return {"threadwell.worker": "worker", "threadwell.adapters": "adapters"}.get(module, "front")


def ranks() -> dict[str, int]:
    top = [["commands"], ["front"], ["adapters"], ["worker"]]
    inner = [line.split() for line in WORKER_LAYERS.strip().splitlines()]
    return {name: rank for rank, names in enumerate([*top, *inner]) for name in names}


def upward_imports() -> Iterator[str]:
    rank = ranks()
    for importer, imported, _ in all_imports():
        above, below = unit_of(importer), unit_of(imported)
        if above != below and rank[below] <= rank[above]:
            yield f"up: {short(importer)} -> {short(imported)}"


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """The strongly connected components of `graph` with more than one node (Tarjan)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in graph.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            component = stack[at:]
            del stack[at:]
            if len(component) > 1:
                found.append(sorted(component))

    for node in graph:
        if node not in index:
            visit(node)
    return found


def import_circles() -> Iterator[str]:
    by_module: dict[str, set[str]] = {}
    by_unit: dict[str, set[str]] = {}
    for importer, imported, _ in all_imports():
        by_module.setdefault(importer, set()).add(imported)
        if (above := unit_of(importer)) != (below := unit_of(imported)):
            by_unit.setdefault(above, set()).add(below)
    for component in circles(by_module):
        yield f"circle of modules: {' '.join(map(short, component))}"
    for component in circles(by_unit):
        yield f"circle of packages: {' '.join(component)}"


def private_names() -> Iterator[str]:
    """Names with an underscore that are used outside of the module that defines them."""
    for importer, imported, name in all_imports():
        if is_private(name):
            yield f"private: {short(importer)} uses {short(imported)}.{name}"
    for module in modules():
        own = defined_names(module)
        for node in ast.walk(tree(module)):
            if (
                isinstance(node, ast.Attribute)
                and is_private(node.attr)
                and node.attr not in own | FOREIGN_ATTRIBUTES
                and not (isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"))
            ):
                yield f"private: {short(module)} uses {ast.unparse(node)}"


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__")


def defined_names(module: str) -> set[str]:
    """The names and attributes that `module` gives a value, an annotation, a slot or a body."""
    found: set[str] = set()
    for node in ast.walk(tree(module)):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            if isinstance(node.value, ast.Name) and node.value.id in ("self", "cls"):
                found.add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            found.add(node.id)
        elif isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__slots__":
            found |= {str(name) for name in ast.literal_eval(node.value)}
    return found


def names_past_the_public_ones() -> Iterator[str]:
    """What adapters take of the worker beside the names that the package exports."""
    for importer, imported, name in all_imports():
        if importer.startswith("threadwell.adapters") and imported.startswith("threadwell.worker"):
            if imported != "threadwell.worker":
                yield f"not public: {short(importer)} uses {short(imported)} {name}".rstrip()
            elif name not in exported_names():
                yield f"not public: {short(importer)} uses {name}"


@cache
def exported_names() -> set[str]:
    for node in tree("threadwell.worker").body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    raise AssertionError("threadwell.worker has no __all__")


def sizes() -> Iterator[str]:
    root = [path for path in (ROOT / "worker").glob("*.py") if path.name != "__init__.py"]
    if len(root) > MOST_ROOT_MODULES:
        yield f"size: worker/ has {len(root)} modules"
    for module, path in modules().items():
        if (lines := len(path.read_text("utf-8").splitlines())) > MOST_MODULE_LINES:
            yield f"size: {short(module)} has {lines} lines"
        for node in ast.walk(tree(module)):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > MOST_FUNCTION_LINES:
                    yield f"size: {short(module)}.{node.name} has {lines} lines"


def short(module: str) -> str:
    return module.removeprefix("threadwell.").removeprefix("worker.")


def test_every_module_has_a_layer() -> None:
    assert {unit_of(module) for module in modules()} == set(ranks())


def test_nothing_breaks_the_rule() -> None:
    found = {
        *upward_imports(),
        *import_circles(),
        *private_names(),
        *names_past_the_public_ones(),
        *sizes(),
    }
    assert found == set()


def test_imports_and_circles_are_found() -> None:
    assert circles({"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}) == [["a", "b", "c"]]
    # within a function, and under TYPE_CHECKING
    for importer, imported in (
        ("threadwell.worker.supervisor", "threadwell.worker.metrics.endpoint"),
        ("threadwell.pytest_plugin", "threadwell.api"),
    ):
        assert imported in {found.imported for found in imports_of(importer)}
