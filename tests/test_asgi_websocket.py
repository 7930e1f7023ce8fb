"""WebSockets for ASGI applications: the handshake, the messages, both ends."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as connect_websocket

from threadwell import ThreadedServer
from threadwell.worker.errors import ClientDisconnected, InvalidResponseError

from .asgi_tools import LOOPS, UPGRADE, Message, Receive, Scope, Seen, Send, answer
from .wire_client import Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

pytestmark = pytest.mark.parametrize("loop", LOOPS)

ACCEPT: Message = {"type": "websocket.accept"}
CLOSE: Message = {"type": "websocket.close"}


def opened(server: ThreadedServer, path: str = "/", **options: Any) -> ClientConnection:
    """A client's WebSocket, to be used with `with`."""
    return connect_websocket(f"ws://127.0.0.1:{server.port}{path}", proxy=None, **options)


class App:
    """Accepts, and gives every message that comes back; notes what it is told at the end."""

    def __init__(self) -> None:
        self.seen = Seen()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        assert await receive() == {"type": "websocket.connect"}
        await send(ACCEPT)
        while (message := await receive())["type"] == "websocket.receive":
            await send({**message, "type": "websocket.send"})
        self.seen.add(message)


# ---- The handshake ---------------------------------------------------------------------------


def test_the_scope(serve: Serve, loop: str) -> None:
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        seen.add(scope)
        await send({**ACCEPT, "subprotocol": scope["subprotocols"][1]})

    server = serve(app, loop=loop, root_path="/api")
    headers = {"X-A": "b"}
    with opened(
        server, "/chat%20room?a=b", subprotocols=["x", "y"], additional_headers=headers
    ) as ws:
        assert ws.subprotocol == "y"
    scope = seen.values[0]
    assert scope["asgi"] == {"version": "3.0", "spec_version": "2.4"}
    assert (scope["scheme"], scope["http_version"]) == ("ws", "1.1")
    assert (scope["path"], scope["raw_path"]) == ("/api/chat room", b"/chat%20room")
    assert scope["query_string"] == b"a=b"
    assert scope["subprotocols"] == ["x", "y"]
    assert (b"x-a", b"b") in scope["headers"]
    assert scope["extensions"] == {"websocket.http.response": {}}
    assert "method" not in scope
    assert scope["client"][0] == scope["server"][0] == "127.0.0.1"


