"""`ChunkedDecoder`: any split gives the same, h11 agrees, and garbage is a `ProtocolError`."""

from __future__ import annotations

import re
import tracemalloc

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threadwell.worker import Limits, ProtocolError, RequestReceived, ServerConfig
from threadwell.worker.asgi.request_stream import BodyStream
from threadwell.worker.http1.chunked import ChunkedDecoder
from threadwell.worker.http1.request_body import BodyReceiver

LIMITS = Limits()
HELLO = b"5\r\nhello\r\n0\r\n\r\n"


def decoded(*pieces: bytes, limits: Limits = LIMITS) -> tuple[bytes, bool, bytes] | int:
    """The body, whether it ended, and what was behind it; or the status of the refusal."""
    decoder = ChunkedDecoder(limits)
    body = b""
    rest = b""
    try:
        for piece in pieces:
            if decoder.done:
                rest += piece
                continue
            body += b"".join(decoder.feed(piece))
            if decoder.done:
                rest = decoder.rest
    except ProtocolError as error:
        assert error.status in (400, 413, 431)
        return error.status
    return body, decoder.done, rest


# Whitespace before an extension, which a recipient must accept (RFC 9112, 7.1.1). h11 refuses it.
_BLANKS = re.compile(rb"[0-9A-Fa-f][ \t]+;")


