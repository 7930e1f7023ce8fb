"""The virtual environments of the servers and of the suites, and their versions."""

from __future__ import annotations

import json
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from .servers import PACKAGES

ROOT = Path(__file__).resolve().parent.parent
# The last that makes environments of Python 2.7.
_VIRTUALENV = "virtualenv==20.21.1"
_PIP = ("-m", "pip", "--disable-pip-version-check", "install", "--quiet", "--prefer-binary")


def make_servers(folder: Path, python: str) -> Path:
    """The folder of programs of an environment with threadwell as it is here, and its peers.

    It is made by `python` when it is not there.
    """
    binaries = folder / "servers" / "bin"
    pip = [binaries / "python", *_PIP]
    if not (binaries / "python").exists():
        subprocess.run([python, "-m", "venv", folder / "servers"], check=True)
        subprocess.run([*pip, f"{ROOT}[asgi,h2,uvloop]", *PACKAGES], check=True)
    else:
        subprocess.run([*pip, "--force-reinstall", "--no-deps", ROOT], check=True)
    shutil.rmtree(ROOT / "build", ignore_errors=True)
    return binaries


def make_certificate(binaries: Path, work: Path) -> None:
    """A certificate for 127.0.0.1: server.pem and server.key in `work`."""
    command = [binaries / "python", "-m", "trustme", "--quiet", "--dir", work]
    subprocess.run([*command, "--identities", "127.0.0.1", "localhost"], check=True)


def make_wstest(folder: Path) -> Path | None:
    """The program of the Autobahn suite, in an environment of its own; None without Python 2.7."""
    program = folder / "autobahn" / "bin" / "wstest"
    if not program.exists():
        python = _python2()
        if python is None:
            return None
        subprocess.run([sys.executable, "-m", "venv", folder / "virtualenv"], check=True)
        binaries = folder / "virtualenv" / "bin"
        subprocess.run([binaries / "python", *_PIP, _VIRTUALENV], check=True)
        command = [binaries / "virtualenv", "--quiet", "--python", python, folder / "autobahn"]
        subprocess.run(command, check=True)
        pip = [folder / "autobahn" / "bin" / "python", *_PIP, "autobahntestsuite"]
        subprocess.run(pip, check=True, stderr=subprocess.DEVNULL)  # pip tells of Python 2's end
    return program


def make_kosoku(folder: Path) -> Path:
    """The program of kosoku, which runs the cases of the Autobahn suite on Python 3."""
    program = folder / "kosoku" / "bin" / "kosoku"
    if not program.exists():
        subprocess.run([sys.executable, "-m", "venv", folder / "kosoku"], check=True)
        subprocess.run([folder / "kosoku" / "bin" / "python", *_PIP, "kosoku"], check=True)
    return program


def _python2() -> str | None:
    versions = Path.home() / ".pyenv" / "versions"
    for candidate in ("python2.7", "pypy", *sorted(versions.glob("2.7*/bin/python"))):
        path = shutil.which(candidate)
        if path is not None:
            command = [path, "-c", "import sys; sys.exit(sys.version_info[:2] != (2, 7))"]
            if subprocess.run(command, stderr=subprocess.DEVNULL, check=False).returncode == 0:
                return path
    return None


def versions(binaries: Path, *packages: str) -> dict[str, str]:
    """The versions of `packages` in the environment of `binaries`, and that of its Python.

    The environment may be one of Python 2.7.
    """
    script = (
        "import json, platform, sys, pkg_resources\n"
        "found = {p: pkg_resources.get_distribution(p).version for p in sys.argv[1:]}\n"
        "print(json.dumps(dict(found, Python=platform.python_version())))\n"
        if (binaries / "python2.7").exists()
        else "import json, platform, sys\n"
        "from importlib.metadata import version\n"
        "found = {p: version(p) for p in sys.argv[1:]}\n"
        "print(json.dumps(dict(found, Python=platform.python_version())))\n"
    )
    command = [binaries / "python", "-c", script, *packages]
    found: Any = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return {name: str(version) for name, version in found.items()}


def machine() -> str:
    """The system, as the page tells of it."""
    return f"{platform.system()} {platform.machine()}"
