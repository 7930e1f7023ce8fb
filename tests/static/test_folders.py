"""Static files: what is served, what is not, and files that change."""

from __future__ import annotations

import gzip
import os
import sys
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from threadwell import ThreadedServer

from ..helpers.wire_client import Client
from .applications import CSS, app, head_of

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]


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
