"""The files for GitHub and pre-commit: valid, and in accord with the project's own metadata."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from ..helpers.source_tree import ROOT

GITHUB = ROOT / ".github"
WORKFLOWS = sorted((GITHUB / "workflows").glob("*.yml"))
FORMS = sorted(path for path in (GITHUB / "ISSUE_TEMPLATE").glob("*.yml") if path.stem != "config")
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def load(path: Path) -> dict[str, Any]:
    found = yaml.safe_load(path.read_text("utf-8"))
    assert isinstance(found, dict)
    return found


def schema_of(path: Path) -> str:
    """The schema that check-jsonschema has for `path`."""
    if path in FORMS:
        return "vendor.github-issue-forms"
    if path.parent.name == "workflows":
        return "vendor.github-workflows"
    return {
        "config.yml": "vendor.github-issue-config",
        "dependabot.yml": "vendor.dependabot",
    }[path.name]


@pytest.mark.parametrize("path", sorted(GITHUB.rglob("*.yml")), ids=lambda path: path.name)
def test_each_file_follows_its_schema(path: Path) -> None:
    if importlib.util.find_spec("check_jsonschema") is None:
        pytest.skip("check-jsonschema is not installed")
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema_of(path)]
    done = subprocess.run([*command, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(shutil.which("actionlint") is None, reason="actionlint is not installed")
def test_actionlint_accepts_the_workflows() -> None:
    done = subprocess.run(
        ["actionlint", *map(str, WORKFLOWS)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_matrix_has_the_versions_that_the_metadata_promises() -> None:
    matrix = load(GITHUB / "workflows" / "ci.yml")["jobs"]["test"]["strategy"]["matrix"]
    prefix = "Programming Language :: Python :: 3."
    promised = {each.removeprefix(prefix) for each in PROJECT["classifiers"] if prefix in each}
    assert {each.removeprefix("3.") for each in matrix["python"]} == promised | {"14t"}
    assert {each.partition("-")[0] for each in matrix["os"]} == {"ubuntu", "macos", "windows"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_may_do_little(path: Path) -> None:
    workflow = load(path)
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert "uses" in job or job["timeout-minutes"] <= 60, name
        more = job.get("permissions", {})
        assert more == ({"id-token": "write"} if name == "publish" else {})
        for step in job.get("steps", []):
            if step.get("uses", "").startswith("actions/checkout"):
                assert step["with"]["persist-credentials"] is False


def test_only_what_ci_has_built_is_published() -> None:
    ci = load(GITHUB / "workflows" / "ci.yml")
    publish = load(GITHUB / "workflows" / "publish.yml")["jobs"]
    assert publish["ci"]["uses"] == "./.github/workflows/ci.yml"
    assert publish["publish"]["needs"] == "ci"
    upload = ci["jobs"]["package"]["steps"][-1]["with"]
    download = publish["publish"]["steps"][0]["with"]
    assert {key: upload[key] for key in ("name", "path")} == download


def test_scripts_and_files_that_are_named_exist() -> None:
    hooks = [
        hook for repo in load(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]
    ]
    assert all(hook["language"] == "system" for hook in hooks)
    text = "\n".join(path.read_text("utf-8") for path in WORKFLOWS)
    text += "\n".join(hook["entry"] for hook in hooks)
    scripts = set(re.findall(r"\bscripts/\w+", text))
    assert {"scripts/test", "scripts/types", "scripts/release"} <= scripts
    assert all((ROOT / script).stat().st_mode & 0o111 for script in scripts)


def test_pre_commit_accepts_its_file() -> None:
    if importlib.util.find_spec("pre_commit") is None:
        pytest.skip("pre-commit is not installed")
    command = [sys.executable, "-m", "pre_commit", "validate-config", ".pre-commit-config.yaml"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_groups_are_the_extras() -> None:
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["dependency-groups"]
    assert groups == {name: [f"threadwell[{name}]"] for name in ("test", "dev")}
    assert groups.keys() <= PROJECT["optional-dependencies"].keys()


def test_what_classes_are_derived_from_is_bounded() -> None:
    extras = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *(line for name in extras for line in extras[name])]
    for package in (
        "click",
        "django",
        "gunicorn",
        "h2",
        "hpack",
        "textual",
        "whitenoise",
        "wsproto",
    ):
        (line,) = (line for line in lines if re.match(rf"{package}\b[^-\[]*>=", line))
        assert re.search(r",<\d+$", line), line
