"""The access log: its formats, and what must never get into a line."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from threadwell import ConfigError, Request, Response, ThreadedServer
from threadwell.worker.config.groups import Limits, Log
from threadwell.worker.http1.parser import RequestParser
from threadwell.worker.lifecycle import ResponseCompleted
from threadwell.worker.logs.access_log import AccessLog
from threadwell.worker.logs.format import COMBINED, COMMON, compile_format
from threadwell.worker.logs.target import FileTarget

from ..helpers.recorder import completed
from ..helpers.waiting import until
from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]


def hello(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


def event(
    target: str = "/a?b=c",
    fields: str = "",
    *,
    status: int = 200,
    size: int = 5,
    complete: bool = True,
    method: str = "GET",
) -> ResponseCompleted:
    """What the log is told of a request."""
    head = f"{method} {target} HTTP/1.1\r\nHost: x{fields}".encode("latin-1")
    request = Request(RequestParser(Limits()).parse(head))
    return completed(status, request=request, size=size, seconds=0.25, complete=complete)


NO_REQUEST = completed(400, size=12)
TIME = r"\[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]"


def test_common() -> None:
    line = compile_format("common")(event())
    assert re.fullmatch(rf'192\.0\.2\.1 - - {TIME} "GET /a\?b=c HTTP/1\.1" 200 5', line)


def test_combined() -> None:
    line = compile_format("combined")(event(fields="\r\nReferer: http://r/\r\nUser-Agent: u 1"))
    assert line.endswith('"GET /a?b=c HTTP/1.1" 200 5 "http://r/" "u 1"')
    assert compile_format("combined")(event()).endswith(' 200 5 "-" "-"')


def test_combined_of_what_was_no_request() -> None:
    assert compile_format("combined")(NO_REQUEST).endswith('"-" 400 12 "-" "-"')


def test_json() -> None:
    fields = '\r\nReferer: "r"\r\nUser-Agent: \xe9\\'
    line = json.loads(compile_format("json")(event(fields=fields)))
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line.pop("time"))
    assert line == {
        "client": "192.0.2.1",
        "peer": "192.0.2.7",
        "method": "GET",
        "target": "/a?b=c",
        "protocol": "HTTP/1.1",
        "status": 200,
        "bytes": 5,
        "received": 0,
        "request_id": "",
        "seconds": 0.25,
        "complete": True,
        "referer": '"r"',
        "user_agent": "\xe9\\",
    }


def test_json_of_what_was_no_request() -> None:
    line = json.loads(compile_format("json")(NO_REQUEST))
    assert (line["method"], line["target"], line["status"]) == (None, None, 400)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("%h %a", "192.0.2.1 192.0.2.1"),
        ("%{c}a", "192.0.2.7"),
        ("%l %u", "- -"),
        ("%m %U %q %H", "GET /a ?b=c HTTP/1.1"),
        ("%s %>s %b %B", "200 200 5 5"),
        ("%D %T", "250000 0"),
        ("%{Host}i %{X-Missing}i", "x -"),
        ("100%% of %m", "100% of GET"),
        ("%X", "+"),
        ("a%mb%%%%", "aGETb%%"),
    ],
)
def test_a_format_of_ones_own(text: str, line: str) -> None:
    assert compile_format(text)(event()) == line


def test_the_time_in_the_words_of_apache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.time", lambda: 1000000000.625)
    text = "%{sec}t %{msec}t %{usec}t %{msec_frac}t %{usec_frac}t %{begin:msec_frac}t %{%s}t"
    line = "1000000000 1000000000375 1000000000375000 375 375000 375 1000000000"
    assert compile_format(text)(event()) == line
    assert compile_format("%{end:msec}t %{end:usec_frac}t")(event()) == "1000000000625 625000"
    assert compile_format("%{end:%H:%M}t")(event()) == time.strftime("%H:%M", time.localtime(1e9))


def test_the_process_is_known() -> None:
    assert compile_format("%P")(event()) == str(os.getpid())


def test_an_empty_body_and_a_cut_answer() -> None:
    assert compile_format("%b %B %X")(event(size=0, complete=False)) == "- 0 X"


@pytest.mark.parametrize("text", ["%Z", "%{Host}e", "%{}i", "%", "% m", "%h %", "%>", "plain", ""])
def test_what_is_not_known_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="log_format"):
        compile_format(text)


def test_a_server_with_a_bad_format_does_not_start() -> None:
    server = ThreadedServer(hello, bind="127.0.0.1:0", access_log="-", log_format="%Z")
    try:
        with pytest.raises(ConfigError, match="%Z"):
            server.start()
    finally:
        server.stop()


def test_a_server_whose_log_cannot_be_written_does_not_start(tmp_path: Path) -> None:
    server = ThreadedServer(hello, bind="127.0.0.1:0", access_log=str(tmp_path / "no" / "log"))
    try:
        with pytest.raises(ConfigError, match="No such file"):
            server.start()
    finally:
        server.stop()


def test_a_server_that_did_not_start_listens_no_more() -> None:
    server = ThreadedServer(hello, bind="127.0.0.1:0", access_log="-", log_format="%Z")
    try:
        with pytest.raises(ConfigError):
            server.__enter__()
        port = server.port
        with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            pass
    finally:
        server.stop()


# ---- What a client puts into a line ---------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "logged"),
    [
        ('a" 500 "b', r"a\" 500 \"b"),
        ("back\\slash", r"back\\slash"),
        ("a\tb", r"a\tb"),
        ("\xe9\xff", r"\xe9\xff"),
        ("%h %s", "%h %s"),
        ("\x85\xa0", r"\x85\xa0"),
    ],
)
@pytest.mark.parametrize("text", ["combined", '"%{User-Agent}i"'])
def test_a_header_cannot_break_out_of_its_quotes(value: str, logged: str, text: str) -> None:
    line = compile_format(text)(event(fields=f"\r\nUser-Agent: x{value}x"))
    assert line.endswith(f'"x{logged}x"')
    assert line.isascii()
    assert line.isprintable()


@pytest.mark.parametrize("text", ["combined", "json", "%r %U %q %m"])
def test_an_encoded_line_end_in_a_target_stays_encoded(text: str) -> None:
    line = compile_format(text)(event("/a%0d%0aforged%22?%0a"))
    assert line.isprintable()
    assert "%0d%0aforged%22" in line


def test_json_has_one_line_whatever_comes() -> None:
    line = compile_format("json")(event(fields="\r\nUser-Agent: \x85\xa0\t"))
    assert len(line.splitlines()) == 1
    assert line.isascii()


# ---- Where the lines go --------------------------------------------------------------------


def read(path: Path, number: int) -> list[str]:
    lines = path.read_text("ascii").splitlines()
    assert len(lines) == number
    return lines


def test_a_file_is_appended_to(serve: Serve, connect: Connect, tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    path.write_text("before\n")
    server = serve(hello, access_log=str(path), log_format="%m %U %>s %B %X")
    client = connect(server)
    client.get("/one")
    client.get("/two")
    client.send(b"bad\r\n\r\n")
    client.answer()
    server.stop()
    *answers, refusal = read(path, 4)
    assert answers == ["before", "GET /one 200 5 +", "GET /two 200 5 +"]
    assert re.fullmatch(r"- - 400 \d+ \+", refusal)


def test_a_file_is_not_for_everybody(tmp_path: Path) -> None:
    path = tmp_path / "access.log"
    log = AccessLog.open(Log(access_log=str(path)))
    log.close()
    assert path.stat().st_mode & 0o007 == 0


def test_lines_of_eight_threads_are_not_torn(
    serve: Serve, connect: Connect, tmp_path: Path
) -> None:
    path = tmp_path / "access.log"
    server = serve(hello, threads=8, access_log=str(path), log_format='%U "%{X-Pad}i" end')

    def requests(number: int) -> None:
        client = connect(server)
        for turn in range(100):
            client.get(f"/{number}/{turn}", headers=f"X-Pad: {str(number) * 2000}\r\n")

    threads = [threading.Thread(target=requests, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    server.stop()
    expected = {
        f'/{number}/{turn} "{str(number) * 2000}" end' for number in range(8) for turn in range(100)
    }
    assert set(read(path, 800)) == expected


_STDOUT = """
import http.client
from threadwell import ThreadedServer
def app(environ, start_response):
    start_response("200 OK", [])
    return [b"hello"]
