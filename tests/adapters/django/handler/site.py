"""The views of tests/apps/django_views.py in a process of their own, and requests to them."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from typing import Any

from ....helpers.process import Script, script
from ....helpers.wire_client import Client

Open = Callable[..., Client]


class Site:
    """The views in a process of their own, behind servers of several kinds."""

    def __init__(self, process: Script) -> None:
        self.process = process
        self.ports: dict[str, int] = self.ask("ports")

    def ask(self, word: str) -> Any:
        with urllib.request.urlopen(f"{self.process.url}/{word}", timeout=20) as answer:
            return json.load(answer)

    def finish(self) -> None:
        """Let it end: nothing was amiss."""
        assert self.ask("log") == []
        self.process.finish()

    def events(self, ends: int = 0) -> list[Any]:
        """What has happened since the last time, once `ends` requests are finished."""
        happened: list[Any] = []
        deadline = time.monotonic() + 20
        while True:
            happened += self.ask("events")
            if sum(event[0] == "finished" for event in happened) >= ends:
                return happened
            assert time.monotonic() < deadline, happened
            time.sleep(0.01)


@contextlib.contextmanager
def site_with(**settings: Any) -> Iterator[Site]:
    with script("django_views.py", json.dumps(settings)) as process:
        yield Site(process)


def hang_up(client: Client) -> None:
    """Wait until the server closes: not before it is done with the requests."""
    with contextlib.suppress(OSError):  # it has closed before, or the test has
        client.sock.shutdown(socket.SHUT_WR)
        client.rest()


def head(method: str, target: str, *fields: str) -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: example.com", *fields, "", ""]
    return "\r\n".join(lines).encode("latin-1")


def post(target: str, body: bytes, *fields: str) -> bytes:
    return head("POST", target, f"Content-Length: {len(body)}", *fields) + body


def chunked(target: str, body: bytes, *fields: str, size: int = 100) -> bytes:
    blocks = [body[at : at + size] for at in range(0, len(body), size)]
    data = b"".join(b"%x\r\n%b\r\n" % (len(block), block) for block in blocks)
    return head("POST", target, "Transfer-Encoding: chunked", *fields) + data + b"0\r\n\r\n"


def whole(client: Client, data: bytes) -> bytes:
    """All that is answered until the server closes, but for the time of day."""
    client.send(data)
    client.sock.shutdown(socket.SHUT_WR)
    return re.sub(rb"\r\nDate: [^\r]*", b"", client.rest())


REQUESTS = {
    "plain": head("GET", "/"),
    "query": head("GET", "/?a=1&a=2&b=%C3%A9&c=%FF&%20=+&=&d"),
    "path": head("GET", "/caf%C3%A9/a%2Fb//c%20d;e"),
    "not UTF-8": head("GET", "/%FF%FEx/%E9?%FF"),
    "raw octets": head("GET", "/caf\u00c3\u00a9"),
    "no such static file": head("GET", "/static/a.css"),
    "absolute form": head("GET", "http://other.example/at?b=c"),
    "options": head("OPTIONS", "*"),
    "method of lower case": head("get", "/"),
    "unknown method": head("BREW", "/"),
    "fields": head(
        "GET",
        "/",
        "Cookie: a=1; b=\u00fc; c",
        "X-A: 1",
        "X-A: 2",
        "X_B: 3",
        "Accept-Language: de",
        "Proxy: evil",
        "Authorization: Basic YTpi",
        "Content-Type: text/plain",
        "Script-Name: /evil",
        "Script-Url: /evil",
        "X-Forwarded-Proto: https",
    ),
    "HTTP/1.0": b"GET / HTTP/1.0\r\nHost: example.com\r\n\r\n",
    "HTTP/1.0 without a host": b"GET /hello HTTP/1.0\r\n\r\n",
    "HTTP/1.0 stream": b"GET /stream HTTP/1.0\r\n\r\n",
    "host in vain": b"GET /hello HTTP/1.1\r\nHost: a_b!c\r\n\r\n",
    "head": head("HEAD", "/hello?size=10"),
    "empty": head("GET", "/hello?size=0"),
    "large": head("GET", "/hello?size=5000000"),
    "reason": head("GET", "/hello?status=418&reason=Short+and+stout"),
    "reason in Latin-1": head("GET", "/hello?status=418&reason=%C3%BC"),
    "empty reason": head("GET", "/hello?reason="),
    "unknown status": head("GET", "/hello?status=599"),
    "interim status": head("GET", "/hello?status=102"),
    "204": head("GET", "/hello?status=204&size=0"),
    "204 with a body": head("GET", "/hello?status=204"),
    "fields of the answer": head("GET", "/headers"),
    "status that is named": head("GET", "/named"),
    "304": head("GET", "/304"),
    "304 by its tag": head("GET", "/hello", 'If-None-Match: "5d41402a", *'),
    "redirect": head("GET", "/redirect"),
    "stream": head("GET", "/stream"),
    "head of a stream": head("HEAD", "/stream"),
    "empty stream": head("GET", "/stream?blocks=0"),
    "declared stream": head("GET", "/stream?declared=14"),
    "declared too little": head("GET", "/stream?declared=3"),
    "declared too much": head("GET", "/stream?declared=300"),
    "broken stream": head("GET", "/stream?fail"),
    "file": head("GET", "/file?kind=file"),
    "file from within": head("GET", "/file?kind=file&from=1000"),
    "file from beyond": head("GET", "/file?kind=file&from=1000000"),
    "part of a file": head("GET", "/file?kind=file&declared=100"),
    "more than a file": head("GET", "/file?kind=file&declared=1000000"),
    "head of a file": head("HEAD", "/file?kind=file"),
    "file of Django's": head("GET", "/file?kind=django&from=3"),
    "file of a field": head("GET", "/file?kind=field"),
    "uploaded file": head("GET", "/file?kind=uploaded&from=3"),
    "temporary file": head("GET", "/file?kind=temporary&from=7"),
    "file in memory": head("GET", "/file?kind=bytes&from=3"),
    "empty file": head("GET", "/file?kind=empty"),
    "body": post("/body", b"a=1" * 1000, "Content-Type: application/x-www-form-urlencoded"),
    "body in chunks": chunked("/body", b"a=1" * 1000),
    "empty body": post("/body", b""),
    "large body": post("/body", b"z" * 2_000_000),
    "body too large": post("/body", b"z" * 3_000_000),
    "no body where one is said": head("GET", "/body", "Content-Length: 0"),
    "form": post("/parts", b"a=1&b=%C3%A9", "Content-Type: application/x-www-form-urlencoded"),
    "body read twice": post("/reread", b"abcdefg"),
    "no token": post("/protected", b"said=x", "Content-Type: application/x-www-form-urlencoded"),
    "async view": head("GET", "/async"),
    "async stream": head("GET", "/async-stream"),
    "error": head("GET", "/fail"),
    "exit": head("GET", "/fail?how=exit"),
    "error before": head("GET", "/hello", "X-Fail: before"),
    "error after": head("GET", "/hello", "X-Fail: after"),
    "unrendered": head("GET", "/hello", "X-Fail: unrendered"),
    **{
        f"broken {kind}": head("GET", f"/broken?kind={kind.replace(' ', '+')}")
        for kind in ("length", "status", "text status", "reason", "newline", "stream")
    },
    "many at once": head("GET", "/") * 20,
}
