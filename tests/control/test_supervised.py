"""Several processes: the supervisor asks its workers, and believes none of them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from threadwell.control_client import ControlError
from threadwell.worker.control.checks import ANSWERS
from threadwell.worker.control.report import BOUNDS
from threadwell.worker.supervisor.answers import LONGEST_PART, MOST_PARTS, Question, answer
from threadwell.worker.supervisor.reports import Reports

from ..helpers.control import PATHS, ask, requests_to, running
from ..helpers.supervised import Load, Start, starting
from ..helpers.waiting import until

both = pytest.mark.parametrize("extra", [(), ("--preload",)], ids=["each-imports", "preload"])


def pids(path: Path) -> list[int]:
    """The workers that serve."""
    workers = ask(path, "status")["workers"]
    return [each["pid"] for each in workers if each["state"] == "serving"]


@both
def test_three_processes_say_who_is_stuck(
    start: Start, tmp_path: Path, path: Path, extra: tuple[str, ...]
) -> None:
    options = ["--workers", "3", "--threads", "8", "--control", f"unix:{path}"]
    server = start("app:app", *options, *extra)
    with requests_to(server.port, PATHS), Load(server.port, 4) as load:
        rows = {name: row for name, row in await_stuck_under_load(path).items() if name in PATHS}
        status = ask(path, "status")
        assert status["supervised"]
        assert status["pid"] == server.process.pid
        known = {each["pid"] for each in status["workers"]}
        assert known == set(server.ready_workers())
        assert {row["pid"] for row in rows.values()} <= known
        until(lambda: threads(path, "lent") == 2)
        assert threads(path, "slots") == 24
        until(lambda: threads(path, "busy") >= 6)
        for name in PATHS[:5]:
            (stack,) = ask(path, "stack", rows[name]["id"])["stacks"]
            assert (stack["pid"], stack["id"]) == (rows[name]["pid"], rows[name]["id"])
            assert "in wait_for_the_lock" in stack["stack"]
        pid = rows["/slow"]["pid"]
        stacks = ask(path, "stack", str(pid))["stacks"]
        assert {each["pid"] for each in stacks} == {pid}
        assert any("in serve_slowly" in each["stack"] for each in stacks)
        load.more()
        (tmp_path / "go").touch()
    assert not load.failures
    assert server.end() == 0
    assert not path.exists()


def await_stuck_under_load(path: Path) -> dict[str, dict[str, Any]]:
    def states() -> dict[str, str]:
        return {name: row["state"] for name, row in running(path).items() if name in PATHS}

    wanted = {each: "streaming" if "stream" in each else "running" for each in PATHS}
    until(lambda: states() == wanted)
    return running(path)


def threads(path: Path, name: str) -> int:
    return sum(each["threads"][name] for each in ask(path, "status")["workers"])


@both
def test_commands_to_the_supervisor(start: Start, path: Path, extra: tuple[str, ...]) -> None:
    server = start("app:app", "--control", f"unix:{path}", *extra)
    with Load(server.port, 4) as load:
        before = pids(path)
        assert len(before) == 2
        assert "becomes 3" in ask(path, "workers", "3")["message"]
        until(lambda: len(pids(path)) == 3)
        ask(path, "recycle", str(before[0]))
        until(lambda: before[0] not in pids(path) and len(pids(path)) == 3)
        assert server.said("a client of the control socket asks for it") == 1
        ask(path, "workers", "1")
        until(lambda: len(pids(path)) == 1)
        (last,) = pids(path)
        ask(path, "reload")
        until(lambda: len(pids(path)) == 1 and last not in pids(path))
        server.await_line("The new application is served")
        load.more()
    assert not load.failures
    with pytest.raises(ControlError, match="recycle: 1 is not a worker of this server"):
        ask(path, "recycle", "1")
    with pytest.raises(ControlError, match=r"stack: no request '1\.x' is under way|not a worker"):
        ask(path, "stack", "1.x")
    with pytest.raises(ControlError, match="no request 'nonsense' is under way"):
        ask(path, "stack", "nonsense")
    assert ask(path, "config")["settings"]["workers"] == 2
    server.await_line("ended with code 0", 4)
    debug = server.said(" DEBUG ")
    ask(path, "log-level", "warning")
    ask(path, "recycle", str(pids(path)[0]))
    until(lambda: len(pids(path)) == 1)
    assert server.said(" DEBUG ") == debug
    ask(path, "drain")
    assert server.end(0) == 0
    assert not path.exists()


def test_a_worker_that_is_stopped_holds_up_nobody(start: Start, path: Path) -> None:
    server = start("app:app", "--control", f"unix:{path}")
    victim, other = server.ready_workers()
    os.kill(victim, signal.SIGSTOP)
    try:
        for _ in range(3):
            rows = {each["pid"]: each for each in ask(path, "status")["workers"]}
            assert rows[victim]["note"].startswith("it does not answer")
            assert rows[other]["note"] == ""
        assert ask(path, "stack", str(victim))["silent"] == [victim]
    finally:
        os.kill(victim, signal.SIGCONT)
    until(lambda: all(not each["note"] for each in ask(path, "status")["workers"]))
    assert victim in pids(path), "its late answers are no reason to kill it"


# What the application has registered with `atexit` ends when "stay" has no writer any more.
ENDS_LATE = """
import atexit, pathlib

