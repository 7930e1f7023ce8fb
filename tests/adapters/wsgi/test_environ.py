"""The environ that an application gets, as PEP 3333 has it."""

from __future__ import annotations

import contextvars
import io
import socket
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest

from threadwell import ThreadedServer
from threadwell.adapters.wsgi import WSGIApp

from ...helpers.wire_client import Client
from .applications import PLAIN, Environ, Seen, StartResponse, http10

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]


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

    def test_every_method_of_the_errors_stream(
        self, serve: Serve, connect: Connect, capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Each request may close it, which closes nothing for another."""

        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            with environ["wsgi.errors"] as errors:
                print("a line", "\u20ac\udcff", file=errors, flush=True)
                assert errors.write("") == 0
                assert errors.writable()
                assert not errors.readable()
                assert not errors.seekable()
                assert errors.isatty() == sys.stderr.isatty()
                assert errors.encoding == sys.stderr.encoding
                assert errors.fileno() == sys.stderr.fileno()
                assert errors.buffer is sys.stderr.buffer
                for wrong in (b"octets", None, 1):
                    with pytest.raises(TypeError):
                        errors.write(wrong)
                with pytest.raises(io.UnsupportedOperation):
                    errors.read()
            errors.close()
            assert not errors.closed
            start_response("200 OK", PLAIN)
            return [b"ok"]

        client = connect(serve(app))
        assert [client.get().body for _ in range(2)] == [b"ok"] * 2
        assert capfd.readouterr().err.count("a line") == 2

    @pytest.mark.parametrize("stream", [None, io.StringIO()])
    def test_a_standard_error_that_changes(
        self, serve: Serve, connect: Connect, monkeypatch: pytest.MonkeyPatch, stream: Any
    ) -> None:
        def app(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
            errors = environ["wsgi.errors"]
            errors.writelines(["one ", "two"])
            errors.flush()
            assert not errors.isatty()
            start_response("200 OK", PLAIN)
            return [b"ok"]

        client = connect(serve(app, threads=1))
        assert client.get().body == b"ok"
        monkeypatch.setattr(sys, "stderr", stream)
        assert client.get().body == b"ok"
        if stream is not None:
            assert stream.getvalue() == "one two"

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
