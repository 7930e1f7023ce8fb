"""Which application a command line names."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from threadwell.app_loader import AppError, load_app

WSGI = "def {name}(environ, start_response):\n    return []\n"
APP = WSGI.format(name="app")
FACTORY = """
class App:
    def __init__(self, *args, **kwargs):
        self.given = args, kwargs
    def __call__(self, environ, start_response):
        return []
def create_app(*args, **kwargs):
    return App(*args, **kwargs)
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Path]]:
    """`project({"app.py": source})` writes files into the current directory, and returns it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def write(files: dict[str, str]) -> Path:
        for name, source in files.items():
            file = tmp_path / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(textwrap.dedent(source))
        return tmp_path

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def problem(spec: str | None = None, **options: Any) -> AppError:
    with pytest.raises(AppError) as caught:
        load_app(spec, **options)
    assert "\n" not in str(caught.value)
    return caught.value


# ---- What is found ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "name"),
    [
        ("shop:app", "shop:app"),
        ("shop", "shop:app"),
        ("shop.py", "shop:app"),
        ("shop.py:app", "shop:app"),
        ("./shop.py:app", "shop:app"),
        ("./shop", "shop:app"),
        ("shop:inner.app", "shop:inner.app"),
        ("shop: app ", "shop:app"),
        ("package.web:app", "package.web:app"),
        ("package.web", "package.web:app"),
        ("package/web.py", "package.web:app"),
        ("package/web", "package.web:app"),
        ("package/__init__.py:app", "package:app"),
        ("package", "package:app"),
        ("./package", "package:app"),
        ("plain", "wsgi:app"),
        ("./plain", "wsgi:app"),
        ("plain/wsgi.py", "wsgi:app"),
    ],
)
def test_spellings(project: Callable[..., Path], spec: str, name: str) -> None:
    project(
        {
            "shop.py": APP + "class inner:\n    app = app\n",
            "package/__init__.py": APP,
            "package/web.py": APP,
            "plain/wsgi.py": APP,
        }
    )
    loaded = load_app(spec)
    assert loaded.name == name
    assert loaded.app({}, None) == []


def test_absolute_path_outside_of_the_directory(project: Callable[..., Path]) -> None:
    folder = project({"far/package/__init__.py": "", "far/package/web.py": APP, "near/x": ""})
    loaded = load_app(f"{folder}/far/package/web.py:app", folder / "near")
    assert loaded.name == "package.web:app"
    assert sys.path[:2] == [str(folder / "far"), str(folder / "near")]


def test_app_dir_goes_first(project: Callable[..., Path]) -> None:
    project({"here/target.py": APP, "target.py": "raise AssertionError"})
    assert load_app("target:app", "here").name == "target:app"
    project({"here/other.py": APP})
    assert load_app("other.py", "here").name == "other:app"


def test_nothing_named(project: Callable[..., Path]) -> None:
    project({"app.py": APP})
    assert load_app().name == "app:app"
    project({"wsgi.py": WSGI.format(name="application")})
    assert load_app().name == "wsgi:application"
    assert load_app("").name == "wsgi:application"


def test_nothing_named_inside_of_a_package(project: Callable[..., Path]) -> None:
    folder = project({"mysite/__init__.py": "", "mysite/wsgi.py": WSGI.format(name="application")})
    assert load_app(directory=folder / "mysite").name == "mysite.wsgi:application"


@pytest.mark.parametrize(
    ("source", "name"),
    [
        (WSGI.format(name="application") + APP, "application"),
        ("app = None\n" + FACTORY, "create_app()"),
        ("import os as app\n" + FACTORY, "create_app()"),
        (FACTORY.replace("create_app", "make_app"), "make_app()"),
        (
            "def create_app(debug=False):\n    return lambda environ, start_response: []",
            "create_app()",
        ),
        (WSGI.format(name="handler"), "handler"),
        (WSGI.format(name="_hidden") + "visible = _hidden", "visible"),
        (FACTORY.partition("def create_app")[0] + "shop = App()\nsame = shop", "shop"),
        ("def serve(request): ...\nserve.threadwell_interface = 'sync'", "serve"),
        ("from wsgiref.simple_server import demo_app\n" + WSGI.format(name="mine"), "mine"),
        ("from flask import Flask, request, current_app\nweb = Flask('x')", "web"),
    ],
)
def test_discovery_in_a_module(project: Callable[..., Path], source: str, name: str) -> None:
    project({"target.py": source})
    assert load_app("target").name == f"target:{name}"


def test_arguments_are_literals(project: Callable[..., Path]) -> None:
    project({"target.py": FACTORY})
    spec = "target:create_app('a:b', 2, [None, {'k': -1.5}], debug=True)"
    loaded = load_app(spec)
    assert loaded.app.given == (("a:b", 2, [None, {"k": -1.5}]), {"debug": True})
    assert loaded.name == spec
    assert load_app("target:App(1)").app.given == ((1,), {})
    assert load_app("target.py:create_app('x.py:y')").app.given == (("x.py:y",), {})


def test_factory_flag(project: Callable[..., Path]) -> None:
    project({"target.py": FACTORY + "build = App"})
    assert load_app("target:build", factory=True).name == "target:build()"
    assert load_app("target", factory=True).name == "target:create_app()"
    assert load_app("target:build(1)", factory=True).app.given == ((1,), {})


def test_factories_named_without_parentheses_are_called(project: Callable[..., Path]) -> None:
    project({"target.py": FACTORY + "def build():\n    return App()\n"})
    assert load_app("target:create_app").name == "target:create_app()"
    assert load_app("target:build").name == "target:build()"


# ---- What is not --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (
            "tarbet:app",
            "there is no module 'tarbet' in {here} nor on the path; did you mean target?",
        ),
        ("xyzzy:app", "there is no module 'xyzzy' in {here} nor on the path; --app-dir says where"),
        (
            "target.app",
            "there is no module 'target.app' in {here} nor on the path; did you mean target:app?",
        ),
        ("package.wib:app", "did you mean package.web?"),
        ("target:ap", "target has no attribute 'ap'; did you mean target:app?"),
        ("target:inner.ap", "target:inner has no attribute 'ap'; did you mean target:inner.app?"),
        ("target:zzz", "target has no attribute 'zzz'; name the application that it has"),
        ("target:nothing", "target:nothing is None"),
        ("target:number", "target:number is of type int and cannot be called"),
        ("target:json", "target:json is the module json and cannot be called"),
        (
            "target:number()",
            "target:number is of type int and cannot be called; leave out the call",
        ),
        ("target:Empty", "target:Empty is a class that takes no arguments; write target:Empty()"),
        ("target:needs()", "missing a required argument: 'x'; give its arguments, such as"),
        ("target:create_app", "missing a required argument: 'name'"),
        ("target:needs(1, 2)", "too many positional arguments"),
        ("target:gives_none()", "target:gives_none() returned None"),
        ("target:asynchronous()", "is a coroutine function"),
        ("target:", "'target:' has nothing after the colon; write target:app, or target"),
        (":app", "':app' does not name a module"),
        ("..x:app", "'..x:app' does not name a module"),
        ("target:1 +", "'1 +' is neither a name nor a call"),
        ("target:app[0]", "'app[0]' is neither a name nor a call"),
        ("target:f()()", "'f()()' is neither a name nor a call"),
        ("target:needs(number)", "the arguments in 'needs(number)' must be literals"),
        ("target:needs(**{'x': 1})", "must be literals"),
        ("target:needs(__import__('os'))", "must be literals"),
        ("several", "several has several applications, one, two; name one, such as several:one"),
        ("empty", "empty has none of application, app, create_app, make_app; name its application"),
        ("taget.py", "there is no file taget.py; did you mean target.py?"),
        ("./nowhere/x.py", "there is no file ./nowhere/x.py; check the path"),
        ("folder", "there is no wsgi.py or app.py in {here}/folder; name the application"),
        ("a.b.py", "cannot be imported with a dot in its name; rename it"),
        ("json.py", "is named like the module 'json', which is imported already; rename the file"),
    ],
)
def test_mistakes(project: Callable[..., Path], spec: str, message: str) -> None:
    here = project(
        {
            "target.py": APP
            + """
