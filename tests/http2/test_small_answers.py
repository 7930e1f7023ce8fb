"""Small answers of threads: in one write with others, and past the send queue."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from threadwell import Request, Response, ThreadedServer
from threadwell.worker.asgi.connection import LoopConnection
from threadwell.worker.http2.stream import Stream
from threadwell.worker.http2.thread_task import HTTP2ThreadTask

from ..helpers.http2_client import Http2Client

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Http2Client]


def test_answers_that_come_together_leave_in_one_write(
    serve_http2: Serve, http2: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    given, writes = threading.Semaphore(0), []
    call, on_loop, write = (
        HTTP2ThreadTask.call,
        HTTP2ThreadTask._answer_on_loop,
        LoopConnection.write,
    )

    def given_to_loop(task: HTTP2ThreadTask, *arguments: Any) -> bool:
        taken = call(task, *arguments)
        given.release()
        return taken

    def answered(task: HTTP2ThreadTask, *arguments: Any) -> None:
        if not writes:  # the first: the loop is kept here until all the others wait for it
            writes.append(0)
            for _ in range(4):
                assert given.acquire(timeout=10)
        on_loop(task, *arguments)

    def written(connection: LoopConnection, data: bytes) -> None:
        if writes:
            writes[0] += 1
        write(connection, data)

    all_running = threading.Barrier(4)

    def app(request: Request) -> Response:
        all_running.wait(10)
        return Response(200, [], b"Hello")

    client = http2(serve_http2(app, threads=4))
    client.settle()
    monkeypatch.setattr(HTTP2ThreadTask, "call", given_to_loop)
    monkeypatch.setattr(HTTP2ThreadTask, "_answer_on_loop", answered)
    monkeypatch.setattr(LoopConnection, "write", written)
    numbers = [client.get() for _ in range(4)]
    assert [client.answer(number).body for number in numbers] == [b"Hello"] * 4
    assert writes[0] <= 2  # of those before the loop was kept, and of the others


@pytest.mark.parametrize(("size", "queued"), [(2048, False), (2049, True)])
def test_a_small_answer_needs_no_turn_with_other_streams(
    serve_http2: Serve,
    http2: Connect,
    monkeypatch: pytest.MonkeyPatch,
    size: int,
    queued: bool,
) -> None:
    turns = []
    send = Stream.send

    def sent(stream: Stream, size: int) -> bool:
        turns.append(stream.number)
        return send(stream, size)

    monkeypatch.setattr(Stream, "send", sent)
    client = http2(serve_http2(lambda request: Response(200, [], bytes(size))))
    assert client.fetch().body == bytes(size)
    assert bool(turns) is queued
