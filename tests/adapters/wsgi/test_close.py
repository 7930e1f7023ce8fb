"""The `close` method of a body: it is called once, however the response ends."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from threadwell import ThreadedServer

from ...helpers.process import StreamsEnded
from ...helpers.wire_client import Client
from .applications import ERRORS, PLAIN, Body, Environ, StartResponse, answering, failures, reset

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]


class TestClose:
    @pytest.mark.parametrize("method", ["GET", "HEAD"])
    @pytest.mark.parametrize("status", ["200 OK", "204 No Content", "304 Not Modified"])
    @pytest.mark.parametrize("declared", [False, True])
    def test_after_an_answer(
        self, serve: Serve, connect: Connect, method: str, status: str, declared: bool
    ) -> None:
        body = Body([b"one", b"two"])
        headers = [("Content-Length", "6")] if declared else []
        server = serve(answering(body, status, headers))
        client = connect(server)
        client.send(f"{method} / HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = client.answer(method)
        assert answer.status == int(status[:3])
        assert answer.body == (b"onetwo" if (method, status) == ("GET", "200 OK") else b"")
        assert body.closed.wait(10)
        server.stop()
        assert client.closed()
        assert body.closes == 1
        assert len(set(body.threads)) == 1

    def test_of_a_list_that_can_be_closed(self, serve: Serve, connect: Connect) -> None:
        """Nothing says that only generators may have a `close`."""

        class Closing(Body):
            def __len__(self) -> int:
                return 1

        body = Closing([b"one"])
        server = serve(answering(body))
        assert connect(server).get().body == b"one"
        server.stop()
        assert body.closes == 1

    @pytest.mark.parametrize("at", [0, 1])
    def test_after_an_error(self, serve: Serve, connect: Connect, at: int) -> None:
        def blocks() -> Iterator[bytes]:
            yield from [b"block"] * at
            raise LookupError("in the iteration")

        body = Body(blocks())
        server = serve(answering(body))
        answer = connect(server).get()
        assert (answer.status, answer.complete) == ((200, False) if at else (500, True))
        server.stop()
        assert body.closes == 1

    @pytest.mark.parametrize("kind", ["Exception", "SystemExit"])
    @pytest.mark.parametrize("blocks", [[b"one"], []])
    def test_that_raises(
        self,
        serve: Serve,
        connect: Connect,
        caplog: pytest.LogCaptureFixture,
        kind: str,
        blocks: list[bytes],
    ) -> None:
        body = Body(blocks, ERRORS[kind]())
        server = serve(answering(body))
        client = connect(server)
        answer = client.get()
        assert (answer.status, answer.body, answer.complete) == (200, b"".join(blocks), True)
        assert body.closed.wait(10)
        server.stop()
        assert body.closes == 1
        assert len(failures(caplog)) == 1

    def test_after_an_error_before_start_response(self, serve: Serve, connect: Connect) -> None:
        body = Body([b"one"])

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            return body

        server = serve(app)
        assert connect(server).get().status == 500
        server.stop()
        assert body.closes == 1

    def test_of_a_lazy_body(self, serve: Serve, connect: Connect) -> None:
        class Lazy(Body):
            start_response: StartResponse

            def __iter__(self) -> Iterator[Any]:
                self.start_response("200 OK", PLAIN)
                return super().__iter__()

        body = Lazy([b"one", b"two"])

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            body.start_response = start_response
            return body

        server = serve(app)
        assert connect(server).get().body == b"onetwo"
        server.stop()
        assert body.closes == 1

    @pytest.mark.parametrize("declared", [False, True])
    def test_when_the_client_is_gone(
        self, serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture, declared: bool
    ) -> None:
        body = Body(itertools.repeat(b"x" * 65536))
        headers = [("Content-Length", str(10**12))] if declared else []
        server = serve(answering(body, headers=headers))
        client = connect(server)
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.sock.recv(4096)
        reset(client)
        assert body.closed.wait(10)
        server.stop()
        assert body.closes == 1
        assert len(set(body.threads)) == 1
        assert failures(caplog) == []

    def test_when_the_client_is_gone_from_write(self, serve: Serve, connect: Connect) -> None:
        over = threading.Event()

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            write = start_response("200 OK", PLAIN)
            try:
                while True:
                    write(b"x" * 65536)
            except OSError:
                over.set()
                raise

        server = serve(app)
        client = connect(server)
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.sock.recv(4096)
        reset(client)
        assert over.wait(10)

    def test_when_the_answer_is_a_list_and_the_client_is_gone(
        self, serve: Serve, connect: Connect
    ) -> None:
        class Blocks(list[bytes]):
            closed = threading.Event()
            closes = 0

            def close(self) -> None:
                self.closes += 1
                self.closed.set()

        blocks = Blocks([b"x" * 5_000_000] * 4)
        server = serve(answering(blocks))
        client = connect(server)
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.sock.recv(4096)
        reset(client)
        assert blocks.closed.wait(10)
        server.stop()
        assert blocks.closes == 1

    def test_when_there_are_too_many_streams(
        self, serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
    ) -> None:
        go_on = threading.Event()
        bodies: list[Body] = []

        def blocks() -> Iterator[bytes]:
            yield b"one "
            assert go_on.wait(10)
            yield b"two"

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", PLAIN)
            bodies.append(Body(blocks()))
            return bodies[-1]

        ended = StreamsEnded()
        server = serve(app, max_streams=1, threads=2, lifecycle_collector=ended)
        first, second = connect(server), connect(server)
        first.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert first.sock.recv(1)  # so it has begun
        refused = second.get()
        assert refused.status == 503
        assert bodies[1].closed.wait(10)
        go_on.set()
        received = b""
        while not received.endswith(b"0\r\n\r\n"):
            received += first.sock.recv(4096)
        assert ended.event.wait(10)
        assert second.get().body == b"one two"
        server.stop()
        assert [body.closes for body in bodies] == [1, 1, 1]
        assert failures(caplog) == []

    def test_when_a_header_is_invalid(self, serve: Serve, connect: Connect) -> None:
        body = Body([b"one"])
        server = serve(answering(body, headers=[("X-A", "a\nb")]))
        assert connect(server).get().status == 500
        server.stop()
        assert body.closes == 1

    def test_when_the_body_is_longer_than_declared(
        self, serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
    ) -> None:
        body = Body([b"one", b"two", b"three"])
        server = serve(answering(body, headers=[("Content-Length", "4")]))
        assert connect(server).get().body == b"onet"
        server.stop()
        assert body.closes == 1
