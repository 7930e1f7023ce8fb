"""Settings in a file: what is understood, what wins, and what is said of mistakes."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from threadwell import cli
from threadwell.config_file import read_settings, show
from threadwell.worker import OPTIONS, ConfigError, ServerConfig

from ..helpers.supervised import APP

Run = Callable[..., str]


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for option in OPTIONS:
        monkeypatch.delenv(f"THREADWELL_{option.name.upper()}", raising=False)


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Run:
    """`shown(name, *arguments)`: what `config show` says of an option."""

    def run(name: str, *args: str) -> str:
        assert cli.main(["config", "show", *args]) == 0
        lines = capsys.readouterr().out.splitlines()
        (line,) = [line for line in lines if line.startswith(f"{name} = ")]
        return line.removeprefix(f"{name} = ")

    return run


@pytest.fixture
def fails(capsys: pytest.CaptureFixture[str]) -> Run:
    """`fails(*arguments)`: the one line of an error."""

    def run(*args: str) -> str:
        assert cli.main(args) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.count("\n") == 1
        return err.removeprefix("threadwell: ").rstrip("\n")

    return run


# ---- What wins ----------------------------------------------------------------------------


def test_line_over_environment_over_file_over_default(
    tmp_path: Path, shown: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert shown("threads") == "0  # default"
    (tmp_path / "threadwell.toml").write_text("# mine\nthreads = 3\n")
    assert shown("threads") == "3  # threadwell.toml:2"
    monkeypatch.setenv("THREADWELL_THREADS", "4")
    assert shown("threads") == "4  # THREADWELL_THREADS"
    assert shown("threads", "--threads", "5") == "5  # command line"


def test_pyproject_where_there_is_no_file_of_its_own(tmp_path: Path, shown: Run) -> None:
    text = '[project]\nthreads = "no"\n\n[tool.threadwell]\nlimit-body = "10M"\n[tool.other]\n'
    (tmp_path / "pyproject.toml").write_text(text)
    assert shown("limit_body") == "10485760  # pyproject.toml:5"
    (tmp_path / "threadwell.toml").write_text("")
    assert shown("limit_body").endswith("# default")


def test_another_file(tmp_path: Path, shown: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "threadwell.toml").write_text("threads = 3\n")
    (tmp_path / "other.toml").write_text("threads = 4\n")
    assert shown("threads", "--config", "other.toml") == "4  # other.toml:1"
    monkeypatch.setenv("THREADWELL_CONFIG", "other.toml")
    assert shown("threads") == "4  # other.toml:1"


def test_every_option_can_be_set(tmp_path: Path, shown: Run) -> None:
    (tmp_path / "threadwell.toml").write_text(
        'bind = ["127.0.0.1:0", "[::1]:0"]\npreload = true\nworkers = "auto"\nkeep_alive = 3\n'
        'log-format = "json"\n'
    )
    assert shown("bind") == '["127.0.0.1:0", "[::1]:0"]  # threadwell.toml:1'
    assert shown("bind", "--bind", "9000") == '["9000"]  # command line'
    assert shown("preload") == "true  # threadwell.toml:2"
    assert shown("preload", "--no-preload") == "false  # command line"
    assert shown("workers") == "0  # threadwell.toml:3"
    assert shown("keep_alive") == "3.0  # threadwell.toml:4"
    assert shown("log_format") == '"json"  # threadwell.toml:5'


def test_what_is_shown_can_be_read_again(tmp_path: Path) -> None:
    config = ServerConfig.from_options(
        bind=["1", 'unix:a"b'], log_format='%h "%r" \\é', preload=True, body_timeout=1.5
    )
    (tmp_path / "threadwell.toml").write_text(show(config, {}), "utf-8")
    assert ServerConfig.from_options(**read_settings().values) == config


def test_a_secret_is_not_shown(capsys: pytest.CaptureFixture[str]) -> None:
    config = ServerConfig.from_options(keyfile_password="open sesame")
    assert "sesame" not in show(config, {})
    assert "# keyfile_password is set" in show(config, {})


# ---- Mistakes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("thread = 3", "thread: there is no such option; did you mean threads?"),
        ("xyzzy = 3", "xyzzy: there is no such option"),
        ('threads = "many"', "threads: 'many' is not a whole number"),
        ("threads = true", "threads: True is not a whole number"),
        ("threads = 1.5", "threads: 1.5 is not a whole number"),
        ("preload = 1", "preload: 1 is not true or false"),
        ("access_log = 1", "access_log: 1 is not text"),
        ("bind = 1.5", "bind: 1.5 is not text, or a sequence of texts"),
        ('poller = "select"', "poller: 'select' is not one of auto, epoll, kqueue, queue"),
        ("limit-body = -1", "limit_body: -1 is less than the minimum, 0"),
        ("app = 3", "app: 3 is not text, such as module:app"),
        ('interface = "asgi3"', "interface: 'asgi3' is not auto, wsgi, sync or asgi"),
        ("[limits]", "limits: this is a table; give its options without one"),
        ('"keep-alive" = "x"', "keep_alive: 'x' is not a number of seconds"),
        (
            'keyfile-password = "x"',
            "keyfile-password: a secret does not belong in a file; set THREADWELL_KEYFILE_PASSWORD",
        ),
    ],
)
@pytest.mark.parametrize("name", ["threadwell.toml", "pyproject.toml"])
def test_file_line_and_what_was_meant(
    tmp_path: Path, fails: Run, name: str, line: str, message: str
) -> None:
    before = "# settings\nbacklog = 5\n"
    if name == "pyproject.toml":
        before = "[tool.threadwell]\nbacklog = 5\n"
        line = line.replace("[limits]", "[tool.threadwell.limits]")
    (tmp_path / name).write_text(f"{before}{line}\n")
    assert fails("app:app") == f"{name}:3: {message}"


def test_said_twice(tmp_path: Path, fails: Run) -> None:
    (tmp_path / "threadwell.toml").write_text("keep-alive = 3\nkeep_alive = 4\n")
    told = "threadwell.toml:2: keep_alive: it is set twice, before at threadwell.toml:1"
    assert fails("check") == told


def test_no_toml(tmp_path: Path, fails: Run) -> None:
    (tmp_path / "threadwell.toml").write_text("threads = \n")
    assert fails().startswith("threadwell.toml: Invalid value (at line 1, column 11)")


def test_files_that_are_not_there(tmp_path: Path, fails: Run) -> None:
    assert fails("--config", "nope") == "config: there is no file nope; check the path"
    (tmp_path / "pyproject.toml").write_text("[project]\n")
    assert "no [tool.threadwell]" in fails("--config", "pyproject.toml")
    (tmp_path / "folder").mkdir()
    assert "cannot be read" in fails("--config", "folder")
    assert read_settings().path is None


def test_a_tool_that_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[tool]\nthreadwell = 3\n")
    with pytest.raises(ConfigError, match="not a table"):
        read_settings()


# ---- check, and names that could be meant otherwise ---------------------------------------


def test_check(tmp_path: Path, fails: Run, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "checked.py").write_text(APP.format(version="x"))
    (tmp_path / "threadwell.toml").write_text('app = "checked:app"\n')
    assert cli.main(["check"]) == 0
    assert capsys.readouterr().out == "checked:app (wsgi) and its settings are fine\n"
    assert "there is no module" in fails("check", "nowhere:app")
    assert "log_format" in fails("check", "--log-format", "nonsense").replace("-", "_")
    assert "is not an address" in fails("check", "--bind", "a:b:c")


@pytest.mark.parametrize("spelled", ["check:no_such_app", "config:no_such_app", "./check.py:none"])
def test_a_module_of_that_name_is_an_application(tmp_path: Path, fails: Run, spelled: str) -> None:
    for name in ("check", "config"):
        (tmp_path / f"{name}.py").write_text("")
    try:
        assert "has no attribute" in fails(spelled)
    finally:
        sys.modules.pop("check", None)
        sys.modules.pop("config", None)


def test_config_alone(fails: Run) -> None:
    assert fails("config").startswith("config: write `threadwell config show`")


# ---- Where a mistake was made ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("threads", "x", "'x' is not a whole number"),
        ("bind", "x:y:z", "'x:y:z' is not an address"),
        ("bind", "fd:x", "'fd:x' is not an address"),
        ("log_format", "%Q", "'%Q' is not known"),
        ("reuse_port", "maybe", "'maybe' is not true or false"),
        ("user", "a\\u0000b", "there is no user a"),
    ],
)
def test_a_mistake_is_told_with_its_place(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    fails: Run,
    option: str,
    value: str,
    message: str,
) -> None:
    settings = tmp_path / "threadwell.toml"
    settings.write_text(f'backlog = 1\n{option} = "{value}"\n')
    assert fails("config", "show").startswith(f"threadwell.toml:2: {option}: {message}")
    settings.unlink()
    shared = tmp_path / "pyproject.toml"
    shared.write_text(f'[tool.threadwell]\n\n{option} = "{value}"\n')
    assert fails("config", "show").startswith(f"pyproject.toml:3: {option}: {message}")
    shared.unlink()
    if "\\" not in value:
        monkeypatch.setenv(f"THREADWELL_{option.upper()}", value)
        assert fails("config", "show").startswith(f"THREADWELL_{option.upper()}: {message}")
    if option != "reuse_port" and "\\" not in value:
        flag = "--" + option.replace("_", "-")
        assert fails("config", "show", flag, value).startswith(f"{flag}: {message}")


def test_an_asgi_application_beside_it_from_a_file(tmp_path: Path, fails: Run) -> None:
    (tmp_path / "module.py").write_text("def app(environ, start_response): ...\n")
    (tmp_path / "threadwell.toml").write_text('app = "module:app"\nasgi-app = "nowhere:app"\n')
    assert fails("check").startswith("there is no module 'nowhere'")


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_stream_that_is_closed(monkeypatch: pytest.MonkeyPatch, stream: str) -> None:
    """As by `threadwell ... >&-`, where Python has no such stream."""
    monkeypatch.setattr(sys, stream, None)
    assert cli.main(["config", "show"]) == 0
    assert cli.main(["--threads", "x"]) == 2
    assert cli.main(["--bind", "0", "--access-log", "-", "nowhere:app"]) == 2
