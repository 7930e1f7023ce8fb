"""The budget of instructions: what is compared, and with what."""

from __future__ import annotations

import importlib
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def budget(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(FOLDER))
    for name in ("budget", "budget_cases"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    return importlib.import_module("budget")


def test_each_build_has_a_figure_for_each_case(budget: Any) -> None:
    builds = tomllib.loads((FOLDER / "budget.toml").read_text())
    assert builds
    for name, figures in builds.items():
        assert name.startswith("CPython 3.13.")
        assert [label.partition(",")[0] for label in figures] == [
            case.name for case in budget.CASES
        ]


@pytest.mark.parametrize(("count", "over"), [(1050, False), (1051, True), (900, False)])
def test_a_case_may_cost_five_percent_more(
    budget: Any, capsys: pytest.CaptureFixture[str], count: int, over: bool
) -> None:
    assert budget.compare({"stream": 1000, "other": 1}, {"stream": count}) is over
    printed = capsys.readouterr().out
    assert ("OVER THE BUDGET" in printed) is over
    assert ("--write" in printed) is (count == 900)


def test_another_version_of_a_framework_is_not_compared(
    budget: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    assert budget.compare({"flask-varied, flask 3.0": 1}, {"flask-varied, flask 9.9": 2}) is False
    assert "not compared" in capsys.readouterr().out


def test_another_build_and_a_machine_without_valgrind_compare_nothing(
    budget: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["budget.py"])
    monkeypatch.setattr(budget, "measure", None)
    monkeypatch.setattr(budget, "build", lambda: "CPython 9.9")
    monkeypatch.setattr(budget.shutil, "which", {"valgrind": "/bin/true"}.get)
    assert budget.main() == 0
    assert "no figures for CPython 9.9" in capsys.readouterr().out
    monkeypatch.setattr(budget.shutil, "which", lambda name: None)
    assert budget.main() == 0
    assert "no valgrind" in capsys.readouterr().out


def test_what_is_written_keeps_other_builds(
    budget: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(budget, "BUDGET", tmp_path / "budget.toml")
    figures = {"a, shared": {"stream": 1}, "b": {"stream": 2, "flask-varied, flask 3.1.3": 3}}
    budget.write(figures)
    assert tomllib.loads(budget.BUDGET.read_text()) == figures


def test_requests_are_whole_and_differ(budget: Any) -> None:
    for case in budget.CASES:
        one, two = case.request(1000), case.request(1001)
        head, body = one.split(b"\r\n\r\n", 1)
        assert (one == two) is ("{n}" not in case.target + case.fields)
        assert b"{" not in head
        assert len(body) == (case.size + 1000 % case.varied_size if case.varied_size else case.size)
        assert (b"Content-Length: %d" % len(body) in head) is bool(body)
