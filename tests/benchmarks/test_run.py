"""`python -m benchmarks`: a quick run of threadwell alone, whatever its figures, and the output."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = {"instructions": "valgrind", "syscalls": "strace"}
KEYS = {
    "instructions": {"hello-browser", "hello-varied"},
    "syscalls": {"hello-browser"},
    "cpu": {"hello-browser", "hello-varied", "post1k", "stream", "flask-varied", "django-varied"},
    "latency": {"alone", "slow", "streams"},
    "memory": {"20", "40"},
    "reload": {"reloads", "requests", "failed"},
    "threads": {"GIL"},
}

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts by /proc")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "benchmarks", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


# callgrind makes the start some fifty times longer
@pytest.mark.timeout(240)
@pytest.mark.parametrize("case", KEYS)
def test_a_quick_run(case: str, tmp_path: Path) -> None:
    program = PROGRAMS.get(case)
    if program and shutil.which(program) is None:
        pytest.skip(f"{program} is not installed")
    arguments = ("--quick", "--servers", "threadwell", "--cases", case, "--output", str(tmp_path))
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    results = json.loads((tmp_path / "results.json").read_text())
    assert results["cases"].keys() == {case}
    assert results["cases"][case]["threadwell"].keys() == KEYS[case]
    assert {"date", "python", "system", "cores", "load"} <= results["about"].keys()
    assert "| threadwell" in (tmp_path / "tables.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--cases", "speed"], "--cases: 'speed' is none of: instructions, "),
        (["--servers", "nginx"], "--servers: 'nginx' is none of: threadwell; "),
    ],
)
def test_a_word_that_is_not_known(arguments: list[str], message: str) -> None:
    done = run(*arguments)
    assert done.returncode == 2
    assert message in done.stderr


def test_figures_of_another_machine_are_not_updated(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text(json.dumps({**RESULTS, "servers": {}}))
    done = run("--quick", "--servers", "threadwell", "--update", "--output", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith(
        f"--update: the figures in {tmp_path}/results.json are of CPython 3,"
    )
    assert json.loads((tmp_path / "results.json").read_text()) == {**RESULTS, "servers": {}}


@pytest.fixture
def modules(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The package, from the root of the repository."""
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import clients, plots, servers, tables

    return {"clients": clients, "plots": plots, "servers": servers, "tables": tables}


def test_a_load_without_wrk(modules: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clients, servers = modules["clients"], modules["servers"]
    monkeypatch.setattr(clients.shutil, "which", lambda name: None)
    with servers.running(servers.KINDS[0], "plain") as server:
        load = clients.load(server.port, [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"], 2, 0.2)
        assert clients.load_client() == "a client in Python"
    assert load.requests > 0
    assert load.failed == 0


def test_what_a_response_is(modules: Any) -> None:
    clients, servers = modules["clients"], modules["servers"]
    with servers.running(servers.KINDS[0], "service") as server:
        connection = clients.Connection(server.port)
        streamed = connection.ask(b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n")
        assert (streamed.status, streamed.last) == (200, False)
        assert b"chunk 9" in streamed.body
        last = connection.ask(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert last == (200, b"Hello, world!", True)
        posted = connection.ask(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nab")
        assert posted.body == b"ab"
        connection.close()


def test_a_server_that_does_not_start_says_why(modules: Any) -> None:
    servers = modules["servers"]
    with pytest.raises(servers.DidNotStart, match="no_such_app"):  # noqa: SIM117
        with servers.running(servers.KINDS[0], "no_such_app"):
            pass


def row(**others: Any) -> dict[str, Any]:
    given_up = {"p50": 5000.0, "p99": 5000.0, "given_up": 4}
    quick = {"p50": 0.1, "p99": 1.25, "given_up": 0}
    return {"alone": quick, "slow": given_up, "streams": quick, **others}


RESULTS = {
    "about": {
        "date": "2001-02-03",
        "python": "CPython 3",
        "system": "Linux",
        "cores": 2,
        "load": "wrk 4",
        "commit": "abc",
    },
    "servers": {"threadwell": "0.1", "other <1>": "2"},
    "cases": {
        "instructions": {
            "threadwell": {"hello-browser": 54_321.9, "hello-varied": 79_999.0},
            "other <1>": {"lacks": "could not be measured"},
        },
        "cpu": {
            "threadwell": {"hello-browser": 20.04, "hello-varied": 21.0},
            "other <1>": {"hello-browser": 200.0, "hello-varied": 1234.5},
        },
        "latency": {"threadwell": row(), "other <1>": row()},
        "memory": {
            "threadwell": {
                "10": {"silent": 1.0, "asked": 2.0, "all_mib": 20.0},
                "20": {"silent": 1.0, "asked": 2.5, "all_mib": 21.0},
            },
            "other <1>": {"10": {"silent": 8.0, "asked": 9.0, "all_mib": 30.0}},
        },
        "reload": {
            "threadwell": {"reloads": 5, "requests": 12_345, "failed": 0},
            "other <1>": {"lacks": "has no reload"},
        },
        "threads": {"threadwell": {"GIL": {"1": 1.0, "2": 0.98}}},
    },
}


def test_the_tables(modules: Any) -> None:
    tables = modules["tables"]
    summary = tables.summary(RESULTS).splitlines()
    assert summary[2] == (
        "| threadwell (0.1) | 21.0 ms | 1.25 ms | over 5 s | 1.25 ms | 2.50 KiB | 0 |"
    )
    assert summary[3].endswith("| 1,234 ms | 1.25 ms | over 5 s | 1.25 ms |  | has no reload |")
    text = tables.tables(RESULTS)
    assert "| threadwell (0.1) | 54,300 | 80,000 |" in text
    assert "| other <1> (2) | could not be measured |  |" in text
    assert "| threadwell | GIL | 1.00 | 0.98 |" in text
    assert "2001-02-03, commit abc." in text


def test_the_figures(modules: Any) -> None:
    drawn = modules["plots"].figures(RESULTS)
    names = {"benchmarks", "instructions", "memory"}
    assert drawn.keys() == {f"{name}{theme}.svg" for name in names for theme in ("", "-dark")}
    for name, text in drawn.items():
        assert ("#0d1117" in text) is ("-dark" in name)
        root = ElementTree.fromstring(text)
        width, height = float(root.attrib["width"]), float(root.attrib["height"])
        words = [each.text for each in root.iter("{http://www.w3.org/2000/svg}text")]
        assert "other <1>" in words
        assert "threadwell" in words
        for bar in root.iter("{http://www.w3.org/2000/svg}rect"):
            assert float(bar.attrib["width"]) <= width
            assert float(bar.get("y", 0)) + float(bar.attrib["height"]) <= height
    assert "has no reload" in drawn["benchmarks.svg"]
    assert "takes fewer" in drawn["benchmarks.svg"]
