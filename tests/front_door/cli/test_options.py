"""Options of the command, its help, and TLS by flags."""

from __future__ import annotations

import os
import re
import shutil
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from threadwell import (
    ServerConfig,
    cli,
)
from threadwell.worker import OPTIONS

from ...helpers.certificates import PASSWORD, Authority
from .running import Running

# ---- Options, and help --------------------------------------------------------------------


def test_help_all_shows_every_option(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help-all"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    for option in OPTIONS:
        assert (f" {option.flag} " in text) is not option.secret
        if option.secret:
            continue
        assert " ".join(option.help.split()) in text
    assert "[bytes, default: 256M]" in text
    assert "[seconds, default: 75]" in text
    assert "[default: 127.0.0.1:8000]" in text
    assert text.index("Where:") < text.index("Threads:") < text.index("Timeouts:")


def test_help_shows_what_most_users_want(capsys: pytest.CaptureFixture[str]) -> None:
    for words, also in (([], "--reload"), (["check"], "")):
        texts = []
        for flag in ("--help", "-h"):
            assert cli.main([*words, flag]) == 0
            texts.append(capsys.readouterr().out)
        text = texts[0]
        assert texts == [text, text]
        shown = set(re.findall(r"^  (?:-\w, )?(--[\w-]+)", text, re.MULTILINE))
        assert shown == {
            *("--app-dir", "--config", "--bind", "--threads", "--workers", "--asgi"),
            *("--certfile", "--keyfile", "--trusted-proxies", "--static", "--access-log"),
            *("--version", "--help-all", "--help"),
            *filter(None, [also]),
        }
        assert cli.main([*words, "--help-all"]) == 0
        every = re.findall(r"^  (?:-\w, )?--", capsys.readouterr().out, re.MULTILINE)
        program = " ".join(["threadwell", *words])
        assert text.splitlines()[-1] == f"{program} --help-all shows all {len(every)} options."
    assert cli.main(["--help"]) == 0
    text = capsys.readouterr().out
    assert (
        "  -t, --threads NUMBER    Number of threads that run requests; 0 chooses 8, or\n" in text
    )
    commands = text.partition("\nCommands:\n")[2]
    assert re.findall(r"^  ([a-z]+(?: [a-z]+)?)", commands, re.MULTILINE) == [
        "check", "config show", "config schema", "config import", "ctl", "top",
    ]  # fmt: skip


PROJECT = {
    "site1.py": "from flask import Flask\nshop = Flask('x')\nprices, _hidden = {}, 1\n1 / 0\n",
    "mysite/__init__.py": "",
    "mysite/wsgi.py": "application = get_wsgi_application()\nraise SystemExit\n",
    "mysite/views.py": "def index(request, pk): ...\n",
    "broken.py": "def (",
    "plain.py": "def hello(environ, start_response): ...\ndef create_app(): ...\n",
    ".venv/lib.py": "app = 1",
    "venv/pyvenv.cfg": "",
    "venv/app.py": "app = 1",
}


@pytest.fixture
def completion_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in PROJECT.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)


COMPLETIONS = [
    ("", ["check", "config", "ctl", "top", "mysite.wsgi:application", "plain:create_app",
          "plain:hello", "site1:shop"]),
    ("c", ["check", "config", "ctl"]),
    ("config ", ["show", "schema", "import"]),
    ("config show --thr", ["--threads"]),
    ("config import --o", ["--output", "--overwrite"]),
    ("check mysite.w", ["mysite.wsgi:application"]),
    ("site1:", ["site1:shop"]),
    ("mysite.views:i", ["mysite.views:index"]),
    ("--asgi pl", ["plain:create_app", "plain:hello"]),
    ("top --", ["--interval", "--once", "--help"]),
    ("plain:hello --help", ["--help-all", "--help"]),
]  # fmt: skip


@pytest.mark.usefixtures("completion_project")
@pytest.mark.parametrize(("typed", "offered"), COMPLETIONS)
def test_completion_of_commands_and_applications(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    typed: str,
    offered: list[str],
) -> None:
    monkeypatch.setenv("_THREADWELL_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", f"threadwell {typed}")
    monkeypatch.setenv("COMP_CWORD", "-1")
    with pytest.raises(SystemExit):
        cli.main([])
    lines = capsys.readouterr().out.splitlines()
    assert [line.removeprefix("plain,") for line in lines if line[:5] != "file,"] == offered


@pytest.mark.usefixtures("completion_project")
@pytest.mark.skipif(shutil.which("bash") is None, reason="there is no bash")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("threadwell site1:s", "shop"),
        ("threadwell conf", "config"),
        ("threadwell ctl --j", "--json"),
    ],
)
def test_completion_in_bash(line: str, offered: str) -> None:
    program = str(Path(sys.executable).with_name("threadwell"))
    script = (
        f'eval "$(_THREADWELL_COMPLETE=bash_source "{program}")"; compopt() {{ :; }};'
        f' COMP_LINE="{line}"; COMP_POINT=${{#COMP_LINE}};'
        f' _threadwell_completion "{program}"; echo "${{COMPREPLY[@]}}"'
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", script], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == (f"{offered}\n", "")


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_scripts_of_other_shells(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], shell: str
) -> None:
    monkeypatch.setenv("_THREADWELL_COMPLETE", f"{shell}_source")
    with pytest.raises(SystemExit):
        cli.main([])
    assert f"_THREADWELL_COMPLETE={shell}_complete" in capsys.readouterr().out


