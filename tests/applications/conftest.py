"""Real applications, served by threadwell and by their usual servers: only with `-m applications`.

They are installed from the package index, and some need a browser: `scripts/applications` runs
them, and writes docs/applications.md. Each test is a step that goes into the table, by its
docstring, so all tests of a module share one server.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from .application import Application, Site
from .environments import Environment, environment

REPORT = "--applications-report"


def pytest_addoption(parser: pytest.Parser) -> None:
    """The option that scripts/applications uses."""
    parser.addoption(REPORT, help="a JSON file for the results of tests/applications")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """They are collected only if they are asked for."""
    return None if "applications" in (config.getoption("markexpr") or "") else True


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Each step under each server, one server after the other."""
    if "site" in metafunc.fixturenames:
        servers = list(metafunc.module.APPLICATION.servers)
        metafunc.parametrize("site", servers, indirect=True, scope="module")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A step may take as long as its client: much of it is an application's own start."""
    for item in items:
        if item.path.parent == Path(__file__).parent:
            item.add_marker(pytest.mark.applications)
            item.add_marker(pytest.mark.timeout(600))


class Results:
    """What goes into the report: by application, by server."""

    def __init__(self) -> None:
        self.applications: dict[str, dict[str, Any]] = {}

    def of(self, application: Application) -> dict[str, Any]:
        """The entry of an application."""
        entry: dict[str, Any] = {"version": None, "missing": None, "servers": {}}
        return self.applications.setdefault(application.name, entry)

    def of_server(self, application: Application, server: str) -> dict[str, Any]:
        """The entry of one of its servers."""
        entry: dict[str, Any] = {"steps": {}, "differences": []}
        servers: dict[str, Any] = self.of(application)["servers"]
        return servers.setdefault(server, entry)


_RESULTS = pytest.StashKey[Results]()


def pytest_configure(config: pytest.Config) -> None:
    """An empty report."""
    config.stash[_RESULTS] = Results()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Take each step's outcome down."""
    report: Any = yield
    if isinstance(item, pytest.Function) and hasattr(item, "callspec"):
        server = item.callspec.params.get("site")
        application = getattr(item.module, "APPLICATION", None)
        if server and application and report.when == "call":
            entry = item.config.stash[_RESULTS].of_server(application, server)
            step = " ".join((item.function.__doc__ or item.name).split())
            entry["steps"][step] = report.outcome
    return report


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Write the report."""
    if path := session.config.getoption(REPORT, None):
        text = json.dumps(session.config.stash[_RESULTS].applications, indent=1)
        Path(path).write_text(text)


def prepared(application: Application, module: str, environment: Environment) -> Path:
    """The folder that the application begins with, made once for all its servers, and kept.

    It is made anew for another `module`, the file that says how, or another environment.
    """
    made_by = Path(module).read_text("utf-8")
    folder, note = environment.path / "prepared", environment.path / "prepared-by.txt"
    if not note.exists() or note.read_text("utf-8") != made_by:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        if application.prepare is not None:
            application.prepare(environment, folder)
        note.write_text(made_by, "utf-8")
    return folder


@pytest.fixture(scope="module")
def site(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """The application, running under one of its servers; it is ended after the module's steps."""
    application: Application = request.module.APPLICATION
    results = request.config.stash[_RESULTS]
    try:
        made = environment(application.distribution, application.requirements)
    except subprocess.CalledProcessError as error:
        last = (error.output or error.stderr).strip().splitlines()[-1]
        results.of(application)["missing"] = last
        pytest.skip(f"{application.name} cannot be installed: {last}")
    results.of(application)["version"] = made.version(application.distribution)
    folder = tmp_path_factory.mktemp("site") / "copy"
    shutil.copytree(prepared(application, request.module.__file__, made), folder)
    running = Site(application, request.param, made, folder)
    with running.running():
        yield running
        entry = results.of_server(application, request.param)
        entry["differences"] = running.differences
        entry["seconds"], entry["exit_code"] = running.seconds, running.exit_code
