"""Frames from octets in whatever pieces, and the limits for those that ask for nothing."""

from __future__ import annotations

import random

import pytest

from threadwell.worker.http2.flood_guard import FloodGuard, TooMuchError
from threadwell.worker.http2.frame_reader import FrameReader
from threadwell.worker.http2.frames import PREFACE

from .test_limits import frame


def reader_of(data: bytes = b"") -> FrameReader:
    """A reader that has read the preface, settings and `data`."""
    reader = FrameReader(FloodGuard(), 65536)
    assert len([*reader.frames(PREFACE + frame(4) + data, 0.0)]) == 1
    return reader


def test_it_passes_all_frames_in_whatever_pieces() -> None:
    chosen = random.Random(7)
    sizes = {3: 4, 6: 8, 8: 4}
    expected = [
        (kind, 0, int(kind not in (6, 7)), bytes(size), size)
        for kind in [4, *chosen.choices([0, 3, 6, 7, 8], k=99)]
        for size in [0 if kind == 4 else sizes.get(kind, chosen.randrange(8, 40))]
    ]
    expected[0] = (4, 0, 0, b"", 0)
    stream = PREFACE + b"".join(
        frame(kind, payload, flags, number) for kind, flags, number, payload, _ in expected
    )
    for size in (1, 2, 3, 8, 9, 10, 31, len(stream)):
        reader = FrameReader(FloodGuard(), 65536)
        parts = [stream[at : at + size] for at in range(0, len(stream), size)]
        assert [each for part in parts for each in reader.frames(part, 0.0)] == expected
        assert (reader.seen, reader.unfinished) == (100, False)


def test_it_forgives_with_time() -> None:
    reader = reader_of()
    for second in range(100):
        assert len([*reader.frames(frame(6, bytes(8)) * 100, float(second))]) == 100
    with pytest.raises(TooMuchError):
        for _ in reader.frames(frame(6, bytes(8)) * 1200, 100.0):
            pass


def test_it_knows_what_is_not_whole() -> None:
    assert FrameReader(FloodGuard(), 65536).unfinished
    reader = reader_of()
    assert not reader.unfinished
    assert not [*reader.frames(frame(1, b"xx", 0x5, 1)[:-1], 0.0)]
    assert reader.unfinished
    assert len([*reader.frames(b"x", 0.0)]) == 1
    assert not reader.unfinished
    assert not [*reader.frames(frame(0, b"xx", 0, 1)[:-1], 0.0)]
    assert not reader.unfinished  # a body has a deadline of its own


def test_a_moment_may_be_counted_after_a_later_one() -> None:
    """Frames count from when they were received, resets from when they are made."""
    guard = FloodGuard()
    for _ in range(100):
        guard.reset(110.0)
        guard.count(3, 0, 4, 100.0)
    with pytest.raises(TooMuchError):
        guard.reset(110.0)
