"""`start_response` and the `write` callable that it returns."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest

from threadwell import ThreadedServer

from ...helpers.process import descriptors
from ...helpers.wire_client import Client
from .applications import PLAIN, Body, Environ, StartResponse, failures, head, temporary

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]


def _exc_info() -> Any:
    try:
        raise LookupError("sought and not found")
    except LookupError:
        return sys.exc_info()


class TestStartResponse:
    def test_twice(self, serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture) -> None:
        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", PLAIN)
            start_response("201 Created", PLAIN)
            return [b"ok"]

        assert connect(serve(app)).get().status == 500
        assert len(failures(caplog)) == 1

    def test_twice_in_a_generator(self, serve: Serve, connect: Connect) -> None:
        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", PLAIN)
            start_response("201 Created", PLAIN)
            yield b"ok"

        assert connect(serve(app)).get().status == 500

    @pytest.mark.parametrize("lazy", [False, True])
    @pytest.mark.parametrize("declared", ["none", "first", "second"])
    def test_exc_info_before_output_replaces_all(
        self, serve: Serve, connect: Connect, lazy: bool, declared: str
    ) -> None:
        first = [("X-First", "1"), ("Content-Type", "a/b")]
        second = [("X-Second", "2"), ("Content-Type", "c/d")]
        if declared == "first":
            first.append(("Content-Length", "100"))
        if declared == "second":
            second.append(("Content-Length", "5"))

        def blocks(start_response: StartResponse) -> Iterator[bytes]:
            yield b""
            start_response("503 Later", second, _exc_info())
            yield b"er"
            yield b"ror"

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", first)
            if lazy:
                return blocks(start_response)
            start_response("503 Later", second, _exc_info())
            return [b"error"]

        client = connect(serve(app))
        for _ in range(2):
            answer = client.get()
            assert (answer.status, answer.reason, answer.body) == (503, "Later", b"error")
            assert answer.header("x-first") is None
            assert answer.header("x-second") == "2"
            assert answer.header("content-type") == "c/d"

    def test_exc_info_at_the_first_call(self, serve: Serve, connect: Connect) -> None:
        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            start_response("500 Oops", PLAIN, _exc_info())
            return [b"error"]

        answer = connect(serve(app)).get()
        assert (answer.reason, answer.body) == ("Oops", b"error")

    def test_exc_info_after_an_empty_write(self, serve: Serve, connect: Connect) -> None:
        """No byte of the body came from the application, so the head is not sent yet."""

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            write = start_response("200 OK", [("X-First", "1")])
            write(b"")
            start_response("503 Later", PLAIN, _exc_info())
            return [b"error"]

        answer = connect(serve(app)).get()
        assert (answer.status, answer.body) == (503, b"error")
        assert answer.header("x-first") is None

    @pytest.mark.parametrize("how", ["generator", "write"])
    def test_exc_info_after_output_raises(
        self, serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture, how: str
    ) -> None:
        raised: list[BaseException] = []

        def restart(start_response: StartResponse) -> None:
            try:
                start_response("500 Oops", PLAIN, _exc_info())
            except LookupError as error:
                raised.append(error)
                raise

        def blocks(start_response: StartResponse) -> Iterator[bytes]:
            yield b"partial"
            restart(start_response)
            yield b"never"

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            write = start_response("200 OK", PLAIN)
            if how == "generator":
                return blocks(start_response)
            write(b"partial")
            restart(start_response)
            return [b"never"]

        answer = connect(serve(app)).get()
        assert (answer.status, answer.body, answer.complete) == (200, b"partial", False)
        assert [str(error) for error in raised] == ["sought and not found"]
        assert len(failures(caplog)) == 1

    def test_lazy(self, serve: Serve, connect: Connect) -> None:
        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            start_response("201 Created", [("X-Lazy", "1")])
            yield b"one"
            yield b"two"

        answer = connect(serve(app)).get()
        assert (answer.status, answer.header("x-lazy"), answer.body) == (201, "1", b"onetwo")

    def test_lazy_without_a_block(self, serve: Serve, connect: Connect) -> None:
        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            start_response("201 Created", PLAIN)
            yield from ()

        client = connect(serve(app))
        for _ in range(2):
            answer = client.get()
            assert (answer.status, answer.body) == (201, b"")

    @pytest.mark.parametrize("kind", ["list", "generator", "empty", "none"])
    def test_never(
        self, serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture, kind: str
    ) -> None:
        bodies = {"list": [b"a"], "generator": iter([b"a"]), "empty": [], "none": None}

        def app(environ: Environ, start_response: StartResponse) -> Any:
            return bodies[kind]

        client = connect(serve(app))
        assert client.get().status == 500
        assert len(failures(caplog)) == 1
        assert client.get().status == 500

    @pytest.mark.parametrize(
        ("status", "headers"),
        [
            ("200 OK", [("X-A", "a\r\nX-B: b")]),
            ("200 OK", [("X-A", "a\x00b")]),
            ("200 OK", [("X A", "a")]),
            ("200 OK", [("", "a")]),
            ("200 OK", [("X-A", 1)]),
            ("200 OK", [("X-A", b"a")]),
            ("200 OK", [("X-A", "\u20ac")]),
            ("200 OK", [("Content-Length", "-1")]),
            ("200 OK", [("Content-Length", "1"), ("Content-Length", "2")]),
            ("200 OK\r\nX-A: b", []),
            ("OK", []),
            ("100 Continue", []),
            ("20 OK", []),
            (b"200 OK", []),
            ("200 OK", [("X-A",)]),
            ("200 OK", None),
        ],
    )
    @pytest.mark.parametrize("kind", ["list", "generator", "file"])
    def test_what_cannot_go_on_the_wire(
        self, serve: Serve, connect: Connect, status: Any, headers: Any, kind: str
    ) -> None:
        bodies: list[Body] = []

        def app(environ: Environ, start_response: StartResponse) -> Any:
            start_response(status, headers)
            if kind == "list":
                return [b"body"]
            if kind == "file":
                return environ["wsgi.file_wrapper"](temporary(b"body"))
            bodies.append(Body([b"bo", b"dy"]))
            return bodies[-1]

        before = descriptors()
        server = serve(app)
        client = connect(server)
        for _ in range(2):
            answer = client.get()
            assert (answer.status, answer.header("x-b")) == (500, None)
        server.stop()
        client.close()
        assert [body.closes for body in bodies] == [1] * len(bodies)
        assert descriptors() <= before

    @pytest.mark.parametrize("body", [[b"body"], (b"bo", b"dy"), iter([b"body"])])
    def test_headers_that_can_be_read_once(
        self, serve: Serve, connect: Connect, body: Iterable[bytes]
    ) -> None:
        """What was read of them on the short way would be missing on the other."""

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", iter([("X-A", "a"), ("Connection", "close")]))
            return body

        answer = connect(serve(app)).get()
        assert answer.status == 500 or answer.header("x-a") == "a"


class TestWrite:
    def test_alone(self, serve: Serve, connect: Connect) -> None:
        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            write = start_response("200 OK", PLAIN)
            write(b"one ")
            write(b"")
            write(b"two")
            return []

        client = connect(serve(app))
        for _ in range(2):
            assert client.get().body == b"one two"

    @pytest.mark.parametrize("rest", [[b"three"], (b"th", b"ree"), iter([b"thr", b"", b"ee"])])
    def test_then_an_iterable(self, serve: Serve, connect: Connect, rest: Iterable[bytes]) -> None:
        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            write = start_response("200 OK", PLAIN)
            write(b"one ")
            write(b"two ")
            return rest

        assert connect(serve(app)).get().body == b"one two three"

    def test_within_a_generator(self, serve: Serve, connect: Connect) -> None:
        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            write = start_response("200 OK", PLAIN)
            write(b"one ")
            yield b"two "
            yield b"three"

        assert connect(serve(app)).get().body == b"one two three"

    def test_then_a_file(self, serve: Serve, connect: Connect) -> None:
        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            write = start_response("200 OK", PLAIN)
            write(b"one ")
            return environ["wsgi.file_wrapper"](temporary(b"two"))  # type: ignore[no-any-return]

        assert connect(serve(app)).get().body == b"one two"

    def test_with_a_length(self, serve: Serve, connect: Connect) -> None:
        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            write = start_response("200 OK", [("Content-Length", "6")])
            write(b"one")
            return [b"two"]

        client = connect(serve(app))
        for _ in range(2):
            answer = client.get()
            assert (answer.header("content-length"), answer.body) == ("6", b"onetwo")

    def test_head(self, serve: Serve, connect: Connect) -> None:
        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            write = start_response("200 OK", [("Content-Length", "6"), ("X-A", "1")])
            write(b"one")
            return [b"two"]

        client = connect(serve(app))
        for _ in range(2):
            answer = head(client)
            assert (answer.status, answer.header("content-length")) == (200, "6")
        assert client.get().body == b"onetwo"

    def test_is_on_the_wire_when_it_returns(self, serve: Serve, connect: Connect) -> None:
        read = threading.Event()

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            write = start_response("200 OK", PLAIN)
            write(b"first")
            assert read.wait(10)
            write(b"second")
            return []

        client = connect(serve(app))
        client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        received = b""
        while b"first" not in received:
            received += client.sock.recv(4096)
        read.set()
        while not received.endswith(b"0\r\n\r\n"):
            received += client.sock.recv(4096)
        assert b"second" in received

    def test_of_text(self, serve: Serve, connect: Connect) -> None:
        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", PLAIN)("text")  # type: ignore[arg-type]
            return []

        client = connect(serve(app))
        assert client.get().status == 500
        assert client.get().status == 500

    def test_then_an_error(
        self, serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
    ) -> None:
        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", PLAIN)(b"partial")
            raise LookupError("in the middle")

        answer = connect(serve(app)).get()
        assert (answer.status, answer.body, answer.complete) == (200, b"partial", False)
        assert len(failures(caplog)) == 1
