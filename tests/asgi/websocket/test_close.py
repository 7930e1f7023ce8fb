"""The end of a WebSocket, by the client, the application and the server."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect as connect_websocket

from threadwell import ThreadedServer
from threadwell.worker.errors import ClientDisconnected

from ...helpers.asgi_tools import LOOPS, UPGRADE, Message, Receive, Scope, Seen, Send
from ...helpers.wire_client import Client
from .applications import ACCEPT, CLOSE, App, opened

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

pytestmark = pytest.mark.parametrize("loop", LOOPS)


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
