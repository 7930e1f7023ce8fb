"""PEP 3333, all of it, through real sockets."""

from __future__ import annotations

import contextlib
import contextvars
import gzip
import io
import itertools
import logging
import os
import socket
import struct
import sys
import tempfile
import threading
import types
import wsgiref.validate
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from threadwell import ThreadedServer
from threadwell.adapters.wsgi import WSGIApp

from .apps.process import StreamsEnded, descriptors, script
from .wire_client import Answer, Client

Environ = dict[str, Any]
StartResponse = Callable[..., Callable[[bytes], None]]
App = Callable[[Environ, StartResponse], Iterable[bytes]]
Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

PLAIN = [("Content-Type", "text/plain")]


class Seen:
    """An application that keeps a copy of every environ, and says `ok`."""

    def __init__(self) -> None:
        self.environs: list[Environ] = []
        self.types: list[type] = []

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        self.types.append(type(environ))
        self.environs.append(dict(environ))
        start_response("200 OK", PLAIN)
        return [b"ok"]

    @property
    def last(self) -> Environ:
        return self.environs[-1]


class Body:
    """An iterable body that counts how often it is closed."""

    def __init__(self, blocks: Iterable[Any], error_at_close: BaseException | None = None) -> None:
        self._blocks = iter(blocks)
        self._error = error_at_close
        self.closes = 0
        self.closed = threading.Event()
        self.threads: list[int] = []

    def __iter__(self) -> Iterator[Any]:
        self.threads.append(threading.get_ident())
        return self._blocks

    def close(self) -> None:
        self.closes += 1
        self.threads.append(threading.get_ident())
        self.closed.set()
        if self._error is not None:
            raise self._error


