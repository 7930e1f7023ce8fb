"""Signals that the supervisor and its workers get at the same time."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..helpers.supervised import APP, Start, starting
from ..helpers.waiting import until


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with starting(tmp_path, APP.format(version="1")) as start:
        yield start


def test_sigterm_to_the_whole_group_replaces_no_worker(start: Start) -> None:
    """As by `kill -- -GROUP`: the workers ask for replacements, and the supervisor ends."""
    server = start(start_new_session=True)
    workers = server.ready_workers()
    server.send(signal.SIGSTOP)  # until the workers have asked
    os.killpg(server.process.pid, signal.SIGTERM)
    until(lambda: all(has_handled_signals(pid) for pid in workers))
    server.send(signal.SIGCONT)
    assert server.end(0) == 0
    assert server.said("stopping") == 1
    assert server.said("Replacing") == 0


def has_handled_signals(pid: int) -> bool:
    """Whether a process waits, and no signal is pending, by Linux."""
    status = Path(f"/proc/{pid}/status").read_text()
    pending = re.findall(r"(?:SigPnd|ShdPnd):\s*([0-9a-f]+)", status)
    return "State:\tS" in status and not any(int(mask, 16) for mask in pending)
