"""A page of the documentation that is followed to the letter, in a folder of its own.

The blocks of the page are followed in their order:

* a block with the name of a file as its title is written to that file, or added to its end;
* the lines of a `bash` block are run by bash, which keeps its folder and its variables; a line
  that starts a server runs until the page says "Stop the server", or starts another;
* a `text` block is what the commands before it have printed, or what the server prints. `...`
  stands for anything.

Two things differ from what a reader does. Ports are free ones. And unless a source is given,
`python3 -m venv` makes an environment that has what this one has, and `pip install` only checks
what the page names. With a source, both are run, and threadwell is installed from there.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement

from .command import Command, children
from .ports import free_port
from .waiting import until

_STEP = re.compile(
    r"^```(\w+)(?: title=\"([^\"]+)\")?\n(.*?)^```$|\bStop the server\b", re.DOTALL | re.MULTILINE
)
# Seconds for each step: a page starts many programs, and the machine may be busy.
_PATIENCE = 120
_AT_THE_END = ", at the end"
_OF_THE_SERVER = "the server prints"
_PORT = re.compile(r"\b(?:5000|8000|8443|9100)\b")
_SERVERS = {
    r"threadwell( |$)(?!check|config|ctl|top)": ("--bind", "127.0.0.1:8000"),
    r"flask .*serve\b": ("--port", "5000"),
    r"python manage\.py runserver_fast\b": ("", "127.0.0.1:8000"),
}


class Tutorial:
    """Follows a page in `folder`. `source` is a folder from which threadwell can be installed."""

    def __init__(self, folder: Path, source: Path | None = None) -> None:
        self._source = source
        self.home = folder / "home"
        self.home.mkdir()
        self.folder = self.home
        self._state = folder / "state"
        self._at = folder / "at"
        self._ports: dict[str, int] = {}
        self._server: Command | None = None
        self._seen = 0
        self._workers = 0
        self._output = ""
        self.commands = 0
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        self._environ = {"HOME": str(self.home), "PATH": path, "LANG": "C.UTF-8"}
        if source is not None:
            cache = Path.home() / ".cache" / "pip"
            self._environ |= {"PIP_CACHE_DIR": str(cache), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
            self._environ |= {
                name: value for name, value in os.environ.items() if name.startswith("PIP_")
            }

    def follow(self, page: str) -> None:
        """Do what `page` says, and compare what is printed."""
        page = _PORT.sub(lambda match: str(self._port(match[0])), page)
        for language, title, text in _STEP.findall(page):
            if not language:
                self.end()
            elif language == "bash":
                self._run(text.splitlines())
            elif title == _OF_THE_SERVER:
                self._await(text.splitlines())
            elif language == "text":
                pattern = "^" + "\n".join(map(_pattern, text.splitlines()))
                pattern = pattern.replace("\n.*\n", "\n(?:.*\n)*?")
                assert re.search(pattern, self._output, re.MULTILINE), self._output
            elif title:
                name = title.removesuffix(_AT_THE_END)
                mode = "a" if title.endswith(_AT_THE_END) else "w"
                with (self.folder / name).open(mode, encoding="utf-8") as file:
                    file.write(text)

    def end(self) -> None:
        """End the server, as Ctrl-C does."""
        if self._server is not None:
            server, self._server = self._server, None
            server.process.send_signal(signal.SIGINT)
            code = server.process.wait(_PATIENCE)
            text = server.rest()
            assert code == 0, text
            assert server.process.stdout is not None
            server.process.stdout.close()
            assert "Traceback" not in text, text

    def kill(self) -> None:
        """After a failure: leave no process behind."""
        if self._server is not None:
            self._server.process.kill()
            self._server.rest()
            assert self._server.process.stdout is not None
            self._server.process.stdout.close()
            self._server.process.wait()

    def _port(self, of_the_page: str) -> int:
        return self._ports.setdefault(of_the_page, free_port())

    # ---- Commands -------------------------------------------------------------------------

    def _run(self, lines: list[str]) -> None:
        self._output = ""
        script: list[str] = []
        for line in lines:
            self.commands += 1
            special = self._special(line)
            if special is None:
                script.append(line)
                continue
            self._shell(script)
            script = []
            special()
        self._shell(script)

    def _special(self, line: str) -> Callable[[], None] | None:
        """What is done in the place of `line`, if it is no ordinary command."""
        if self._source is None and line == "python3 -m venv .venv":
            return lambda: make_environment(self.folder / ".venv")
        if self._source is None and line.startswith("pip install "):
            return lambda: check_installed(shlex.split(line)[2:])
        for pattern, default in _SERVERS.items():
            if re.match(pattern, line):
                return lambda: self._serve(line, *default)
        return None

    def _shell(self, lines: list[str]) -> None:
        if lines:
            if self._source is not None:
                lines = [line.replace("'threadwell[", f"'{self._source}[") for line in lines]
            script = [self._prologue(), "set -e", *lines, f"export -p > {self._state}"]
            script.append(f"pwd > {self._at}")
            done = subprocess.run(
                ["bash", "-c", "\n".join(script)],
                cwd=self.folder,
                env=self._environ,
                capture_output=True,
                text=True,
                timeout=_PATIENCE * (1 if self._source is None else 5),
                check=False,
            )
            assert done.returncode == 0, f"{lines}\n{done.stdout}\n{done.stderr}"
            self._output += done.stdout
            self.folder = Path(self._at.read_text().strip())

    def _prologue(self) -> str:
        return f". {self._state}" if self._state.exists() else ":"

    def _serve(self, line: str, option: str, default: str) -> None:
        self.end()
        if not re.search(r":\d|--port", line) and not (self.folder / "threadwell.toml").exists():
            port = _PORT.sub(lambda match: str(self._port(match[0])), default)
            line = " ".join(filter(None, (line, option, port)))
        process = subprocess.Popen(
            ["bash", "-c", f"{self._prologue()}\nexec {line}"],
            cwd=self.folder,
            env=self._environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._server = Command(process)
        self._seen = 0
        assert self._server.has_said("Ctrl-C|CONTROL-C", _PATIENCE), self._server.text
        self._workers = len(children(process.pid))

    def _await(self, lines: list[str]) -> None:
        """Wait until the server has printed `lines`, in their order."""
        assert self._server is not None
        for line in lines:
            pattern = re.compile(f"^{_pattern(line)}$", re.MULTILINE)
            while not (found := pattern.search(self._server.text, self._seen)):
                assert self._server.has_said("", _PATIENCE), f"{line}\n{self._server.text}"
            self._seen = found.end()
        # after a reload, until the old workers have ended: one may still accept a connection
        pid = self._server.process.pid
        until(lambda: len(children(pid)) == self._workers, _PATIENCE)


@contextmanager
def tutorial(folder: Path, source: Path | None = None) -> Iterator[Tutorial]:
    """Follows a page in `folder`; no server is left behind. `source` is as for `Tutorial`."""
    reader = Tutorial(folder, source)
    try:
        yield reader
        reader.end()
    finally:
        reader.kill()


def _pattern(line: str) -> str:
    return ".*".join(map(re.escape, line.split("...")))


def make_environment(folder: Path) -> None:
    """A virtual environment with everything that this one has."""
    venv.create(folder, with_pip=False, symlinks=True)
    site = next(folder.glob("lib/python*/site-packages"))
    paths = dict.fromkeys(sysconfig.get_paths()[name] for name in ("purelib", "platlib"))
    lines = [f"import site; site.addsitedir({path!r})\n" for path in paths]
    (site / "of_the_tests.pth").write_text("".join(lines), "utf-8")
    for program in Path(sysconfig.get_path("scripts")).iterdir():
        target = folder / "bin" / program.name
        if not program.name.startswith(("python", "activate", "pip")) and not target.exists():
            target.symlink_to(program)


def check_installed(words: list[str]) -> None:
    """Assert that each requirement is installed, and that each extra of threadwell exists."""
    for word in words:
        requirement = Requirement(word)
        found = metadata.metadata(requirement.name)
        assert requirement.extras <= set(found.get_all("Provides-Extra") or ()), word
