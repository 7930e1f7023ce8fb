"""`threadwell top`: its numbers, its screen with keys, and plain text."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from threadwell import Response, ThreadedServer, top
from threadwell.cli import main
from threadwell.top_screen import Page, Question, TopScreen
from threadwell.top_view import REQUEST_TITLES, WORKER_TITLES, Watcher, as_text

from ..helpers.control import PATHS, await_stuck, requests_to
from ..helpers.supervised import Load, Start
from ..helpers.waiting import until


def on_screen(path: Path, act: Callable[[TopScreen, Pilot[None]], Any]) -> None:
    """Run the screen without a terminal, and `act` on it."""

    async def run() -> None:
        watcher = Watcher(str(path))
        screen = TopScreen(watcher, 0.1)
        async with screen.run_test(size=(140, 40)) as pilot:
            await act(screen, pilot)
        watcher.close()

    asyncio.run(run())


async def shown(condition: Callable[[], object]) -> None:
    """`until`, while the screen goes on."""
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it was not shown in time")


def rows_of(screen: TopScreen, name: str) -> list[list[str]]:
    table = screen.query_one(f"#{name}", DataTable)
    return [[str(cell) for cell in table.get_row_at(row)] for row in range(table.row_count)]


def text_of(screen: TopScreen, name: str) -> str:
    """The text of a part of what is shown; empty while it is not there."""
    found = screen.screen.query(name)
    return str(found.first(Static).render()) if found else ""


# ---- What it shows ------------------------------------------------------------------------


@pytest.mark.parametrize("workers", ["1", "3"])
def test_the_screen_says_who_is_stuck(
    start: Start, tmp_path: Path, path: Path, workers: str
) -> None:
    server = start(
        *("app:app", "--workers", workers, "--threads", "8", "--control", f"unix:{path}")
    )

    async def act(screen: TopScreen, pilot: Pilot[None]) -> None:
        await shown(lambda: len(rows_of(screen, "requests")) == 8)
        rows = rows_of(screen, "requests")
        state, request = (REQUEST_TITLES.index(name) for name in ("STATE", "REQUEST"))
        stuck = {row[request] for row in rows if row[state] == "running"}
        assert stuck == {f"GET {each}" for each in [*PATHS[:5], "/slow"]}
        lent = {row[request] for row in rows if row[state] == "streaming (lent)"}
        assert lent == {"GET /stream0", "GET /stream1"}
        facts = text_of(screen, "#facts")
        assert f"6 of {8 * int(workers)} busy, 2 lent" in facts
        assert "6 serving" in facts
        assert "2 streaming" in facts
        processes = rows_of(screen, "workers")
        assert len(processes) == int(workers)
        busy = [row[WORKER_TITLES.index("BUSY")] for row in processes]
        assert sum(int(each.partition("/")[0]) for each in busy) == 6
        # the stack of the selected request
        table = screen.query_one("#requests", DataTable)
        lock = next(n for n, row in enumerate(rows_of(screen, "requests")) if "/lock" in row[2])
        table.move_cursor(row=lock)
        await pilot.press("s")
        await shown(lambda: isinstance(screen.screen, Page))
        await shown(lambda: "in wait_for_the_lock" in text_of(screen, "#page"))
        await pilot.press("escape")
        await shown(lambda: not isinstance(screen.screen, Page))

    with requests_to(server.port, PATHS):
        await_stuck(path)
        on_screen(path, act)
        (tmp_path / "go").touch()
    assert server.end() == 0


def test_keys_recycle_and_reload(start: Start, path: Path) -> None:
    server = start("app:app", "--workers", "1", "--preload", "--control", f"unix:{path}")
    (first,) = server.ready_workers()

    async def act(screen: TopScreen, pilot: Pilot[None]) -> None:
        await shown(lambda: rows_of(screen, "workers"))
        await pilot.press("o", "r")
        await shown(lambda: isinstance(screen.screen, Question))
        await pilot.press("n")  # no: nothing happens
        await shown(lambda: not isinstance(screen.screen, Question))
        await pilot.press("r")
        await shown(lambda: isinstance(screen.screen, Question))
        await pilot.press("y")
        await shown(lambda: f"process {first} is replaced" in text_of(screen, "#page"))
        await pilot.press("escape")
        await shown(lambda: str(first) not in [row[0] for row in rows_of(screen, "workers")])
        await pilot.press("l")
        await shown(lambda: isinstance(screen.screen, Question))
        await pilot.press("y")
        await shown(lambda: "new workers load the application" in text_of(screen, "#page"))
        await pilot.press("escape", "q")

    on_screen(path, act)
    server.await_line("The new application is served")
    assert len(server.ready_workers()) == 3
    assert server.end() == 0


def test_a_server_that_ends_and_comes_back(path: Path) -> None:
    def app(request: Any) -> Response:
        return Response(200, [], b"ok")

    options = {"bind": "127.0.0.1:0", "control": f"unix:{path}"}

    async def act(screen: TopScreen, pilot: Pilot[None]) -> None:
        error = screen.query_one("#error", Static)
        await shown(lambda: rows_of(screen, "workers"))
        server.stop()
        await shown(lambda: error.display)
        await shown(lambda: "there is no such socket" in str(error.render()))
        with ThreadedServer(app, **options):
            await shown(lambda: not error.display)

    with ThreadedServer(app, **options) as server:
        on_screen(path, act)


def test_rates_and_latencies_of_what_was_served_since(path: Path) -> None:
    def app(request: Any) -> Response:
        threading.Event().wait(0.01)
        return Response(200, [], f"old {1}".encode())

    now = [100.0]
    with ThreadedServer(app, bind="127.0.0.1:0", control=f"unix:{path}") as server:
        watcher = Watcher(str(path), lambda: now[0])
        first = dict(watcher.look().facts)
        assert (first["rate"], first["latency"]) == ("0.0 requests/s", "-")
        served = 0
        with Load(server.port, 2) as load:
            load.more(20)
        until(lambda: server.served() >= load.answers)
        served = server.served()
        now[0] += 10
        assert dict(watcher.look().facts)["rate"] == f"{served / 10:.1f} requests/s"
        until(lambda: dict(watcher.look().facts)["latency"] != "-")
        latency = dict(watcher.look().facts)["latency"]
        assert float(latency.split()[1].removesuffix("ms")) >= 10
        watcher.close()


# ---- Plain text ---------------------------------------------------------------------------


def test_without_a_terminal_it_prints_one_view(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def app(request: Any) -> Response:
        return Response(200, [], b"ok")

    with ThreadedServer(app, bind="127.0.0.1:0", control=f"unix:{path}"):
        assert main(["top", f"unix:{path}", "--interval", "0.1"]) == 0
        text = capsys.readouterr().out
        assert "0 of 8 busy, 0 lent" in text or "busy, 0 lent" in text
        assert "PID" in text
        assert "\x1b" not in text
    assert main(["top", str(path)]) == 2
    said = capsys.readouterr().err
    assert "there is no such socket" in said
    assert len(said.splitlines()) == 1
    assert main(["top", str(path), "--interval", "0"]) == 2
    assert "threadwell top --help" in capsys.readouterr().err


def test_without_textual_it_prints_a_view_again_and_again(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def app(request: Any) -> Response:
        return Response(200, [], b"ok")

    printed: list[str] = []

    def say(text: str, *stream: Any) -> None:
        printed.append(text)
        if len(printed) == 3:
            raise KeyboardInterrupt

    monkeypatch.setitem(sys.modules, "threadwell.top_screen", None)
    monkeypatch.setattr(top, "say", say)
    for stream in (sys.stdin, sys.stdout):
        monkeypatch.setattr(stream, "isatty", lambda: True, raising=False)
    with ThreadedServer(app, bind="127.0.0.1:0", control=f"unix:{path}"):
        assert top.run(str(path), 0.05, once=False) == 130
    assert all("pip install 'threadwell[top]'" in text for text in printed)
    assert all("one process" in text for text in printed)


def test_a_view_without_a_server(tmp_path: Path) -> None:
    view = Watcher(str(tmp_path / "missing")).look()
    assert "there is no such socket" in as_text(view)
