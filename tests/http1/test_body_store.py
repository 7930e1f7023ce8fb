"""Large request bodies in memory: a file that reads like any other, and a bound for all of them."""

from __future__ import annotations

import io
import os
import tracemalloc
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threadwell.worker import Limits, RequestReceived, ServerConfig
from threadwell.worker.http1.body_store import BLOCK, BodyStore, MemoryFile
from threadwell.worker.http1.request_body import BodyReceiver, SpooledBody

KIB = 1024
PATTERN = bytes(range(251)) * 3600


def receiver(store: BodyStore, length: int | None, **limits: int) -> BodyReceiver:
    """The receiver of a body with a length, or of one in chunks."""
    head = RequestReceived(
        *("POST", "/", "/", "", "1.1", b"", {}), content_length=length, chunked=length is None
    )
    return BodyReceiver(head, ServerConfig.from_options(**limits), 0.0, store)


def feed(body: BodyReceiver, data: bytes, size: int) -> bool:
    """Give `data` in steps of `size` as a thread does; whether the body is whole then."""
    done = False
    while data and not done:
        step, data = data[:size], data[size:]
        room = None if body.is_in_file else body.room()
        if room is None:
            done = body.feed(step)
        else:
            rest = step[len(room) :]
            step = step[: len(room)]
            room[: len(step)] = step
            done = body.feed(room[: len(step)])
            data = rest + data
    return done


def chunks(data: bytes, size: int) -> bytes:
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"


# ---- The file ------------------------------------------------------------------------------

_steps = st.one_of(
    st.tuples(st.sampled_from(["read", "read1", "readline", "peek"]), st.integers(-1, 40)),
    st.tuples(st.just("seek"), st.integers(0, 70)),
    st.tuples(st.just("readinto"), st.integers(0, 40)),
)


@settings(max_examples=300, deadline=None, database=None)
@given(
    st.lists(st.binary(min_size=1, max_size=20), min_size=1, max_size=5),
    st.lists(_steps, max_size=8),
    st.integers(1, 16),
)
def test_it_reads_like_bytes(pieces: list[bytes], steps: list[Any], size: int) -> None:
    store = BodyStore(Limits())
    file = io.BufferedReader(MemoryFile([*map(memoryview, pieces)], store, 0, []), size)
    expected = io.BufferedReader(io.BytesIO(b"".join(pieces)), size)  # type: ignore[arg-type]
    for name, number in steps:
        if name == "readinto":
            ours, theirs = bytearray(number), bytearray(number)
            assert file.readinto(ours) == expected.readinto(theirs)
            assert ours == theirs
        else:
            assert getattr(file, name)(number) == getattr(expected, name)(number)
        assert file.tell() == expected.tell()
    assert file.seek(-1, os.SEEK_END) == expected.seek(-1, os.SEEK_END)
    assert file.seek(-1, os.SEEK_CUR) == expected.seek(-1, os.SEEK_CUR) if file.tell() else True
    assert file.read() == expected.read()
    assert file.raw.read() == b""


def test_a_wrong_position_is_an_error_and_a_closed_file_too() -> None:
    file = MemoryFile([b"octets"], BodyStore(Limits()), 0, [])
    with pytest.raises(OSError, match="Invalid argument"):
        file.seek(-1)
    with pytest.raises(ValueError, match="whence"):
        file.seek(0, 9)
    assert file.seek(99) == 99
    assert file.read() == file.readall() == b""
    file.close()
    for call in (file.read, file.readall, file.tell, file.readable, file.seekable):
        with pytest.raises(ValueError, match="closed"):
            call()


# ---- What is kept where --------------------------------------------------------------------


@pytest.mark.parametrize("step", [997, 70_000, 300_000])
@pytest.mark.parametrize("chunk", [0, 50, 9000, 500_000])
@pytest.mark.parametrize("room", [0, 700 * KIB, 64 * 1024 * KIB], ids=["none", "some", "all"])
def test_a_body_is_what_was_sent(step: int, chunk: int, room: int) -> None:
    store = BodyStore(Limits(memory_bodies=room))
    data = chunks(PATTERN, chunk) if chunk else PATTERN
    body = receiver(store, None if chunk else len(PATTERN))
    assert feed(body, data + b"GET", step)
    assert body.size == len(PATTERN)
    assert b"GET".startswith(body.rest)
    file = body.finish()
    assert isinstance(file, SpooledBody)
    in_memory = isinstance(file.raw, MemoryFile)
    assert in_memory == (room > 700 * KIB)
    assert file.read() == PATTERN
    file.seek(0)
    assert b"".join(iter(lambda: file.read(1000), b"")) == PATTERN
    file.close()
    assert store.take(room)  # all of it is free again


