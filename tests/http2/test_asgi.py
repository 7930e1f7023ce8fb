"""HTTP/2 to ASGI applications, alone and beside a sync one."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from threadwell import Request, Response, ThreadedServer
from threadwell.worker.asgi.http1_reader import HTTP1Reader
from threadwell.worker.asgi.pool import EventLoopPool
from threadwell.worker.asgi.scope import Scopes
from threadwell.worker.asgi.states import ReadState
from threadwell.worker.http2.connection import HTTP2Connection
from threadwell.worker.lifecycle import ResponseCompleted

from ..helpers.asgi_tools import Receive, Scope, Seen, Send, answer, no_lifespan, read_body
from ..helpers.certificates import Authority
from ..helpers.http2_client import Http2Client
from ..helpers.waiting import until

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Http2Client]
MIB = 1024 * 1024


def start(status: int = 200, *headers: Any, **more: Any) -> dict[str, Any]:
    return {"type": "http.response.start", "status": status, "headers": list(headers), **more}


def block(body: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.response.body", "body": body, "more_body": more}


def test_a_scope(serve_http2: Serve, http2: Connect) -> None:
    seen: list[Scope] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await no_lifespan(scope)
        seen.append(scope)
        assert await read_body(receive) == b"body"
        await answer(send, b"well", 201, (b"X-Upper", b"1"), (b"connection", b"close"))

    client = http2(serve_http2(app))
    more = [("cookie", "a=1"), ("x-one", "1")]
    reply = client.fetch("/a%20b?c=d", *more, method="POST", body=b"body")
    assert (reply.status, reply.body) == (201, b"well")
    assert reply.headers["x-upper"] == "1"
    assert "connection" not in reply.headers
    (scope,) = seen
    assert scope["type"] == "http"
    assert scope["http_version"] == "2"
    assert (scope["method"], scope["scheme"]) == ("POST", "https")
    assert (scope["path"], scope["raw_path"]) == ("/a b", b"/a%20b")
    assert scope["query_string"] == b"c=d"
    assert scope["headers"] == [
        (b"host", b"127.0.0.1"),
        (b"cookie", b"a=1"),
        (b"x-one", b"1"),
    ]
    assert scope["client"][0] == "127.0.0.1"


def test_bodies_both_ways_at_once(serve_http2: Serve, http2: Connect) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await no_lifespan(scope)
        await send(start())
        while True:
            message = await receive()
            await send(block(message["body"], message["more_body"]))
            if not message["more_body"]:
                return

    client = http2(serve_http2(app))
    body = bytes(range(256)) * (4 * MIB // 256)
    reply = client.fetch("/", method="POST", body=body)
    assert hashlib.sha256(reply.body).digest() == hashlib.sha256(body).digest()


def test_a_body_that_is_not_taken_stops_its_stream_alone(
    serve_http2: Serve, http2: Connect
) -> None:
    going = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await no_lifespan(scope)
        if scope["path"] == "/waits":
            while not going.is_set():
                await asyncio.sleep(0.01)
        body = await read_body(receive)
        await answer(send, str(len(body)).encode())

    client = http2(serve_http2(app))
    waits = client.request("/waits", method="POST", ended=False)
    sent = 0
    while (room := min(client.conn.local_flow_control_window(waits), 16384)) > 0:
        client.conn.send_data(waits, b"x" * room)
        sent += room
        client.settle()
    assert sent <= 256 * 1024
    assert client.fetch("/", method="POST", body=b"x" * MIB).body == str(MIB).encode()
    going.set()
    client.body(waits, b"y" * MIB)
    assert client.answer(waits).body == str(sent + MIB).encode()


def test_an_application_waits_for_the_client(serve_http2: Serve, http2: Connect) -> None:
    sent = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await no_lifespan(scope)
        await send(start())
        for number in range(100):
            await send(block(b"x" * 65536))
            sent.add(number)
        await send(block(b"", False))

    client = http2(serve_http2(app), read=False)
    number = client.get()
    client.until(lambda: len(client.answers[number].octets) == 65535)
    client.settle()
    assert len(sent.values) < 10
    client.acknowledges = True
    client.conn.increment_flow_control_window(8 * MIB, number)
    client.flush()
    assert len(client.answer(number).body) == 100 * 65536


def test_trailers_hints_and_paths(serve_http2: Serve, http2: Connect, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"of a file")

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await no_lifespan(scope)
        if scope["path"] == "/path":
            await send(start())
            await send({"type": "http.response.pathsend", "path": str(path)})
            return
        await send({"type": "http.response.early_hint", "links": [b"</a.css>; rel=preload"]})
        await send(start(200, trailers=True))
        await send(block(b"body", False))
        await send({"type": "http.response.trailers", "headers": [(b"X-Sum", b"4")]})

    client = http2(serve_http2(app))
    reply = client.fetch()
    assert reply.interim == [{":status": "103", "link": "</a.css>; rel=preload"}]
    assert (reply.body, reply.trailers) == (b"body", {"x-sum": "4"})
    assert client.fetch("/path").body == b"of a file"


@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", [200, 204])
def test_answers_without_a_body(
    serve_http2: Serve, http2: Connect, method: str, status: int
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await no_lifespan(scope)
        await send(start(status))
        if scope["path"] == "/stream":
            await send(block(b"a"))
        await send(block(b"b", False))

    client = http2(serve_http2(app))
    for path, body in (("/", b"b"), ("/stream", b"ab")):
        reply = client.fetch(path, method=method)
        assert reply.ended
        assert reply.body == (body if (method, status) == ("GET", 200) else b"")


def test_failures(serve_http2: Serve, http2: Connect, caplog: pytest.LogCaptureFixture) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await no_lifespan(scope)
        if scope["path"] == "/late":
            await send(start())
            await send(block(b"some"))
        raise ValueError("no")

    client = http2(serve_http2(app))
    assert client.fetch().status == 500
    late = client.fetch("/late")
    assert (late.status, late.body, late.reset) == (200, b"some", 2)
    assert caplog.text.count("The application failed on") == 2


def test_a_reset_is_a_disconnect(serve_http2: Serve, http2: Connect) -> None:
    told = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await no_lifespan(scope)
        await read_body(receive)
        told.add("began")
        told.add((await receive())["type"])
        with pytest.raises(OSError, match="left"):
            for _ in range(1000):
                await send(start()) if scope.pop("new", True) else await send(block(b"x"))

    client = http2(serve_http2(app))
    number = client.get()
    told.wait()
    client.conn.reset_stream(number)
    client.flush()
    assert told.wait(2) == ["began", "http.disconnect"]


def test_a_body_over_the_limit(serve_http2: Serve, http2: Connect) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await no_lifespan(scope)
        while (await receive())["type"] != "http.disconnect":
            pass

    client = http2(serve_http2(app, limit_body=1000))
    number = client.request("/", method="POST", body=b"x" * 5000, ended=False)
    assert client.answer(number).status == 413
    more = [("content-length", "5000")]
    number = client.request("/", more, method="POST", body=b"", ended=False)
    assert client.answer(number).status == 413


def test_100_continue(serve_http2: Serve, http2: Connect) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await no_lifespan(scope)
        await answer(send, await read_body(receive))

    client = http2(serve_http2(app))
    number = client.request("/", [("expect", "100-continue")], method="POST", ended=False)
    client.until(lambda: client.answers[number].interim)
    client.body(number, b"now")
    assert client.answer(number).body == b"now"


def test_other_threads_look_at_lines_that_are_made_just_now(
    serve_http2: Serve, http2: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both kinds, while they are made, and while they change: for metrics, and whether all rest."""
    seen = Seen()
    template = Scopes.template

    def look(self: Scopes, conn: Any) -> dict[str, Any]:
        assert isinstance(server.pools[0], EventLoopPool)
        for worker in server.pools[0].workers:
            seen.add([(line.state_name(), line.is_busy()) for line in worker.connections.copy()])
        return template(self, conn)

    monkeypatch.setattr(Scopes, "template", look)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await no_lifespan(scope)
        await answer(send, b"well")

    server = serve_http2(app, loops=1)
    assert http2(server).fetch("/").body == b"well"
    assert seen.values[:1] == [[("handshake", False)]]

    class Turning:
        _conn = SimpleNamespace(buffer=b"", head_buffer=None)
        phases = iter([ReadState.BUSY, ReadState.READY])
        state = property(lambda self: next(self.phases))

    reader: Any = Turning()
    assert HTTP1Reader.state_name(reader) == "serving"