@atexit.register
def stay():
    if pathlib.Path("stay").exists():
        print("stays", flush=True)
        pathlib.Path("stay").read_bytes()

def app(environ, start_response):
    start_response("200 OK", [])
    return [b"hello"]
"""


def test_a_worker_that_is_about_to_exit_is_not_asked(tmp_path: Path, path: Path) -> None:
    os.mkfifo(tmp_path / "stay")
    with starting(tmp_path, ENDS_LATE) as start, (tmp_path / "stay").open("r+b", 0):
        server = start("app:app", "--control", f"unix:{path}")
        before = pids(path)
        ask(path, "recycle", str(before[0]))
        server.await_line("stays")
        rows = {each["pid"]: each for each in ask(path, "status")["workers"]}
        assert rows[before[0]]["note"].startswith("it is about to exit")
        with pytest.raises(ControlError, match="no request 'nonsense' is under way"):
            ask(path, "stack", "nonsense")
        with pytest.raises(ControlError, match=f"stack: {before[0]} is not a worker"):
            ask(path, "stack", str(before[0]))
        assert ask(path, "stack")["silent"] == []
        (tmp_path / "stay").unlink()


def test_the_application_may_fork_and_the_file_stays(start: Start, path: Path) -> None:
    """A worker has no copy of the control socket: its end does not remove the file."""
    server = start("app:app", "--control", f"unix:{path}")
    before = pids(path)
    os.kill(before[0], signal.SIGKILL)
    until(lambda: before[0] not in pids(path) and len(pids(path)) == 2)
    assert path.exists()
    assert server.get().startswith("old ")


# ---- What a worker may answer --------------------------------------------------------------


class Report:
    """Stands for a `ProcessReport`."""

    def __init__(self, rows: int = 2) -> None:
        self.rows = rows

    def status(self) -> dict[str, Any]:
        threads = {"slots": 8, "busy": 1, "lent": 0, "total": 8}
        return {
            "state": "serving",
            "age": 1.5,
            "memory": 1,
            "served": 2,
            "threads": threads,
            "loops": 0,
            "connections": {"idle": 3},
            "waiting": 0,
            "latencies": [0] * (len(BOUNDS) + 1),
        }

    def requests(self) -> dict[str, Any]:
        row = {
            "id": "t1.2",
            "state": "running",
            "method": "GET",
            "path": "/é\x1b[2J",
            "client": "::1",
            "request_id": "",
            "age": 0.5,
            "sent": 0,
            "thread": "x",
            "lent": False,
        }
        return {"requests": [row] * self.rows, "more": 0}

    def stacks(self, wanted: str) -> dict[str, Any]:
        row = {"thread": "x", "id": "", "request": "", "stack": "é" * 8000}
        return {"stacks": [row] * self.rows, "more": 0}


def answered(report: Any, what: str) -> dict[str, Any] | None:
    """What the supervisor makes of an honest answer."""
    question, reports = Question(what, 0.0), Reports()
    for message in answer(report, {"ask": 1, "what": what, "wanted": ""}):
        assert reports.check(message) == message
        assert question.take(message)
    return question.result


@pytest.mark.parametrize("what", list(ANSWERS))
def test_an_honest_answer_arrives(what: str) -> None:
    result = answered(Report(), what)
    assert result is not None
    assert "\x1b" not in str(result)


def test_a_long_answer_is_shortened() -> None:
    result = answered(Report(200), "stack")
    assert result is not None
    assert len(result["stacks"]) + result["more"] == 200
    assert 0 < len(result["stacks"]) < 200


def test_more_parts_than_any_answer_has() -> None:
    question = Question("status", 0.0)
    part = {"answer": 1, "part": " " * LONGEST_PART, "last": False}
    taken = [question.take(part) for _ in range(MOST_PARTS)]
    assert taken == [True] * (MOST_PARTS - 1) + [False]


def test_no_other_answer_is_believed() -> None:
    """One field after the other gets a value that it cannot have."""
    wrong: list[Any] = [None, -1, 2**70, 1e300, float("nan"), "x" * 9000, [[1]], {"x y": 1}]
    for what, check in ANSWERS.items():
        honest = answered(Report(), what)
        assert honest is not None
        assert check(honest)
        for at in places(honest):
            for value in wrong:
                changed = json.loads(json.dumps(honest))
                where = changed
                for step in at[:-1]:
                    where = where[step]
                where[at[-1]] = value
                assert not check(changed), (what, at, value)
            changed = json.loads(json.dumps(honest))
            where = changed
            for step in at[:-1]:
                where = where[step]
            if isinstance(where, dict) and at[:1] != ("connections",):
                del where[at[-1]]
                assert not check(changed), (what, at)


def places(value: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value in `value`."""
    inner = value.items() if isinstance(value, dict) else enumerate(value)
    for name, each in inner:
        yield (*before, name)
        if isinstance(each, (dict, list)):
            yield from places(each, (*before, name))


