"""The framing means what h2 means: both get the same frames, valid or not, in the same order."""

from __future__ import annotations

import itertools
import struct
from typing import Any

import hpack
import pytest
from h2.stream import StreamState
from hypothesis import given, settings
from hypothesis import strategies as st

from threadwell.worker.config import ServerConfig
from threadwell.worker.http2.frames import (
    COMPRESSION_ERROR,
    FRAME_SIZE_ERROR,
    PREFACE,
    PROTOCOL_ERROR,
    STREAM_CLOSED,
    frame,
)

from ..helpers.h2_oracle import H2Side, OurSide

(DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE,
 CONTINUATION) = range(10)  # fmt: skip
HEAD = [(b":method", b"GET"), (b":scheme", b"https"), (b":path", b"/"), (b":authority", b"a")]
RST_CLOSED = struct.pack(">L", STREAM_CLOSED)

# Where the two differ, and why ours is right:
DIFFERENCES = {
    "a frame within a field block": "is a PROTOCOL_ERROR (6.2), whatever else is wrong with it",
    "a CONTINUATION that continues nothing": "is a PROTOCOL_ERROR (6.10); h2 may say STREAM_CLOSED",
    "a field block that HPACK does not know": "is a COMPRESSION_ERROR (4.3); h2: PROTOCOL_ERROR",
    "an acknowledgement with settings": "is a FRAME_SIZE_ERROR (6.5); h2: PROTOCOL_ERROR",
    "a window of a stream that is opened by 0": "is an error of the stream (6.9); h2: connection",
    "a reset of an idle stream": "is a PROTOCOL_ERROR (6.4); h2 ignores it",
    "a frame on a stream that the server has reset": "is discarded (5.1); h2 resets it once more",
    "padding of HEADERS": "may fill its frame, not exceed it (6.2); h2 is wrong about both",
    "a frame is too large": "is refused by its header, before its other errors",
    "the window of a closed stream": "does not exist; h2 lets it overflow by new settings",
}

_thorough = settings(max_examples=400, deadline=None, database=None)

numbers = st.sampled_from([1, 3, 3, 5, 5, 7, 2, 0])
flags_of_heads = st.sampled_from([0x4, 0x5, 0x5, 0x4, 0x0, 0x1])
windows = st.sampled_from([0, 1, 65535, 100_000, 2**31 - 1])


def head(number: int, flags: int, more: int) -> tuple[Any, ...]:
    return ("head", number, flags, more)


steps = st.one_of(
    st.builds(head, numbers, flags_of_heads, st.integers(0, 3)),
    st.builds(head, st.sampled_from([1, 3, 5, 7, 9, 11]), st.just(0x4), st.integers(0, 3)),
    st.tuples(st.just("padded head"), numbers, st.integers(0, 12), st.booleans()),
    st.tuples(st.just("broken head"), numbers),
    st.tuples(st.just("continuation"), numbers, st.sampled_from([0, 4])),
    st.tuples(
        st.just("data"), numbers, st.sampled_from([0, 1, 7, 16384]), st.booleans(), st.booleans()
    ),
    st.tuples(st.just("padding"), numbers, st.integers(0, 9), st.integers(0, 12)),
    st.tuples(st.just("reset"), numbers, st.sampled_from([4, 4, 4, 3])),
    st.tuples(st.just("priority"), numbers, numbers, st.sampled_from([5, 5, 5, 4])),
    st.tuples(st.just("window"), numbers, windows),
    st.tuples(st.just("window"), st.sampled_from([1, 3, 5]), windows),
    st.tuples(
        st.just("settings"),
        st.lists(
            st.one_of(
                st.tuples(st.just(4), st.sampled_from([0, 1, 65535, 2**31 - 1, 2**31])),
                st.tuples(st.just(5), st.sampled_from([16384, 2**24 - 1, 2**24, 16383])),
                st.tuples(st.sampled_from([2, 8]), st.sampled_from([0, 1, 2])),
                st.tuples(st.sampled_from([1, 3, 6, 99]), st.integers(0, 2**32 - 1)),
            ),
            max_size=2,
            unique_by=lambda setting: setting[0],
        ),
        st.sampled_from([0, 0, 0, 1]),
        st.sampled_from([0, 0, 0, 1]),
    ),
    st.tuples(st.just("ping"), st.sampled_from([8, 8, 8, 7]), st.sampled_from([0, 1]), numbers),
    st.tuples(st.just("push"), numbers),
    st.tuples(st.just("unknown"), numbers, st.sampled_from([0x0B, 0x42, 0xFF])),
    st.tuples(st.just("too large"), numbers, st.sampled_from([0, 1, 6, 0x42])),
    # what the server does
    st.tuples(st.just("answer"), st.sampled_from([1, 3, 5, 7]), st.booleans()),
    st.tuples(st.just("send"), st.sampled_from([1, 3, 5, 7]), st.booleans()),
    st.tuples(st.just("give up"), st.sampled_from([1, 3, 5, 7])),
    st.tuples(st.just("open"), st.sampled_from([1, 3, 5, 7])),
)


