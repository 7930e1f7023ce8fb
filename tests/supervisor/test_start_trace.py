"""The files in which processes say where they hang before they are ready."""

from __future__ import annotations

import faulthandler
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import pytest

from threadwell.worker.supervisor.start_trace import StartTrace


@pytest.fixture
def trace() -> Iterator[StartTrace]:
    made = StartTrace()
    yield made
    made.close()
    made.close()


def test_what_faulthandler_writes_is_read(trace: StartTrace) -> None:
    assert trace.read() == ""
    copy = trace.copy()
    assert not os.get_inheritable(copy)
    faulthandler.dump_traceback(copy)
    os.close(copy)
    text = trace.read()
    assert "in test_what_faulthandler_writes_is_read\n" in text
    assert trace.read() == text


def test_the_process_may_write_anything(trace: StartTrace) -> None:
    copy = trace.copy()
    os.write(copy, b"\x1b]0;title\x07 \xff\n\ttext\n" + b"x" * (1 << 20))
    os.lseek(copy, 1 << 40, os.SEEK_SET)
    os.close(copy)
    text = trace.read()
    assert text.startswith("\\x1b]0;title\\x07 \N{REPLACEMENT CHARACTER}\n\ttext\nxxx")
    assert len(text) < 1 << 19


def test_without_memory_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """A policy of the system may be against them: the start goes on."""

    def refuse(*_arguments: object, **_options: object) -> int:
        raise PermissionError

    monkeypatch.setattr(os, "memfd_create", refuse, raising=False)
    for text in ("a file of a folder", ""):
        trace = StartTrace()
        copy = trace.copy()
        os.write(copy, b"a file of a folder")
        os.close(copy)
        assert trace.read() == text
        trace.close()
        monkeypatch.setattr(tempfile, "mkstemp", refuse)


FORKS = """
import os
from threadwell.worker.supervisor.start_trace import StartTrace

trace = StartTrace()
copy = trace.copy()
if os.fork() == 0:
    os.write(copy, b"mine")
    try:
        trace.read()
    except OSError:
        os._exit(0)
    os._exit(1)
assert os.wait()[1] == 0
assert trace.read() == "mine"
"""


def test_a_forked_process_has_only_what_it_was_given() -> None:
    subprocess.run([sys.executable, "-W", "error", "-c", FORKS], check=True, timeout=30)