def test_a_client_that_has_left_at_the_end_of_its_handshake(
    serve_http2: Serve, authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loop must forget the descriptor: the next connection that has it would never be read."""
    seen = Seen()

    def flush(self: HTTP2Connection) -> None:
        self.lost("reset by the client")
        seen.add(self.worker.loop.remove_reader(self.conn.fd))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await no_lifespan(scope)

    monkeypatch.setattr(HTTP2Connection, "flush", flush)
    server = serve_http2(app, loops=1, loop="asyncio")  # which tells what it had forgotten
    assert isinstance(server.pools[0], EventLoopPool)
    (worker,) = server.pools[0].workers
    context = authority.trusting()
    context.set_alpn_protocols(["h2"])
    with socket.create_connection(("127.0.0.1", server.port), 10) as raw:
        until(lambda: any(line.reading for line in worker.connections.copy()))
        with context.wrap_socket(raw, server_hostname="127.0.0.1"):
            assert seen.wait(1) == [False]


def test_many_at_once(serve_http2: Serve, http2: Connect) -> None:
    inside = 0
    most = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal inside, most
        await no_lifespan(scope)
        inside += 1
        most = max(most, inside)
        while most < 100:
            await asyncio.sleep(0.01)
        inside -= 1
        await answer(send, scope["path"].encode())

    client = http2(serve_http2(app))
    numbers = {client.get(f"/{n}"): f"/{n}".encode() for n in range(100)}
    assert all(client.answer(number).body == body for number, body in numbers.items())


def test_what_is_asked_at_once_is_answered_at_once(
    serve_http2: Serve, http2: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("threadwell.worker.http2.sender._GATHERING", 60)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await no_lifespan(scope)
        await answer(send, b"answered")

    client = http2(serve_http2(app))
    client.settle()
    fields = [(":method", "GET"), (":scheme", "https"), (":authority", "a"), (":path", "/")]
    for number in (1, 3, 5):
        client.conn.send_headers(number, fields, end_stream=True)
    client.flush()
    assert [client.answer(number).body for number in (1, 3, 5)] == [b"answered"] * 3


def test_what_goes_on_after_the_answer_is_no_stream(serve_http2: Serve, http2: Connect) -> None:
    """As the background tasks of Starlette do."""
    going = threading.Event()
    ended = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await no_lifespan(scope)
        await answer(send, b"answered")
        while not going.is_set():
            await asyncio.sleep(0.01)
        ended.add((await receive())["type"])

    client = http2(serve_http2(app, http2_streams=3))
    for _ in range(10):
        assert client.fetch().body == b"answered"
    going.set()
    assert ended.wait(10) == ["http.disconnect"] * 10


def test_events(serve_http2: Serve, http2: Connect) -> None:
    seen = Seen()

    class Collector:
        def record(self, event: Any) -> None:
            if type(event) is ResponseCompleted:
                seen.add((event.status, event.body_bytes, event.request.version, event.complete))

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await no_lifespan(scope)
        if scope["path"] == "/stream":
            await send(start(201))
            await send(block(b"abc"))
            await send(block(b"d", False))
            return
        await answer(send, b"four")

    client = http2(serve_http2(app, lifecycle_collector=Collector()))
    client.fetch()
    client.fetch("/stream")
    assert seen.wait(2) == [(200, 4, "2", True), (201, 4, "2", True)]


def test_an_event_stream_ends_with_the_server(serve_http2: Serve, http2: Connect) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await no_lifespan(scope)
        await send(start(200, (b"content-type", b"text/event-stream")))
        await send(block(b"data: 1\n\n"))
        while (await receive())["type"] != "http.disconnect":
            pass

    server = serve_http2(app, graceful_timeout=20)
    client = http2(server)
    number = client.get()
    client.until(lambda: client.answers[number].body)
    stopper = threading.Thread(target=server.stop)
    stopper.start()
    reply = client.answer(number)
    assert (reply.body, reply.ended) == (b"data: 1\n\n", True)
    client.end()
    client.close()
    stopper.join(10)
    assert not stopper.is_alive()


# ---- Beside a sync application ---------------------------------------------------------------


def test_a_hybrid(serve_http2: Serve, http2: Connect) -> None:
    def sync_app(request: Request) -> Response | None:
        if request.path == "/sync":
            return Response(200, [], b"on a thread")
        return None

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await receive()
            scope["state"]["from"] = "lifespan"
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        body = await read_body(receive)
        shown = [len(body), scope["state"]["from"], scope["http_version"]]
        await answer(send, json.dumps(shown).encode())

    client = http2(serve_http2(sync_app, asgi_app=app))
    assert client.fetch("/sync").body == b"on a thread"
    for size in (0, 10, MIB):
        reply = client.fetch("/async", method="POST", body=b"x" * size)
        assert json.loads(reply.body) == [size, "lifespan", "2"]
    assert client.fetch("/sync").body == b"on a thread"


def test_nobody_beside_it(
    serve_http2: Serve, http2: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client = http2(serve_http2(lambda request: None))
    assert client.fetch().status == 501
    [record] = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert record.getMessage() == (
        f"The application failed on GET /: {__name__}:test_nobody_beside_it.<locals>.<lambda> needs"
        " an ASGI application beside it for this: it returned None (is a `return` missing?)"
    )