class Client:
    """Makes octets of the steps; has the HPACK table of the connection."""

    def __init__(self) -> None:
        self.encoder = hpack.Encoder()

    def octets(self, step: tuple[Any, ...]) -> bytes:
        return getattr(self, "_" + step[0].replace(" ", "_"))(*step[1:])  # type: ignore[no-any-return]

    def _head(self, number: int, flags: int, more: int) -> bytes:
        block = self.encoder.encode([*HEAD, (b"x", b"%d" % more)])
        if flags & 0x4 or not more:
            return frame(HEADERS, flags, number, block)
        pieces = [block[:5], *[b""] * (more - 1), block[5:]]
        frames = [frame(CONTINUATION, 0, number, piece) for piece in pieces[1:-1]]
        frames.append(frame(CONTINUATION, 0x4, number, pieces[-1]))
        return frame(HEADERS, flags, number, pieces[0]) + b"".join(frames)

    def _padded_head(self, number: int, padding: int, has_priority: bool) -> bytes:
        block = hpack.Encoder().encode([(b":method", b"GET")])
        priority = b"\0\0\0\x63\7" if has_priority else b""
        flags = 0x2C if has_priority else 0x0C
        room = b"\0" * min(padding, 6)
        return frame(HEADERS, flags, number, bytes([padding]) + priority + block + room)

    def _broken_head(self, number: int) -> bytes:
        return frame(HEADERS, 0x5, number, b"\xff\xff\xff\xff\xff\xff\xff")

    def _continuation(self, number: int, flags: int) -> bytes:
        return frame(CONTINUATION, flags, number, b"")

    def _data(self, number: int, size: int, ended: bool, padded: bool) -> bytes:
        payload = b"x" * size
        if padded:
            payload = b"\1" + payload[:16382] + b"\0"
        return frame(DATA, ended | padded << 3, number, payload)

    def _padding(self, number: int, size: int, padding: int) -> bytes:
        return frame(DATA, 0x8, number, (bytes([padding]) + bytes(8))[:size])

    def _reset(self, number: int, size: int) -> bytes:
        return frame(RST_STREAM, 0, number, bytes(size))

    def _priority(self, number: int, other: int, size: int) -> bytes:
        return frame(PRIORITY, 0, number, (struct.pack(">L", other) + b"\7")[:size])

    def _window(self, number: int, increment: int) -> bytes:
        return frame(WINDOW_UPDATE, 0, number, struct.pack(">L", increment))

    def _settings(self, settings: list[tuple[int, int]], flags: int, cut: int) -> bytes:
        payload = b"".join(struct.pack(">HL", *setting) for setting in settings)
        return frame(SETTINGS, flags, 0, payload[: len(payload) - cut])

    def _ping(self, size: int, flags: int, number: int) -> bytes:
        return frame(PING, flags, number % 2 * (size == 7), bytes(size))

    def _push(self, number: int) -> bytes:
        return frame(PUSH_PROMISE, 0x4, number, b"\0\0\0\2" + b"\x82")

    def _unknown(self, number: int, kind: int) -> bytes:
        return frame(kind, 0xFF, number, b"x")

    def _too_large(self, number: int, kind: int) -> bytes:
        return frame(kind, 0, number, bytes(16385))