def test_an_unknown_shell(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_THREADWELL_COMPLETE", "tcsh_source")
    assert cli.main([]) == 2
    assert capsys.readouterr().err == (
        "threadwell: _THREADWELL_COMPLETE: it may be bash_source, zsh_source or fish_source; see"
        " threadwell --help\n"
    )


def test_no_option_is_lost_on_the_way(monkeypatch: pytest.MonkeyPatch) -> None:
    command = cli._command()
    seen: dict[str, Any] = {}
    command.callback = lambda **options: seen.update(options)
    command.main(["app"], standalone_mode=False)
    defaults = {option.name: option.default for option in OPTIONS}
    assert {name: seen[name] for name in defaults} == defaults
    for option in OPTIONS:
        if option.type is bool:
            command.main([option.flag], standalone_mode=False)
            assert seen[option.name] is True
            continue
        number = str(int(option.high or 7000))
        value = option.choices[-1] if option.choices else number if not option.multiple else "x:1"
        wanted = option.convert(value)
        if option.secret:
            monkeypatch.setenv(f"THREADWELL_{option.name.upper()}", value)
            command.main([], standalone_mode=False)
        else:
            command.main([option.flag, value], standalone_mode=False)
        assert seen[option.name] == wanted
        config = ServerConfig.from_options(**{option.name: seen[option.name]})
        assert getattr(getattr(config, option.group), option.attribute) == wanted


def test_shell_completion(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_THREADWELL_COMPLETE", "bash_complete")
    for typed, offered in (
        ("--poller e", "plain,epoll"),
        ("--workers a", "plain,auto"),
        ("--certfile c", "file,c"),
        ("ap", "file,ap"),
        ("--threads 1", ""),
    ):
        monkeypatch.setenv("COMP_WORDS", f"threadwell {typed}")
        monkeypatch.setenv("COMP_CWORD", str(len(typed.split())))
        with pytest.raises(SystemExit):
            cli.main([])
        assert capsys.readouterr().out.strip() == offered


# ---- TLS ----------------------------------------------------------------------------------


def test_https_from_flags_and_environment(start: Callable[..., Running], tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    cert, key = authority.issue("server")
    server = start(
        *("--bind", "127.0.0.1:0", "--certfile", str(cert)),
        env=os.environ
        | {
            "THREADWELL_KEYFILE": str(authority.encrypted(key)),
            "THREADWELL_KEYFILE_PASSWORD": PASSWORD,
        },
    )
    assert f"  https://127.0.0.1:{server.port}\n" in server.message
    url = f"https://127.0.0.1:{server.port}/there"
    with urllib.request.urlopen(url, timeout=10, context=authority.trusting()) as response:
        assert response.read() == b"/there"
    assert server.end() == (0, "stopping\n", "")


def test_adhoc_says_whom_to_trust(start: Callable[..., Running], tmp_path: Path) -> None:
    pytest.importorskip("trustme", reason="trustme has no wheels here", exc_type=ImportError)
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    server = start("--bind", "127.0.0.1:0", "--cert", "adhoc", env=os.environ | home)
    path = Path(server.message.partition("they trust the one in\n  ")[2].partition("\n")[0])
    trusting = ssl.create_default_context(cafile=path)
    url = f"https://127.0.0.1:{server.port}/there"
    with urllib.request.urlopen(url, timeout=10, context=trusting) as response:
        assert response.read() == b"/there"
    assert server.end() == (0, "stopping\n", "")
    for where in ("XDG_CACHE_HOME", "HOME"):
        home[where] = os.devnull
    server = start("--bind", "127.0.0.1:0", "--cert", "adhoc", env=os.environ | home)
    assert "generated for this run" in server.message
    assert server.end() == (0, "stopping\n", "")


def test_mistakes_with_certificates(
    fails: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    certfile = "--certfile", "none.pem", "--bind", "127.0.0.1:0"
    assert fails(*certfile) == "--certfile: there is no file none.pem; check the path"
    assert fails("--keyfile", "x") == "--keyfile: there is no certificate; give certfile too"
    assert fails(*certfile, "--cert", "adhoc").startswith(
        "--cert: adhoc generates a certificate, and"
    )
    assert fails("--cert", "xyzzy").startswith("--cert: 'xyzzy' is not one of adhoc")
    typed = fails(*certfile, "--keyfile-password", PASSWORD)
    assert typed.startswith("--keyfile-password: every user can see a command line")
    assert PASSWORD not in typed
    assert fails("--bind", "https://127.0.0.1:0").startswith("--bind: https://127.0.0.1:0 needs")
    monkeypatch.setenv("THREADWELL_KEYFILE_PASSWORD", PASSWORD)
    assert fails().startswith("THREADWELL_KEYFILE_PASSWORD: there is no certificate; give")


def test_no_password_is_asked_for(fails: Callable[..., str], tmp_path: Path) -> None:
    """OpenSSL would, on the terminal; here there is one, and nobody at it."""
    pty = pytest.importorskip("pty")
    authority = Authority(tmp_path / "authority")
    cert, key = authority.issue("server")
    terminal, ours = pty.openpty()
    command = [sys.executable, "-m", "threadwell", "--bind", "127.0.0.1:0", "--certfile", str(cert)]
    try:
        done = subprocess.run(
            [*command, "--keyfile", str(authority.encrypted(key))],
            cwd=tmp_path,
            stdin=ours,
            capture_output=True,
            text=True,
            start_new_session=True,
            timeout=20,
            check=False,
        )
    finally:
        os.close(terminal)
        os.close(ours)
    assert done.returncode == 2
    assert "is encrypted; give keyfile_password_file" in done.stderr
