"""The parts of the framing, each by itself, where h2 is no oracle."""

from __future__ import annotations

import struct
import tracemalloc

import pytest

from threadwell.worker.config import ServerConfig
from threadwell.worker.http2.flood_guard import FloodGuard, TooMuchError
from threadwell.worker.http2.frame_reader import FrameReader
from threadwell.worker.http2.frames import (
    COMPRESSION_ERROR,
    CONTINUATION,
    DATA,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    GOAWAY,
    HEADERS,
    LARGEST_FRAME,
    LARGEST_WINDOW,
    PING,
    PREFACE,
    PRIORITY,
    PROTOCOL_ERROR,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    STREAM_CLOSED,
    WINDOW_UPDATE,
    HTTP2ConnectionError,
    frame,
    head_frames,
)
from threadwell.worker.http2.settings import STREAM_WINDOW, WINDOW, read_settings
from threadwell.worker.http2.stream_states import Closed, StreamStates

from ..helpers.h2_oracle import OurSide, frames_of

HEAD = bytes.fromhex("828784") + b"\x41\x01a"  # GET, https, / and an authority
BEGIN = PREFACE + frame(SETTINGS, 0, 0)
CODE = struct.Struct(">L")


def side() -> OurSide:
    ours = OurSide(ServerConfig())
    assert ours.receive(BEGIN) is None
    ours.sent()
    return ours


def opened(flags: int = 0x4, number: int = 1) -> OurSide:
    ours = side()
    assert ours.receive(frame(HEADERS, flags, number, HEAD)) is None
    return ours


def reset(number: int, code: int) -> tuple[str, int, bytes]:
    return "RstStreamFrame", number, CODE.pack(code)


# ---- Frames --------------------------------------------------------------------------------