def test_the_largest_body_in_memory() -> None:
    store = BodyStore(Limits(memory_body=300 * KIB))
    for size, kind in [(300 * KIB, MemoryFile), (300 * KIB + 1, io.FileIO)]:
        for length in (size, None):
            body = receiver(store, length, memory_body=300 * KIB)
            data = PATTERN[:size]
            assert feed(body, data if length else chunks(data, 50_000), 60_000)
            with body.finish() as file:  # type: ignore[union-attr]
                assert type(file.raw) is kind
                assert file.read() == data


def test_a_body_that_will_not_fit_is_in_a_file_from_the_beginning() -> None:
    store = BodyStore(Limits(memory_bodies=1024 * KIB))
    body = receiver(store, 1100 * KIB)
    feed(body, PATTERN[: 300 * KIB], 64 * KIB)
    assert body.is_in_file
    assert store.take(1024 * KIB)
    body.close()


def test_small_bodies_need_no_room() -> None:
    body = receiver(BodyStore(Limits(memory_bodies=0)), 256 * KIB)
    assert feed(body, PATTERN[: 256 * KIB], 64 * KIB)
    assert body.finish() == PATTERN[: 256 * KIB]


def test_what_a_body_had_is_free_again_however_it_ends() -> None:
    room = 1024 * KIB
    store = BodyStore(Limits(memory_bodies=room))
    for end in ("discarded", "closed", "forgotten"):
        body = receiver(store, 600 * KIB)
        feed(body, PATTERN[: 500 * KIB], 100_000)
        assert not store.take(room)
        if end == "discarded":
            body.close()
            body.close()
        else:
            feed(body, PATTERN[: 100 * KIB], 100_000)
            file = body.finish()
            assert not isinstance(file, bytes)
            if end == "closed":
                file.close()
                file.close()
            del file
        assert store.take(room), end
        store.give_back(room, [])


def test_blocks_are_used_again_and_show_nothing_of_others() -> None:
    store = BodyStore(Limits())
    block = store.take_block()
    assert block is not None
    block[:] = b"secret" * (BLOCK // 6) + b"xxxx"
    store.give_back(BLOCK, [block])
    body = receiver(store, 400 * KIB)
    assert feed(body, bytes(400 * KIB), 70_000)
    with body.finish() as file:  # type: ignore[union-attr]
        assert file.read() == bytes(400 * KIB)
    assert store.take_block() is block


@pytest.mark.parametrize("data", [b"1\r\nx\r\n" * 20_000, b"x" * 120_000], ids=["chunks", "octets"])
def test_a_body_octet_by_octet_takes_little_more_than_its_size(data: bytes) -> None:
    chunked = data[:1] == b"1"
    body = receiver(BodyStore(Limits()), None if chunked else 10**6, memory_body=10**6)
    tracemalloc.start()
    try:
        for _ in range(3):
            feed(body, data, 6 if chunked else 1)
        assert body.size == len(data) * 3 // (6 if chunked else 1)
        assert tracemalloc.get_traced_memory()[0] < 2 * body.size + BLOCK
    finally:
        tracemalloc.stop()
    body.close()


def test_what_is_joined_with_a_held_line_is_counted() -> None:
    """Each step ends within the line of a chunk, which is joined with the next step."""
    limits = Limits()
    store = BodyStore(limits)
    body = receiver(store, None)
    size = 16 * KIB
    framed = b"\r\n%x\r\n" % size + bytes(size)
    stream = (framed * 60)[2:] + b"\r\n0\r\n\r\n"
    taken = len(framed)
    assert not feed(body, stream[: taken + 1], taken + 1)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    assert feed(body, stream[taken + 1 :], taken)
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    counted = limits.memory_bodies - store._free
    assert held < counted + 64 * KIB
    body.close()
    assert store._free == limits.memory_bodies
