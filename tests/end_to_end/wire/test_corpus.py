"""The files of `corpus/` against a real server, alone and pipelined."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from ...helpers.wire_client import Client
from ...helpers.wire_corpus import FIRST, INVALID, LAST, SMUGGLED, VALID, corpus, expected
from .bench import (
    Recorder,
    check_seen,
    final_answer,
    ids,
    invalid_files,
    send_dribbling,
    valid_files,
)


@valid_files
@pytest.mark.parametrize("send", [Client.send, send_dribbling], ids=["whole", "dribbling"])
def test_valid(
    path: Path,
    send: Callable[[Client, bytes], None],
    open_client: Callable[[], tuple[Client, Recorder]],
) -> None:
    client, app = open_client()
    requests, closes = expected(path)
    send(client, corpus(path)[1])
    for wanted in requests:
        assert final_answer(client, wanted.get("method", "GET")).status == 200
    check_seen(app.seen, requests)
    if not closes:
        client.send(LAST)
        assert client.answer().body == b"GET /last"
        client.sock.shutdown(socket.SHUT_WR)
    assert client.closed()


@valid_files
def test_valid_pipelined(path: Path, open_client: Callable[[], tuple[Client, Recorder]]) -> None:
    client, app = open_client()
    requests, closes = expected(path)
    client.send(FIRST + corpus(path)[1] + LAST)
    requests = [{"target": "/first"}, *requests, *([] if closes else [{"target": "/last"}])]
    for wanted in requests:
        assert final_answer(client, wanted.get("method", "GET")).status == 200
    check_seen(app.seen, requests)
    client.sock.shutdown(socket.SHUT_WR)
    assert client.closed()


@invalid_files
@pytest.mark.parametrize("send", [Client.send, send_dribbling], ids=["whole", "dribbling"])
def test_invalid(
    path: Path,
    send: Callable[[Client, bytes], None],
    open_client: Callable[[], tuple[Client, Recorder]],
) -> None:
    client, app = open_client()
    comments, data = corpus(path)
    send(client, data + SMUGGLED)
    answer = final_answer(client)
    assert answer.status == int(comments[0])
    assert answer.header("connection") == "close"
    assert client.closed()
    assert not app.targets()


@invalid_files
def test_invalid_pipelined(path: Path, open_client: Callable[[], tuple[Client, Recorder]]) -> None:
    client, app = open_client()
    comments, data = corpus(path)
    client.send(FIRST + data + SMUGGLED)
    assert client.answer().body == b"GET /first"
    assert final_answer(client).status == int(comments[0])
    assert client.closed()
    assert app.targets() == ["/first"]


@pytest.mark.parametrize("path", [p for p in INVALID if "_lf_" in p.name], ids=ids)
def test_bare_lf_needs_no_more_input_to_be_refused(
    path: Path, open_client: Callable[[], tuple[Client, Recorder]]
) -> None:
    client, app = open_client()
    client.send(corpus(path)[1])
    assert client.answer().status == 400
    assert client.closed()
    assert not app.seen


def test_corpus_is_large() -> None:
    assert len(INVALID) >= 74
    assert len(VALID) >= 63