REFUSED = {
    "DATA on stream 0": (frame(DATA, 0, 0, b"x"), PROTOCOL_ERROR),
    "HEADERS on stream 0": (frame(HEADERS, 0x5, 0, HEAD), PROTOCOL_ERROR),
    "PRIORITY on stream 0": (frame(PRIORITY, 0, 0, bytes(5)), PROTOCOL_ERROR),
    "PRIORITY of 4 octets": (frame(PRIORITY, 0, 1, bytes(4)), FRAME_SIZE_ERROR),
    "PRIORITY on itself": (frame(PRIORITY, 0, 3, CODE.pack(2**31 + 3) + b"x"), PROTOCOL_ERROR),
    "a head on itself": (frame(HEADERS, 0x25, 3, CODE.pack(3) + b"x" + HEAD), PROTOCOL_ERROR),
    "half a priority": (frame(HEADERS, 0x25, 3, b"abcd"), FRAME_SIZE_ERROR),
    "no length of padding": (frame(HEADERS, 0xD, 3), FRAME_SIZE_ERROR),
    "too much padding": (frame(HEADERS, 0xD, 3, b"\7" + HEAD), PROTOCOL_ERROR),
    "padding in a priority": (frame(HEADERS, 0x2D, 3, b"\1" + bytes(4) + b"x"), PROTOCOL_ERROR),
    "RST_STREAM of 3 octets": (frame(RST_STREAM, 0, 1, bytes(3)), FRAME_SIZE_ERROR),
    "RST_STREAM of an idle one": (frame(RST_STREAM, 0, 3, bytes(4)), PROTOCOL_ERROR),
    "SETTINGS on a stream": (frame(SETTINGS, 0, 1), PROTOCOL_ERROR),
    "SETTINGS of 5 octets": (frame(SETTINGS, 0, 0, bytes(5)), FRAME_SIZE_ERROR),
    "SETTINGS acknowledged": (frame(SETTINGS, 1, 0, bytes(6)), FRAME_SIZE_ERROR),
    "PUSH_PROMISE": (frame(PUSH_PROMISE, 0, 1, b"\0\0\0\2"), PROTOCOL_ERROR),
    "PING on a stream": (frame(PING, 0, 1, bytes(8)), PROTOCOL_ERROR),
    "PING of 7 octets": (frame(PING, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
    "GOAWAY on a stream": (frame(GOAWAY, 0, 1, bytes(8)), PROTOCOL_ERROR),
    "GOAWAY of 7 octets": (frame(GOAWAY, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
    "WINDOW_UPDATE of 3 octets": (frame(WINDOW_UPDATE, 0, 0, bytes(3)), FRAME_SIZE_ERROR),
    "WINDOW_UPDATE by 0": (frame(WINDOW_UPDATE, 0, 0, bytes(4)), PROTOCOL_ERROR),
    "WINDOW_UPDATE of an idle one": (frame(WINDOW_UPDATE, 0, 3, CODE.pack(1)), PROTOCOL_ERROR),
    "DATA of an idle one": (frame(DATA, 0, 3, b"x"), PROTOCOL_ERROR),
    "CONTINUATION alone": (frame(CONTINUATION, 0x4, 1, b"x"), PROTOCOL_ERROR),
    "an even number": (frame(HEADERS, 0x5, 2, HEAD), PROTOCOL_ERROR),
    "no HPACK": (frame(HEADERS, 0x5, 3, b"\xff\xff"), COMPRESSION_ERROR),
    "a frame in a head": (frame(HEADERS, 0x1, 3, HEAD) + frame(PING, 0, 0, bytes(8)), 1),
    "another stream in a head": (frame(HEADERS, 0, 3, HEAD) + frame(CONTINUATION, 4, 5), 1),
    "a large window": (frame(WINDOW_UPDATE, 0, 0, CODE.pack(2**31 - 1)), FLOW_CONTROL_ERROR),
    "a large initial window": (frame(SETTINGS, 0, 0, b"\0\4" + CODE.pack(2**31)), 3),
    "a size of frames": (frame(SETTINGS, 0, 0, b"\0\5" + CODE.pack(16383)), PROTOCOL_ERROR),
    "push that is neither": (frame(SETTINGS, 0, 0, b"\0\2" + CODE.pack(2)), PROTOCOL_ERROR),
    "a large frame": (frame(0x42, 0, 0, bytes(LARGEST_FRAME + 1))[:9], FRAME_SIZE_ERROR),
}


@pytest.mark.parametrize("name", REFUSED)
def test_an_error_of_the_connection(name: str) -> None:
    ours = opened()
    data, code = REFUSED[name]
    assert ours.receive(data) == code


IGNORED = {
    "an unknown type": frame(0x42, 0xFF, 1, b"x"),
    "ALTSVC": frame(0x0A, 0, 0, b"\xff"),
    "GOAWAY": frame(GOAWAY, 0, 0, bytes(8)),
    "PRIORITY of an idle stream": frame(PRIORITY, 0, 9, bytes(5)),
    "an unknown setting": frame(SETTINGS, 0, 0, b"\xff\xff" + CODE.pack(2**32 - 1)),
    "SETTINGS acknowledged": frame(SETTINGS, 1, 0),
}


@pytest.mark.parametrize("name", IGNORED)
def test_what_is_ignored(name: str) -> None:
    ours = opened()
    before = [*ours.notes]
    assert ours.receive(IGNORED[name]) is None
    assert ours.notes == before


def test_the_reserved_bits_are_ignored() -> None:
    ours = opened(number=2**31 + 1)
    assert ours.receive(frame(WINDOW_UPDATE, 0, 1, CODE.pack(2**31 + 5))) is None
    assert ours.notes[0][1] == 1
    assert ours.notes[1] == ("window", 1)


def test_padding_is_no_data_and_uses_the_windows() -> None:
    ours = opened()
    assert ours.receive(frame(DATA, 0x8, 1, b"\2ab\0\0")) is None
    assert ours.receive(frame(DATA, 0x9, 1, b"\3\0\0\0")) is None
    assert ours.notes[1:] == [("data", 1, b"ab", 5), ("data", 1, b"", 4), ("ended", 1)]


def test_a_block_in_pieces_is_bounded() -> None:
    reader = FrameReader(FloodGuard(), 100)
    data = BEGIN + frame(HEADERS, 0, 1, bytes(60)) + frame(CONTINUATION, 0, 1, bytes(40))
    assert len([*reader.frames(data, 0.0)]) == 1
    assert reader.unfinished
    with pytest.raises(TooMuchError) as caught:
        list(reader.frames(frame(CONTINUATION, 0, 1, b"x")[:9], 0.0))
    assert caught.value.code == ENHANCE_YOUR_CALM
    reader = FrameReader(FloodGuard(), 100)
    with pytest.raises(HTTP2ConnectionError, match="too many pieces"):
        list(reader.frames(BEGIN + frame(HEADERS, 0, 1) + frame(CONTINUATION, 0, 1) * 64, 0.0))


def test_a_partial_frame_is_all_that_is_kept() -> None:
    reader = FrameReader(FloodGuard(), 100)
    assert len([*reader.frames(BEGIN, 0.0)]) == 1
    data = frame(DATA, 0, 1, bytes(LARGEST_FRAME))
    tracemalloc.start()
    try:
        for _ in range(20):
            for at in range(0, len(data), 1000):
                list(reader.frames(data[at : at + 1000], 0.0))
        assert tracemalloc.get_traced_memory()[0] < 10 * LARGEST_FRAME
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("size", [0, 1, LARGEST_FRAME, LARGEST_FRAME + 1, 3 * LARGEST_FRAME])
def test_a_head_of_any_size_is_sent_whole(size: int) -> None:
    block = bytes(range(256)) * (size // 256) + bytes(size % 256)
    data = head_frames(1, block, end=True)
    frames = frames_of(data)
    assert b"".join(payload for _, _, payload in frames) == block
    assert all(len(payload) <= LARGEST_FRAME for _, _, payload in frames)
    assert data[4] & 0x1
    assert [kind for kind, _, _ in frames[1:]] == ["ContinuationFrame"] * (len(frames) - 1)
    reader = FrameReader(FloodGuard(), 65536)
    assert [*reader.frames(BEGIN + data, 0.0)][1][3] == block


# ---- Closed streams ------------------------------------------------------------------------


def test_an_ended_stream() -> None:
    ours = opened(0x5)
    assert ours.framing.send_head(1, [(b":status", b"200")], end=True)
    assert not ours.framing.send_data(1, b"", end=True)
    ours.sent()
    for late in (frame(RST_STREAM, 0, 1, bytes(4)), frame(WINDOW_UPDATE, 0, 1, CODE.pack(1))):
        assert ours.receive(late) is None
    assert ours.receive(frame(DATA, 0, 1, b"x")) is None
    assert ours.sent() == [reset(1, STREAM_CLOSED)]
    assert ours.receive(frame(HEADERS, 0x5, 1, HEAD)) == STREAM_CLOSED


def test_a_stream_that_the_client_has_reset() -> None:
    ours = opened()
    assert ours.receive(frame(RST_STREAM, 0, 1, bytes(4))) is None
    for more in (frame(DATA, 0, 1, b"x"), frame(HEADERS, 0x5, 1, HEAD)):
        assert ours.receive(more) is None
        assert ours.sent() == [reset(1, STREAM_CLOSED)]
    assert [note[0] for note in ours.notes] == ["request", "reset"]


def test_what_follows_on_a_stream_that_the_server_has_reset_is_discarded() -> None:
    ours = opened()
    ours.framing.reset(1, 8)
    ours.framing.reset(1, 8)
    assert ours.sent() == [reset(1, 8)]
    for more in (frame(DATA, 0, 1, b"x"), frame(HEADERS, 0x5, 1, b"\x40\x01b\x01c")):
        assert ours.receive(more) is None
    assert ours.sent() == []
    # the table of HPACK is that of all streams
    assert ours.receive(frame(HEADERS, 0x5, 3, HEAD[:3] + b"\xbe")) is None
    assert ours.notes[-1][2][-1] == (b"b", b"c")


def test_data_that_is_discarded_is_given_back_to_the_connection() -> None:
    ours = opened()
    ours.framing.reset(1, 8)
    ours.sent()
    for _ in range(WINDOW // LARGEST_FRAME * 3):
        assert ours.receive(frame(DATA, 0, 1, bytes(LARGEST_FRAME))) is None
    assert {kind for kind, _, _ in ours.sent()} == {"WindowUpdateFrame"}


def test_a_stream_that_the_client_has_ended() -> None:
    for more in (frame(DATA, 0, 1, b"x"), frame(HEADERS, 0x5, 1, HEAD)):
        ours = opened(0x5)
        assert ours.receive(more) is None
        assert ours.sent() == [reset(1, STREAM_CLOSED)]
        assert ours.notes[-1] == ("reset", 1)


def test_a_skipped_number_is_closed() -> None:
    ours = opened(0x5, number=5)
    assert ours.receive(frame(DATA, 0, 3, b"x")) is None
    assert ours.sent() == [reset(3, STREAM_CLOSED)]
    assert ours.receive(frame(HEADERS, 0x5, 3, HEAD)) == PROTOCOL_ERROR


def test_frames_on_closed_streams_are_counted() -> None:
    ours = opened(0x5)
    ours.framing.send_head(1, [(b":status", b"200")], end=True)
    assert ours.receive(frame(DATA, 0, 1, b"x") * 201) == ENHANCE_YOUR_CALM
    ours = opened()
    ours.framing.reset(1, 8)
    assert ours.receive(frame(HEADERS, 0x4, 1, HEAD) * 1001) == ENHANCE_YOUR_CALM
    ours = opened()
    ours.framing.reset(1, 8)
    assert ours.receive(frame(DATA, 0, 1, b"x") * 1001) == ENHANCE_YOUR_CALM
    ours = opened()
    ours.framing.reset(1, 8)
    assert ours.receive(frame(DATA, 0, 1, bytes(512)) * 1001) is None  # sent before it knew


@pytest.mark.parametrize("last", [frame(DATA, 0x1, 1), frame(HEADERS, 0x5, 1, HEAD)])
def test_nothing_follows_the_end_on_a_stream_that_the_server_has_reset(last: bytes) -> None:
    ours = opened()
    ours.framing.reset(1, 8)
    ours.sent()
    assert ours.receive(last) is None
    assert not ours.sent()
    assert ours.receive(frame(DATA, 0x1, 1)) is None
    assert ours.sent() == [reset(1, STREAM_CLOSED)]


def test_few_closed_streams_are_remembered() -> None:
    states = StreamStates()
    for number in range(1, 20_001, 2):
        states.close(states.open(number, 0, 0), Closed.ENDED)
    known = [number for number in range(1, 20_001, 2) if states.closed_by(number)]
    assert 512 <= len(known) <= 1024
    assert known[-1] == 19_999
    assert all(states.get(number) is None for number in known)


# ---- Windows and settings --------------------------------------------------------------------


def test_a_window_of_a_stream_that_is_too_large_resets_it() -> None:
    ours = opened()
    assert ours.receive(frame(WINDOW_UPDATE, 0, 1, CODE.pack(LARGEST_WINDOW))) is None
    assert ours.sent() == [reset(1, FLOW_CONTROL_ERROR)]
    ours = opened()
    assert ours.receive(frame(WINDOW_UPDATE, 0, 1, CODE.pack(0))) is None
    assert ours.sent() == [reset(1, PROTOCOL_ERROR)]


def test_a_window_can_be_negative() -> None:
    ours = opened()
    framing = ours.framing
    assert framing.send_head(1, [(b":status", b"200")], end=False)
    assert framing.send_data(1, bytes(60_000), end=False)
    assert framing.capacity(1) == 5535
    assert ours.receive(frame(SETTINGS, 0, 0, b"\0\4" + CODE.pack(100))) is None
    assert framing.capacity(1) == 100 - 60_000
    assert framing.send_data(1, b"", end=False)
    with pytest.raises(ValueError, match="do not fit"):
        framing.send_data(1, b"x", end=False)
    assert ours.receive(frame(WINDOW_UPDATE, 0, 1, CODE.pack(60_000))) is None
    assert framing.capacity(1) == 100


def test_new_settings_can_overflow_an_open_stream() -> None:
    ours = opened()
    assert ours.receive(frame(WINDOW_UPDATE, 0, 1, CODE.pack(1))) is None
    data = frame(SETTINGS, 0, 0, b"\0\4" + CODE.pack(LARGEST_WINDOW))
    assert ours.receive(data) == FLOW_CONTROL_ERROR


@pytest.mark.parametrize("streams", [1, 9])
def test_more_data_than_the_windows_is_an_error(streams: int) -> None:
    ours = side()
    for number in range(1, 2 * streams, 2):
        ours.receive(frame(HEADERS, 0x4, number, HEAD))
    code = None
    for _ in range(STREAM_WINDOW // LARGEST_FRAME):
        assert code is None
        for number in range(1, 2 * streams, 2):
            code = ours.receive(frame(DATA, 0, number, bytes(LARGEST_FRAME)))
    assert code is None  # the connection's window was opened again, and no stream's
    ours.framing.open_window(1, 1)
    assert ours.receive(frame(DATA, 0, 1, b"x")) is None
    assert ours.receive(frame(DATA, 0, 1, b"x")) == FLOW_CONTROL_ERROR


def test_of_repeated_settings_the_last_counts() -> None:
    payload = b"".join(
        struct.pack(">HL", *each) for each in [(1, 500), (4, 1), (1, 0), (4, 7), (1, 100)]
    )
    assert read_settings(payload) == {1: [0, 100], 4: [1, 7]}
    with pytest.raises(HTTP2ConnectionError):
        read_settings(struct.pack(">HLHL", 4, 2**31, 4, 1))
