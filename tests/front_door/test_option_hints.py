"""Who comes from another server: its flags, and what platforms set."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from threadwell import cli
from threadwell.config_file import Settings, with_concurrency
from threadwell.option_hints import FOREIGN_OPTIONS
from threadwell.worker import OPTIONS, ConfigError

DIFFERENCES = Path(__file__).resolve().parent.parent.parent / "docs" / "differences.md"


@pytest.fixture
def own_flags() -> set[str]:
    return {flag for param in cli._command().params for flag in param.opts}


@pytest.mark.parametrize("theirs", FOREIGN_OPTIONS)
def test_what_is_said_to_who_types_it(
    theirs: str, own_flags: set[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert theirs not in own_flags
    assert cli.main(["app", theirs]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"threadwell: {theirs}: ")
    assert said.endswith("; see threadwell --help\n")
    assert said.count("\n") == 1
    for ours in re.findall(r"--[\w-]+", FOREIGN_OPTIONS[theirs]):
        assert ours in own_flags
        assert ours in said


@pytest.mark.parametrize("theirs", FOREIGN_OPTIONS)
def test_the_page_has_it(theirs: str) -> None:
    assert f"`{theirs}`" in DIFFERENCES.read_text("utf-8")


def workers(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *args: str) -> str:
    assert cli.main(["config", "show", *args]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("workers")]
    return line


def test_the_platform_s_number_of_workers_is_a_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    assert workers(capsys, monkeypatch) == "workers = 3  # WEB_CONCURRENCY"
    (tmp_path / "threadwell.toml").write_text("workers = 4")
    assert workers(capsys, monkeypatch) == "workers = 4  # threadwell.toml:1"
    monkeypatch.setenv("THREADWELL_WORKERS", "5")
    assert workers(capsys, monkeypatch) == "workers = 5  # THREADWELL_WORKERS"
    assert workers(capsys, monkeypatch, "--workers", "6") == "workers = 6  # command line"


def test_a_platform_may_be_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "many")
    with pytest.raises(ConfigError, match="WEB_CONCURRENCY: 'many' is not a whole number or auto"):
        with_concurrency(Settings())
    assert with_concurrency(Settings(None, {"workers": 2})).values == {"workers": 2}


@pytest.mark.parametrize(("variables", "told"), [({}, 1), ({"THREADWELL_WORKERS": "2"}, None)])
def test_a_reload_does_not_mind_the_platform(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variables: dict[str, str],
    told: int | None,
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WEB_CONCURRENCY", "3")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    seen: list[int] = []
    monkeypatch.setattr(
        cli, "run_reloader", lambda config, _: seen.append(config.worker_count()) or 0
    )
    code = cli.main(["app", "--reload"])
    if told is None:
        assert code == 2
        assert "THREADWELL_WORKERS: --reload restarts a single process" in capsys.readouterr().err
    else:
        assert code == 0
        assert seen == [told]


def test_no_flag_of_ours_is_thought_foreign() -> None:
    assert not {option.flag for option in OPTIONS} & set(FOREIGN_OPTIONS)
