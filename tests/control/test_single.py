"""A single process: what `status`, `requests` and `stack` say of threads and loops."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from threadwell import Response, ServerConfig, ThreadedServer
from threadwell.cli import main
from threadwell.control_client import ControlError
from threadwell.control_text import percentiles
from threadwell.worker.control.settings import shown_settings

from ..helpers.asgi_tools import no_lifespan
from ..helpers.control import PATHS, ask, await_stuck, requests_to, running
from ..helpers.supervised import Start
from ..helpers.waiting import until


def test_five_in_a_lock_two_streams_and_one_that_is_served(
    start: Start, tmp_path: Path, path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server = start("app:app", "--workers", "1", "--threads", "8", "--control", f"unix:{path}")
    with requests_to(server.port, PATHS):
        rows = await_stuck(path)
        assert {row["pid"] for row in rows.values()} == {server.process.pid}
        assert {each for each in PATHS if rows[each]["lent"]} == {"/stream0", "/stream1"}
        assert all(rows[each]["sent"] > 0 for each in ("/stream0", "/stream1"))
        assert len({row["id"] for row in rows.values()}) == 8
        status = ask(path, "status")
        (one,) = status["workers"]
        threads = one["threads"]
        assert (threads["busy"], threads["slots"], threads["lent"]) == (6, 8, 2)
        assert (one["connections"]["serving"], one["connections"]["streaming"]) == (6, 2)
        for each in PATHS[:5]:
            (stack,) = ask(path, "stack", rows[each]["id"])["stacks"]
            assert "in wait_for_the_lock" in stack["stack"]
            assert stack["thread"] == rows[each]["thread"]
        (slow,) = ask(path, "stack", rows["/slow"]["id"])["stacks"]
        assert "in serve_slowly" in slow["stack"]
        # the command says the same
        assert main(["ctl", str(path), "requests"]) == 0
        text = capsys.readouterr().out
        assert len(re.findall(r"running +GET /lock", text)) == 5
        assert len(re.findall(r"streaming \(lent\) +GET /stream", text)) == 2
        assert main(["ctl", f"unix:{path}", "status"]) == 0
        assert "6 of 8 threads busy, 2 lent" in capsys.readouterr().out
        assert main(["ctl", str(path), "stack"]) == 0
        assert capsys.readouterr().out.count("in wait_for_the_lock") == 5
        assert main(["ctl", str(path), "requests", "--json"]) == 0
        assert len(json.loads(capsys.readouterr().out)["requests"]) == 8
        (tmp_path / "go").touch()
    assert server.end() == 0


def test_ages_grow_and_the_ended_go(path: Path) -> None:
    gate, entered = threading.Event(), threading.Event()

    def app(request: Any) -> Response:
        entered.set()
        assert gate.wait(20)
        return Response(200, [], b"ok")

    with ThreadedServer(app, bind="127.0.0.1:0", control=f"unix:{path}") as server:
        assert running(path) == {}
        with requests_to(server.port, ["/one"]) as socks:
            assert entered.wait(20)
            before = running(path)["/one"]["age"]
            until(lambda: running(path)["/one"]["age"] > before + 0.2)
            gate.set()
            assert socks["/one"].recv(100)
        until(lambda: not running(path))
        assert ask(path, "status")["workers"][0]["served"] == 1
        with pytest.raises(ControlError, match="stack: 1 is not a process of this server"):
            ask(path, "stack", "1.t0.1")


def test_the_id_of_a_request_finds_its_stack(path: Path) -> None:
    gate = threading.Event()

    def app(request: Any) -> Response:
        assert gate.wait(20)
        return Response(200, [], b"ok")

    options: dict[str, Any] = {"control": f"unix:{path}", "request_id_header": "X-Request-ID"}
    with (
        ThreadedServer(app, bind="127.0.0.1:0", **options) as server,
        requests_to(server.port, ["/one", "/two"]),
    ):
        until(lambda: len(running(path)) == 2)
        row = running(path)["/two"]
        (stack,) = ask(path, "stack", row["request_id"])["stacks"]
        assert (stack["id"], stack["request"]) == (row["id"], "GET /two")
        gate.set()


def test_latencies_are_sampled(path: Path) -> None:
    def app(request: Any) -> Response:
        time.sleep(0.02)
        return Response(200, [], b"ok")

    with ThreadedServer(app, bind="127.0.0.1:0", control=f"unix:{path}") as server:

        def status() -> Any:
            with requests_to(server.port, ["/"]) as socks:
                assert socks["/"].recv(1000)
            return ask(path, "status")

        until(lambda: sum(status()["workers"][0]["latencies"]) >= 3)
        found = status()
        times = percentiles(found["latency_bounds"], found["workers"][0]["latencies"])
        assert all(each >= 0.02 for each in times)


def test_percentiles() -> None:
    assert percentiles([1, 2, 3], [0, 0, 0, 0]) == [0, 0, 0]
    assert percentiles([1, 2, 3], [50, 45, 5, 0]) == [1, 2, 3]
    assert percentiles([1, 2, 3], [0, 0, 0, 9]) == [3, 3, 3]


# ---- Loops --------------------------------------------------------------------------------


def test_a_loop_and_what_waits_on_it(path: Path) -> None:
    go = threading.Event()

    async def wait_for_go() -> None:
        while not go.is_set():
            await asyncio.sleep(0.01)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await no_lifespan(scope)
        head = {"type": "http.response.start", "status": 200, "headers": []}
        if scope["path"] == "/block":
            go.wait(20)  # and so blocks the loop
        elif scope["path"] == "/stream":
            await send(head)
            await send({"type": "http.response.body", "body": b"x" * 50, "more_body": True})
        await wait_for_go()
        if scope["path"] != "/stream":
            await send(head)
        await send({"type": "http.response.body", "body": b"ok"})

    options: dict[str, Any] = {"control": f"unix:{path}", "loops": 1}
    with (
        ThreadedServer(app, bind="127.0.0.1:0", **options) as server,
        requests_to(server.port, ["/wait", "/stream"]),
    ):
        until(lambda: running(path).get("/stream", {}).get("state") == "streaming")
        rows = running(path)
        assert (rows["/wait"]["state"], rows["/stream"]["sent"]) == ("running", 50)
        (stack,) = ask(path, "stack", rows["/wait"]["id"])["stacks"]
        assert "in wait_for_go" in stack["stack"]
        assert "in sleep" in stack["stack"]
        with requests_to(server.port, ["/block"]):
            until(lambda: "/block" in running(path))
            row = running(path)["/block"]
            (stack,) = ask(path, "stack", row["id"])["stacks"]
            assert "go.wait(20)" in stack["stack"]
            assert ask(path, "status")["workers"][0]["loops"] == 1
            go.set()
    assert not path.exists()


def test_a_hybrid(path: Path) -> None:
    go = threading.Event()

    def sync_app(request: Any) -> Response | None:
        if request.path == "/loop":
            return None
        assert go.wait(20)
        return Response(200, [], b"ok")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await no_lifespan(scope)
        while not go.is_set():
            await asyncio.sleep(0.01)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    control = f"unix:{path}"
    with (
        ThreadedServer(sync_app, asgi_app=app, bind="127.0.0.1:0", control=control) as server,
        requests_to(server.port, ["/thread", "/loop"]),
    ):
        until(lambda: len(running(path)) == 2)
        rows = running(path)
        assert rows["/loop"]["thread"].startswith("threadwell-loop")
        assert re.fullmatch(r"threadwell-\d+", rows["/thread"]["thread"])
        status = ask(path, "status")["workers"][0]
        assert (status["loops"], status["threads"]["busy"]) == (1, 1)
        go.set()


# ---- Commands -----------------------------------------------------------------------------


def test_what_needs_a_supervisor_says_so(path: Path) -> None:
    with ThreadedServer(lambda request: None, interface="sync", control=f"unix:{path}", bind="0"):
        for verb, argument in (("workers", "2"), ("recycle", "1")):
            with pytest.raises(ControlError, match=f"{verb}: this is a single process; .*workers"):
                ask(path, verb, argument)
        with pytest.raises(ControlError, match="reload: a single process cannot load"):
            ask(path, "reload")


def test_the_settings_without_secrets(path: Path) -> None:
    with ThreadedServer(lambda request: None, interface="sync", bind="0", control=f"unix:{path}"):
        settings = ask(path, "config")["settings"]
    assert settings["control"] == f"unix:{path}"
    assert settings["bind"] == ["0"]
    assert settings["keyfile_password"] == ""
    config = ServerConfig.from_options(keyfile_password="top secret")
    assert shown_settings(config)["keyfile_password"] == "(hidden)"
    assert "top secret" not in str(shown_settings(config))


def test_log_level_and_reopen(path: Path, tmp_path: Path) -> None:
    logger = logging.getLogger("threadwell")
    before = logger.level
    lines = tmp_path / "access.log"
    options: dict[str, Any] = {"control": f"unix:{path}", "access_log": str(lines)}
    try:
        with ThreadedServer(lambda request: Response(200), interface="sync", bind="0", **options):
            ask(path, "log-level", "error")
            assert logger.level == logging.ERROR
            until(lines.exists)
            lines.unlink()
            ask(path, "reopen")
            until(lines.exists)
    finally:
        logger.setLevel(before)


def test_drain_finishes_what_runs(start: Start, tmp_path: Path, path: Path) -> None:
    server = start("app:app", "--workers", "1", "--control", f"unix:{path}")
    with requests_to(server.port, ["/slow"]) as socks:
        until(lambda: "/slow" in running(path))
        ask(path, "drain")
        until(lambda: ask(path, "status")["state"] == "draining")
        assert "/slow" in running(path)
        (tmp_path / "go").touch()
        assert str(server.process.pid).encode() in socks["/slow"].recv(1000)
    assert server.end(0) == 0
    assert not path.exists()
    assert os.listdir(tmp_path)


# ---- The command line ---------------------------------------------------------------------


def test_mistakes_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = tmp_path / "missing"
    for words, text in (
        ([str(missing), "status"], f"{missing}: there is no such socket; start the server with"),
        ([str(missing), "nonsense"], "'nonsense': there is no such verb; the verbs are status"),
        ([str(missing), "workers", "many"], "workers: 'many' is not a number"),
        ([str(missing)], "Missing argument 'VERB'; see threadwell ctl --help"),
    ):
        assert main(["ctl", *words]) == 2
        said = capsys.readouterr().err
        assert text in said
        assert len(said.splitlines()) == 1
    assert main(["ctl", "--help"]) == 0
    assert "log-level LEVEL" in capsys.readouterr().out