def test_headers_on_accept(serve: Serve, connect: Connect, loop: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        headers = [(b"Set-Cookie", b"a=1"), (b"set-cookie", b"b=2"), (b"upgrade", b"h2c")]
        await send({**ACCEPT, "headers": headers})

    got = connect(serve(app, loop=loop)).get(headers=UPGRADE)
    assert (got.status, got.reason) == (101, "Switching Protocols")
    # RFC 6455, 1.3
    assert got.header("sec-websocket-accept") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert (got.header("upgrade"), got.header("connection")) == ("websocket", "Upgrade")
    assert [value for name, value in got.headers if name == "set-cookie"] == ["a=1", "b=2"]
    assert got.header("content-length") is None


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8"), 426),
        (("Sec-WebSocket-Version: 13", "X: y"), 426),
        (("Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "X: y"), 400),
        (("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZQ=="), 400),
        (("dGhlIHNhbXBsZSBub25jZQ==", "!!!!IHNhbXBsZSBub25jZQ=="), 400),
        (("Sec-WebSocket-Key", "Content-Length: 5\r\nSec-WebSocket-Key"), 400),
        (("Sec-WebSocket-Key", "Transfer-Encoding: chunked\r\nSec-WebSocket-Key"), 400),
    ],
)
def test_what_is_no_handshake(
    serve: Serve, connect: Connect, loop: str, change: tuple[str, str], status: int
) -> None:
    client = connect(serve(App(), loop=loop, lifespan="off"))
    got = client.get(headers=UPGRADE.replace(*change))
    assert got.status == status
    assert got.header("sec-websocket-version") == ("13" if status == 426 else None)
    assert client.closed()


@pytest.mark.parametrize(
    "request_",
    [
        "GET / HTTP/1.0\r\nHost: x\r\n" + UPGRADE,
        "GET / HTTP/1.1\r\nHost: x\r\n" + UPGRADE.replace("Connection: Upgrade", "X: y"),
        "GET / HTTP/1.1\r\nHost: x\r\n" + UPGRADE.replace("Upgrade: websocket", "Upgrade: h2c"),
        "POST / HTTP/1.1\r\nHost: x\r\n" + UPGRADE,
    ],
)
def test_what_stays_http(serve: Serve, connect: Connect, loop: str, request_: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "http"
        await answer(send, b"http")

    client = connect(serve(app, loop=loop))
    client.send(request_.encode() + b"\r\n")
    assert client.answer().body == b"http"


def test_frames_that_come_with_the_handshake(serve: Serve, connect: Connect, loop: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await asyncio.sleep(0.05)
        await send(ACCEPT)
        await send({**(await receive()), "type": "websocket.send"})

    client = connect(serve(app, loop=loop))
    head = f"GET / HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n".encode()
    client.send(head + b"\x81\x82\0\0\0\0h")
    client.send(b"i")
    assert client.answer().status == 101
    assert client._exactly(4) == b"\x81\x02hi"


# ---- Refused ---------------------------------------------------------------------------------


def refused(server: ThreadedServer) -> Any:
    with pytest.raises(InvalidStatus) as raised, opened(server):
        pass
    return raised.value.response


def test_closed_before_it_is_accepted(serve: Serve, loop: str) -> None:
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send(CLOSE)
        seen.add(await receive())

    assert refused(serve(app, loop=loop)).status_code == 403
    assert seen.wait(1)[0]["type"] == "websocket.disconnect"


@pytest.mark.parametrize("parts", [[b"sorry"], [b"so", b"rry"], [b""]])
def test_a_denial(serve: Serve, loop: str, parts: list[bytes]) -> None:
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        headers = [(b"x-why", b"because")]
        start = {"type": "websocket.http.response.start", "status": 401, "headers": headers}
        await send(start)
        for number, part in enumerate(parts, 1):
            more = number < len(parts)
            body = {"type": "websocket.http.response.body", "body": part, "more_body": more}
            await send(body)
        seen.add(await receive())

    got = refused(serve(app, loop=loop))
    assert (got.status_code, got.headers["x-why"]) == (401, "because")
    assert bytes(got.body) == b"".join(parts)
    assert seen.wait(1)[0]["type"] == "websocket.disconnect"


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize("fails", [False, True])
def test_no_answer(
    serve: Serve, loop: str, later: bool, fails: bool, caplog: pytest.LogCaptureFixture
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        if later:
            await asyncio.sleep(0.001)
        if fails:
            raise SystemExit(3)

    server = serve(app, loop=loop)
    assert refused(server).status_code == 500
    assert refused(server).status_code == 500
    assert "WebSocket" in caplog.text


# ---- Messages --------------------------------------------------------------------------------


def test_messages(serve: Serve, loop: str) -> None:
    messages: list[Any] = ["", "a", "é€😀" * 1000, b"", os.urandom(10), os.urandom(70_000)]
    with opened(serve(App(), loop=loop), max_size=None) as ws:
        for message in messages:
            ws.send(message)
            assert ws.recv() == message
        ws.send(iter(["fra", "gm", "ents"]))
        assert ws.recv() == "fragments"
        ws.send(iter([b"fra", b"gm", b"ents"]))
        assert ws.recv() == b"fragments"
        big = os.urandom(4_000_000)
        ws.send(big)
        assert ws.recv() == big


def test_only_one_key_counts(serve: Serve, loop: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send(ACCEPT)
        await send({"type": "websocket.send", "bytes": None, "text": "t"})
        await send({"type": "websocket.send", "bytes": b"b", "text": None})
        with pytest.raises(TypeError):
            await send({"type": "websocket.send"})
        await send({"type": "websocket.send", "bytes": bytearray(b"c")})

    with opened(serve(app, loop=loop)) as ws:
        assert [ws.recv(), ws.recv(), ws.recv()] == ["t", b"b", b"c"]


@pytest.mark.parametrize("compression", ["deflate", None])
@pytest.mark.parametrize("offered", ["deflate", "off"])
def test_compression(serve: Serve, loop: str, compression: Any, offered: str) -> None:
    server = serve(App(), loop=loop, ws_compression=offered)
    with opened(server, compression=compression) as ws:
        used = "permessage-deflate" in ws.response.headers.get("Sec-WebSocket-Extensions", "")  # type: ignore[union-attr]
        assert used is (compression is not None and offered == "deflate")
        for _ in range(3):
            ws.send("a" * 100_000)
            assert ws.recv() == "a" * 100_000


def test_many_senders(serve: Serve, loop: str) -> None:
    """Messages of several tasks do not mix, though the client reads late."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send(ACCEPT)

        async def one(number: int) -> None:
            for _ in range(5):
                await send({"type": "websocket.send", "bytes": bytes([number]) * 300_000})

        await asyncio.gather(*map(one, range(10)))

    with opened(serve(app, loop=loop)) as ws:
        time.sleep(0.2)
        messages = [ws.recv() for _ in range(50)]
    assert all(len(set(message)) == 1 and len(message) == 300_000 for message in messages)


def test_backpressure_of_a_client_that_does_not_read(
    serve: Serve, connect: Connect, loop: str
) -> None:
    sent = 0

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal sent
        assert scope["type"] == "websocket"
        await receive()
        await send(ACCEPT)
        with contextlib.suppress(OSError):
            while True:
                await send({"type": "websocket.send", "bytes": bytes(100_000)})
                sent += 1

    client = connect(serve(app, loop=loop))
    assert client.get(headers=UPGRADE).status == 101
    before = -1
    while before != sent:
        before = sent
        time.sleep(0.2)
    assert sent * 100_000 < 50_000_000


def test_an_application_that_does_not_listen_stops_its_client(
    serve: Serve, connect: Connect, loop: str
) -> None:
    go_on, count = threading.Event(), Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send(ACCEPT)
        await asyncio.to_thread(go_on.wait)
        received = 0
        while (message := await receive())["type"] == "websocket.receive":
            received += len(message["bytes"])
        count.add(received)

    client = connect(serve(app, loop=loop))
    assert client.get(headers=UPGRADE).status == 101
    frame = b"\x82\xfe\xff\xff\0\0\0\0" + bytes(0xFFFF)
    client.sock.settimeout(0.5)
    sent, pending = 0, b""
    with contextlib.suppress(TimeoutError):
        while sent < 50_000_000:
            pending = pending or frame
            done = client.sock.send(pending)
            pending = pending[done:]
            sent += done
    assert sent < 40_000_000
    go_on.set()
    client.sock.settimeout(10)
    client.sock.sendall(pending + b"\x88\x80\0\0\0\0")
    assert count.wait(1)[0] == (sent + len(pending)) // len(frame) * 0xFFFF


def test_a_flood_of_small_messages(serve: Serve, connect: Connect, loop: str) -> None:
    client = connect(serve(App(), loop=loop, limit_ws_queue=2))
    assert client.get(headers=UPGRADE).status == 101
    client.send(b"\x81\x81\0\0\0\0a" * 5000)
    assert client._exactly(15000) == b"\x81\x01a" * 5000


@pytest.mark.parametrize(
    ("data", "most"),
    [
        (b"\x81\x81\0\0\0\0a" * 5000, 70),
        ((b"\x8a\x80\0\0\0\0" * 50 + b"\x81\x81\0\0\0\0a") * 100, 2),
        (b"", 70),
    ],
    ids=["messages", "control frames", "answers"],
)
@pytest.mark.parametrize("echoes", [False, True])
def test_a_busy_websocket_lets_others_go_on(
    serve: Serve, connect: Connect, loop: str, data: bytes, most: int, echoes: bool
) -> None:
    """However many frames come at once, or go to a client that takes them."""
    turns = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        done = at_once = 0
        expected = data.count(b"a") or 1000

        async def beside() -> None:
            nonlocal at_once
            before = 0
            while before < expected:
                await asyncio.sleep(0)
                at_once, before = max(at_once, done - before), done
            turns.add(at_once)

        await receive()
        await send(ACCEPT)
        turn = asyncio.ensure_future(beside())
        while done < expected:
            if data:
                await receive()
            if echoes or not data:
                await send({"type": "websocket.send", "text": "a"})
            done += 1
        await turn

    client = connect(serve(app, loop=loop))
    assert client.get(headers=UPGRADE).status == 101
    reading = threading.Thread(target=client.rest)
    reading.start()
    client.send(data)
    assert 0 < turns.wait()[0] <= most
    client.sock.shutdown(socket.SHUT_RDWR)
    reading.join()


# ---- The end ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "away"), (4999, "é" * 61)])
def test_the_client_closes(serve: Serve, loop: str, code: int, reason: str) -> None:
    app = App()
    with opened(serve(app, loop=loop)) as ws:
        ws.close(code, reason)
        assert ws.close_code == code
    expected = {"type": "websocket.disconnect", "code": code, "reason": reason}
    assert app.seen.wait(1) == [expected]


def test_the_client_closes_without_a_code(serve: Serve, connect: Connect, loop: str) -> None:
    app = App()
    client = connect(serve(app, loop=loop))
    client.get(headers=UPGRADE)
    client.send(b"\x88\x80\0\0\0\0")
    assert client.rest() == b"\x88\x00"
    assert app.seen.wait(1)[0]["code"] == 1005


def test_the_client_is_cut(serve: Serve, connect: Connect, loop: str) -> None:
    app = App()
    client = connect(serve(app, loop=loop))
    client.get(headers=UPGRADE)
    client.close()
    assert app.seen.wait(1)[0]["code"] == 1006


def test_a_receive_that_is_given_up_loses_nothing(serve: Serve, loop: str) -> None:
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send({"type": "websocket.accept"})
        while True:
            try:
                message = await asyncio.wait_for(receive(), 0.01)
            except TimeoutError:
                seen.add(None)
                continue
            if message["type"] == "websocket.disconnect":
                return
            await send({"type": "websocket.send", "text": message["text"]})

    server = serve(app, loop=loop)
    with connect_websocket(f"ws://127.0.0.1:{server.port}/", proxy=None) as ws:
        for number in range(10):
            seen.wait(len(seen.values) + 1)
            for _ in range(3):
                ws.send(str(number))
            assert [ws.recv(5) for _ in range(3)] == [str(number)] * 3


def test_disconnect_is_sticky(serve: Serve, connect: Connect, loop: str) -> None:
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send(ACCEPT)
        for _ in range(3):
            seen.add((await receive())["type"])
        await send(CLOSE)  # too late, and no harm
        try:
            await send({"type": "websocket.send", "text": "x"})
        except OSError as error:
            seen.add(type(error))

    client = connect(serve(app, loop=loop))
    client.get(headers=UPGRADE)
    client.close()
    assert seen.wait(4) == ["websocket.disconnect"] * 3 + [ClientDisconnected]


def test_messages_before_the_close_are_delivered(serve: Serve, connect: Connect, loop: str) -> None:
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send(ACCEPT)
        await asyncio.sleep(0.1)
        while (message := await receive())["type"] == "websocket.receive":
            seen.add(message["text"])
        seen.add(message["code"])

    client = connect(serve(app, loop=loop))
    client.get(headers=UPGRADE)
    client.send(b"\x81\x81\0\0\0\0a" * 3 + b"\x88\x82\0\0\0\0\x03\xe8")
    assert seen.wait(4) == ["a", "a", "a", 1000]


@pytest.mark.parametrize(
    ("message", "code", "reason"),
    [
        (CLOSE, 1000, ""),
        ({**CLOSE, "code": 1001}, 1001, ""),
        ({**CLOSE, "code": 4001, "reason": "bye"}, 4001, "bye"),
        ({**CLOSE, "code": 4001, "reason": None}, 4001, ""),
        ({**CLOSE, "reason": "x" * 500}, 1000, "x" * 123),
    ],
)
def test_the_application_closes(
    serve: Serve, loop: str, message: Message, code: int, reason: str
) -> None:
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send(ACCEPT)
        await send(message)
        seen.add((await receive())["code"])

    with opened(serve(app, loop=loop)) as ws, pytest.raises(ConnectionClosed) as closed:
        ws.recv()
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (code, reason)
    assert seen.wait(1) == [code]


@pytest.mark.parametrize(("fails", "code"), [(False, 1000), (True, 1011)])
def test_the_application_ends(serve: Serve, loop: str, fails: bool, code: int) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send(ACCEPT)
        if fails:
            raise ValueError

    with opened(serve(app, loop=loop)) as ws, pytest.raises(ConnectionClosed) as closed:
        ws.recv()
    assert closed.value.rcvd is not None
    assert closed.value.rcvd.code == code


def test_a_client_that_does_not_answer_a_close(serve: Serve, connect: Connect, loop: str) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        await send(ACCEPT)

    client = connect(serve(app, loop=loop, linger_timeout=0.1))
    client.get(headers=UPGRADE)
    assert client.rest() == b"\x88\x02\x03\xe8"


def test_the_server_stops(serve: Serve, loop: str) -> None:
    app = App()
    server = serve(app, loop=loop, graceful_timeout=5)
    with opened(server) as ws:
        ws.send("x")
        assert ws.recv() == "x"
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        with pytest.raises(ConnectionClosed) as closed:
            ws.recv()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1012
        stopping.join(4)
        assert not stopping.is_alive()
    assert app.seen.wait(1)[0]["code"] == 1012


def test_the_server_stops_before_one_is_accepted(
    serve: Serve, connect: Connect, loop: str, caplog: pytest.LogCaptureFixture
) -> None:
    seen = Seen()
    go_on = threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        seen.add("connected")
        await asyncio.to_thread(go_on.wait)
        with pytest.raises(ClientDisconnected):
            await send(ACCEPT)
        seen.add(await receive())

    server = serve(app, loop=loop)
    client = connect(server)
    client.send(f"GET / HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n".encode())
    seen.wait()
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    assert client.answer().status == 503
    go_on.set()
    assert seen.wait(2)[1]["code"] == 1006
    stopping.join()
    assert not [each for each in caplog.records if each.levelname == "ERROR"]


# ---- Pings -----------------------------------------------------------------------------------


def test_pings_keep_alive(serve: Serve, loop: str) -> None:
    server = serve(App(), loop=loop, ws_ping_interval=0.1, ws_ping_timeout=3)
    with opened(server, ping_interval=None) as ws:
        with pytest.raises(TimeoutError):
            ws.recv(2.5)
        ws.send("x")
        assert ws.recv() == "x"


def test_a_client_that_does_not_answer_pings(serve: Serve, connect: Connect, loop: str) -> None:
    app = App()
    server = serve(app, loop=loop, ws_ping_interval=0.1, ws_ping_timeout=0.1, linger_timeout=0.1)
    client = connect(server)
    client.get(headers=UPGRADE)
    assert client.rest() == b"\x89\x00\x88\x02\x03\xf3"
    assert app.seen.wait(1)[0]["code"] == 1011


def test_a_denial_that_must_not_leave(serve: Serve, loop: str) -> None:
    """It leaves the WebSocket as it was."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        with pytest.raises(InvalidResponseError):
            await send({**START, "status": 5})
        await send(ACCEPT)
        await send({**(await receive()), "type": "websocket.send"})

    with opened(serve(app, loop=loop)) as ws:
        ws.send("x")
        assert ws.recv() == "x"


# ---- Order -----------------------------------------------------------------------------------

SEND: Message = {"type": "websocket.send", "text": "x"}
START: Message = {"type": "websocket.http.response.start", "status": 400}
BODY: Message = {"type": "websocket.http.response.body", "body": b"x"}


@pytest.mark.parametrize(
    ("messages", "error"),
    [
        ([SEND], RuntimeError),
        ([BODY], RuntimeError),
        ([ACCEPT, ACCEPT], RuntimeError),
        ([ACCEPT, START], RuntimeError),
        ([ACCEPT, CLOSE, SEND], RuntimeError),
        ([ACCEPT, CLOSE, CLOSE], RuntimeError),
        ([CLOSE, ACCEPT], RuntimeError),
        ([START, ACCEPT], RuntimeError),
        ([START, START], RuntimeError),
        ([START, BODY, BODY], RuntimeError),
        ([{"type": "http.response.start", "status": 200}], RuntimeError),
        ([ACCEPT, {**CLOSE, "code": 999}], InvalidResponseError),
        ([ACCEPT, {**CLOSE, "code": 70000}], InvalidResponseError),
        ([ACCEPT, {**CLOSE, "reason": "\ud800"}], InvalidResponseError),
        ([{**ACCEPT, "subprotocol": "mine"}], InvalidResponseError),
        ([{**ACCEPT, "headers": [(b"a", b"b\r\nc: d")]}], InvalidResponseError),
        ([{**ACCEPT, "headers": [(b"sec-websocket-protocol", b"x")]}], InvalidResponseError),
    ],
)
def test_a_wrong_message_raises_in_the_application(
    serve: Serve,
    connect: Connect,
    loop: str,
    messages: list[Message],
    error: type[Exception],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.CRITICAL, "threadwell")
    seen = Seen()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        assert scope["type"] == "websocket"
        await receive()
        for message in messages[:-1]:
            await send(message)
        try:
            await send(messages[-1])
        except Exception as raised:
            seen.add(type(raised))
            raise
        seen.add(None)

    client = connect(serve(app, loop=loop, linger_timeout=0.1))
    client.send(f"GET / HTTP/1.1\r\nHost: x\r\n{UPGRADE}\r\n".encode())
    assert issubclass(seen.wait(1)[0], error)


def test_without_wsproto(
    serve: Serve, connect: Connect, loop: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.delitem(sys.modules, "threadwell.worker.asgi.websocket", raising=False)
    monkeypatch.setitem(sys.modules, "wsproto", None)
    client = connect(serve(App(), loop=loop))
    assert client.get(headers=UPGRADE).status == 501


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing that an application failed on was unexpected, unless a test says so."""
    yield
    unexpected = [each for each in caplog.records if "internal error" in each.getMessage()]
    assert unexpected == []
