"""Conditional requests and ranges of static files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from threadwell import ThreadedServer
from threadwell.worker.static.conditions import accepted_codings, wanted_range

from ..helpers.wire_client import Client
from .applications import CSS, head_of

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Client]


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
