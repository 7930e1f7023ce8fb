"""Type checkers: they accept what is right, and refuse each wrong call."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
REFUSED = {
    number
    for number, line in enumerate((HERE / "wrong.py").read_text("utf-8").splitlines(), 1)
    if line.endswith("# refused")
}
# Each example that calls threadwell.
EXAMPLES = [
    path for path in ROOT.glob("examples/**/*.py") if "threadwell" in path.read_text("utf-8")
]

# They start a program that reads the whole of the project and of its frameworks.
pytestmark = pytest.mark.timeout(300)


def checker(name: str) -> str:
    found = shutil.which(name, path=sysconfig.get_path("scripts"))
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as it is installed. Checkers do not see an editable one."""
    folder = tmp_path_factory.mktemp("site")
    ignored = shutil.ignore_patterns("__pycache__")
    for source, target in (("src/threadwell", ""), ("worker", "worker"), ("adapters", "adapters")):
        shutil.copytree(
            ROOT / source, folder / "threadwell" / target, ignore=ignored, dirs_exist_ok=True
        )
    return folder


def mypy(package: Path, folder: Path, *files: Path) -> set[int]:
    """The lines of `files` that mypy refuses."""
    done = subprocess.run(
        [checker("mypy"), "--strict", "--no-error-summary", f"--python-executable={sys.executable}",
         "--cache-dir", str(package / "cache"), "--ignore-missing-imports", *map(str, files)],
        cwd=folder, capture_output=True, text=True, check=False,
        env={**os.environ, "MYPYPATH": str(package)},
    )  # fmt: skip
    assert not done.stderr
    names = "|".join(re.escape(path.name) for path in files)
    found = re.findall(rf"^\S*\b(?:{names}):(\d+): error", done.stdout, re.MULTILINE)
    return {int(number) for number in found}


def pyright(package: Path, folder: Path, *files: Path) -> set[int]:
    """The lines of `files` that pyright refuses."""
    settings = {
        "include": [str(path) for path in files],
        "extraPaths": [str(package)],
        "typeCheckingMode": "standard",
        "reportMissingModuleSource": False,
        "reportAttributeAccessIssue": False,
    }
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    done = subprocess.run(
        [checker("basedpyright"), "--outputjson", f"--pythonpath={sys.executable}"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    found = json.loads(done.stdout)["generalDiagnostics"]
    return {each["range"]["start"]["line"] + 1 for each in found if each["severity"] == "error"}


@pytest.mark.parametrize("check", [mypy, pyright])
def test_right_calls_are_accepted_and_wrong_ones_refused(
    package: Path, tmp_path: Path, check: object
) -> None:
    assert callable(check)
    assert check(package, tmp_path, HERE / "right.py") == set()
    assert check(package, tmp_path, HERE / "wrong.py") == REFUSED


@pytest.mark.parametrize("check", [mypy, pyright])
def test_the_examples_are_accepted(package: Path, tmp_path: Path, check: object) -> None:
    assert callable(check)
    assert len(EXAMPLES) > 2
    copies = [tmp_path / f"example_{number}.py" for number in range(len(EXAMPLES))]
    for example, copied in zip(EXAMPLES, copies, strict=True):  # two of them have the same name
        shutil.copy(example, copied)
    assert check(package, tmp_path, *copies) == set()