import json
nothing, number = None, 3
class inner:
    app = app
class Empty: ...
def needs(x): ...
def create_app(name): ...
def gives_none(): ...
async def asynchronous(): ...
""",
            "several.py": WSGI.format(name="one") + WSGI.format(name="two"),
            "empty.py": "",
            "package/__init__.py": "",
            "package/web.py": "",
            "folder/readme": "",
            "a.b.py": APP,
            "json.py": APP,
        }
    )
    error = problem(spec)
    assert message.format(here=here) in str(error)
    assert error.trace == ""


def test_nothing_there(project: Callable[..., Path]) -> None:
    here = project({})
    expected = "no application was named, and there is no wsgi.py or app.py in"
    assert str(problem()).startswith(f"{expected} {here}; name the application")
    project({"mysite/wsgi.py": ""})
    assert str(problem()).endswith("; did you mean mysite.wsgi?")


# ---- The user's code fails ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "cause"),
    [
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("import xyzzy", "ModuleNotFoundError: No module named 'xyzzy'; install what is missing"),
        ("from json import xyzzy", "ImportError: cannot import name 'xyzzy'"),
        ("import target.inner", "ModuleNotFoundError: No module named 'target.inner'"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise AttributeError", "AttributeError"),
    ],
)
def test_import_fails_inside(project: Callable[..., Path], source: str, cause: str) -> None:
    project({"target.py": f"def work():\n    {source}\n\nwork()"})
    error = problem("target:app")
    assert str(error).startswith(f"target failed while it was imported: {cause}")
    assert error.trace.startswith("Traceback (most recent call last):\n")
    assert "importlib" not in error.trace
    assert "apps.py" not in error.trace
    first, second, *_ = (line for line in error.trace.splitlines() if line.startswith("  File"))
    assert 'target.py", line 4, in <module>' in first
    assert 'target.py", line 2, in work' in second


def test_syntax_error_shows_the_line(project: Callable[..., Path]) -> None:
    project({"target.py": "def (:"})
    error = problem("target:app")
    assert "SyntaxError" in str(error)
    assert 'target.py", line 1' in error.trace
    assert "importlib" not in error.trace


def test_factory_fails_inside(project: Callable[..., Path]) -> None:
    project({"target.py": "def create_app():\n    raise TypeError('create_app() is sad')"})
    error = problem("target")
    assert str(error) == "target:create_app() failed: TypeError: create_app() is sad"
    assert 'target.py", line 2, in create_app' in error.trace
    assert "apps.py" not in error.trace


def test_package_fails_inside(project: Callable[..., Path]) -> None:
    project({"package/__init__.py": "import xyzzy", "package/web.py": APP})
    error = problem("package.web:app")
    assert "No module named 'xyzzy'" in str(error)
    assert error.trace


WRAPPED = """
import functools

