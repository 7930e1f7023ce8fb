"""Static files: what is served, what is not, and how it leaves."""

from __future__ import annotations

import asyncio
import gzip
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from threadwell import ConfigError, Request, Response, ServerConfig, ThreadedServer
from threadwell.worker.static.conditions import accepted_codings, wanted_range
from threadwell.worker.static.folders import check_static

from .asgi_tools import answer
from .certificates import Authority
from .supervised import APP, Supervised
from .waiting import until
from .wire_client import Answer, Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]

CSS = b"body { color: black }\n" * 40


def app(request: Request) -> Response:
    return Response(200, [("Content-Type", "text/plain")], b"the application")


async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await answer(send, b"the application")


@pytest.fixture(params=["sync", "asgi"])
def each_app(request: pytest.FixtureRequest) -> Any:
    """An application of either kind: the files are the same in front of both."""
    return {"sync": app, "asgi": asgi_app}[request.param]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with files, beside a secret one."""
    (tmp_path / "secret.txt").write_text("secret")
    folder = tmp_path / "files"
    (folder / "docs").mkdir(parents=True)
    (folder / "docs" / "index.html").write_text("<h1>index</h1>")
    (folder / "style.css").write_bytes(CSS)
    (folder / "empty.txt").write_bytes(b"")
    (folder / "with blank ü.txt").write_text("named")
    (folder / "main.0123456789ab.js").write_text("1")
    (folder / "photo.202401020304.jpg").write_text("2")
    (folder / ".env").write_text("secret")
    (folder / ".git").mkdir()
    (folder / ".git" / "config").write_text("secret")
    (folder / ".well-known").mkdir()
    (folder / ".well-known" / "security.txt").write_text("Contact: x")
    return folder


def head_of(client: Client, target: str, headers: str = "") -> Answer:
    client.send(f"HEAD {target} HTTP/1.1\r\nHost: x\r\n{headers}\r\n".encode())
    return client.answer("HEAD")


# ---- What is served -----------------------------------------------------------------------


@pytest.mark.parametrize("refresh", [False, True])
def test_a_file_and_what_is_said_of_it(
    serve: Serve, connect: Connect, folder: Path, each_app: Any, refresh: bool
) -> None:
    client = connect(serve(each_app, static=f"/static={folder}", static_refresh=refresh))
    found = client.get("/static/style.css?v=1")
    assert (found.status, found.body) == (200, CSS)
    assert found.header("content-type") == 'text/css; charset="utf-8"'
    assert found.header("cache-control") == "max-age=60, public"
    assert found.header("accept-ranges") == "bytes"
    assert found.header("x-content-type-options") == "nosniff"
    seconds = int((folder / "style.css").stat().st_mtime)
    assert found.header("last-modified") == formatdate(seconds, usegmt=True)
    assert client.get("/static/empty.txt").body == b""
    assert client.get("/static/with%20blank%20%C3%BC.txt").body == b"named"
    assert client.get("/st%61tic/style.css").body == CSS
    assert client.get("/static/.well-known/security.txt").status == 200
    assert client.get("/").body == b"the application"
    assert client.get("/staticstyle.css").body == b"the application"


@pytest.mark.parametrize("refresh", [False, True])
@pytest.mark.parametrize(
    "path",
    [
        "..%2fsecret.txt",
        "../secret.txt",
        "..%2f..%2f..%2f..%2fetc/passwd",
        "%2e%2e/secret.txt",
        "..%5csecret.txt",
        "..%255c..%252fsecret.txt",
        "%252e%252e%252fsecret.txt",
        "docs/../style.css",
        "./style.css",
        "/style.css",
        "%2fetc%2fpasswd",
        "/etc/passwd",
        "style.css%00",
        "style.css%00.html",
        "style.css/",
        "style.css/x",
        "%ff%fe",
        "x" * 300,
        ".env",
        "%2eenv",
        ".git/config",
        "docs/../.env",
        "missing.css",
        "docs",
        "docs/",
        "",
    ],
)
def test_nothing_else_is_served(
    serve: Serve, connect: Connect, folder: Path, each_app: Any, path: str, refresh: bool
) -> None:
    client = connect(serve(each_app, static=f"/static={folder}", static_refresh=refresh))
    found = client.get(f"/static/{path}")
    assert found.status == 404
    assert b"secret" not in found.body
    assert b"application" not in found.body


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get"])
def test_only_get_and_head(
    serve: Serve, connect: Connect, folder: Path, each_app: Any, method: str
) -> None:
    client = connect(serve(each_app, static=f"/static={folder}"))
    client.send(f"{method} /static/style.css HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    found = client.answer()
    assert (found.status, found.header("allow")) == (405, "GET, HEAD")


def test_below_the_root_the_application_has_the_rest(
    serve: Serve, connect: Connect, folder: Path, each_app: Any
) -> None:
    client = connect(serve(each_app, static=[f"/={folder}", f"/docs={folder}/docs"]))
    assert client.get("/style.css").body == CSS
    assert client.get("/missing.css").body == b"the application"
    assert client.get("/").body == b"the application"
    assert client.get("/.env").body == b"the application"
    assert client.get("/docs/missing").status == 404
    client.send(b"POST /style.css HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    assert client.answer().body == b"the application"


@pytest.mark.parametrize("refresh", [False, True])
def test_an_index_is_served_where_it_is_asked_for(
    serve: Serve, connect: Connect, folder: Path, refresh: bool
) -> None:
    if sys.platform == "linux":  # others take names in UTF-8 only
        (folder / os.fsdecode(b"\xff")).mkdir()
        (folder / os.fsdecode(b"\xff") / "index.html").write_text("named in Latin-1")
    server = serve(
        app, static=f"/static={folder}", static_index="index.html", static_refresh=refresh
    )
    client = connect(server)
    assert client.get("/static/docs/").body == b"<h1>index</h1>"
    moved = client.get("/static/docs")
    assert (moved.status, moved.header("location")) == (302, "docs/")
    assert client.get("/static/docs/index.html").header("location") == "./"
    assert client.get("/static/").status == 404
    if sys.platform == "linux":
        assert client.get("/static/%ff").header("location") == "%FF/"
        assert client.get("/static/%ff/").body == b"named in Latin-1"


@pytest.mark.parametrize("refresh", [False, True])
@pytest.mark.parametrize("step", [1, -1])
def test_the_longer_prefix_is_the_nearer_one(
    serve: Serve, connect: Connect, tmp_path: Path, step: int, refresh: bool
) -> None:
    far, near = tmp_path / "far", tmp_path / "near"
    (far / "media").mkdir(parents=True)
    near.mkdir()
    (far / "media" / "both.txt").write_text("far")
    (far / "media" / "one.txt").write_text("far")
    (near / "both.txt").write_text("near")
    mounts = [f"/static/media={near}", f"/static={far}"][::step]
    client = connect(serve(app, static=mounts, static_refresh=refresh))
    assert client.get("/static/media/both.txt").body == b"near"
    assert client.get("/static/media/one.txt").body == b"far"


def test_links_are_followed_but_not_in_circles(
    serve: Serve, connect: Connect, folder: Path
) -> None:
    # collectstatic --link makes such links, and so they must work
    (folder / "linked.txt").symlink_to(folder.parent / "secret.txt")
    (folder / "circle").symlink_to(folder)
    (folder / "nowhere").symlink_to(folder / "not there")
    os.mkfifo(folder / "pipe")
    for refresh in (False, True):
        client = connect(serve(app, static=f"/static={folder}", static_refresh=refresh))
        assert client.get("/static/linked.txt").body == b"secret"
        assert client.get("/static/nowhere").status == 404
        assert client.get("/static/pipe").status == 404


def test_files_for_ever_and_for_no_time(serve: Serve, connect: Connect, folder: Path) -> None:
    client = connect(serve(app, static=f"/static={folder}", static_max_age=0))
    for_ever = client.get("/static/main.0123456789ab.js").header("cache-control") or ""
    assert "immutable" in for_ever
    # a date is no hash
    assert (
        client.get("/static/photo.202401020304.jpg").header("cache-control") == "max-age=0, public"
    )


def test_precompressed_files(serve: Serve, connect: Connect, folder: Path, each_app: Any) -> None:
    (folder / "style.css.gz").write_bytes(gzip.compress(CSS))
    (folder / "style.css.br").write_bytes(b"as if by brotli")
    (folder / "style.css.zst").write_bytes(b"as if by zstandard, but longer")
    client = connect(serve(each_app, static=f"/static={folder}"))

    def coding(accepted: str) -> tuple[str | None, int]:
        headers = f"Accept-Encoding: {accepted}\r\n"
        found = client.get("/static/style.css", headers=headers)
        assert found.header("vary") == "Accept-Encoding"
        length = head_of(client, "/static/style.css", headers).header("content-length")
        assert length == str(len(found.body))
        return found.header("content-encoding"), len(found.body)

    assert coding("gzip, deflate, br, zstd") == ("br", 15)
    assert coding("gzip, br;q=0, zstd;q=0.5") == ("zstd", 30)
    assert coding("gzip")[0] == "gzip"
    assert coding("identity") == (None, len(CSS))
    assert coding("br;q=0.000") == (None, len(CSS))
    assert client.get("/static/style.css.gz").status == 404
    tags = {
        client.get("/static/style.css", headers=f"Accept-Encoding: {each}\r\n").header("etag")
        for each in ("gzip", "br", "zstd", "identity")
    }
    assert len(tags) == 4


def test_a_compressed_file_that_is_older_is_not_sent(
    serve: Serve, connect: Connect, folder: Path
) -> None:
    (folder / "style.css.gz").write_bytes(gzip.compress(b"of yesterday"))
    os.utime(folder / "style.css.gz", (1, 1))
    client = connect(serve(app, static=f"/static={folder}"))
    assert client.get("/static/style.css", headers="Accept-Encoding: gzip\r\n").body == CSS


# ---- Conditions and ranges ----------------------------------------------------------------


def test_conditional_requests(serve: Serve, connect: Connect, folder: Path, each_app: Any) -> None:
    client = connect(serve(each_app, static=f"/static={folder}"))
    first = client.get("/static/style.css")
    tag, date = first.header("etag"), first.header("last-modified")

    def status(headers: str) -> int:
        return client.get("/static/style.css", headers=headers).status

    unchanged = client.get("/static/style.css", headers=f"If-None-Match: {tag}\r\n")
    assert (unchanged.status, unchanged.body) == (304, b"")
    assert unchanged.header("etag") == tag
    assert unchanged.header("cache-control") == first.header("cache-control")
    assert unchanged.header("content-type") is None
    assert status(f'If-None-Match: "x", W/{tag}\r\n') == 304
    assert status("If-None-Match: *\r\n") == 304
    assert status('If-None-Match: "x"\r\n') == 200
    assert status(f'If-None-Match: "x"\r\nIf-Modified-Since: {date}\r\n') == 200
    assert status(f"If-Modified-Since: {date}\r\n") == 304
    assert status("If-Modified-Since: Thu, 01 Jan 1970 00:00:00 GMT\r\n") == 200
    assert status("If-Modified-Since: nonsense\r\n") == 200
    assert status(f"If-Match: {tag}\r\n") == 200
    assert status(f"If-Match: W/{tag}\r\n") == 412
    assert head_of(client, "/static/style.css", f"If-None-Match: {tag}\r\n").status == 304


def test_ranges(serve: Serve, connect: Connect, folder: Path, each_app: Any) -> None:
    client = connect(serve(each_app, static=f"/static={folder}"))
    whole = client.get("/static/style.css")
    tag = whole.header("etag")

    def part(wanted: str, headers: str = "") -> tuple[int, bytes, str | None]:
        found = client.get("/static/style.css", headers=f"Range: {wanted}\r\n{headers}")
        return found.status, found.body, found.header("content-range")

    size = len(CSS)
    assert part("bytes=0-0") == (206, CSS[:1], f"bytes 0-0/{size}")
    assert part("bytes=5-9") == (206, CSS[5:10], f"bytes 5-9/{size}")
    assert part("bytes=-7") == (206, CSS[-7:], f"bytes {size - 7}-{size - 1}/{size}")
    assert part(f"bytes={size - 1}-99999999") == (
        206,
        CSS[-1:],
        f"bytes {size - 1}-{size - 1}/{size}",
    )
    assert part("bytes=-99999999")[1] == CSS
    assert part(f"bytes={size}-")[::2] == (416, f"bytes */{size}")
    assert part("bytes=-0")[0] == 416
    for ignored in ("bytes=9-5", "bytes=0-1,3-4", "lines=0-1", "bytes=-", "bytes=x-"):
        assert part(ignored)[:2] == (200, CSS)
    assert part("bytes=0-0", f"If-Range: {tag}\r\n")[0] == 206
    assert part("bytes=0-0", 'If-Range: "another"\r\n')[0] == 200
    assert part("bytes=0-0", f"If-Range: {whole.header('last-modified')}\r\n")[0] == 206
    assert part("bytes=0-0", "If-Range: Thu, 01 Jan 1970 00:00:00 GMT\r\n")[0] == 200
    assert head_of(client, "/static/style.css", "Range: bytes=0-0\r\n").status == 200


def test_a_range_of_an_empty_file_cannot_be() -> None:
    assert wanted_range({"HTTP_RANGE": "bytes=0-"}, 0, '"x"', 0) == (0, 0)
    assert wanted_range({"HTTP_RANGE": "bytes=" + "9" * 5000 + "-"}, 9, '"x"', 0) is None


def test_what_is_accepted() -> None:
    assert accepted_codings("GZip;q=1.0, x-br ; q=0.1,zstd;q=0") == {"gzip", "br"}


# ---- Files that change --------------------------------------------------------------------


def test_a_replaced_file_is_served_whole(
    serve: Serve, connect: Connect, folder: Path, each_app: Any
) -> None:
    client = connect(serve(each_app, static=f"/static={folder}"))
    before = client.get("/static/style.css").header("etag")
    (folder / "style.css").write_bytes(b"new")
    found = client.get("/static/style.css")
    assert found.body == b"new"
    assert found.header("etag") != before
    (folder / "style.css").unlink()
    assert client.get("/static/style.css").status == 404


def test_a_compressed_file_that_is_gone_or_has_become_old(
    serve: Serve, connect: Connect, folder: Path, each_app: Any
) -> None:
    coded = folder / "style.css.gz"
    coded.write_bytes(gzip.compress(CSS))
    client = connect(serve(each_app, static=f"/static={folder}"))

    def served() -> tuple[int, bytes, str | None]:
        found = client.get("/static/style.css", headers="Accept-Encoding: gzip\r\n")
        return found.status, found.body, found.header("content-encoding")

    assert served()[2] == "gzip"
    os.utime(coded, (1, 1))
    assert served() == (200, CSS, None)
    os.utime(coded)
    assert served()[2] == "gzip"
    coded.rename(folder / "another")
    assert served() == (200, CSS, None)
    (folder / "another").rename(coded)
    (folder / "style.css").unlink()
    assert served()[0] == 404


def test_new_files_are_seen_where_they_are_looked_for(
    serve: Serve, connect: Connect, folder: Path
) -> None:
    known = connect(serve(app, static=f"/static={folder}"))
    looked = connect(serve(app, static=f"/static={folder}", static_refresh=True))
    (folder / "new.txt").write_text("new")
    assert known.get("/static/new.txt").status == 404
    assert looked.get("/static/new.txt").body == b"new"


# ---- How it leaves ------------------------------------------------------------------------


def sendfile_calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How much each call of `os.sendfile` was asked to send, from now on."""
    calls: list[int] = []
    sendfile = os.sendfile

    def counted(out: int, source: int, offset: int, count: int) -> int:
        calls.append(count)  # before the client can have read it
        return sendfile(out, source, offset, count)

    monkeypatch.setattr(os, "sendfile", counted)
    return calls