def by_h11(data: bytes) -> tuple[bytes, bool]:
    """The body and whether it ended; raises where h11 refuses."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1024 * 1024)
    connection.receive_data(
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + data
    )
    assert isinstance(connection.next_event(), h11.Request)
    body = b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.Data):
            body += event.data
        else:
            return body, isinstance(event, h11.EndOfMessage)


# ---- Streams, nearly valid -----------------------------------------------------------------

_sizes = st.sampled_from([b"%x", b"%X", b"00%x", b"%x", b"%x", b"0x%x", b"+%x", b"%x "])
_extensions = st.sampled_from(
    [b"", b"", b"", b";a", b';a="b c"', b";\xff\t", b" ;a", b"\t; a = b", b";a\x01", b";", b";a="]
)
_chunks = st.builds(
    lambda size, extension, data, end: size % len(data) + extension + b"\r\n" + data + end,
    _sizes,
    _extensions,
    st.binary(min_size=1, max_size=20),
    st.sampled_from([b"\r\n"] * 8 + [b"\n", b"", b"\r"]),
)
_trailers = st.sampled_from([b"", b"", b"X-A: b\r\n", b"A: b\r\nC:\r\n", b"A : b\r\n", b" b\r\n"])
_streams = st.builds(
    lambda chunks, last, trailers, rest: b"".join(chunks) + last + trailers + b"\r\n" + rest,
    st.lists(_chunks, max_size=4),
    st.sampled_from([b"0\r\n", b"0\r\n", b"000\r\n", b"0;a\r\n", b"0\n"]),
    _trailers,
    st.sampled_from([b"", b"GET / HTTP/1.1\r\n"]),
)
_good_chunks = st.builds(
    lambda data, extension: b"%x%b\r\n%b\r\n" % (len(data), extension, data),
    st.binary(min_size=1, max_size=30),
    st.sampled_from([b"", b";a=b"]),
)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    stream = draw(_streams)
    if draw(st.booleans()):
        at = draw(st.integers(0, len(stream)))
        put = draw(st.sampled_from([b"", b"\r", b"\n", b"\0", b";", b" ", b"0", b"f", b"\r\n"]))
        stream = stream[:at] + put + stream[at + draw(st.integers(0, 1)) :]
    return stream


_anything = st.one_of(mutated(), st.binary(max_size=80))
_thorough = settings(max_examples=400, deadline=None, database=None)


@_thorough
@given(_anything)
def test_what_is_accepted_h11_accepts(data: bytes) -> None:
    result = decoded(data)
    if isinstance(result, int):
        return
    body, done, _ = result
    try:
        theirs, ended = by_h11(data)
    except h11.RemoteProtocolError:
        assert _BLANKS.search(data)
        return
    assert done == ended
    assert body == theirs


@_thorough
@given(_anything, st.lists(st.integers(0, 80), max_size=6).map(sorted))
def test_any_split_gives_the_same(data: bytes, cuts: list[int]) -> None:
    pieces = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
    whole = decoded(data)
    assert decoded(*pieces) == whole
    assert decoded(*[data[at : at + 1] for at in range(len(data))]) == whole


@settings(max_examples=300, deadline=None, database=None)
@given(st.lists(_good_chunks, max_size=6), st.sampled_from([b"", b"X-A: b\r\n"]), st.binary())
def test_good_streams_end_where_they_end(chunks: list[bytes], trailers: bytes, rest: bytes) -> None:
    data = b"".join(chunks) + b"0\r\n" + trailers + b"\r\n"
    result = decoded(data + rest)
    assert isinstance(result, tuple)
    assert result[0] == by_h11(data)[0]
    assert result[1:] == (True, rest)
    for end in range(len(data)):
        cut = decoded(data[:end])
        assert isinstance(cut, tuple)
        assert not cut[1]


# ---- Examples ------------------------------------------------------------------------------


def test_at_every_split() -> None:
    data = b"3;a\r\nhel\r\n02\r\nlo\r\n0\r\nX-A: b\r\n\r\nGET"
    for at in range(len(data)):
        for further in range(at, len(data)):
            pieces = data[:at], data[at:further], data[further:]
            assert decoded(*pieces) == (b"hello", True, b"GET")


def test_data_comes_before_its_chunk_is_whole() -> None:
    decoder = ChunkedDecoder(LIMITS)
    assert decoder.feed(b"5\r\nhe") == [b"he"]
    assert decoder.feed(b"l") == [b"l"]
    assert decoder.feed(b"") == []
    assert decoder.feed(b"lo") == [b"lo"]
    assert not decoder.done
    assert decoder.feed(b"\r\n0\r\n\r\nx") == []
    assert decoder.done
    assert decoder.rest == b"x"


@pytest.mark.parametrize(
    "data",
    [
        b"0x5\r\n", b"+5\r\n", b"-5\r\n", b"5_0\r\n", b" 5\r\n", b"5 \r\n", b"5\t\r\n", b"\r\n",
        b"g\r\n", b"5\x0b\r\n", b"5\n", b"\xd9\xa5\r\n", b"5;a\nb\r\n",
        b"5;\x00\r\n", b"5;a\rb\r\n", b"5\r\nhello\n", b"5\r\nhelloXX", b"5\r\nhello\rX",
        b"10000000000000000\r\n", b"0" * 17 + b"\r\n", b"0\r\nA\r\n", b"0\r\n: b\r\n",
        b"0\r\nA : b\r\n", b"0\r\n b: c\r\n", b"0\r\nA: b\n", b"0\r\nA: \x00\r\n", b"0\r\n\n",
    ],
)  # fmt: skip
def test_refused_at_once_however_it_comes(data: bytes) -> None:
    assert decoded(data) == 400
    assert decoded(*[data[at : at + 1] for at in range(len(data))]) == 400


@pytest.mark.parametrize(
    "extension",
    [
        b";", b";a=", b";=b", b';a="x', b';"q"', b"; ", b";;", b";a;", b";a;;b", b";a=b=c", b";a b",
        b";a=b c", b";a=b ", b";a ", b";a=\xe9", b';a="x"y', b';a="\\"', b';a="x\x7f"',
        b';a="\\\x00"', b";a,b", b"; a = b ", b";a=\x22x\n\x22", b";\x0ba", b" a", b"=b",
    ],
)  # fmt: skip
def test_an_extension_that_the_grammar_forbids(extension: bytes) -> None:
    """RFC 9112, 7.1.1."""
    assert decoded(b"5" + extension + b"\r\nhello\r\n0\r\n\r\n") == 400
    assert decoded(b"5\r\nhello\r\n0" + extension + b"\r\n\r\n") == 400


@pytest.mark.parametrize(
    "extension",
    [
        b" ; a = b", b"\t;\ta\t=\tb", b";a;b", b";a ;b", b"; a=b ; c", b';a=""', b';a="b;c"',
        b';a="\\"\\\\"', b';a="\xe9\t"', b';a = "b\\\xe9"', b";!#$%&'*+-.^_`|~9=!", b";1=2",
    ],
)  # fmt: skip
def test_an_extension_that_the_grammar_allows(extension: bytes) -> None:
    data = b"5" + extension + b"\r\nhello\r\n0" + extension + b"\r\n\r\n"
    assert decoded(data + b"GET") == (b"hello", True, b"GET")
    for at in range(len(data)):
        assert decoded(data[:at], data[at:]) == (b"hello", True, b"")


def test_a_size_beyond_all_bounds() -> None:
    assert decoded(b"7fffffffffffffff\r\nx") == (b"x", False, b"")
    assert decoded(b"8000000000000000\r\n") == 413
    assert decoded(b"ffffffffffffffff\r\n") == 413


# ---- Limits --------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_limits(step: int) -> None:
    limits = Limits(chunk_line=20, chunk_extensions=40, trailers=30)

    def run(data: bytes) -> tuple[bytes, bool, bytes] | int:
        pieces = [data[at : at + step] for at in range(0, len(data), step)]
        return decoded(*pieces, limits=limits)

    end = b"0\r\n\r\n"
    # a chunk's line
    assert run(b"1;" + b"a" * 18 + b"\r\nx\r\n" + end) == (b"x", True, b"")
    assert run(b"1;" + b"a" * 19 + b"\r\nx\r\n" + end) == 400
    assert run(b"1;" + b"a" * 1000) == 400
    # the extensions of all chunks
    assert run(b"1;aaaaaaaaa\r\nx\r\n" * 4 + end) == (b"xxxx", True, b"")
    assert run(b"1;aaaaaaaaa\r\nx\r\n" * 4 + b"0;a\r\n\r\n") == 400
    # the trailers
    assert run(b"0\r\n" + b"A: 345678\r\n" * 2 + b"\r\n") == (b"", True, b"")
    assert run(b"0\r\n" + b"A: 345678\r\n" * 3 + b"\r\n") == 431
    assert run(b"0\r\nA: " + b"b" * 1000) == 431
    assert run(b"0\r\nA: " + b"b" * 1000 + b"\r\n\r\n") == 431
    assert run(b"0\r\n" + b"A:\r\n" * 1000) == 431


def test_little_is_held_while_a_line_is_not_whole() -> None:
    """Feeding a byte at a time to an endless line is refused before much is kept."""
    decoder = ChunkedDecoder(LIMITS)
    fed = 0

    def feed_for_ever() -> None:
        nonlocal fed
        for _ in range(1024 * 1024):
            decoder.feed(b"0")
            fed += 1

    with pytest.raises(ProtocolError):
        feed_for_ever()
    assert fed <= LIMITS.chunk_line + 2


def test_chunks_of_a_few_bytes_cost_no_more_memory_than_others() -> None:
    head = RequestReceived(*("POST", "/", "/", "", "1.1", b"", {}), chunked=True)
    config = ServerConfig()
    for body in (BodyReceiver(head, config, 0.0), BodyStream(head, config)):
        tracemalloc.start()
        try:
            for _ in range(10):
                body.feed(b"2\r\nxy\r\n" * 9000)
            assert body.size == 180_000
            assert tracemalloc.get_traced_memory()[0] < 2 * body.size
        finally:
            tracemalloc.stop()
