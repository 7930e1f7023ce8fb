"""Where the access log goes: nothing is torn, and nothing is lost in silence."""

from __future__ import annotations

import contextlib
import errno
import json
import logging
import os
import re
import select
import socket
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from threadwell import ConfigError, Request, ThreadedServer
from threadwell.worker.config.groups import Limits
from threadwell.worker.http1.parser import RequestParser
from threadwell.worker.lifecycle import ResponseCompleted
from threadwell.worker.logs import access_log
from threadwell.worker.logs import target as log_target
from threadwell.worker.logs.access_log import AccessLog
from threadwell.worker.logs.format import compile_format, fit_line
from threadwell.worker.logs.target import FileTarget, Target, open_target, parse_syslog

from ..helpers.recorder import completed
from ..helpers.supervised import Supervised
from ..helpers.waiting import until
from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

APP = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]
"""


def hello(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def event(target: str = "/", fields: str = "") -> ResponseCompleted:
    head = f"GET {target} HTTP/1.1\r\nHost: x{fields}".encode("latin-1")
    request = Request(RequestParser(Limits()).parse(head))
    return completed(request=request, size=5, seconds=0.25)


class Gate(Target):
    """A target that writes when the test lets it."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.writing = threading.Event()
        self.open = threading.Event()

    def write(self, lines: list[str]) -> int:
        self.writing.set()
        assert self.open.wait(20)
        self.lines += lines
        return 0

    def reopen(self) -> None: ...

    def close(self) -> None: ...


# ---- The thread and its queue ---------------------------------------------------------------


def test_nobody_waits_for_a_log_that_cannot_be_written() -> None:
    target = Gate()
    log = AccessLog(target, "%U")
    log.record(event("/first"))
    assert target.writing.wait(10)
    for number in range(100):  # while the thread is stuck
        log.record(event(f"/{number}"))
    target.open.set()
    log.close()
    assert target.lines == ["/first", *(f"/{number}" for number in range(100))]


def test_lines_that_come_as_fast_as_they_are_taken_are_written_all_the_same() -> None:
    class Busy(deque[str]):
        left = 1000

        def popleft(self) -> str:
            if self.left:
                self.left -= 1
                self.append("another")
            return super().popleft()

    target = Gate()
    target.open.set()
    log = AccessLog(target, compile_format("%U"))
    log._lines = Busy(["first"])
    log.flush()
    assert target.lines == ["first"]
    log.close()
    assert target.lines[1] == "another"


def test_what_finds_no_room_is_counted_and_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(access_log, "_MOST_WAITING", 10)
    target = Gate()
    log = AccessLog(target, "%U")
    log.record(event())
    assert target.writing.wait(10)
    for _ in range(25):
        log.record(event())
    target.open.set()
    log.close()
    assert (len(target.lines), log.lost) == (11, 15)
    assert "15 lines are lost: its lines come faster" in caplog.text