def no_arguments():
    raise AssertionError

@functools.wraps(no_arguments)
def site(environ, start_response):
    return []

def passing_on(function):
    @functools.wraps(function)
    def call(*args, **kwargs):
        return function(*args, **kwargs)
    return call

@passing_on
def make():
    return site
"""


@pytest.mark.parametrize("spec", ["wrapped:site", "wrapped", "wrapped:make", "wrapped:make()"])
def test_what_is_called_counts_and_not_what_it_wraps(
    project: Callable[..., Path], spec: str
) -> None:
    project({"wrapped.py": WRAPPED})
    assert load_app(spec).app({}, None) == []


# ---- A module that serves when it is imported ---------------------------------------------

UNGUARDED = """
from threadwell import serve
def app(environ, start_response): ...
serve("module:app", bind="127.0.0.1:0"{options})
"""


def run(folder: Path, *words: str) -> tuple[int, str]:
    """The exit code of `python words...` and the last line of its standard error."""
    ended = subprocess.run(
        [sys.executable, *words],
        check=False,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=30,
    )
    return ended.returncode, ended.stderr.splitlines()[-1]


@pytest.mark.parametrize("options", ["", ", workers=2", ", workers=2, preload=True"])
@pytest.mark.parametrize("words", [["module.py"], ["-m", "threadwell", "module:app"]])
def test_serve_without_a_guard(tmp_path: Path, words: list[str], options: str) -> None:
    (tmp_path / "module.py").write_text(UNGUARDED.format(options=options))
    code, line = run(tmp_path, *words)
    assert code
    assert 'put the call under `if __name__ == "__main__":`' in line


@pytest.mark.parametrize("options", [[], ["--workers", "2"]])
def test_serve_without_a_guard_under_flask(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "module.py").write_text(UNGUARDED.format(options=""))
    words = ["-m", "flask", "--app", "module", "serve", "--port", "0", *options]
    code, line = run(tmp_path, *words)
    assert code == 2
    assert 'put the call under `if __name__ == "__main__":`' in line