class Pair:
    """Both sides, of which the states of streams can be asked."""

    def __init__(self) -> None:
        config = ServerConfig()
        self.ours, self.theirs = OurSide(config), H2Side(config)
        self.client = Client()
        #: Streams that the server has reset, and of which the client has not ended its side.
        self.abandoned: set[int] = set()

    def begin(self) -> None:
        first = PREFACE + frame(SETTINGS, 0, 0)
        assert self.ours.receive(first) is self.theirs.receive(first) is None

    def state_of(self, number: int) -> StreamState:
        stream = self.theirs.conn.streams.get(number)
        return StreamState.IDLE if stream is None else stream.state_machine.state

    def can_send(self, number: int) -> bool:
        return self.state_of(number) in (StreamState.OPEN, StreamState.HALF_CLOSED_REMOTE)

    def act(self, kind: str, number: int, ended: bool = False) -> None:
        """Do what the server does, on both sides."""
        framing, conn = self.ours.framing, self.theirs.conn
        can_send = self.can_send(number)
        is_open = can_send or self.state_of(number) == StreamState.HALF_CLOSED_LOCAL
        if kind == "answer":
            stream = conn.streams.get(number)
            if can_send and stream is not None and stream.state_machine.headers_sent:
                return
            fields = [(b":status", b"200")]
            assert framing.send_head(number, fields, end=ended) is can_send
            if can_send:
                conn.send_headers(number, fields, end_stream=ended)
        elif kind == "send":
            size = max(min(framing.capacity(number), 5), 0)
            assert framing.send_data(number, b"x" * size, end=ended) is can_send
            if can_send:
                conn.send_data(number, b"x" * size, end_stream=ended)
        elif kind == "give up":
            if is_open and self.state_of(number) != StreamState.HALF_CLOSED_REMOTE:
                self.abandoned.add(number)
            framing.reset(number, 8)
            if is_open:
                conn.reset_stream(number, 8)
        else:
            framing.open_window(number, 100)
            if is_open:
                conn.increment_flow_control_window(100, number)

    def check(self, step: tuple[Any, ...], ours: int | None, theirs: int | None) -> bool:
        """Whether both go on after `step`. Fails where they differ without a reason."""
        sent, their_sent = self.ours.sent(), self.theirs.sent()
        if step[0] == "window" and self.ours.notes[-1:] == [("reset", step[1])]:
            self.abandoned.add(step[1])  # for its window, while the client may still send on it
        if ours is None and theirs is None and sent != their_sent:
            # "a frame on a stream that the server has reset"
            number = step[1]
            assert number in self.abandoned, (step, sent, their_sent)
            assert [*sent, ("RstStreamFrame", number, RST_CLOSED)] == their_sent
        if ours == theirs:
            assert self.ours.notes == self.theirs.notes
            return ours is None
        why = self._reason(step, ours, theirs)
        assert why in DIFFERENCES, (step, ours, theirs, self.ours.message)
        return False

    def _reason(self, step: tuple[Any, ...], ours: int | None, theirs: int | None) -> str | None:
        message = self.ours.message
        if ours == PROTOCOL_ERROR and message == "a frame within a field block":
            return message if theirs is not None else None
        if ours == PROTOCOL_ERROR and message == "a CONTINUATION that continues nothing":
            return message
        if step[0] == "too large" and ours == FRAME_SIZE_ERROR and theirs is not None:
            return message
        if ours == COMPRESSION_ERROR and theirs == PROTOCOL_ERROR and "head" in step[0]:
            return "a field block that HPACK does not know"
        if step[0] == "settings":
            if step[2] and ours == FRAME_SIZE_ERROR and theirs == PROTOCOL_ERROR:
                return "an acknowledgement with settings"
            if ours is None and theirs == 3:
                return "the window of a closed stream"
        if step[0] == "window" and not step[2] and theirs == PROTOCOL_ERROR:
            return "a window of a stream that is opened by 0"
        if step[0] == "reset" and ours == PROTOCOL_ERROR and theirs is None:
            return message
        if step[0] == "padded head":
            return "padding of HEADERS"
        return None


