"""The reference pages have what the code has: metrics, exit codes, signals, log formats."""

from __future__ import annotations

import ast
import inspect
import json
import logging
import re
import signal
from pathlib import Path

from threadwell import cli, process_setup, single_process
from threadwell.worker import server
from threadwell.worker.logs import format as log_format
from threadwell.worker.logs.error_log import JSONFormatter
from threadwell.worker.metrics import counters, gauges
from threadwell.worker.supervisor import statistics, supervisor

from .test_docs import DOCS, ROOT


def page(name: str) -> str:
    return (DOCS / name).read_text("utf-8")


def first_column(text: str) -> list[str]:
    """What stands in backticks in the first column of the tables of `text`."""
    cells = re.findall(r"^\| (`[^|]+`) \|", text, re.MULTILINE)
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def metrics_of(path: Path) -> set[str]:
    """The metrics that the module at `path` makes, by the names of their samples."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
            name = node.args[0]
            if isinstance(name, ast.Constant) and str(name.value).startswith("threadwell_"):
                found.add(f"{name.value}{'_total' if node.func.id == 'counter' else ''}")
    return found


def test_every_metric_is_on_its_page() -> None:
    made: set[str] = set()
    for path in (ROOT / "worker").rglob("*.py"):
        made |= metrics_of(path)
    text = page("metrics.md").partition("\n## Causes")[0]
    listed = first_column(text)
    assert len(made) > 20
    assert sorted(listed) == sorted(made)


def test_the_metrics_of_a_supervisor_are_apart() -> None:
    text = page("metrics.md").partition("\n## Of a supervisor")[2].partition("\n## Causes")[0]
    of_both = {"threadwell_ready"}
    made = metrics_of(ROOT / "worker" / "supervisor" / "statistics.py")
    assert set(first_column(text)) == made - of_both


def test_the_values_of_labels_are_on_the_page() -> None:
    text = page("metrics.md")
    words = set(re.findall(r"`([^`]+)`", text))
    assert {*counters.METHODS, *gauges.STATES, *statistics.ENDS, *statistics.CAUSES} <= words
    assert {"none", "1xx", "5xx"} <= words
    assert set(first_column(text.partition("\n| `cause` |")[2])) == set(counters.CAUSES)


def test_the_buckets_are_on_the_page() -> None:
    short = [f"{bound * 1000:g}" for bound in counters.BUCKETS if bound < 1]
    long = [f"{bound:g}" for bound in counters.BUCKETS if bound >= 1]
    said = f"{', '.join(short[:-1])} and {short[-1]} milliseconds, and at"
    text = " ".join(page("metrics.md").split())
    assert f"{said} {', '.join(long[:-1])} and {long[-1]} seconds" in text


def test_every_exit_code_is_on_its_page() -> None:
    codes = [int(code) for code in re.findall(r"^\| (\d+) \|", page("exit-codes.md"), re.MULTILINE)]
    interrupted = 128 + signal.SIGINT
    assert codes == [
        0,
        process_setup.USAGE_ERROR,
        cli.START_FAILED,
        single_process._INTERNAL_ERROR,
        interrupted,
    ]
    assert interrupted == cli._INTERRUPTED


def test_every_signal_is_on_its_page() -> None:
    rows = re.findall(r"^\| ([^|]+) \| [^|]+ \| ([^|]+) \|$", page("signals.md"), re.MULTILINE)
    names = [(set(re.findall(r"\bSIG[A-Z]+[12]?\b", first)), alone) for first, alone in rows]
    handled = set(supervisor._HANDLED) - {"SIGCHLD"}
    assert set().union(*(each for each, _ in names)) == handled
    single = set().union(*(each for each, alone in names if alone != "-"))
    assert single - {"SIGQUIT"} == {signal.Signals(number).name for number in server._HANDLED}


def test_every_directive_is_on_its_page() -> None:
    text = page("log-formats.md")
    table = text.partition("| directive |")[2].partition("\n\n")[0]
    letters = set(re.findall(r"`%>?([A-Za-z])`", table))
    assert letters == {*log_format._fields(), *log_format._CONSTANTS} - {"%"}
    for unit in log_format._DURATIONS.keys() - {"s"}:
        assert f"`%{{{unit}}}T`" in table


def test_every_field_of_json_is_on_its_page() -> None:
    of_access, _, of_errors = page("log-formats.md").partition("\n## Error log\n")
    source = inspect.getsource(log_format._json_format)
    written = set(re.findall(r'"(\w+)": ', source))
    assert set(first_column(of_access.partition("### JSON")[2])) == written
    record = logging.LogRecord("a", 20, "", 0, "text", None, (ValueError, ValueError("b"), None))
    record.stack_info, record.request_id, record.dropped = "stack", "id", 1
    assert set(first_column(of_errors)) == set(json.loads(JSONFormatter().format(record)))
