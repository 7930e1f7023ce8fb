"""The archives of a release: what is in them, what they need, and that their own tests pass."""

from __future__ import annotations

import email
import importlib.metadata
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from ..helpers.source_tree import tracked
from .conftest import Archives

# Modules of several kinds that take seconds: the parser, the settings, files beside the code.
SELECTION = (
    "tests/http1/test_parser.py",
    "tests/config",
    "tests/benchmarks/test_budget.py",
)


def metadata_of(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as archive:
        name = next(name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def needed(requirements: list[str]) -> set[str]:
    """The names of `requirements` that apply without an extra, except on Windows."""
    return {
        re.split(r"[^\w.-]", line, maxsplit=1)[0]
        for line in requirements
        if "extra ==" not in line and not re.search(r"platform_system == .Windows", line)
    }


def test_an_installation_without_an_extra_brings_two_packages(archives: Archives) -> None:
    assert needed(metadata_of(archives.wheel).get_all("Requires-Dist", [])) == {"h11", "click"}
    for name in ("h11", "click"):
        assert needed(importlib.metadata.requires(name) or []) == set()


def test_the_metadata_leads_to_the_project(archives: Archives) -> None:
    metadata = metadata_of(archives.wheel)
    assert metadata["Author"] == "the threadwell authors"
    urls = dict(line.split(", ", 1) for line in metadata.get_all("Project-URL", []))
    assert {"Homepage", "Documentation", "Source", "Issues", "Changelog"} <= urls.keys()
    assert metadata["Description-Content-Type"] == "text/markdown"


def test_the_checks_of_a_release_accept_them(archives: Archives) -> None:
    for command in (
        ["twine", "check", "--strict", str(archives.sdist), str(archives.wheel)],
        ["check_wheel_contents", str(archives.wheel)],
    ):
        done = subprocess.run(
            [sys.executable, "-m", *command], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_sdist_has_every_file(archives: Archives) -> None:
    with tarfile.open(archives.sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert set(tracked()) - names == {".gitignore"}


@pytest.fixture
def unpacked(archives: Archives, tmp_path: Path) -> Path:
    """The folder of the unpacked sdist."""
    with tarfile.open(archives.sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    return next(tmp_path.iterdir())


@pytest.fixture
def installed(archives: Archives, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the wheel's packages."""
    site = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(archives.wheel) as archive:
        archive.extractall(site)
    return site


def test_the_tests_of_the_sdist_pass_with_the_wheel(unpacked: Path, installed: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(installed)}
    environment.pop("PYTEST_XDIST_WORKER", None)
    found = subprocess.run(
        [sys.executable, "-c", "import threadwell; print(threadwell.__file__)"],
        cwd=unpacked,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert Path(found.strip()).is_relative_to(installed)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *SELECTION]
    done = subprocess.run(
        command, cwd=unpacked, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-5000:]
    assert re.search(r"\d+ passed", done.stdout)