def answering(
    body: Any, status: str = "200 OK", headers: list[tuple[str, str]] | None = None
) -> App:
    """An application that always answers the same."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response(status, list(PLAIN if headers is None else headers))
        return body  # type: ignore[no-any-return]

    return app


def hold(text: bytes, *, chunked: bool = False) -> bytes:
    """A POST with `text` as its body."""
    if chunked:
        sizes = [7, 1, 300, 4000]
        pieces, at = [], 0
        for size in itertools.cycle(sizes):
            if at >= len(text):
                break
            piece = text[at : at + size]
            pieces.append(b"%x\r\n%b\r\n" % (len(piece), piece))
            at += size
        framing, data = b"Transfer-Encoding: chunked", b"".join(pieces) + b"0\r\n\r\n"
    else:
        framing, data = b"Content-Length: %d" % len(text), text
    return b"POST / HTTP/1.1\r\nHost: x\r\n" + framing + b"\r\n\r\n" + data


def temporary(data: bytes) -> Any:
    """A temporary file of `data`, at its start."""
    file = tempfile.TemporaryFile()  # noqa: SIM115 - whoever gets it closes it
    file.write(data)
    file.seek(0)
    return file


def http10(client: Client, target: str = "/", headers: str = "") -> Answer:
    client.send(f"GET {target} HTTP/1.0\r\n{headers}\r\n".encode("latin-1"))
    return client.answer()


def head(client: Client, target: str = "/") -> Answer:
    client.send(f"HEAD {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode("latin-1"))
    return client.answer("HEAD")


def failures(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


# ---- environ -------------------------------------------------------------------------------


class TestEnviron:
    def test_has_what_pep_3333_requires(self, serve: Serve, connect: Connect) -> None:
        seen = Seen()
        server = serve(seen)
        client = connect(server)
        client.get("/a%20b/c?d=%20e&f", headers="Accept: x/y\r\n")
        assert seen.types == [dict]
        environ = seen.last
        assert environ["REQUEST_METHOD"] == "GET"
        assert environ["SCRIPT_NAME"] == ""
        assert environ["PATH_INFO"] == "/a b/c"
        assert environ["QUERY_STRING"] == "d=%20e&f"
        assert environ["SERVER_NAME"] == "127.0.0.1"
        assert environ["SERVER_PORT"] == str(server.port)
        assert environ["SERVER_PROTOCOL"] == "HTTP/1.1"
        assert environ["HTTP_HOST"] == "x"
        assert environ["HTTP_ACCEPT"] == "x/y"
        assert environ["REMOTE_ADDR"] == "127.0.0.1"
        assert environ["REMOTE_PORT"] == str(client.sock.getsockname()[1])
        assert environ["wsgi.version"] == (1, 0)
        assert environ["wsgi.url_scheme"] == "http"
        assert environ["wsgi.multithread"] is True
        assert environ["wsgi.multiprocess"] is False
        assert environ["wsgi.run_once"] is False
        assert environ["wsgi.input_terminated"] is True
        for method in ("read", "readline", "readlines", "__iter__"):
            assert hasattr(environ["wsgi.input"], method)
        for method in ("write", "writelines", "flush"):
            assert hasattr(environ["wsgi.errors"], method)
        assert callable(environ["wsgi.file_wrapper"])

    def test_cgi_variables_are_native_strings(self, serve: Serve, connect: Connect) -> None:
        seen = Seen()
        client = connect(serve(seen))
        client.send(b"POST /x?y HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nA: \xe9\r\n\r\nhi")
        client.answer()
        for key, value in seen.last.items():
            assert type(key) is str
            if "." not in key:
                assert type(value) is str, key
        assert seen.last["HTTP_A"] == "\xe9"

    def test_content_fields_have_no_http_prefix(self, serve: Serve, connect: Connect) -> None:
        seen = Seen()
        client = connect(serve(seen))
        client.send(
            b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Type: a/b\r\n\r\nhi"
        )
        client.answer()
        assert seen.last["CONTENT_LENGTH"] == "2"
        assert seen.last["CONTENT_TYPE"] == "a/b"
        assert "HTTP_CONTENT_LENGTH" not in seen.last
        assert "HTTP_CONTENT_TYPE" not in seen.last

    def test_without_a_body_there_is_no_length(self, serve: Serve, connect: Connect) -> None:
        seen = Seen()
        connect(serve(seen)).get()
        assert seen.last.get("CONTENT_LENGTH", "") in ("", "0")
        assert seen.last.get("CONTENT_TYPE", "") == ""
        assert seen.last["QUERY_STRING"] == ""

    def test_http_1_0(self, serve: Serve, connect: Connect) -> None:
        seen = Seen()
        answer = http10(connect(serve(seen)))
        assert answer.body == b"ok"
        assert seen.last["SERVER_PROTOCOL"] == "HTTP/1.0"

    def test_one_request_does_not_show_in_the_next(self, serve: Serve, connect: Connect) -> None:
        kept: list[Environ] = []

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            kept.append(dict(environ))
            environ["mine"] = "x"
            environ["wsgi.url_scheme"] = "spoiled"
            environ["SCRIPT_NAME"] = "/spoiled"
            environ["HTTP_X_SPOILED"] = "1"
            del environ["wsgi.errors"]
            start_response("200 OK", PLAIN)
            return [b"ok"]

        client = connect(serve(app, threads=1))
        client.send(b"POST /?q=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nX-A: 1\r\n\r\n1")
        client.answer()
        client.get("/two")
        second = kept[1]
        assert second["wsgi.url_scheme"] == "http"
        assert second["SCRIPT_NAME"] == ""
        assert second["QUERY_STRING"] == ""
        assert "wsgi.errors" in second
        for key in ("mine", "HTTP_X_SPOILED", "HTTP_X_A"):
            assert key not in second
        assert second.get("CONTENT_LENGTH", "") in ("", "0")
        assert second["wsgi.input"].read() == b""

    @pytest.mark.parametrize(
        ("target", "path"),
        [
            ("/caf%C3%A9", "/caf\xc3\xa9"),
            ("/%2541", "/%41"),
            ("/a%2Fb", "/a/b"),
            ("/a+b", "/a+b"),
            ("/%zz%4", "/%zz%4"),
            ("/a;p=1", "/a;p=1"),
            ("//double//", "//double//"),
            ("/a/../b/.", "/a/../b/."),
            ("/%00", "/\x00"),
        ],
    )
    def test_path_info_is_decoded_once(
        self, serve: Serve, connect: Connect, target: str, path: str
    ) -> None:
        seen = Seen()
        assert connect(serve(seen)).get(target).status == 200
        assert seen.last["PATH_INFO"] == path
        assert seen.last["REQUEST_URI"] == seen.last["RAW_URI"] == target

    @pytest.mark.parametrize(
        ("target", "query"),
        [("/?", ""), ("/?a?b", "a?b"), ("/?%41%20+&&=", "%41%20+&&="), ("/%3Fx", "")],
    )
    def test_query_string_is_as_sent(
        self, serve: Serve, connect: Connect, target: str, query: str
    ) -> None:
        seen = Seen()
        connect(serve(seen)).get(target)
        assert seen.last["QUERY_STRING"] == query

    def test_absolute_form(self, serve: Serve, connect: Connect) -> None:
        seen = Seen()
        connect(serve(seen)).get("http://other:81/p%20q?r")
        assert seen.last["PATH_INFO"] == "/p q"
        assert seen.last["QUERY_STRING"] == "r"
        assert seen.last["HTTP_HOST"] == "other:81"

    @pytest.mark.parametrize(
        ("target", "script_name", "path"),
        [
            ("/shop", "/shop", ""),
            ("/shop/", "/shop", "/"),
            ("/shop/a%20b", "/shop", "/a b"),
            ("/sh%6fp/a", "/shop", "/a"),
            ("/shopping", "", "/shopping"),
            ("/", "", "/"),
        ],
    )
    def test_mounted(
        self, serve: Serve, connect: Connect, target: str, script_name: str, path: str
    ) -> None:
        seen = Seen()
        connect(serve(WSGIApp(seen, script_name="/shop/"))).get(target)
        assert (seen.last["SCRIPT_NAME"], seen.last["PATH_INFO"]) == (script_name, path)

    def test_underscores_do_not_alias_dashes(self, serve: Serve, connect: Connect) -> None:
        seen = Seen()
        connect(serve(seen)).get(
            headers="X_User: root\r\nX-User: me\r\nX_Other: root\r\nContent_Length: 7\r\n"
        )
        assert seen.last["HTTP_X_USER"] == "me"
        assert "HTTP_X_OTHER" not in seen.last
        assert seen.last.get("CONTENT_LENGTH", "") in ("", "0")
        assert "HTTP_CONTENT_LENGTH" not in seen.last

    def test_proxy_is_not_http_proxy(self, serve: Serve, connect: Connect) -> None:
        seen = Seen()
        connect(serve(seen)).get(headers="Proxy: http://evil\r\n")
        assert "HTTP_PROXY" not in seen.last

    def test_repeated_fields_are_joined(self, serve: Serve, connect: Connect) -> None:
        seen = Seen()
        connect(serve(seen)).get(
            headers="X-A: 1\r\nCookie: a=1\r\nx-a: 2\r\nCookie: b=2\r\nX-Empty:\r\n"
        )
        assert seen.last["HTTP_X_A"] == "1, 2"
        assert seen.last["HTTP_COOKIE"] == "a=1; b=2"
        assert seen.last["HTTP_X_EMPTY"] == ""

    def test_unix_socket(self, serve: Serve, tmp_path: Path) -> None:
        seen = Seen()
        path = tmp_path / "s"
        serve(seen, bind=f"unix:{path}")
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(path))
            assert Client(sock).get().body == b"ok"
        assert type(seen.last["REMOTE_ADDR"]) is str
        assert seen.last["SERVER_NAME"]
        # both are parts of an URL (PEP 3333, URL Reconstruction)
        assert "/" not in seen.last["SERVER_NAME"]
        assert seen.last["SERVER_PORT"].isdigit()

    def test_errors_stream(
        self, serve: Serve, connect: Connect, capfd: pytest.CaptureFixture[str]
    ) -> None:
        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            environ["wsgi.errors"].write("one ")
            environ["wsgi.errors"].writelines(["two ", "three\n"])
            environ["wsgi.errors"].flush()
            start_response("200 OK", PLAIN)
            return [b"ok"]

        assert connect(serve(app)).get().status == 200
        assert "one two three\n" in capfd.readouterr().err

    def test_context_variables_end_with_the_request(self, serve: Serve, connect: Connect) -> None:
        variable = contextvars.ContextVar("variable", default="unset")
        found: list[tuple[int, str]] = []

        def blocks() -> Iterator[bytes]:
            found.append((threading.get_ident(), variable.get()))
            variable.set("in the stream")
            yield b"x"
            yield variable.get().encode()

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            found.append((threading.get_ident(), variable.get()))
            variable.set("in the call")
            start_response("200 OK", PLAIN)
            return blocks() if environ["PATH_INFO"] == "/stream" else [b"ok"]

        client = connect(serve(app, threads=1))
        client.get()
        assert client.get("/stream").body == b"xin the stream"
        for _ in range(4):
            client.get()
        values = [value for _, value in found]
        assert values == ["unset", "unset", "in the call", "unset", "unset", "unset", "unset"]
        assert len({thread for thread, _ in found}) < len(found)

    @pytest.mark.parametrize("pipelined", [False, True])
    def test_context_variables_of_pipelined_requests(
        self, serve: Serve, connect: Connect, pipelined: bool
    ) -> None:
        variable = contextvars.ContextVar("variable", default="unset")

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            value = variable.get()
            variable.set("set")
            start_response("200 OK", PLAIN)
            return [value.encode()]

        client = connect(serve(app, threads=1))
        request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
        if pipelined:
            client.send(request * 3)
            bodies = [client.answer().body for _ in range(3)]
        else:
            bodies = [client.get().body for _ in range(3)]
        assert bodies == [b"unset"] * 3


# ---- wsgi.input ----------------------------------------------------------------------------

TEXT = b"first line\nsecond\n\n" + b"x" * 3000 + b"\nlast, without end"
SMALL = b"a\nbb\n\nccc"
READERS: dict[str, Callable[[Any], list[bytes]]] = {
    "read()": lambda stream: [stream.read()],
    "read(-1)": lambda stream: [stream.read(-1)],
    "read(7)": lambda stream: list(iter(lambda: stream.read(7), b"")),
    "read(10**6)": lambda stream: [stream.read(10**6)],
    "read(0)": lambda stream: [stream.read(0), stream.read()],
    "readline()": lambda stream: list(iter(stream.readline, b"")),
    "readline(4)": lambda stream: list(iter(lambda: stream.readline(4), b"")),
    "readline(-1)": lambda stream: list(iter(lambda: stream.readline(-1), b"")),
    "readlines()": lambda stream: stream.readlines(),
    "readlines(5)": lambda stream: list(
        itertools.chain.from_iterable(iter(lambda: stream.readlines(5), []))
    ),
    "iter": list,
    "mixed": lambda stream: [stream.readline(), stream.read(3), *stream],
}


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
@pytest.mark.parametrize("body", [SMALL, TEXT], ids=["memory", "disk"])
@pytest.mark.parametrize("reader", READERS)
def test_input(serve: Serve, connect: Connect, reader: str, body: bytes, chunked: bool) -> None:
    got: list[list[bytes]] = []
    seen: list[Environ] = []

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(dict(environ))
        stream = environ["wsgi.input"]
        got.append(READERS[reader](stream))
        ends = [stream.read(), stream.read(5), stream.readline(), stream.readline(5)]
        assert ends == [b""] * 4
        assert stream.readlines() == list(stream) == []
        start_response("200 OK", PLAIN)
        return [b"ok"]

    client = connect(serve(app, memory_body=1000))
    # what is behind the body is the next request, and never part of the input
    client.send(hold(body, chunked=chunked) + b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.answer().status == 200
    assert client.answer().status == 200
    assert got[0] == READERS[reader](io.BytesIO(body))
    assert b"".join(got[0]) == body
    assert b"".join(got[1]) == b""
    assert seen[0]["CONTENT_LENGTH"] == str(len(body))
    assert "HTTP_TRANSFER_ENCODING" not in seen[0]
    assert seen[1]["PATH_INFO"] == "/next"


def test_chunked_input_of_nothing(serve: Serve, connect: Connect) -> None:
    seen = Seen()
    client = connect(serve(seen))
    client.send(hold(b"", chunked=True))
    assert client.answer().status == 200
    assert seen.last["CONTENT_LENGTH"] == "0"
    assert seen.last["wsgi.input"].read() == b""


@pytest.mark.parametrize("size", [999, 1000, 1001])
def test_input_at_the_border_of_memory(serve: Serve, connect: Connect, size: int) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        return [environ["wsgi.input"].read()]

    client = connect(serve(app, memory_body=1000))
    for chunked in (False, True):
        client.send(hold(b"z" * size, chunked=chunked))
        assert client.answer().body == b"z" * size


def test_input_that_nobody_reads(serve: Serve, connect: Connect) -> None:
    client = connect(serve(answering([b"ok"]), memory_body=1000))
    for chunked in (False, True):
        for body in (SMALL, TEXT):
            client.send(hold(body, chunked=chunked))
            assert client.answer().body == b"ok"


def test_input_in_a_stream(serve: Serve, connect: Connect) -> None:
    """A generator reads its input while its answer is under way."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        yield from iter(lambda: environ["wsgi.input"].read(1000), b"")

    client = connect(serve(app, memory_body=1000))
    client.send(hold(TEXT))
    assert client.answer().body == TEXT