def test_a_file_leaves_by_sendfile(
    serve: Serve, connect: Connect, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = os.urandom(3_000_000)
    (folder / "large.bin").write_bytes(content)
    calls = sendfile_calls(monkeypatch)
    client = connect(serve(app, static=f"/static={folder}"))
    assert client.get("/static/large.bin").body == content
    assert calls
    assert client.get("/static/style.css").body == CSS  # and the connection goes on


def test_a_large_file_on_a_loop(serve: Serve, connect: Connect, folder: Path) -> None:
    content = os.urandom(3_000_000)
    (folder / "large.bin").write_bytes(content)
    client = connect(serve(asgi_app, static=f"/static={folder}"))
    assert client.get("/static/large.bin").body == content
    part = client.get("/static/large.bin", headers="Range: bytes=100000-1999999\r\n")
    assert part.body == content[100000:2000000]
    assert client.get("/static/style.css").body == CSS


def test_a_slow_disk_does_not_stop_a_loop(
    serve: Serve, connect: Connect, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serve(asgi_app, static=f"/static={folder}")
    waiting, go_on = threading.Event(), threading.Event()
    really_open = os.open

    def slow(path: Any, *arguments: Any, **keywords: Any) -> int:
        if str(path).endswith("style.css"):
            waiting.set()
            assert go_on.wait(10)
        return really_open(path, *arguments, **keywords)

    monkeypatch.setattr(os, "open", slow)
    first, second = connect(server), connect(server)
    first.send(b"GET /static/style.css HTTP/1.1\r\nHost: x\r\n\r\n")
    assert waiting.wait(10)
    assert second.get("/").body == b"the application"
    go_on.set()
    assert first.answer().body == CSS


def open_files(folder: Path) -> list[str]:
    found = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if target.startswith(str(folder)):
            found.append(target)
    return found


@pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="Linux tells what is open")
def test_no_file_stays_open(serve: Serve, connect: Connect, folder: Path, each_app: Any) -> None:
    (folder / "large.bin").write_bytes(bytes(30_000_000))
    server = serve(each_app, static=f"/static={folder}")
    client = connect(server)
    tag = client.get("/static/style.css").header("etag")
    head_of(client, "/static/style.css")
    client.get("/static/style.css", headers=f"If-None-Match: {tag}\r\n")
    client.get("/static/style.css", headers="Range: bytes=9999-\r\n")
    client.get("/static/empty.txt")
    leaving = connect(server)
    leaving.send(b"GET /static/large.bin HTTP/1.1\r\nHost: x\r\n\r\n")
    assert leaving.sock.recv(1000)
    leaving.close()
    deadline = time.monotonic() + 10
    while open_files(folder) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not open_files(folder)


def test_a_cancelled_call_closes_its_file(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from threadwell.worker.asgi.static import ASGIStaticApp
    from threadwell.worker.static import StaticFiles

    (folder / "large.bin").write_bytes(bytes(1_000_000))
    files = StaticFiles(ServerConfig.from_options(static=f"/static={folder}").static)
    reading, go_on = threading.Event(), threading.Event()
    really_read = os.read

    def slow(fd: int, count: int) -> bytes:
        if count == 256 * 1024:
            reading.set()
            assert go_on.wait(10)
        return really_read(fd, count)

    monkeypatch.setattr(os, "read", slow)

    async def main(blocks: int) -> None:
        scope = {
            "type": "http",
            "method": "GET",
            "raw_path": b"/static/large.bin",
            "headers": [],
        }
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)
            reading.clear()
            go_on.clear()

        static_app = ASGIStaticApp(asgi_app, files)
        call = asyncio.ensure_future(static_app(scope, send, send))
        if blocks:
            go_on.set()
        while not reading.is_set() or len(sent) < blocks:
            await asyncio.sleep(0.001)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        go_on.set()

    for blocks in (0, 2):  # while it is opened, and in the middle of it
        asyncio.run(main(blocks))
        assert not open_files(folder)


def test_a_hybrid_serves_files_by_its_threads(
    serve: Serve, connect: Connect, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = sendfile_calls(monkeypatch)

    def sync_app(request: Request) -> Response | None:
        return None if request.path == "/async" else app(request)

    client = connect(serve(sync_app, asgi_app=asgi_app, static=f"/static={folder}"))
    assert client.get("/static/style.css").body == CSS
    assert client.get("/async").body == b"the application"
    assert client.get("/static/style.css").body == CSS
    assert calls == [len(CSS), len(CSS)]


def test_no_application_is_called_for_a_file(serve: Serve, connect: Connect, folder: Path) -> None:
    called: list[str] = []

    def noting(request: Request) -> Response:
        called.append(request.path)
        return app(request)

    client = connect(serve(noting, static=f"/static={folder}"))
    for path in ("/static/style.css", "/static/missing", "/static", "/static/..%2f", "/other"):
        client.get(path)
    assert called == ["/other"]


def test_over_tls(serve: Serve, folder: Path, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    cert, key = authority.issue("server")
    content = os.urandom(1_000_000)
    (folder / "large.bin").write_bytes(content)
    server = serve(app, static=f"/static={folder}", certfile=str(cert), keyfile=str(key))
    url = f"https://127.0.0.1:{server.port}/static/large.bin"
    with urllib.request.urlopen(url, context=authority.trusting(), timeout=20) as response:
        assert response.read() == content


# ---- Commands -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "seen"),
    [
        ([], False),
        (["--static-refresh"], True),
        (["--reload"], True),
        (["--reload", "--no-static-refresh"], False),
        (["--workers", "2"], False),
    ],
)
def test_a_command_that_serves_files(
    tmp_path: Path, folder: Path, arguments: list[str], seen: bool
) -> None:
    (tmp_path / "application.py").write_text(APP.format(version=1))
    words = ["application:app", "--bind", "127.0.0.1:0", "--static", "/static=files", *arguments]
    server = Supervised(tmp_path, *words)
    try:
        (folder / "new.txt").write_text("new")
        assert server.get("/static/style.css") == CSS.decode()
        assert server.get().startswith("1 ")
        if seen:
            assert server.get("/static/new.txt") == "new"
        else:
            with pytest.raises(urllib.error.HTTPError, match="404") as caught:
                server.get("/static/new.txt")
            caught.value.close()
    finally:
        server.end()


def test_a_reload_reads_the_folders_again(tmp_path: Path, folder: Path) -> None:
    (tmp_path / "application.py").write_text(APP.format(version=1))
    words = ["application:app", "--bind", "127.0.0.1:0", "--static", "/static=files"]
    server = Supervised(tmp_path, *words, "--workers", "2")
    try:
        (folder / "new.txt").write_text("new")
        server.send(signal.SIGHUP)
        server.await_line("The new application is served")
        until(lambda: answered(f"http://127.0.0.1:{server.port}/static/new.txt"))
    finally:
        server.end()


def answered(url: str) -> bool:
    """Whether it is 200; the old workers may take a connection yet."""
    try:
        with urllib.request.urlopen(url, timeout=20) as response:
            return bool(response.status == 200)
    except urllib.error.HTTPError as error:
        error.close()
        return False


def test_what_threadwell_needs_for_it() -> None:
    script = (
        "import sys; sys.modules['whitenoise'] = None\n"
        "from threadwell.cli import main\n"
        "sys.exit(main(['app', '--static', '/static=.']))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    wanted = "threadwell: --static: whitenoise is missing; pip install whitenoise\n"
    assert done.stderr == wanted


# ---- What is wrong with it ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"static": "static"}, "'static' is not like /static=FOLDER"),
        ({"static": "/static"}, "is not like"),
        ({"static": "/static="}, "is not like"),
        ({"static": "/a/../b=."}, "no plain path"),
        ({"static": "/a%20b=."}, "no plain path"),
        ({"static": "/static=/not/there"}, "there is no folder /not/there"),
        ({"static": f"/static={__file__}"}, "is a file; give the folder"),
        ({"static": "/=/"}, "the whole machine"),
        ({"static": "/static=.", "static_immutable": "("}, "is no regular expression"),
    ],
)
def test_mistakes(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match="static") as caught:
        check_static(ServerConfig.from_options(**options).static)
    assert said in str(caught.value)


def test_options_of_nothing(serve: Serve) -> None:
    for option in ({"static_index": "index.html"}, {"static_max_age": 1}):
        with pytest.raises(ConfigError, match="no folder is served; give static too"):
            serve(app, **option)
    serve(app, static_refresh=True)  # as --reload has it
