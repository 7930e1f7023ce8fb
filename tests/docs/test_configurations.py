"""The configurations of other programs in the documentation: these programs accept them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from ..helpers.ports import free_port
from .test_docs import DOCS, ROOT


def program(name: str) -> str:
    """The path of a program; some are where only root looks."""
    path = shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def blocks(language: str) -> list[tuple[str, str]]:
    """The blocks in `language`, each with the name of its page."""
    block = re.compile(rf"^```{language}\n(.*?)^```$", re.DOTALL | re.MULTILINE)
    return [
        (page.name, text)
        for page in sorted(DOCS.rglob("*.md"))
        for text in block.findall(page.read_text("utf-8"))
    ]


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    analyze = program("systemd-analyze")
    units = []
    for _, text in blocks("ini"):
        path, _, rest = text.partition("\n")
        if path.startswith("# /etc/systemd/system/"):
            unit = tmp_path / path.rpartition("/")[2]
            unit.write_text(re.sub(r"/srv/app/.venv/bin/\w+", sys.executable, rest), "utf-8")
            units.append(unit)
    assert len(units) == 3
    done = subprocess.run(
        [analyze, "verify", "--man=no", *units], capture_output=True, text=True, check=False
    )
    # of units that are not these it may complain, as it likes
    said = done.stderr.splitlines()
    assert not [line for line in said if "app" in line and "notify-reload" not in line]


@pytest.mark.parametrize(("page", "text"), blocks("nginx"))
def test_nginx_takes_the_locations(page: str, text: str, tmp_path: Path) -> None:
    nginx = program("nginx")
    file = tmp_path / "nginx.conf"
    file.write_text(
        f"pid {tmp_path}/pid; error_log stderr; events {{}} http {{ access_log off;"
        f" server {{ listen 127.0.0.1:{free_port()};\n{text}\n}} }}",
        "utf-8",
    )
    done = subprocess.run(
        [nginx, "-t", "-p", tmp_path, "-c", file], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{page}: {done.stderr}"


def is_part_of(part: Any, whole: Any) -> bool:
    """Whether `whole` has everything that `part` has."""
    if isinstance(part, dict):
        return all(name in whole and is_part_of(each, whole[name]) for name, each in part.items())
    if isinstance(part, list):
        return all(any(is_part_of(each, other) for other in whole) for each in part)
    return bool(part == whole)


def test_the_pod_is_that_of_the_example() -> None:
    ((_, text),) = [found for found in blocks("yaml") if found[0] == "kubernetes.md"]
    example = ROOT / "examples" / "deploy" / "kubernetes" / "deployment.yaml"
    pod = yaml.safe_load(example.read_text("utf-8"))["spec"]["template"]["spec"]
    assert is_part_of(yaml.safe_load(text), pod)
