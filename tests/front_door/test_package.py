"""What is in the wheel, and that the folders are importable by one name only."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import zipfile

import pytest

from ..helpers.source_tree import ROOT, copy_tracked, tracked

FOLDERS = {
    "src/threadwell": "threadwell",
    "worker": "threadwell/worker",
    "adapters": "threadwell/adapters",
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The names in a wheel that is built from a copy of the tracked files."""
    if importlib.util.find_spec("setuptools") is None:
        pytest.skip("setuptools is not installed")
    source = tmp_path_factory.mktemp("source")
    copy_tracked(source)
    into = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*command, "-w", str(into), str(source)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(into.glob("*.whl"))) as archive:
        return archive.namelist()


def test_every_module_is_in_the_wheel(wheel: list[str]) -> None:
    expected = set()
    for name in tracked():
        for folder, package in FOLDERS.items():
            if name.startswith(f"{folder}/") and name.endswith((".py", "py.typed")):
                expected.add(package + name.removeprefix(folder))
    packaged = {name for name in wheel if ".dist-info/" not in name}
    assert packaged == expected


@pytest.mark.parametrize("folder", sorted(FOLDERS))
def test_every_package_says_that_it_is_typed(wheel: list[str], folder: str) -> None:
    assert f"{FOLDERS[folder]}/py.typed" in wheel


def test_only_threadwell_is_at_the_top(wheel: list[str]) -> None:
    tops = {name.split("/")[0] for name in wheel if ".dist-info/" not in name}
    assert tops == {"threadwell"}
    assert any(name.endswith("/LICENSE") for name in wheel)
    assert any(name.endswith("/entry_points.txt") for name in wheel)


def test_there_is_one_copy_of_the_worker() -> None:
    program = (
        "import sys, threadwell, threadwell.worker.server, threadwell.adapters\n"
        "print(sorted({'worker', 'adapters'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout == "[]\n"


def test_nothing_at_the_root_shadows_the_installed_package() -> None:
    """`python` in a checkout, a script that is saved there, and an editor all see one package."""
    assert importlib.machinery.PathFinder.find_spec("threadwell", [str(ROOT)]) is None
    for arguments in (
        ["-m", "threadwell", "--version"],
        # the first entry of `sys.path` is the folder, as for a script that lies in it
        ["-c", "import threadwell.adapters, threadwell.worker.server, threadwell.cli"],
    ):
        subprocess.run([sys.executable, "-W", "error", *arguments], cwd=ROOT, check=True)


def test_nobody_imports_the_folders_by_their_own_names() -> None:
    wrong = []
    for name in tracked():
        if name.split("/")[0] in {
            "src",
            "worker",
            "adapters",
            "tests",
            "examples",
        } and name.endswith(".py"):
            for number, line in enumerate((ROOT / name).read_text("utf-8").splitlines(), 1):
                if line.startswith(
                    ("import worker", "from worker", "import adapters", "from adapters")
                ):
                    wrong.append(f"{name}:{number}")
    assert wrong == []


def test_importing_threadwell_imports_no_event_loop_and_no_framework() -> None:
    program = (
        "import sys, threadwell\n"
        "print(sorted({'asyncio', 'django', 'flask', 'werkzeug', 'uvloop'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert done.stdout == "[]\n"