@pytest.mark.parametrize("text", ["", "x", "[" * 4000, "{}", "[]", "1e999", "null", '{"state":1}'])
def test_what_is_no_answer(text: str) -> None:
    for what in ANSWERS:
        question = Question(what, 0.0)
        assert not question.take({"answer": 1, "part": text, "last": True})
        assert question.result is None


LIAR = """
import json, os, socket, threading, time
from threadwell import Response
from threadwell.worker.control import report

def app(request):
    return Response(200, [], f"old {os.getpid()}".encode())

if os.path.exists("lie"):
    def status(self):
        return {"state": "serving", "pid": 1, "age": -1}
    report.ProcessReport.status = status
"""


def test_a_worker_that_lies_is_killed(tmp_path: Path, path: Path) -> None:
    with contextlib.ExitStack() as stack:
        (tmp_path / "lie").touch()
        server = stack.enter_context(starting(tmp_path, LIAR))(
            "app:app", "--control", f"unix:{path}"
        )
        (tmp_path / "lie").unlink()
        liars = server.ready_workers()
        status = ask(path, "status")
        assert all(each["served"] == 0 for each in status["workers"])
        server.await_line("a message that it must not send", 2)
        until(lambda: len(pids(path)) == 2 and not set(liars) & set(pids(path)))
        assert all(not each["note"] for each in ask(path, "status")["workers"])
        assert server.get().startswith("old ")


def test_many_clients_ask_at_once(start: Start, path: Path) -> None:
    server = start("app:app", "--control", f"unix:{path}")
    failures: list[str] = []

    def often() -> None:
        for _ in range(20):
            try:
                ask(path, "stack")
                ask(path, "requests")
            except ControlError as error:
                failures.append(str(error))

    askers = [threading.Thread(target=often) for _ in range(6)]
    for each in askers:
        each.start()
    for each in askers:
        each.join()
    assert not failures
    assert sorted(pids(path)) == sorted(server.ready_workers())