def test_an_input_that_was_taken_apart(serve: Serve, connect: Connect) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        with environ["wsgi.input"].detach() as raw:
            start_response("200 OK", [])
            return iter([raw.read(), b"!"])

    client = connect(serve(app, threads=1, max_streams=1, memory_body=1000))
    for _ in range(3):
        client.send(hold(TEXT))
        assert client.answer().body == TEXT + b"!"


def test_files_of_inputs_are_closed(serve: Serve, connect: Connect) -> None:
    client = connect(serve(answering([b"ok"]), memory_body=1000))
    client.send(hold(TEXT))
    client.answer()
    before = descriptors()
    for _ in range(20):
        client.send(hold(TEXT))
        client.answer()
    # the last one's may still be about to be closed
    assert descriptors() <= before + 1


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunked"])
def test_a_large_upload_takes_little_memory(chunked: bool) -> None:
    block = bytes(range(256)) * 256
    with script("memory_server.py") as server:
        with socket.create_connection(("127.0.0.1", server.port), 10) as sock:
            client = Client(sock)
            client.send(hold(b"warm", chunked=chunked))
            before = int(client.answer().body.split()[3])
            client.send(b"POST / HTTP/1.1\r\nHost: x\r\n")
            if chunked:
                client.send(b"Transfer-Encoding: chunked\r\n\r\n")
            else:
                client.send(b"Content-Length: %d\r\n\r\n" % (800 * len(block)))
            for _ in range(800):
                client.send(b"%x\r\n%b\r\n" % (len(block), block) if chunked else block)
            if chunked:
                client.send(b"0\r\n\r\n")
            size, total, _, after = map(int, client.answer().body.split())
        server.finish()
    assert size == 800 * len(block)
    assert total == 800 * sum(block[::4096])
    assert after - before < 10 * 1024, f"it grew from {before} KiB to {after} KiB"


