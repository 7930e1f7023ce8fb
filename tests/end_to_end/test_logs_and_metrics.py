"""100,000 requests over four processes: every line is there and whole, and the metrics agree."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
from collections import Counter
from pathlib import Path

import pytest

from ..helpers.metrics import Numbers, metrics_url
from ..helpers.supervised import Supervised
from ..helpers.waiting import until

APP = """
def app(environ, start_response):
    missing = environ["PATH_INFO"] == "/missing"
    start_response("404 Not Found" if missing else "200 OK", [("Content-Type", "text/plain")])
    return [b"Hello, world!"]
"""

REQUESTS = 100_000
_CLIENTS = 20
_AT_ONCE = 50
# What a client pipelines: fifty requests, one of them for what is not there.
_BATCH = b"".join(
    b'%s /%s?n=%d HTTP/1.1\r\nHost: x\r\nUser-Agent: a "quoted" one\r\n%b\r\n'
    % (
        (b"POST", b"posted", number, b"Content-Length: 0\r\n")
        if number % 10 == 3
        else (b"GET", b"missing" if number == 7 else b"path", number, b"")
    )
    for number in range(_AT_ONCE)
)
_COMBINED = re.compile(
    r"127\.0\.0\.1 - - \[\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}\]"
    r' "(?P<method>[A-Z]+) (?P<target>/[a-z]+\?n=\d+) HTTP/1\.1" (?P<status>\d{3}) 13'
    r' "-" "a \\"quoted\\" one"'
)


def ask(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), 30) as sock:
        for _ in range(REQUESTS // _CLIENTS // _AT_ONCE):
            sock.sendall(_BATCH)
            received = b""
            while received.count(b"Hello, world!") < _AT_ONCE:
                data = sock.recv(1 << 20)
                assert data
                received += data


@pytest.mark.parametrize("name", ["json", "combined"])
def test_all_lines_are_there_and_whole_and_the_metrics_agree(tmp_path: Path, name: str) -> None:
    (tmp_path / "app.py").write_text(APP)
    log = tmp_path / "access.log"
    arguments = ["app:app", "--bind", "127.0.0.1:0", "--metrics-bind", "127.0.0.1:0"]
    arguments += ["--workers", "4", "--access-log", str(log), "--log-format", name]
    with contextlib.closing(Supervised(tmp_path, *arguments)) as server:
        threads = [threading.Thread(target=ask, args=(server.port,)) for _ in range(_CLIENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        url = metrics_url(server)
        # an answer is counted a moment after the client has it
        until(lambda: Numbers(url).total("requests_total") == REQUESTS)
        numbers = Numbers(url)
        assert server.end() == 0
    lines = log.read_text("ascii").splitlines()
    assert len(lines) == REQUESTS
    found: Counter[tuple[str, str, int]] = Counter()
    for line in lines:
        if name == "json":
            fields = json.loads(line)
            found[fields["method"], fields["target"], fields["status"]] += 1
        else:
            match = _COMBINED.fullmatch(line)
            assert match, line
            found[match["method"], match["target"], int(match["status"])] += 1
    assert len(found) == _AT_ONCE
    assert set(found.values()) == {REQUESTS // _AT_ONCE}

    def logged(method: str, status: int) -> int:
        return sum(n for (m, _, s), n in found.items() if (m, s) == (method, status))

    assert numbers["requests_total", "GET", "2xx"] == logged("GET", 200)
    assert numbers["requests_total", "GET", "4xx"] == logged("GET", 404)
    assert numbers["requests_total", "POST", "2xx"] == logged("POST", 200)
    assert numbers["request_duration_seconds_count"] == REQUESTS
    assert numbers["response_body_bytes_total"] == REQUESTS * len(b"Hello, world!")
    assert numbers["connections_opened_total"] == _CLIENTS
    assert numbers["access_log_lost_lines_total"] == 0