with ThreadedServer(app, bind="127.0.0.1:0", access_log="-", log_format="%m %U %>s") as server:
    client = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    for _ in range(2):
        client.request("GET", "/path")
        client.getresponse().read()
    client.close()
"""


def test_a_dash_is_standard_output() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _STDOUT], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == "GET /path 200\n" * 2


def test_a_log_whose_reader_has_left_costs_no_answer(serve: Serve, connect: Connect) -> None:
    """`serve ... | head`: lines have nowhere to go, and clients must not notice."""
    reading, writing = os.pipe()
    os.close(reading)
    log = AccessLog(FileTarget(writing), "common")
    try:
        client = connect(serve(hello, lifecycle_collector=log))
        for _ in range(3):
            assert client.get().body == b"hello"
    finally:
        log.close()


def test_the_named_formats_are_apaches() -> None:
    assert COMMON == '%h %l %u %t "%r" %>s %b'
    assert COMBINED == COMMON + ' "%{Referer}i" "%{User-Agent}i"'


@pytest.mark.parametrize("text", ["common", "combined", "json"])
def test_the_line_of_an_answer_in_one_send_is_that_of_any_other(
    serve: Serve, connect: Connect, tmp_path: Path, text: str
) -> None:
    path = tmp_path / "log"

    def app(environ: dict[str, Any], start_response: Any) -> Any:
        start_response("200 OK", [("Content-Length", "5")])
        return [b"hello"] if environ["PATH_INFO"] == "/one" else iter([b"he", b"llo"])

    server = serve(app, access_log=str(path), log_format=text)
    client = connect(server)
    fields = 'User-Agent: "u"\r\nReferer: http://r/\\\r\nAuthorization: Basic YTpi\r\n'
    for target in ("/one", "/two"):
        assert client.get(target, headers=fields).body == b"hello"
    server.stop()
    one, two = read(path, 2)
    changing = r'\[[^]]+\]|"time": "[^"]+"|"seconds": \d+\.\d{6}'
    assert re.sub(changing, "", one) == re.sub(changing, "", two).replace("/two", "/one")
    assert len(re.findall(changing, one)) == (2 if text == "json" else 1)


@pytest.mark.parametrize("seconds", [0.0, 0.0000004, 0.000523, 0.9999996, 1.0, 75.25])
def test_the_seconds_of_json(seconds: float) -> None:
    answer = event()
    answer.seconds = seconds
    assert json.loads(compile_format("json")(answer))["seconds"] == round(seconds, 6)


def test_the_time_of_a_line_follows_the_second_of_its_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("time.time", lambda: 1000000000.25)
    monkeypatch.setattr("time.monotonic", lambda: 50.0)
    line_of = compile_format("json")
    found = []
    for started in (50.0, 50.5, 50.7499, 50.75, 49.0, 50.0):
        answer = event()
        answer.started = started
        found.append(json.loads(line_of(answer))["time"][17:23])
    assert found == ["40.250", "40.750", "40.999", "41.000", "39.250", "40.250"]


@pytest.mark.parametrize("way", ["quick", "with an event"])
def test_a_line_that_comes_while_the_thread_falls_asleep_is_written(
    tmp_path: Path, way: str
) -> None:
    file = tmp_path / "access.log"
    log = AccessLog.open(Log(access_log=str(file)))

    class Lines(deque[str]):
        def append(self, line: str) -> None:
            log.flush()  # the thread's last look, just before
            super().append(line)

    log._lines = Lines()
    log._thread_awake = True
    request = event().request
    assert request is not None
    if way == "quick":
        origin = SimpleNamespace(client=("192.0.2.1", 1))
        conn = SimpleNamespace(origin=origin, peer=origin.client, request_id="", started=1.0)
        take = log.take_answers()
        assert take is not None
        take(conn, request, Response(200, [], b"hello"), 2.0)  # type: ignore[arg-type]
    else:
        log.record(event())
    until(lambda: file.read_text().endswith('"GET /a?b=c HTTP/1.1" 200 5 "-" "-"\n'))
    log.close()