# ---- start_response ------------------------------------------------------------------------


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


# ---- Bodies --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ([], b""),
        ((), b""),
        ([b""], b""),
        ([b"", b""], b""),
        ([b"one"], b"one"),
        ((b"one",), b"one"),
        ([b"one", b"", b"two"], b"onetwo"),
        ((b"one", b"two"), b"onetwo"),
        ([b"x" * 40000, b"y" * 40000], b"x" * 40000 + b"y" * 40000),
        ([b"x" * 3_000_000], b"x" * 3_000_000),
        (b"bytes are sent as one block", b"bytes are sent as one block"),
        ({b"key": 1}, b"key"),
    ],
)
@pytest.mark.parametrize("declared", [False, True])
def test_bodies_that_are_there(
    serve: Serve, connect: Connect, body: Any, expected: bytes | None, declared: bool
) -> None:
    headers = [("Content-Length", str(len(expected or b"")))] if declared else []
    client = connect(serve(answering(body, headers=headers)))
    for _ in range(2):
        answer = client.get()
        if expected is None:
            assert answer.status == 500
        else:
            assert (answer.status, answer.body) == (200, expected)


@pytest.mark.parametrize(
    "blocks",
    [[], [b""], [b"", b""], [b"one"], [b"", b"one"], [b"one", b"", b"two"], [b"x" * 100_000] * 5],
)
@pytest.mark.parametrize("declared", [False, True])
def test_bodies_that_are_made(
    serve: Serve, connect: Connect, blocks: list[bytes], declared: bool
) -> None:
    expected = b"".join(blocks)

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", str(len(expected)))] if declared else [])
        return iter(blocks)

    client = connect(serve(app))
    for _ in range(2):
        answer = client.get()
        assert (answer.status, answer.body, answer.complete) == (200, expected, True)
        assert b"" not in answer.chunks


