"""`wsgi.file_wrapper`: what goes by sendfile, and what does not."""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import tempfile
import threading
import types
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from threadwell import ThreadedServer

from ...helpers.process import descriptors
from ...helpers.wire_client import Client
from .applications import Environ, StartResponse, head, reset, temporary

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]


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
                reset(client)
            elif what == "head":
                head(client)
            else:
                client.get()
            client.close()
        server.stop()
        assert descriptors() <= before