def test_many_lines_are_one_write(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    sizes: list[int] = []
    write = os.write

    def counted(fd: int, data: Any) -> int:
        sizes.append(len(data))
        return write(fd, data)

    monkeypatch.setattr(log_target.os, "write", counted)
    path = tmp_path / "log"
    log = AccessLog(open_target(str(path)), "%U")
    for number in range(1000):
        log.record(event(f"/{number}"))
    log.close()
    assert path.read_text().splitlines() == [f"/{number}" for number in range(1000)]
    assert len(sizes) < 100


_UNSTOPPED = """
import http.client, sys
from threadwell import ThreadedServer
{app}
server = ThreadedServer(app, bind="127.0.0.1:0", access_log=sys.argv[1], log_format="%U")
server.start()
client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
for path in ("/one", "/two"):  # when the second is answered, the first has been recorded
    client.request("GET", path)
    client.getresponse().read()
client.close()
sys.exit(3)
"""


def test_the_last_lines_are_there_without_a_stop(tmp_path: Path) -> None:
    path = tmp_path / "log"
    command = [sys.executable, "-c", _UNSTOPPED.format(app=APP), str(path)]
    assert subprocess.run(command, timeout=30, check=False).returncode == 3
    assert path.read_text() in ("/one\n", "/one\n/two\n")


_FORKED = """
import os, sys
from threadwell.worker.logs.access_log import AccessLog
from threadwell.worker.logs import target as log_target
from threadwell.worker.logs.target import open_target
from threadwell.worker.lifecycle import ResponseCompleted
log = AccessLog(open_target(sys.argv[1]), "%X")
log.record(ResponseCompleted(None, 0.0).end(("", 0), ("", 0), True))
if os.fork() == 0:
    sys.exit(0)
os.wait()
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_copy_of_the_process_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "log"
    subprocess.run([sys.executable, "-c", _FORKED, str(path)], timeout=30, check=True)
    assert path.read_text() == "+\n"


def test_a_log_that_is_closed_is_not_opened_again(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Its descriptor may be somebody else's by now."""
    path = tmp_path / "log"
    log = AccessLog(open_target(str(path)), "%U")
    log.close()
    path.unlink()
    with path.with_name("other").open("wb") as other:
        log.reopen()
        assert os.fstat(other.fileno())
    assert not path.exists()
    assert caplog.text == ""


# ---- Files and pipes ------------------------------------------------------------------------


def test_a_line_that_was_torn_ends_before_the_next(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The disk is full in the middle of a write."""
    path = tmp_path / "log"
    target = open_target(str(path))
    write = os.write
    full = iter([False, True])

    def reluctant(fd: int, data: Any) -> int:
        if next(full, False):
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, data[:4] if len(data) > 12 else data)

    monkeypatch.setattr(log_target.os, "write", reluctant)
    assert target.write(["a line that does not fit"]) == 1
    assert target.last_error is not None
    assert target.write(["next"]) == 0
    target.close()
    assert path.read_text() == "a li\nnext\n"


def test_a_disk_that_is_full_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    log = AccessLog(open_target("/dev/full"), "%U")
    for _ in range(3):
        log.record(event())
        log.flush()
    log.close()
    assert log.lost == 3
    assert caplog.text.count("No space left on device") <= 2
    assert "1 lines are lost" in caplog.text
    assert "2 lines are lost" in caplog.text


@pytest.mark.parametrize("name", ["json", "combined", "common", '%m "%r" %{Referer}i', "x" * 9000])
def test_a_long_line_is_cut_to_what_a_pipe_takes_as_one(name: str) -> None:
    line_of = compile_format(name if name[0] != "x" else name + "%m")
    long = event("/" + "a" * 8000, "\r\nReferer: " + "\xe9" * 8000)
    line = fit_line(line_of, long, select.PIPE_BUF - 1)
    assert len(line) < select.PIPE_BUF
    if name == "json":
        found = json.loads(line)
        assert found["target"].startswith("/aaa")
        assert found["target"].endswith("...")
        assert found["status"] == 200


def test_a_line_that_fits_is_not_cut() -> None:
    line_of = compile_format("json")
    assert json.loads(fit_line(line_of, event("/" + "a" * 900), 4095))["target"] == "/" + "a" * 900


def test_a_pipe_gets_whole_lines(serve: Serve, connect: Connect) -> None:
    reading, writing = os.pipe()
    log = AccessLog(FileTarget(writing), "json")
    server = serve(hello, lifecycle_collector=log)
    client = connect(server)
    client.get("/" + "a" * 8000)
    client.get("/short")
    server.stop()
    log.close()
    with os.fdopen(reading) as pipe:
        first, second = map(json.loads, pipe)
    assert len(first["target"]) < 4096
    assert second["target"] == "/short"


def test_a_pipe_that_nobody_reads_does_not_block_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log_target, "_WRITE_TIMEOUT", 0.05)
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    target = FileTarget(writing)
    try:
        lines = ["x" * 1000] * 100
        lost = target.write(lines)
        assert 0 < lost < 100
        written = os.read(reading, 1 << 20).decode()
        assert written == "".join(line + "\n" for line in lines[: 100 - lost])
    finally:
        target.close()
        os.close(reading)


def test_lines_of_four_processes_into_a_pipe_are_not_torn(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APP)
    arguments = ["app:app", "--bind", "127.0.0.1:0", "--workers", "4"]
    with contextlib.closing(
        Supervised(tmp_path, *arguments, "--access-log", "-", "--log-format", "json")
    ) as server:
        request = f"GET /{'p' * 300} HTTP/1.1\r\nHost: x\r\n\r\n".encode()

        def ask() -> None:
            with socket.create_connection(("127.0.0.1", server.port), 20) as sock:
                for _ in range(10):
                    sock.sendall(request * 25)
                    received = b""
                    while received.count(b"hello") < 25:
                        received += sock.recv(65536)

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert server.end() == 0
        lines = [line for line in server.lines if line.startswith("{")]
        assert len(lines) == 8 * 250
        assert {json.loads(line)["target"] for line in lines} == {"/" + "p" * 300}
        # and nothing of one within the server's messages
        assert not [line for line in server.lines if "ppp" in line and not line.startswith("{")]


# ---- Syslog ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("syslog:/run/log", ("unix", "/run/log", 0, 3)),
        ("syslog:/run/log?facility=local7", ("unix", "/run/log", 0, 23)),
        ("syslog:udp://logs.example", ("udp", "logs.example", 514, 3)),
        ("syslog:udp://192.0.2.1:5140?facility=user", ("udp", "192.0.2.1", 5140, 1)),
        ("syslog:tcp://[2001:db8::1]:601", ("tcp", "2001:db8::1", 601, 3)),
        ("/var/log/access.log", None),
        ("-", None),
    ],
)
def test_the_spellings_of_a_syslog(text: str, address: object) -> None:
    assert parse_syslog(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "syslog:host",
        "syslog:http://host",
        "syslog:udp://",
        "syslog:udp://host:99999",
        "syslog:tcp://host:port",
        "syslog:?facility=none",
        "syslog:?colour=red",
        "syslog:?facility",
    ],
)
def test_what_is_no_syslog_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="access_log"):
        parse_syslog(text)


def test_a_syslog_that_is_not_there_is_a_mistake(tmp_path: Path) -> None:
    server = ThreadedServer(hello, bind="127.0.0.1:0", access_log=f"syslog:{tmp_path}/none")
    try:
        with pytest.raises(ConfigError, match=r"access_log: .*No such file"):
            server.start()
    finally:
        server.stop()


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.bind(str(tmp_path / "log"))
        yield sock


def test_the_local_syslog(
    serve: Serve, connect: Connect, receiver: socket.socket, tmp_path: Path
) -> None:
    server = serve(hello, access_log=f"syslog:{tmp_path}/log?facility=local0", log_format="%m %U")
    assert connect(server).get("/path").status == 200
    message = receiver.recv(65536).decode()
    stamp = r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d"
    assert re.fullmatch(rf"<134>{stamp} threadwell\[{os.getpid()}\]: GET /path", message)


def test_a_syslog_that_is_started_anew(receiver: socket.socket, tmp_path: Path) -> None:
    path = tmp_path / "log"
    target = open_target(f"syslog:{path}")
    assert target.write(["one"]) == 0
    receiver.close()
    path.unlink()
    assert target.write(["two", "three"]) == 2
    assert isinstance(target.last_error, FileNotFoundError)
    assert target.write(["four"]) == 1  # it is not asked for at once
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as again:
        again.settimeout(10)
        again.bind(str(path))
        until(lambda: target.write(["five"]) == 0)
        assert again.recv(65536).endswith(b": five")
    target.close()


def test_a_line_that_fails_goes_on_a_new_connection(
    receiver: socket.socket, tmp_path: Path
) -> None:
    path = tmp_path / "log"
    target = open_target(f"syslog:{path}")
    receiver.close()
    path.unlink()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as again:
        again.settimeout(10)
        again.bind(str(path))
        assert target.write(["one", "two"]) == 0
        assert [again.recv(65536)[-3:] for _ in range(2)] == [b"one", b"two"]
    target.close()


def test_a_local_syslog_that_reads_a_stream(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(tmp_path / "log"))
        listening.listen()
        target = open_target(f"syslog:{tmp_path}/log")
        with listening.accept()[0] as sock:
            assert target.write(["one", "two"]) == 0
            target.close()
            data = b""
            while more := sock.recv(65536):
                data += more
    assert [message[-3:] for message in data.split(b"\0")] == [b"one", b"two", b""]


_RFC5424 = r"<30>1 \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z \S+ threadwell \d+ access - "


def test_a_syslog_by_udp(serve: Serve, connect: Connect) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(10)
        sock.bind(("127.0.0.1", 0))
        address = f"syslog:udp://127.0.0.1:{sock.getsockname()[1]}"
        server = serve(hello, access_log=address, log_format="%m %U")
        connect(server).get("/path")
        assert re.fullmatch(_RFC5424 + "GET /path", sock.recv(65536).decode())
        connect(server).get("/" + "x" * 5000)
        assert 1024 < len(sock.recv(65536)) <= 2048


def _message(stream: Any) -> str:
    """A message behind its length."""
    length = b""
    while not length.endswith(b" "):
        length += stream.read(1)
    return str(stream.read(int(length)).decode())


def test_a_syslog_by_tcp(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        port = listening.getsockname()[1]
        target = open_target(f"syslog:tcp://localhost:{port}")
        with listening.accept()[0] as sock, sock.makefile("rb") as stream:
            assert target.write(["one", "two"]) == 0
            assert re.fullmatch(_RFC5424 + "one", _message(stream))
            assert re.fullmatch(_RFC5424 + "two", _message(stream))
        # broken, and connected again
        until(lambda: target.write(["more"]) == 0 and select.select([listening], [], [], 0)[0])
        with listening.accept()[0] as sock, sock.makefile("rb") as stream:
            assert re.fullmatch(_RFC5424 + "more", _message(stream))
        target.close()
    with caplog.at_level(logging.WARNING, "threadwell"):
        target = open_target(f"syslog:tcp://127.0.0.1:{port}")
    assert "cannot be reached yet" in caplog.text  # which keeps no server from starting
    assert target.write(["lost"]) == 1
    target.close()


# ---- Pipes with a name, and names of streams ------------------------------------------------


def test_a_named_pipe_without_a_reader(
    serve: Serve, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not keep the server from starting; its lines are lost until a program reads it."""
    monkeypatch.setattr(log_target, "_RETRY_INTERVAL", 0.0)
    os.mkfifo(tmp_path / "log")
    server = serve(hello, access_log=str(tmp_path / "log"), log_format="%U")
    assert connect(server).get("/lost").status == 200
    until(lambda: server.lost_lines)
    reading = os.open(tmp_path / "log", os.O_RDONLY | os.O_NONBLOCK)
    with open(reading, "rb") as pipe:
        assert connect(server).get("/read").status == 200
        server.stop()
        assert pipe.read() == b"/read\n"


def test_a_pipe_whose_reader_has_stopped_costs_one_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []

    def has_room(fd: int, seconds: float = 0) -> bool:
        waits.append(seconds)
        return False

    monkeypatch.setattr(log_target, "has_room", has_room)
    reading, writing = os.pipe()
    target = FileTarget(writing)
    assert target.write(["x" * 4000] * 5) == 5
    assert waits == [log_target._WRITE_TIMEOUT, 0, 0, 0, 0]
    target.close()
    os.close(reading)


@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_the_name_of_a_stream_is_no_file(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"access_log: '{name}' would be a file .*\./{name}"):
        ThreadedServer(hello, access_log=name)
