"""Numbers of a metrics page, and an application to be counted."""

from __future__ import annotations

import re
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

from prometheus_client.parser import text_string_to_metric_families as prometheus

from threadwell import Request, Response, ThreadedServer

from .supervised import Supervised

HERE = "127.0.0.1:0"


class App:
    threadwell_interface = "sync"

    def __init__(self) -> None:
        self.inside = threading.Semaphore(0)
        self.gate = threading.Event()

    def __call__(self, request: Request) -> Response:
        if request.path == "/wait":
            self.inside.release()
            assert self.gate.wait(20)
        if request.path == "/stream":
            return Response(200, [], self.stream())
        if request.path == "/fail":
            raise ValueError("on purpose")
        return Response(int(request.query or 200), [], b"hello")

    def stream(self) -> Iterator[bytes]:
        yield b"one"
        self.inside.release()
        assert self.gate.wait(20)
        yield b"three"


def fetch(url: str, path: str = "/metrics", accept: str = "") -> tuple[int, str]:
    request = urllib.request.Request(url + path, headers={"Accept": accept} if accept else {})
    try:
        with urllib.request.urlopen(request, timeout=20) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


class Numbers:
    """The metrics of a server, read as Prometheus does."""

    def __init__(self, url: str) -> None:
        _, text = fetch(url)
        self.samples = {
            (sample.name.removeprefix("threadwell_"), *sample.labels.values()): sample.value
            for family in prometheus(text)
            for sample in family.samples
        }

    def __getitem__(self, key: str | tuple[str, ...]) -> float:
        return self.samples.get((key,) if isinstance(key, str) else key, 0)

    def total(self, name: str) -> float:
        return sum(value for key, value in self.samples.items() if key[0] == name)


def url_of(server: ThreadedServer) -> str:
    [url] = server.metrics_urls
    return url


def metrics_url(server: Supervised) -> str:
    match = re.search(r"Metrics at (http://\S+)/metrics", "".join(server.lines))
    assert match
    return match[1]
