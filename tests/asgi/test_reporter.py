"""What a collector is told of requests on a loop, whether or not it is told of their beginning."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from threadwell import ThreadedServer
from threadwell.worker import lifecycle
from threadwell.worker.lifecycle import ClientGone, Collectors, RequestStarted, ResponseCompleted
from threadwell.worker.metrics import counters

from ..helpers.metrics import Numbers, url_of
from ..helpers.recorder import Recorder
from ..helpers.waiting import until
from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

LARGE = bytes(32 * 1024 * 1024)
#: The kernel has taken what it can of `LARGE`, and the rest waits.
SOME_SENT = threading.Event()


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answers in the way the path names."""
    if scope["type"] != "http":
        return
    path, body, more = scope["path"], b"", True
    if path == "/early":
        more = False
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return  # of a request that was refused
        body += message["body"]
        more = message["more_body"]
    if path == "/fail":
        raise ValueError("fail")
    if path == "/large":
        asyncio.get_running_loop().call_soon(SOME_SENT.set)
    status = 204 if path == "/204" else 201
    await send({"type": "http.response.start", "status": status, "headers": [(b"a", b"b")]})
    if path == "/stream":
        await send({"type": "http.response.body", "body": b"one", "more_body": True})
        if body == b"fail":
            raise ValueError("fail")
    await send({"type": "http.response.body", "body": LARGE if path == "/large" else b"three"})


REQUESTS = {
    "a repeated head": b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n" * 2,
    "a body with its head": b"POST /b HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nbody",
    "chunks": b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
    "an early answer": b"POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nbody",
    "a stream": b"GET /stream HTTP/1.1\r\nHost: x\r\n\r\n",
    "a cut stream": b"POST /stream HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\n\r\nfail",
    "no body": b"GET /204 HTTP/1.1\r\nHost: x\r\n\r\n",
    "HEAD": b"HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n",
    "a failure": b"GET /fail HTTP/1.1\r\nHost: x\r\n\r\n",
    "a bad chunk": b"POST /d HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n"
    b"Expect: 100-continue\r\n\r\n",
    "no request": b"bad\r\n\r\n",
    "the last": b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
}


def told(events: list[Any]) -> list[Any]:
    """What tells the responses apart, without addresses and times."""
    assert all(event.client == event.peer and event.client[0] for event in events)
    assert all(0 <= event.seconds < 60 for event in events)
    return [
        (
            event.request and (event.request.method, event.request.path),
            event.status,
            event.body_bytes,
            event.received,
            event.complete,
            event.request_id,
            [pair for pair in event.headers if pair == (b"a", b"b")],
        )
        for event in events
    ]


def collected(
    serve: Serve, connect: Connect, octets: bytes, *, announced: bool, leaves: bool = False
) -> tuple[list[Any], list[str]]:
    """What is told of the responses to `octets`, and the paths of clients that have left."""
    recorder = Recorder()
    if not announced:
        recorder.event_types = lifecycle._EVENT_TYPES - {RequestStarted}  # type: ignore[attr-defined]
    # with a second one, of which there is only one record
    both = Collectors(recorder, other := Recorder())
    other.event_types = (ResponseCompleted,)  # type: ignore[attr-defined]
    server = serve(app, lifecycle_collector=both, linger_timeout=0.5, interface="asgi")
    client = connect(server)
    client.send(octets)
    if leaves:
        assert SOME_SENT.wait(10)
        SOME_SENT.clear()
        client.sock.close()
    elif b"Expect" in octets:
        assert client.sock.recv(65536).startswith(b"HTTP/1.1 100 ")
        client.send(b"no\r\n")
        assert client.answer().status == 400
        client.sock.close()
    else:
        with contextlib.suppress(OSError):  # the server may be the first, or cut a stream
            client.sock.shutdown(socket.SHUT_WR)
            while client.sock.recv(65536):
                pass
    recorder.until_closed()
    assert (RequestStarted in recorder.kinds) == (announced and octets[:3] != b"bad")
    assert recorder.of(ResponseCompleted) == other.of(ResponseCompleted)
    server.stop()
    gone = [event.request.path for event in recorder.of(ClientGone)]
    return told(recorder.of(ResponseCompleted)), gone


@pytest.mark.parametrize("name", REQUESTS)
def test_the_same_is_told_with_and_without_the_beginning(
    serve: Serve, connect: Connect, name: str
) -> None:
    octets = REQUESTS[name]
    one = collected(serve, connect, octets, announced=True)
    assert one == collected(serve, connect, octets, announced=False)
    assert len(one[0]) == (2 if name == "a repeated head" else 1)


@pytest.mark.parametrize("announced", [True, False])
def test_a_client_that_leaves(serve: Serve, connect: Connect, *, announced: bool) -> None:
    octets = b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n"
    answers, gone = collected(serve, connect, octets, announced=announced, leaves=True)
    assert [(answer[0], answer[4]) for answer in answers] == [(("GET", "/large"), False)]
    assert gone == ["/large"]


def test_neither_metrics_nor_a_log_needs_a_record(
    serve: Serve, connect: Connect, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # on a busy machine too: the first bucket of durations is that of the quick requests
    monkeypatch.setattr(counters, "BUCKETS", (3600.0, *counters.BUCKETS[1:]))
    path = tmp_path / "log"
    server = serve(app, metrics_bind="127.0.0.1:0", access_log=str(path), interface="asgi")
    client = connect(server)
    key = ("requests_total", "GET", "2xx")
    assert client.get("/first").status == 201  # whose status the loop remembers
    until(lambda: Numbers(url_of(server))[key] == 1)
    until(path.read_text)

    def never(*arguments: object) -> None:
        raise AssertionError(arguments)

    monkeypatch.setattr(lifecycle, "ResponseCompleted", never)
    for target in ("/a", "/b"):
        assert client.get(target).body == b"three"
    client.send(b"POST /c HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc")
    assert client.answer().body == b"three"
    until(lambda: Numbers(url_of(server))[("requests_total", "POST", "2xx")] == 1)
    numbers = Numbers(url_of(server))
    assert numbers[key] == 3
    assert numbers["request_body_bytes_total"] == 3
    assert numbers["response_body_bytes_total"] == 20
    server.stop()
    assert [line.split('"')[1] for line in path.read_text().splitlines()] == [
        "GET /first HTTP/1.1",
        "GET /a HTTP/1.1",
        "GET /b HTTP/1.1",
        "POST /c HTTP/1.1",
    ]