@_thorough
@given(st.lists(steps, max_size=30))
def test_it_means_what_h2_means(sequence: list[tuple[Any, ...]]) -> None:
    pair = Pair()
    pair.begin()
    pair.ours.sent()
    pair.theirs.sent()
    for step in sequence:
        if step[0] in ("answer", "send", "give up", "open"):
            pair.act(*step)
            assert pair.ours.sent() == pair.theirs.sent()
            continue
        data = pair.client.octets(step)
        if not pair.check(step, pair.ours.receive(data), pair.theirs.receive(data)):
            return
        assert pair.ours.framing.last_stream == pair.theirs.conn.highest_inbound_stream_id
        for number in (1, 3, 5, 7):
            if pair.can_send(number):
                theirs = pair.theirs.conn.local_flow_control_window(number)
                assert pair.ours.framing.capacity(number) == theirs


def outcome(pieces: list[bytes]) -> tuple[Any, ...]:
    side = OurSide(ServerConfig())
    code = None
    for piece in pieces:
        code = side.receive(piece)
        if code is not None:
            break
    return code, side.message, side.notes, side.sent(), side.framing.reader.seen


@_thorough
@given(st.lists(steps, max_size=12), st.lists(st.integers(0, 2000), max_size=20))
def test_pieces_make_no_difference(sequence: list[tuple[Any, ...]], cuts: list[int]) -> None:
    client = Client()
    acts = ("answer", "send", "give up", "open")
    data = PREFACE + frame(SETTINGS, 0, 0)
    data += b"".join(client.octets(step) for step in sequence if step[0] not in acts)
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    pieces = [data[start:end] for start, end in itertools.pairwise(places)]
    assert outcome(pieces) == outcome([data])
    if len(data) < 3000:
        assert outcome([data[at : at + 1] for at in range(len(data))]) == outcome([data])


@_thorough
@given(st.binary(max_size=300), st.booleans())
def test_garbage_is_an_error_of_the_protocol(garbage: bytes, framed: bool) -> None:
    """`OurSide.receive` lets no other exception pass as one."""
    side = OurSide(ServerConfig())
    side.receive(PREFACE + frame(SETTINGS, 0, 0))
    for at in range(0, len(garbage), 20) if framed else ():
        piece = garbage[at : at + 20]
        if side.receive(frame(piece[0] % 12, piece[-1], piece[len(piece) // 2] % 8, piece[1:])):
            return
    side.receive(garbage)


@_thorough
@given(st.binary(max_size=60))
def test_garbage_in_place_of_the_preface(garbage: bytes) -> None:
    side = OurSide(ServerConfig())
    if garbage and not PREFACE.startswith(garbage[:24]):
        assert side.receive(garbage) == PROTOCOL_ERROR


@pytest.mark.parametrize("kind", [DATA, HEADERS, PRIORITY, PING, WINDOW_UPDATE, GOAWAY, 0x42])
def test_the_first_frame_is_settings(kind: int) -> None:
    """RFC 9113, 3.4; h2 does not check it."""
    side = OurSide(ServerConfig())
    assert side.receive(PREFACE + frame(kind, 0, 0, bytes(8))) == PROTOCOL_ERROR
    side = OurSide(ServerConfig())
    assert side.receive(PREFACE + frame(SETTINGS, 1, 0)) == PROTOCOL_ERROR
