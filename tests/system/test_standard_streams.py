"""Standard streams that are closed, and pipes that nobody reads: a server starts and ends."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator

import pytest

from threadwell.worker.system import standard_streams

from ..helpers.waiting import until
from .serving import COMMANDS, Serving


@pytest.fixture
def full() -> Iterator[int]:
    """The writing end of a pipe that is full, and that nobody reads."""
    reading, writing = os.pipe()
    fill(writing)
    yield writing
    os.close(writing)
    os.close(reading)


def fill(writing: int) -> None:
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"x" * 4096)
    os.set_blocking(writing, True)


def closing(streams: str) -> list[str]:
    """Runs Python without those streams, which a shell understands."""
    return ["sh", "-c", f'exec "$0" "$@" {streams}', sys.executable]


# ---- Closed -------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("name", COMMANDS)
def test_closed_streams(start: Callable[..., Serving], name: str, closed: str) -> None:
    server = start(name, before=closing(closed))
    assert server.get() == b"hello"
    assert server.end() == 0


def test_no_socket_becomes_a_standard_stream(start: Callable[..., Serving]) -> None:
    server = start("threads", before=closing("<&- >&- 2>&-"))
    assert server.get() == b"hello"
    for number in range(3):
        assert os.readlink(f"/proc/{server.process.pid}/fd/{number}") == os.devnull


# ---- Full ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", COMMANDS)
def test_a_pipe_that_fills_up_does_not_delay_the_end(
    start: Callable[..., Serving], name: str
) -> None:
    reading, writing = os.pipe()
    server = start(name, stdout=writing, stderr=writing)
    assert server.get() == b"hello"
    fill(writing)
    assert server.end() == 0
    os.close(reading)
    os.close(writing)


# Not the commands whose frameworks write before they serve.
@pytest.mark.parametrize("name", ["threads", "workers", "preload", "reload", "serve"])
def test_a_server_starts_with_full_pipes(
    start: Callable[..., Serving], full: int, name: str
) -> None:
    server = start(name, stdout=full, stderr=full)
    assert server.get() == b"hello"
    if name != "reload":
        server.process.send_signal(signal.SIGHUP)  # which logs a message
    assert server.get() == b"hello"
    assert server.end() == 0


@pytest.mark.parametrize("name", ["threads", "workers"])
def test_a_full_pipe_and_a_request_in_flight(
    start: Callable[..., Serving], full: int, name: str
) -> None:
    server = start(name, "--graceful-timeout", "0.2", stdout=full, stderr=full)
    with server.begin("/wait") as sock:
        assert sock.recv(1)
        assert server.end() == 0


@pytest.mark.parametrize("name", ["threads", "workers"])
def test_a_full_pipe_and_the_second_signal(
    start: Callable[..., Serving], full: int, name: str
) -> None:
    server = start(name, "--graceful-timeout", "600", stdout=full, stderr=full)
    with server.begin("/wait") as sock:
        assert sock.recv(1)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: not server.listens())
        assert server.end() == 0


@pytest.mark.parametrize("name", ["threads", "workers"])
def test_an_application_that_waits_for_the_reader(
    start: Callable[..., Serving], full: int, name: str
) -> None:
    """Its thread holds the lock of `sys.stdout`, at which the interpreter would wait."""
    server = start(name, "--graceful-timeout", "0.2", stdout=full, stderr=full)
    with server.begin("/print"):
        assert server.get() == b"hello"
        assert server.end() == 0


@pytest.mark.parametrize("name", ["threads", "workers"])
def test_a_full_pipe_as_access_log(start: Callable[..., Serving], full: int, name: str) -> None:
    server = start(name, "--access-log", "-", stdout=full)
    assert server.get() == b"hello"
    server.process.send_signal(signal.SIGUSR1)  # which opens the log anew
    assert server.get() == b"hello"
    assert server.end() == 0


# ---- Writing ------------------------------------------------------------------------------


def test_what_is_dropped_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    import logging

    monkeypatch.setattr(standard_streams, "_PATIENCE", 0.01)
    reading, writing = os.pipe()
    with open(reading, "rb") as reader, open(writing, "w", encoding="utf-8") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        handler = standard_streams.StandardErrorHandler()
        fill(writing)
        for number in range(3):
            handler.emit(logging.makeLogRecord({"msg": f"dropped {number}"}))
        assert set(os.read(reading, 1 << 20)) == set(b"x")
        handler.emit(logging.makeLogRecord({"msg": "w\xfcrde"}))
        handler.emit(logging.makeLogRecord({"msg": "next"}))
        stream.close()
        assert reader.read().decode().splitlines() == [
            "(3 messages before this one were dropped)",
            "w\xfcrde",
            "next",
        ]


def test_a_text_longer_than_a_pipe_takes_at_once() -> None:
    reading, writing = os.pipe()
    with open(reading, "rb") as reader, open(writing, "w", encoding="utf-8") as stream:
        text = "line\n" * 2000
        assert standard_streams.write_text(stream, text)
        stream.close()
        assert reader.read().decode() == text
