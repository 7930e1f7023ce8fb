"""The files of `corpus/` split at every octet, read by a connection without a network."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from threadwell import Request

from ...helpers.wire_client import Client
from ...helpers.wire_corpus import FIRST, INVALID, LAST, SMUGGLED, corpus, expected
from .bench import SHORT, Bench, check_seen, final_answer, ids, invalid_files, valid_files


def check_echoes(client: Client, seen: list[tuple[Request, bytes]]) -> None:
    for request, _ in seen:
        answer = final_answer(client, request.method)
        assert answer.status == 200
        if request.method != "HEAD":
            assert answer.body.decode() == f"{request.method} {request.target}"


def splits(data: bytes) -> list[int]:
    """Every offset; of long data those at both ends, at line ends, and some between."""
    size = len(data)
    if size <= SHORT:
        return list(range(1, size))
    ends = [match.end() for match in re.finditer(rb"\r\n", data)][:10]
    chosen = {*range(1, 20), *range(size - 20, size), *range(20, size, size // 12)}
    chosen.update(end + off for end in ends for off in (-2, -1, 0, 1))
    chosen.update(limit + off for limit in (8190, 65536) for off in range(-2, 4))
    return sorted(at for at in chosen if 0 < at < size)


@valid_files
def test_valid_split_anywhere(path: Path, bench: Bench) -> None:
    data = corpus(path)[1]
    requests, _ = expected(path)
    for at in splits(data):
        client = bench.run(data[:at], data[at:])
        check_seen(bench.app.seen, requests)
        check_echoes(client, bench.app.seen)
        assert client.closed()


@invalid_files
def test_invalid_split_anywhere(path: Path, bench: Bench) -> None:
    comments, data = corpus(path)
    data += SMUGGLED
    for at in splits(data):
        client = bench.run(data[:at], data[at:])
        assert final_answer(client).status == int(comments[0]), at
        assert client.closed()
        assert not bench.app.seen


@pytest.mark.parametrize("path", [p for p in INVALID if "_lf_" in p.name], ids=ids)
def test_bare_lf_split_anywhere_needs_no_more_input(path: Path, bench: Bench) -> None:
    data = corpus(path)[1]
    for at in splits(data):
        assert bench.run(data[:at], data[at:]).answer().status == 400, at


def test_two_requests_split_anywhere_and_in_three(bench: Bench) -> None:
    post = b"POST /p HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"
    data = post + FIRST
    for at in range(1, len(data)):
        for further in range(at + 1, len(data), 7):
            client = bench.run(data[:at], data[at:further], data[further:])
            check_seen(bench.app.seen, [{"target": "/p", "body": "hello"}, {"target": "/first"}])
            check_echoes(client, bench.app.seen)


def test_a_stream_a_byte_at_a_time(bench: Bench) -> None:
    chunked = (
        b"POST /c HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n"
    )
    data = FIRST + chunked + LAST
    client = bench.run(*[data[at : at + 1] for at in range(len(data))])
    check_seen(
        bench.app.seen, [{"target": "/first"}, {"target": "/c", "body": "hi"}, {"target": "/last"}]
    )
    check_echoes(client, bench.app.seen)


def test_an_empty_line_behind_each_of_many_requests(bench: Bench) -> None:
    """Old clients send CRLF behind a body. It counts for one request, not for the connection."""
    pieces = [FIRST + b"\r\n", *[FIRST, b"\r\n"] * 20]
    client = bench.run(*pieces)
    assert len(bench.app.seen) == 21
    check_echoes(client, bench.app.seen)
    assert client.closed()


def test_end_of_input_in_a_head_reaches_nobody(bench: Bench) -> None:
    for at in range(1, len(FIRST)):
        assert bench.run(FIRST[:at]).closed()
        assert not bench.app.seen


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 5\r\n\r\nhello",
        b"Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-A: b\r\n\r\n",
    ],
)
def test_end_of_input_in_a_body_reaches_nobody(body: bytes, bench: Bench) -> None:
    data = b"POST / HTTP/1.1\r\nHost: x\r\n" + body
    for at in range(1, len(data)):
        assert bench.run(data[:at]).closed()
        assert not bench.app.seen
    bench.run(data)
    assert [seen for _, seen in bench.app.seen] == [b"hello"]
