"""The documentation: what is generated is current, and what it says can be found in the code."""

from __future__ import annotations

import ast
import importlib.machinery
import importlib.util
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from threadwell.adapters.flask.command import serve
from threadwell.cli import main
from threadwell.foreign_options import SERVERS
from threadwell.worker import OPTIONS

from ..helpers.django_project import DJANGO_OPTIONS

ROOT = Path(__file__).resolve().parent.parent.parent
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("examples/*/README.md")])
PAGE_NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
ARCHITECTURE = DOCS / "architecture.md"

#: The language, and the code; a title may stand behind the language.
_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s]+)\)")

pages = pytest.mark.parametrize("page", PAGES, ids=PAGE_NAMES)


def scripts_docs() -> ModuleType:
    """scripts/docs as a module; its name has no suffix to know it by."""
    path = str(ROOT / "scripts" / "docs")
    loader = importlib.machinery.SourceFileLoader("scripts_docs", path)
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_what_is_generated_is_current() -> None:
    stale = [str(path.relative_to(ROOT)) for path in scripts_docs().stale()]
    assert not stale, "run scripts/docs"


def test_check_says_what_is_stale(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script = scripts_docs()
    assert script.main(["--check"]) == 0
    monkeypatch.setattr(script, "settings_page", lambda: "another")
    assert script.main(["--check"]) == 1
    assert "settings.md is not current" in capsys.readouterr().err
    assert script.main(["--nonsense"]) == 2


@pages
def test_python_compiles(page: Path) -> None:
    for language, code in _FENCE.findall(page.read_text("utf-8")):
        if language == "python":
            compile(code, str(page), "exec")


def commands(page: Path, program: str = "threadwell") -> Iterator[list[str]]:
    """The lines of `page` that run `program`, from its name on, in words."""
    text = _FENCE.sub("", page.read_text("utf-8"))
    for line in re.findall(r"^ {4}(\S.*)$", text, re.MULTILINE):
        for command in line.removesuffix("&").split("&&"):
            words = shlex.split(command)
            names = [word.rpartition("/")[2] for word in words]
            if program in names:
                yield words[names.index(program) + 1 :]


@pages
def test_flags_exist(page: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help-all"]) == 0
    assert main(["ctl", "--help"]) == 0
    assert main(["top", "--help"]) == 0
    assert main(["config", "import", "--help"]) == 0
    known = set(re.findall(r"--[a-z0-9-]+", capsys.readouterr().out))
    for words in commands(page):
        flags = {word.partition("=")[0] for word in words if word.startswith("--")}
        assert flags <= known
    flask_knows = {flag for param in serve.params for flag in (*param.opts, *param.secondary_opts)}
    flask_knows |= {"--app", "--debug"}
    for words in commands(page, "flask"):
        assert "serve" in words
        assert {word for word in words if word.startswith("--")} <= flask_knows
    # in the running text too
    mentioned = set(re.findall(r"`(--[a-z0-9-]+)[ `]", page.read_text("utf-8")))
    known |= {"--check", "--threadwell-live-server", *DJANGO_OPTIONS}
    others = ("differences.md", "foreign-flags.md", "other-hosts.md")
    if page.name in others or page.parent.name == "migrate":
        known |= {flag for flags in SERVERS.values() for flag in flags}
    assert mentioned <= (known | flask_knows if page.name == "flask.md" else known)


def test_there_are_commands_to_check() -> None:
    assert sum(len(list(commands(page))) for page in PAGES) > 20


@pages
def test_links_lead_somewhere(page: Path) -> None:
    for target in _LINK.findall(page.read_text("utf-8")):
        if "://" not in target:
            name, _, place = target.partition("#")
            other = page.parent / name if name else page
            assert other.exists(), target
            assert not place or place in headings(other), target


def headings(page: Path) -> set[str]:
    """What may stand behind `#`."""
    found = re.findall(r"^#+ (.*)$", _FENCE.sub("", page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "index.md").read_text("utf-8")
    names = {page.relative_to(DOCS).as_posix() for page in DOCS.rglob("*.md")}
    linked = {target.partition("#")[0] for target in _LINK.findall(index)}
    assert names - {"index.md"} == linked


def test_the_tables_of_modules_are_complete() -> None:
    tables = re.findall(
        r"^\| `((?:worker|adapters|src/threadwell)/[\w/]+\.py)` \|",
        ARCHITECTURE.read_text("utf-8"),
        re.MULTILINE,
    )
    assert sorted(tables) == sorted(name for name in MODULES if has_code(ROOT / name))


def has_code(path: Path) -> bool:
    """Whether `path` is more than an `__init__` that collects names of other modules."""
    if path.name != "__init__.py":
        return True
    return any(
        not isinstance(node, ast.Import | ast.ImportFrom | ast.Expr)
        and ast.unparse(node).partition(" ")[0] != "__all__"
        for node in ast.parse(path.read_text("utf-8")).body
    )


def where_is() -> list[tuple[str, str]]:
    """The files and names of the section "Where is...?"."""
    page = ARCHITECTURE.read_text("utf-8")
    section = page.partition("\n## Where is...?\n")[2].partition("\n## ")[0]
    rows = re.findall(
        r"^\| [^`|]+(?:`[^`]+`[^`|]*)* \| `([^`]+)` \| (.+) \|$", section, re.MULTILINE
    )
    assert len(rows) == section.count("\n| ") - 1, "a row has another form"
    return [(file, name) for file, names in rows for name in re.findall(r"`([^`]+)`", names)]


def defined_in(body: list[ast.stmt]) -> dict[str, list[ast.stmt]]:
    """The names that `body` defines or assigns, each with the body of a class."""
    found: dict[str, list[ast.stmt]] = {}
    for node in body:
        if isinstance(node, ast.ClassDef):
            found[node.name] = node.body
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found[node.name] = []
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {each.id: [] for each in targets if isinstance(each, ast.Name)}
    return found


def test_each_name_is_where_the_page_says() -> None:
    rows = where_is()
    assert len(rows) > 20
    for file, name in rows:
        body = ast.parse((ROOT / file).read_text("utf-8")).body
        for part in name.split("."):
            defined = defined_in(body)
            assert part in defined, f"{file} does not define {name}"
            body = defined[part]


def test_the_tests_that_are_named_exist() -> None:
    named = set(re.findall(r"`(test_\w+)`", ARCHITECTURE.read_text("utf-8")))
    there = set()
    for path in (ROOT / "tests").rglob("test_*.py"):
        there |= set(re.findall(r"^def (test_\w+)", path.read_text("utf-8"), re.MULTILINE))
    assert named <= there
    promised = {int(n) for n in re.findall(r"^\| (\d+)\. ", ARCHITECTURE.read_text(), re.MULTILINE)}
    assert promised == set(range(1, 13))


def test_every_option_is_on_the_settings_page() -> None:
    page = (ROOT / "docs" / "settings.md").read_text("utf-8")
    for option in OPTIONS:
        flag = "none" if option.secret else f"`{option.flag}`"
        assert f"| {flag} | `{option.name}` |" in page


# ---- What docs/architecture.md says of imports ------------------------------------------------


def imports(path: Path) -> set[str]:
    """What `path` imports when it runs, by the name's first part; not for types alone."""
    tree = ast.parse(path.read_text("utf-8"))
    found: set[str] = set()
    pending: list[ast.AST] = [tree]
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            pending.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
        pending.extend(ast.iter_child_nodes(node))
    return found


MODULES = {
    path.relative_to(ROOT).as_posix(): imports(path)
    for folder in ("worker", "adapters", "src/threadwell")
    for path in (ROOT / folder).rglob("*.py")
}


def test_h11_has_one_importer() -> None:
    assert [name for name, found in MODULES.items() if "h11" in found] == ["worker/http1/parser.py"]


def test_asyncio_is_one_packages() -> None:
    importers = [name for name, found in MODULES.items() if {"asyncio", "uvloop"} & found]
    assert importers
    assert {name.rpartition("/")[0] for name in importers} == {"worker/asgi"}


def test_wsproto_is_one_packages() -> None:
    importers = sorted(name for name, found in MODULES.items() if "wsproto" in found)
    names = ("message_limit", "permessage_deflate", "websocket")
    assert importers == [f"worker/asgi/{name}.py" for name in names]


def test_click_is_the_commands() -> None:
    importers = {name for name, found in MODULES.items() if "click" in found}
    assert importers == {
        "src/threadwell/cli.py",
        "src/threadwell/command_options.py",
        "adapters/flask/command.py",
    }


def test_only_its_adapter_knows_a_framework() -> None:
    for name, found in MODULES.items():
        if name.startswith(("worker/", "adapters/")):
            at_home = name.removeprefix("adapters/").partition("/")[0]
            assert found & {"django", "flask", "werkzeug"} <= {
                at_home,
                "werkzeug" if at_home == "flask" else at_home,
            }, name
        if name.startswith("worker/"):
            assert "threadwell" not in found, name
