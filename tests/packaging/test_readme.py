"""README.md: what a package index shows of it, where it leads, and that its commands work."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..docs.test_docs import PAGES, headings
from ..helpers.command import Command
from ..helpers.source_tree import ROOT
from .conftest import Archives

README = ROOT / "README.md"
TEXT = README.read_text("utf-8")
REPOSITORY = "https://github.com/threadwell/threadwell"
LINKING = [*PAGES, ROOT / "pyproject.toml", *sorted((ROOT / ".github").rglob("*.*"))]
ANSWERS = {
    "Django": "The install worked successfully",
    "Flask": "Hello from Flask\n",
    "ASGI": "Hello from Starlette\n",
}


def test_links_and_pictures_are_absolute() -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", TEXT)
    targets += re.findall(r'(?:src|srcset|href)="([^"]+)"', TEXT)
    assert len(targets) > 20
    assert [target for target in targets if not target.startswith("https://")] == []


def test_links_to_the_repository_lead_somewhere() -> None:
    """`blob`, `tree` and `raw` are how GitHub shows a file, a folder, and a file as it is."""
    wrong = []
    for page in LINKING:
        text = page.read_text("utf-8")
        for name, place in re.findall(
            rf"{REPOSITORY}/(?:blob|tree|raw)/main/([^)\s\"#]+)#?([\w-]*)", text
        ):
            target = ROOT / name
            if not target.exists() or (place and place not in headings(target)):
                wrong.append(f"{page.name}: {name}#{place}")
    assert wrong == []


def test_the_package_index_shows_the_picture() -> None:
    if importlib.util.find_spec("readme_renderer") is None:
        pytest.skip("readme-renderer is not installed")
    from readme_renderer.markdown import render

    shown = render(TEXT) or ""
    pictures = re.findall(r'<img [^>]*src="([^"]+)"', shown)
    assert pictures == [f"{REPOSITORY}/raw/main/docs/figures/benchmarks.svg"]
    assert shown.count("<table>") == 2


# ---- The commands -----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def fresh(archives: Archives, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The variables of a new virtual environment with the wheel.

    It sees the packages of this one, which pip then has no need to fetch, and no index.
    """
    if importlib.util.find_spec("trustme") is None:
        pytest.skip("trustme is not installed")
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    folder = tmp_path_factory.mktemp("fresh")
    venv = folder / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(venv)], check=True)
    site = next(venv.glob("lib/python*/site-packages"))
    others = [path for path in sys.path if path.endswith("-packages")]
    (site / "others.pth").write_text("\n".join(others) + "\n")
    environment = {
        **{name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        "PATH": os.pathsep.join(
            [str(venv / "bin"), str(Path(sys.executable).parent), os.environ["PATH"]]
        ),
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "XDG_CACHE_HOME": str(folder / "cache"),
        # each command has the default address; a test must have a port of its own
        "THREADWELL_BIND": "127.0.0.1:0",
    }
    command = ["pip", "install", "--quiet", "--no-deps", "--ignore-installed", str(archives.wheel)]
    subprocess.run(command, env=environment, check=True)
    return environment


def section(framework: str) -> str:
    """The part of "From nothing to TLS and two processes" about a framework."""
    text = TEXT.partition("## From nothing to TLS and two processes\n")[2].partition("\n## ")[0]
    starts = r"^(Django:|Flask, |An ASGI application, |Each of them )"
    parts = re.split(starts, text, flags=re.MULTILINE)
    found = next(at for at, part in enumerate(parts) if framework in part)
    return parts[found] + parts[found + 1]


@contextlib.contextmanager
def following(framework: str, folder: Path, environment: dict[str, str]) -> Iterator[Command]:
    """Write the files and run the commands of the page; the last of them serves."""
    text = section(framework)
    for name, code in re.findall(r"with this as `(\S+)`:\n\n```python\n(.*?)```", text, re.DOTALL):
        (folder / name).write_text(code)
    without_code = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    *before, last = re.findall(r"^ {4}(\S.*)$", without_code, re.MULTILINE)
    assert before[0].startswith("pip install ")
    assert last.startswith("threadwell ")
    script = "\n".join(["set -e", *before, "echo all followed", f"exec {last}"])
    with subprocess.Popen(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        command = Command(process)
        try:
            assert command.has_said("all followed", 150), command.text
            yield command
        finally:
            process.terminate()
            command.ended()


# an environment is made, and pip runs in it
@pytest.mark.timeout(240)
@pytest.mark.parametrize("framework", ANSWERS)
def test_from_nothing_to_tls_and_two_processes(
    framework: str, fresh: dict[str, str], tmp_path: Path
) -> None:
    (line,) = re.findall(r"^ {4}(curl --insecure \S+)$", TEXT, re.MULTILINE)
    with following(framework, tmp_path, fresh) as command:
        url = command.url()
        assert url.startswith("https://127.0.0.1:")
        assert "2 workers" in command.text
        words = line.replace("https://127.0.0.1:8000", url.rstrip("/")).split()
        done = subprocess.run(words, capture_output=True, text=True, timeout=30, check=True)
    assert ANSWERS[framework] in done.stdout