@pytest.mark.parametrize(
    "body",
    [
        ["text"],
        ("text",),
        [b"one", "two"],
        ("text", "text"),
        [None],
        [1, 2],
        [["x"]],
        "text",
        None,
        1,
        ["x" * 50_000, "y" * 50_000],
        [b"x" * 50_000, "y" * 50_000],
    ],
)
def test_bodies_that_are_none(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture, body: Any
) -> None:
    client = connect(serve(answering(body)))
    for count in (1, 2):
        answer = client.get()
        assert (answer.status, answer.complete) == (500, True)
        assert len(failures(caplog)) == count


@pytest.mark.parametrize("declared", [False, True])
@pytest.mark.parametrize("block", ["text", None, 1, bytearray])
def test_generators_of_what_is_no_bytes(
    serve: Serve, connect: Connect, block: Any, declared: bool
) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[Any]:
        start_response("200 OK", [("Content-Length", "4")] if declared else [])
        yield block if block is not None else ...

    client = connect(serve(app))
    assert client.get().status == 500
    assert client.get().status == 500


def test_text_behind_bytes_is_visible(
    serve: Serve, connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[Any]:
        start_response("200 OK", PLAIN)
        yield b"bytes"
        yield "text"

    answer = connect(serve(app)).get()
    assert (answer.status, answer.body, answer.complete) == (200, b"bytes", False)
    assert len(failures(caplog)) == 1


@pytest.mark.parametrize("declared", [False, True])
def test_a_block_is_out_before_the_next_is_asked_for(
    serve: Serve, connect: Connect, declared: bool
) -> None:
    read = [threading.Event() for _ in range(3)]

    def blocks() -> Iterator[bytes]:
        yield b"block 0 "
        for number, event in enumerate(read, 1):
            assert event.wait(10)
            yield b"block %d " % number

    headers = [("Content-Length", "32")] if declared else []
    client = connect(serve(answering(blocks(), headers=headers)))
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    received = b""
    for number in range(4):
        while b"block %d " % number not in received:
            received += client.sock.recv(4096)
        assert b"block %d " % (number + 1) not in received
        if number < 3:
            read[number].set()


def test_an_application_object_and_a_tuple_subclass(serve: Serve, connect: Connect) -> None:
    class Blocks(list[bytes]):
        closes = 0

        def close(self) -> None:
            self.closes += 1

    blocks = Blocks([b"one"])

    class Application:
        def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", PLAIN)
            return blocks

    server = serve(Application())
    assert connect(server).get().body == b"one"
    server.stop()
    assert blocks.closes == 1


# ---- close ---------------------------------------------------------------------------------


def _reset(client: Client) -> None:
    client.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()


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
        _reset(client)
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
        _reset(client)
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
        _reset(client)
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


# ---- wsgi.file_wrapper ---------------------------------------------------------------------


@pytest.fixture
def sendfiles(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What each `os.sendfile` sent."""
    sent: list[int] = []
    real = os.sendfile

    def sendfile(out: int, file: int, offset: int, count: int) -> int:
        size = real(out, file, offset, count)
        sent.append(size)
        return size

    monkeypatch.setattr(os, "sendfile", sendfile)
    return sent


class Wrapped:
    """An application that answers with what `make` returns, wrapped."""

    def __init__(
        self, make: Callable[[], Any], headers: list[tuple[str, str]] | None = None
    ) -> None:
        self._make = make
        self._headers = headers or []
        self.files: list[Any] = []

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        file = self._make()
        self.files.append(file)
        start_response("200 OK", self._headers)
        return environ["wsgi.file_wrapper"](file, 8192)  # type: ignore[no-any-return]


def _file(tmp_path: Path, data: bytes, at: int = 0) -> Callable[[], Any]:
    path = tmp_path / "file"
    path.write_bytes(data)

    def make() -> Any:
        file = path.open("rb")
        file.seek(at)
        return file

    return make


class TestFileWrapper:
    @pytest.mark.parametrize("size", [1, 1000, 5_000_000])
    @pytest.mark.parametrize("at", [0, 1])
    @pytest.mark.parametrize("declared", [False, True])
    def test_a_file_goes_by_sendfile_from_where_it_stands(
        self,
        serve: Serve,
        connect: Connect,
        tmp_path: Path,
        sendfiles: list[int],
        size: int,
        at: int,
        declared: bool,
    ) -> None:
        data = os.urandom(size)
        expected = data[at:]
        app = Wrapped(
            _file(tmp_path, data, at),
            [("Content-Length", str(len(expected)))] if declared else None,
        )
        server = serve(app)
        client = connect(server)
        for _ in range(2):
            answer = client.get()
            assert answer.body == expected
            assert answer.header("content-length") == str(len(expected))
        server.stop()
        assert sum(sendfiles) == 2 * len(expected)
        assert all(file.closed for file in app.files)

    def test_a_file_that_was_read_from(
        self, serve: Serve, connect: Connect, tmp_path: Path
    ) -> None:
        """Its buffer has read ahead; what counts is where the application stands."""

        def make() -> Any:
            file = _file(tmp_path, b"0123456789" * 10)()
            assert file.read(5) == b"01234"
            return file

        assert connect(serve(Wrapped(make))).get().body == (b"0123456789" * 10)[5:]

    def test_a_file_that_was_written(self, serve: Serve, connect: Connect) -> None:
        """What is still in its buffer is part of it."""

        def make() -> Any:
            file = temporary(b"0123456789")
            file.seek(2)
            file.write(b"ab")
            return file

        assert connect(serve(Wrapped(make))).get().body == b"456789"

    @pytest.mark.parametrize("make", [tempfile.TemporaryFile, tempfile.NamedTemporaryFile])
    def test_temporary_files(
        self, serve: Serve, connect: Connect, sendfiles: list[int], make: Callable[[], Any]
    ) -> None:
        def filled() -> Any:
            file = make()
            file.write(b"temporary")
            file.seek(0)
            return file

        server = serve(Wrapped(filled))
        assert connect(server).get().body == b"temporary"
        server.stop()
        assert sum(sendfiles) == 9

    @pytest.mark.parametrize("length", [0, 1, 7])
    def test_shorter_length_than_the_file(
        self, serve: Serve, connect: Connect, tmp_path: Path, length: int
    ) -> None:
        app = Wrapped(_file(tmp_path, b"0123456789"), [("Content-Length", str(length))])
        client = connect(serve(app))
        for _ in range(2):
            assert client.get().body == b"0123456789"[:length]

    def test_longer_length_than_the_file(
        self, serve: Serve, connect: Connect, tmp_path: Path
    ) -> None:
        app = Wrapped(_file(tmp_path, b"0123456789"), [("Content-Length", "20")])
        answer = connect(serve(app)).get()
        assert (answer.body, answer.complete) == (b"0123456789", False)

    @pytest.mark.parametrize("declared", [False, True])
    def test_an_empty_file(
        self, serve: Serve, connect: Connect, tmp_path: Path, declared: bool
    ) -> None:
        app = Wrapped(_file(tmp_path, b""), [("Content-Length", "0")] if declared else None)
        server = serve(app)
        client = connect(server)
        for _ in range(2):
            answer = client.get()
            assert (answer.status, answer.body) == (200, b"")
        server.stop()
        assert all(file.closed for file in app.files)

    def test_head(
        self, serve: Serve, connect: Connect, tmp_path: Path, sendfiles: list[int]
    ) -> None:
        app = Wrapped(_file(tmp_path, b"0123456789"))
        server = serve(app)
        client = connect(server)
        assert head(client).header("content-length") == "10"
        assert client.get().body == b"0123456789"
        server.stop()
        assert sum(sendfiles) == 10
        assert all(file.closed for file in app.files)

    def test_bytes_io(self, serve: Serve, connect: Connect, sendfiles: list[int]) -> None:
        def make() -> Any:
            file = io.BytesIO(b"0123456789" * 5000)
            file.seek(3)
            return file

        app = Wrapped(make)
        server = serve(app)
        assert connect(server).get().body == (b"0123456789" * 5000)[3:]
        assert sendfiles == []
        server.stop()
        assert app.files[0].closed

    def test_something_with_only_read(self, serve: Serve, connect: Connect) -> None:
        def make() -> Any:
            blocks = iter([b"one", b"two"])
            return types.SimpleNamespace(read=lambda _size: next(blocks, b""))

        client = connect(serve(Wrapped(make)))
        for _ in range(2):
            assert client.get().body == b"onetwo"

    def test_gzip_is_decompressed(
        self, serve: Serve, connect: Connect, tmp_path: Path, sendfiles: list[int]
    ) -> None:
        path = tmp_path / "x.gz"
        with gzip.open(path, "wb") as file:
            file.write(b"plain text")
        assert connect(serve(Wrapped(lambda: gzip.GzipFile(path)))).get().body == b"plain text"
        assert sendfiles == []

    @pytest.mark.parametrize("name", ["file", "raw", "_file"])
    def test_a_wrapper_of_a_file_is_asked_itself(
        self, serve: Serve, connect: Connect, tmp_path: Path, name: str
    ) -> None:
        """An object that decrypts, or limits, what it reads from a file that it holds."""

        class Upper:
            def __init__(self, file: Any) -> None:
                setattr(self, name, file)

            def read(self, size: int) -> bytes:
                return getattr(self, name).read(size).upper()  # type: ignore[no-any-return]

            def close(self) -> None:
                getattr(self, name).close()

        make = _file(tmp_path, b"secret")
        assert connect(serve(Wrapped(lambda: Upper(make())))).get().body == b"SECRET"

    def test_a_subclass_of_a_file_is_asked_itself(
        self, serve: Serve, connect: Connect, tmp_path: Path
    ) -> None:
        class Upper(io.BufferedReader):
            def read(self, size: int | None = -1, /) -> bytes:
                return super().read(size).upper()

        path = tmp_path / "file"
        path.write_bytes(b"secret")
        app = Wrapped(lambda: Upper(io.FileIO(path)))
        assert connect(serve(app)).get().body == b"SECRET"

    def test_its_iterator_can_be_closed(
        self, serve: Serve, connect: Connect, tmp_path: Path
    ) -> None:
        """Werkzeug takes `iter` of it for a range, and closes that at the end."""
        inner = Wrapped(_file(tmp_path, b"data" * 10_000))

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            blocks: Any = iter(inner(environ, start_response))
            with contextlib.closing(blocks):
                yield next(blocks)

        server = serve(app)
        assert connect(server).get().body == (b"data" * 10_000)[:8192]
        server.stop()
        assert inner.files[0].closed

    def test_a_pipe(self, serve: Serve, connect: Connect) -> None:
        def make() -> Any:
            reader, writer = os.pipe()
            os.write(writer, b"from a pipe")
            os.close(writer)
            return os.fdopen(reader, "rb")

        assert connect(serve(Wrapped(make))).get().body == b"from a pipe"

    def test_a_patched_close_is_the_one_that_is_called(
        self, serve: Serve, connect: Connect, tmp_path: Path
    ) -> None:
        """Django replaces the file's `close` by its response's after wrapping it."""
        closes: list[str] = []
        done = threading.Event()

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            file = _file(tmp_path, b"data")()
            start_response("200 OK", [])
            wrapper = environ["wsgi.file_wrapper"](file)

            def close() -> None:
                closes.append("patched")
                type(file).close(file)
                done.set()

            file.close = close
            return wrapper  # type: ignore[no-any-return]

        server = serve(app)
        assert connect(server).get().body == b"data"
        assert done.wait(10)
        server.stop()
        assert closes == ["patched"]

    def test_middleware_may_iterate_it(
        self, serve: Serve, connect: Connect, tmp_path: Path
    ) -> None:
        inner = Wrapped(_file(tmp_path, b"data" * 10_000))

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            blocks: Any = inner(environ, start_response)
            with contextlib.closing(blocks):
                for block in blocks:
                    assert len(block) <= 8192
                    yield block.upper()

        assert connect(serve(app)).get().body == b"DATA" * 10_000

    @pytest.mark.parametrize("what", ["sent", "head", "client gone", "invalid"])
    def test_leaves_no_descriptor_open(
        self, serve: Serve, connect: Connect, tmp_path: Path, what: str
    ) -> None:
        make = _file(tmp_path, b"x" * (20_000_000 if what == "client gone" else 1000))

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            start_response("200 OK", [("X-A", "a\nb" if what == "invalid" else "a")])
            return environ["wsgi.file_wrapper"](make())  # type: ignore[no-any-return]

        before = descriptors()
        server = serve(app)
        for _ in range(5):
            client = connect(server)
            if what == "client gone":
                client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                assert client.sock.recv(4096)
                _reset(client)
            elif what == "head":
                head(client)
            else:
                client.get()
            client.close()
        server.stop()
        assert descriptors() <= before


# ---- Errors --------------------------------------------------------------------------------


class Unrelated(BaseException):
    """What `except Exception` does not catch."""


ERRORS: dict[str, Callable[[], BaseException]] = {
    "Exception": lambda: LookupError("the secret"),
    "SystemExit": lambda: SystemExit(3),
    "BaseException": lambda: Unrelated("the secret"),
}


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("where", ["call", "lazy", "first", "after start", "iter"])
def test_an_error_before_the_first_byte(
    serve: Serve,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    where: str,
) -> None:
    error = ERRORS[kind]()

    def lazy() -> Iterator[bytes]:
        raise error
        yield b""

    class Bad:
        def __iter__(self) -> Iterator[bytes]:
            raise error

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/fine":
            start_response("200 OK", PLAIN)
            return [b"fine"]
        if where == "call":
            raise error
        if where == "lazy":
            return lazy()
        start_response("200 OK", [("X-Lost", "1")])
        if where == "after start":
            raise error
        return Bad() if where == "iter" else lazy()

    server = serve(app, threads=1)
    client = connect(server)
    answer = client.get("/bad")
    assert (answer.status, answer.complete, answer.header("x-lost")) == (500, True, None)
    for word in (b"secret", b"Traceback", b"Error:", b"test_wsgi"):
        assert word not in answer.body
    records = failures(caplog)
    assert len(records) == 1
    assert records[0].exc_info is not None
    assert records[0].exc_info[1] is error
    assert connect(server).get("/fine").body == b"fine"
    assert client.get("/fine").body == b"fine"


@pytest.mark.parametrize("kind", ERRORS)
@pytest.mark.parametrize("declared", [False, True])
def test_an_error_after_the_first_byte(
    serve: Serve,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    kind: str,
    declared: bool,
) -> None:
    error = ERRORS[kind]()

    def blocks() -> Iterator[bytes]:
        yield b"partial"
        raise error

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "100")] if declared else [])
        return blocks() if environ["PATH_INFO"] == "/bad" else [b"x" * 100]

    server = serve(app, threads=1)
    answer = connect(server).get("/bad")
    assert (answer.status, answer.body, answer.complete) == (200, b"partial", False)
    records = failures(caplog)
    assert len(records) == 1
    assert records[0].exc_info is not None
    assert records[0].exc_info[1] is error
    assert connect(server).get("/fine").complete


def test_an_error_after_the_first_byte_shows_to_http_1_0(serve: Serve, connect: Connect) -> None:
    """Only a reset tells such a client that the body is not whole."""

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        yield b"partial"
        raise LookupError

    client = connect(serve(app))
    client.send(b"GET / HTTP/1.0\r\n\r\n")
    with pytest.raises(ConnectionResetError):
        while client.sock.recv(4096):
            pass


@pytest.mark.parametrize("kind", ERRORS)
def test_many_errors_leave_the_threads_alive(serve: Serve, connect: Connect, kind: str) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/bad":
            error = ERRORS[kind]()
            raise error
        start_response("200 OK", PLAIN)
        return [b"fine"]

    server = serve(app, threads=2)
    for _ in range(10):
        assert connect(server).get("/bad").status == 500
    assert connect(server).get("/fine").body == b"fine"


# ---- Early hints ---------------------------------------------------------------------------

LINKS = [("Link", "</a.css>; rel=preload"), ("Link", "</b.js>; rel=preload")]


def _hinting(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    environ["wsgi.early_hints"](LINKS)
    start_response("200 OK", PLAIN)
    return [b"ok"]


def test_early_hints(serve: Serve, connect: Connect) -> None:
    client = connect(serve(_hinting))
    for _ in range(2):
        hints = client.get()
        assert hints.status == 103
        assert hints.headers == [("link", value) for _, value in LINKS]
        answer = client.answer()
        assert (answer.status, answer.body) == (200, b"ok")


def test_early_hints_are_not_for_http_1_0(serve: Serve, connect: Connect) -> None:
    answer = http10(connect(serve(_hinting)))
    assert (answer.status, answer.body) == (200, b"ok")


def test_early_hints_that_are_invalid(serve: Serve, connect: Connect) -> None:
    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.early_hints"]([("Link", "a\r\nX-Evil: 1")])
        start_response("200 OK", PLAIN)
        return [b"ok"]

    answer = connect(serve(app)).get()
    assert (answer.status, answer.header("x-evil")) == (500, None)


def test_early_hints_come_before_the_answer_is_made(serve: Serve, connect: Connect) -> None:
    read = threading.Event()

    def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        environ["wsgi.early_hints"](LINKS)
        assert read.wait(10)
        start_response("200 OK", PLAIN)
        return [b"ok"]

    client = connect(serve(app))
    assert client.get().status == 103
    read.set()
    assert client.answer().status == 200


# ---- wsgiref.validate ----------------------------------------------------------------------


def _reference(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
    """A plain application that uses everything the validator watches."""
    environ["wsgi.errors"].write("")
    environ["wsgi.errors"].flush()
    body = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
    path = environ["PATH_INFO"]
    if path == "/write":
        write = start_response("200 OK", PLAIN)
        write(b"written ")
        return [b"returned"]
    if path == "/nothing":
        start_response("204 No Content", [])
        return []
    start_response("200 OK", PLAIN)
    if path == "/stream":
        return (b"%d " % number for number in range(10))
    return [b"got ", body]


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("method", "target", "expected"),
    [
        ("GET", "/", b"got "),
        ("GET", "/?a=b", b"got "),
        ("POST", "/", b"got some body"),
        ("PUT", "/stream", b"0 1 2 3 4 5 6 7 8 9 "),
        ("HEAD", "/", b""),
        ("HEAD", "/stream", b""),
        ("GET", "/stream", b"0 1 2 3 4 5 6 7 8 9 "),
        ("GET", "/write", b"written returned"),
        ("GET", "/nothing", b""),
        ("DELETE", "/", b"got "),
        ("OPTIONS", "/", b"got "),
    ],
)
def test_the_validator_does_not_complain(
    serve: Serve,
    connect: Connect,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
    method: str,
    target: str,
    expected: bytes,
) -> None:
    reference: Any = _reference
    server = serve(wsgiref.validate.validator(reference))
    client = connect(server)
    for framing in (
        b"Content-Length: 9\r\n\r\nsome body",
        b"Transfer-Encoding: chunked\r\n\r\n9\r\nsome body\r\n0\r\n\r\n",
    ):
        client.send(f"{method} {target} HTTP/1.1\r\nHost: x\r\n".encode())
        client.send(framing if method in ("POST", "PUT") else b"\r\n")
        answer = client.answer(method)
        assert answer.status == (204 if target == "/nothing" else 200)
        assert answer.body == expected
    server.stop()
    assert caplog.records == []
    assert capfd.readouterr().err == ""
