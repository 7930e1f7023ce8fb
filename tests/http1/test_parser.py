"""`RequestParser`: its fast path means what h11 means, and no octets get anything else from it."""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from threadwell.worker import Limits, ProtocolError, RequestReceived
from threadwell.worker.http1.parser import EmptyLineError, RequestParser

from ..end_to_end.wire.bench import Bench, final_answer

LIMITS = Limits()


class NotFastError(Exception):
    """The fast path did not know the head."""


class FastParser(RequestParser):
    """A `RequestParser` without its slow path."""

    def _parse_with_h11(self, head: bytes) -> RequestReceived:
        raise NotFastError(head)


class CountingParser(RequestParser):
    """A `RequestParser` that counts how often the slow path was asked."""

    unusual = 0

    def _parse_with_h11(self, head: bytes) -> RequestReceived:
        self.unusual += 1
        return super()._parse_with_h11(head)


def parsed(parser: RequestParser, head: bytes) -> RequestReceived | int:
    """The request, or the status of the refusal; any other exception is an error."""
    try:
        return parser.parse(head)
    except ProtocolError as error:
        assert 400 <= error.status <= 505
        assert error.message
        return error.status


def joined(headers: list[tuple[str, str]]) -> dict[str, str]:
    """What `variables` must be, by the rules of CGI."""
    result: dict[str, str] = {}
    for name, value in headers:
        if "_" in name:
            continue
        key = name.upper().replace("-", "_")
        if key not in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            key = "HTTP_" + key
        if key in result:
            result[key] += ("; " if key == "HTTP_COOKIE" else ", ") + value
        else:
            result[key] = value
    return result


def by_h11(head: bytes) -> h11.Request:
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=len(head) + 4)
    connection.receive_data(head + b"\r\n\r\n")
    event = connection.next_event()
    assert isinstance(event, h11.Request)
    return event


# ---- Heads, nearly valid -------------------------------------------------------------------

_names = st.sampled_from(
    b"Host host HOST Cookie cookie Accept Connection Content-Length Content-Type Expect Upgrade"
    b" Transfer-Encoding X-A x-a X_A X-B Authorization Content_Length Range a !#$%&'*+-.^`|~"
    b" If-None-Match Referer".split()
)
_values = st.one_of(
    st.sampled_from(
        b"x,x:80,a=b; c=d,5,0,05,+5,chunked,close,keep-alive,100-continue,h2c,,*/*,[::1],a b".split(
            b","
        )
    ),
    st.binary(max_size=8),
    st.text(alphabet="abc ,;:=\t\x80\xa0\xff", max_size=12).map(
        lambda text: text.encode("latin-1")
    ),
)
_fields = st.builds(
    lambda name, colon, value, behind: name + colon + value + behind,
    st.one_of(_names, _names, st.binary(min_size=1, max_size=4)),
    st.sampled_from([b": ", b": ", b": ", b":", b":\t", b" : ", b""]),
    _values,
    st.sampled_from([b"", b"", b" ", b"\t"]),
)
_request_lines = st.builds(
    lambda method, target, version, blank: blank.join([method, target, version]),
    st.sampled_from(b"GET GET POST HEAD OPTIONS get BREW CONNECT DELETE G(T".split()),
    st.one_of(
        st.sampled_from(b"/ /a?b=c //a /? * http://y/ x:80 /%20 /a#b /a{b}|c".split()),
        st.binary(max_size=8).map(lambda tail: b"/" + tail),
    ),
    st.sampled_from(b"HTTP/1.1 HTTP/1.1 HTTP/1.1 HTTP/1.0 HTTP/1.2 HTTP/2.0 http/1.1".split()),
    st.sampled_from([b" ", b" ", b" ", b" ", b"  ", b"\t"]),
)


# What the fast path may know: here it has to be right.
_good_fields = st.lists(
    st.tuples(
        st.sampled_from(
            b"Cookie cookie Accept accept Connection Content-Length Content-Type Expect Upgrade X-A"
            b" Authorization Range a !#$%&'*+-.^`|~ If-None-Match Referer X_A".split()
        ),
        st.sampled_from([b": ", b": ", b": ", b":", b":\t"]),
        st.one_of(
            st.sampled_from([b"5", b"05", b"", b"a=b; c=d", b"close", b"keep-alive", b"a  b\t"]),
            st.text("ab ,;:=\t\x80\xa0\xff", max_size=9).map(lambda text: text.encode("latin-1")),
        ),
    ).map(b"".join),
    max_size=6,
    unique_by=lambda line: line.partition(b":")[0].lower(),
)
_good_lines = st.builds(
    b"%b /%b HTTP/%b".__mod__,
    st.tuples(
        st.sampled_from([b"GET", b"POST", b"HEAD", b"DELETE"]),
        st.text("abZ09/?=&%|^{}\"'.~", max_size=9).map(str.encode),
        st.sampled_from([b"1.1", b"1.1", b"1.0"]),
    ),
)


_octets = st.sampled_from([b"", b"\r", b"\n", b"\0", b"\x0b", b" ", b":", b"\xff", b"\r\n"])


@st.composite
def mutated(draw: Any, lines: st.SearchStrategy[bytes], fields: Any, most: int) -> bytes:
    """Heads of `lines` and `fields`, mostly with a Host, and in places something put in."""
    chosen = draw(fields)
    if draw(st.integers(0, 9)) < 9:
        chosen.insert(draw(st.integers(0, len(chosen))), b"Host: x")
    head = b"\r\n".join([draw(lines), *chosen])
    for _ in range(draw(st.integers(-2, most))):
        at = draw(st.integers(0, len(head)))
        head = head[:at] + draw(_octets) + head[at + draw(st.integers(0, 1)) :]
    return head


usual = mutated(_good_lines, _good_fields, 1)
odd = mutated(_request_lines, st.lists(_fields, max_size=6), 2)
heads = st.one_of(usual, odd)


_warm = FastParser(LIMITS)
_whole = RequestParser(LIMITS)
_thorough = settings(max_examples=400, deadline=None, database=None)


@_thorough
@given(st.one_of(usual, usual, usual, odd))
def test_the_fast_path_means_what_h11_means(head: bytes) -> None:
    try:
        request = _warm.parse(head)
    except NotFastError:
        return
    event = by_h11(head)  # raises where h11 would refuse
    assert request.method.encode() == event.method
    assert request.target.encode() == event.target
    assert request.version.encode() == event.http_version
    headers = [(name.decode(), value.decode("latin-1")) for name, value in event.headers]
    assert request.headers == headers
    assert request.variables == joined(headers)
    assert request.target == request.path + ("?" if "?" in request.target else "") + request.query
    assert not request.chunked
    lengths: list[int | None] = [int(v) for name, v in headers if name == "content-length"]
    assert [request.content_length] == (lengths or [None])


@_thorough
@given(usual)
def test_the_slow_path_means_the_same(head: bytes) -> None:
    """Both paths give one result for what the fast one knows."""
    try:
        fast = _warm.parse(head)
    except NotFastError:
        return
    slow = _whole._parse_with_h11(head)
    assert slow.headers == fast.headers
    assert slow._replace(block=b"") == fast._replace(block=b"")


@_thorough
@given(st.one_of(heads, st.binary(max_size=200)))
def test_any_octets_are_parsed_or_refused(head: bytes) -> None:
    cold = parsed(RequestParser(LIMITS), head)
    assert parsed(_whole, head) == cold
    assert parsed(_whole, head) == cold
    if isinstance(cold, RequestReceived):
        assert cold.version in ("1.0", "1.1")
        assert cold.target
        assert cold.content_length is None or not cold.chunked
        text = "\n".join([cold.method, cold.target, *cold.variables, *cold.variables.values()])
        assert not set(map(ord, text)) & {*range(9), *range(0x0B, 0x20), 0x7F}
        if cold.is_simple:
            assert cold.content_length is None
            assert not cold.chunked


@_thorough
@given(usual, st.data())
def test_a_head_beside_a_known_one_means_what_it_means_alone(
    head: bytes, data: st.DataObject
) -> None:
    parser = RequestParser(LIMITS)
    for _ in range(3):
        parsed(parser, head)
    at = data.draw(st.integers(0, len(head)))
    more = data.draw(st.one_of(_octets, st.binary(max_size=4), _fields.map(b"\r\n".__add__)))
    other = head[:at] + more + head[data.draw(st.integers(at, min(at + 3, len(head)))) :]
    assert parsed(parser, other) == parsed(RequestParser(LIMITS), other)


@settings(max_examples=300, deadline=None, database=None)
@given(st.binary(max_size=100), st.lists(st.integers(1, 99), max_size=3))
def test_unfinished_refuses_or_waits(data: bytes, steps: list[int]) -> None:
    parser = RequestParser(LIMITS)
    scanned = 0
    for end in [*sorted(steps), 100]:
        with contextlib.suppress(ProtocolError):
            parser.unfinished(data[:end], scanned)
        scanned = min(end, len(data))


@pytest.fixture(scope="module")
def bench() -> Iterator[Bench]:
    with contextlib.closing(Bench()) as made:
        yield made


@settings(max_examples=400, deadline=None, database=None)
@given(head=heads, body=st.binary(max_size=20), data=st.data())
def test_any_split_gives_the_same_result(
    bench: Bench, head: bytes, body: bytes, data: st.DataObject
) -> None:
    stream = head + b"\r\n\r\n" + body + b"\r\n\r\nGET /last HTTP/1.1\r\nHost: x\r\n\r\n"
    whole = _outcome(bench, [stream])
    cuts = data.draw(st.lists(st.integers(0, len(stream)), min_size=1, max_size=4).map(sorted))
    pieces = [stream[a:b] for a, b in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
    assert _outcome(bench, pieces) == whole


def _outcome(bench: Bench, pieces: list[bytes]) -> tuple[object, ...]:
    client = bench.run(*pieces)
    seen = [
        (request.method, request.target, request.headers, body) for request, body in bench.app.seen
    ]
    answers = []
    with contextlib.suppress(EOFError):
        for request, _ in bench.app.seen:
            answers.append(final_answer(client, request.method).status)
        answers.append(final_answer(client).status)
    return seen, answers


# ---- What the fast path knows --------------------------------------------------------------

_USUAL = b"GET /a?b=c HTTP/1.1\r\nHost: x\r\nAccept: */*"


def test_a_usual_request() -> None:
    request = FastParser(LIMITS).parse(_USUAL)
    assert request[:5] == ("GET", "/a?b=c", "/a", "b=c", "1.1")
    assert request.variables == {"HTTP_HOST": "x", "HTTP_ACCEPT": "*/*"}
    assert request.headers == [("host", "x"), ("accept", "*/*")]
    assert request.is_simple
    assert request.field("Accept") == "*/*"
    assert request.field("X-Missing") == ""


@pytest.mark.parametrize(
    "head",
    [
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5",
        b"GET / HTTP/1.0\r\nHost: x",
        b"GET / HTTP/1.1\r\nHost: x\r\nConnection: keep-alive",
        b"GET / HTTP/1.1\r\nHost: x\r\nCookie: a=b",
        b"GET / HTTP/1.1\r\nCookie: a=b\r\nHost: x",
        b"GET / HTTP/1.1\r\nAccept: */*\r\nCookie: a=b\r\nHost: x",
        b"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer abc",
        b"GET / HTTP/1.1\r\nHost:\tx",
    ],
)
def test_the_fast_path_knows(head: bytes) -> None:
    assert FastParser(LIMITS).parse(head)


@pytest.mark.parametrize(
    "fields",
    [
        b"Content-Length: 5",
        b"Transfer-Encoding: chunked",
        b"Connection: close",
        b"Expect: 100-continue",
        b"Connection: Upgrade\r\nUpgrade: h2c",
        b"Cookie: a=b\r\nConnection: close",
        b"Connection: close\r\nCookie: a=b",
        b"Cookie: a=b\r\nContent-Length: 5",
    ],
)
def test_what_steers_is_not_plain(fields: bytes) -> None:
    parser = RequestParser(LIMITS)
    for _ in range(2):
        assert not parser.parse(b"POST / HTTP/1.1\r\nHost: x\r\n" + fields).is_simple
    assert parser.parse(b"POST / HTTP/1.1\r\nHost: x").is_simple


def test_a_result_does_not_share_its_variables() -> None:
    parser = RequestParser(LIMITS)
    for head in (_USUAL, _USUAL + b"\r\nCookie: a=b", _USUAL + b"\r\nX_A: b"):
        parser.parse(head).variables["HTTP_X_EVIL"] = "1"
        assert "HTTP_X_EVIL" not in parser.parse(head).variables


@pytest.mark.parametrize("secret", [b"Cookie", b"Cookie ", b"cookie", b"Content-Length", b"X-A"])
def test_a_warm_cache_refuses_what_a_cold_one_refuses(secret: bytes) -> None:
    parser = RequestParser(LIMITS)
    assert parsed(parser, _USUAL + b"\r\n" + secret.strip() + b": 5") != 400
    for evil in (b"\x00", b"\r", b"\n", b"\x0b", b"\x7f"):
        assert parsed(parser, _USUAL + b"\r\n" + secret.strip() + b": 5" + evil) == 400
        assert parsed(parser, _USUAL + b"\r\n" + secret.strip() + evil + b": 5") == 400


def test_lines_and_blocks_in_the_cache_are_not_confused() -> None:
    parser = CountingParser(LIMITS)
    one = b"GET / HTTP/1.1\r\nHost: x"
    for _ in range(3):
        assert parser.parse(one).variables == {"HTTP_HOST": "x"}
        assert parsed(parser, b"GET / HTTP/1.1\r\nHost: x\r\nHost: x") == 400
        assert parsed(parser, b"GET / HTTP/1.1\r\nHost: x\r\nCookie: a=b\r\nHost: x") == 400
        assert parsed(parser, b"GET / HTTP/1.1\r\nHost: x\r\nCookie: a=b\r\nHost: y") == 400
        twice = parser.parse(b"GET / HTTP/1.1\r\nCookie: a=b\r\nHost: x\r\nCookie: c=d")
        assert twice.variables["HTTP_COOKIE"] == "a=b; c=d"
        both = parser.parse(one + b"\r\nX-A: b\r\nCookie: a=b\r\nX-A: c")
        assert both.variables["HTTP_X_A"] == "b, c"
    assert parser.unusual


# ---- The cache -----------------------------------------------------------------------------

_CHANGING = (
    b"GET /%d HTTP/1.1\r\nReferer: /%d\r\nHost: x\r\nCookie: a=%d\r\nAccept: */*"
    b"\r\nIf-None-Match: %d",
    b"POST /%d HTTP/1.1\r\nHost: x\r\nContent-Length: 1%d\r\nAuthorization: Basic %d"
    b"\r\nReferer: %d",
    b"GET /%d HTTP/1.1\r\nhost: x\r\ncookie: %d \r\nauthorization: \t%d\r\nx-csrftoken: %d",
)


@pytest.mark.parametrize("form", _CHANGING)
def test_values_that_change_leave_a_head_known(form: bytes) -> None:
    parser = RequestParser(LIMITS)
    for number in range(2):
        parser.parse(form % ((number,) * 4))
    parser._fields._lines.clear()
    parser._fields._names.clear()
    for number in (5, 6789, 7):
        head = form % ((number,) * 4)
        assert parser.parse(head) == RequestParser(LIMITS).parse(head)
        assert not parser._fields._lines  # it was not looked at line by line


@pytest.mark.parametrize("form", _CHANGING)
def test_known_heads_do_not_pass_what_lines_do_not(form: bytes) -> None:
    head = form % (1, 2, 3, 4)
    parser = RequestParser(LIMITS)
    for at in range(head.index(b"HTTP/"), len(head)):
        for octet in (b"\r", b"\n", b"\0", b"\x7f", b"\r\n", b"\r\nCookie: b", b"\r\nHost: y"):
            for _ in range(2):
                parser.parse(head)
            other = head[:at] + octet + head[at:]
            assert parsed(parser, other) == parsed(RequestParser(LIMITS), other), other


@pytest.mark.parametrize("form", _CHANGING)
def test_more_than_a_head_is_no_head(form: bytes) -> None:
    """Whatever follows the empty line, and nothing of that is remembered."""
    head = form % (1, 2, 3, 4)
    parser = RequestParser(LIMITS)
    for _ in range(2):
        parser.parse(head)
    known = _text_of(parser)
    for more in (head, form % (4, 3, 2, 1), b"", b"X-Secret: 1\r\nX-Other: 2", b"\r\n", b"\r\nx"):
        for each in (parser, RequestParser(LIMITS)):
            with pytest.raises(EmptyLineError):
                each.parse(head + b"\r\n\r\n" + more)
    for each in (parser, RequestParser(LIMITS)):
        with pytest.raises(EmptyLineError):  # and the octets of an empty line, which belong to it
            each.parse(head + b"\r\n")
    assert _text_of(parser) == known
    for empty in (b"", b"\r\n"):
        with pytest.raises(EmptyLineError):
            parser.parse(empty)


def test_as_many_layouts_as_ever_are_bounded() -> None:
    parser = RequestParser(LIMITS)
    for number in range(100):
        for _ in range(3):
            parser.parse(b"GET / HTTP/1.1\r\nHost: x\r\nX-A: %d\r\nCookie: a" % number)
    assert len(parser._fields._layouts) == 16


def test_a_line_that_is_new_each_time_takes_no_place() -> None:
    parser = RequestParser(LIMITS)
    for number in range(100):
        parser.parse(b"GET / HTTP/1.1\r\nHost: x\r\nX-A: %d%s" % (number, b"y" * 300))
        parser.parse(b"GET / HTTP/1.1\r\nHost: x\r\nX-A: %d" % number)
    assert not parser._fields._layouts


def _contents(thing: object, seen: set[int]) -> Iterator[object]:
    """Everything that is held by `thing`: containers, attributes, and their leaves."""
    if id(thing) in seen:
        return
    seen.add(id(thing))
    yield thing
    if isinstance(thing, dict):
        inner: Any = [*thing.keys(), *thing.values()]
    elif isinstance(thing, (list, tuple, set, frozenset)):
        inner = thing
    else:
        inner = getattr(thing, "__dict__", {}).values()
    for item in inner:
        yield from _contents(item, seen)


def _text_of(parser: RequestParser) -> str:
    leaves = _contents(parser, set())
    return "\n".join(
        leaf.decode("latin-1") if isinstance(leaf, bytes) else leaf
        for leaf in leaves
        if isinstance(leaf, (bytes, str))
    )


def _containers(parser: RequestParser) -> list[int]:
    leaves = _contents(parser, set())
    return [len(leaf) for leaf in leaves if isinstance(leaf, (dict, list, set))]


def test_the_cache_is_bounded() -> None:
    parser = RequestParser(LIMITS)
    for number in range(10_000):
        parser.parse(b"GET / HTTP/1.1\r\nHost: x\r\nX-%d: %d" % (number, number))
    assert max(_containers(parser)) <= 1024
    assert len(_text_of(parser)) < 1024 * 1024
    # and so many names do not keep others out for ever
    parser.parse(b"GET / HTTP/1.1\r\nHost: x\r\nCookie: a\r\nX-Useful: b")
    assert b"X-Useful" in parser._fields._names


def test_the_cache_keeps_nothing_long() -> None:
    parser = RequestParser(LIMITS)
    for number in range(300):
        parser.parse(b"GET / HTTP/1.1\r\nHost: x\r\nX-A: %d%s" % (number, b"y" * 8000))
        parser.parse(b"GET / HTTP/1.1\r\nHost: x\r\n%s%d: a" % (b"y" * 8000, number))
    assert len(_text_of(parser)) < 256 * 1024


@pytest.mark.parametrize(
    "name",
    b"Cookie cookie COOKIE Authorization authorization Proxy-Authorization X-CSRFToken X-CSRF-Token"
    b" X-Api-Key Referer If-None-Match If-Modified-Since Forwarded X-Forwarded-For"
    b" X-Real-IP X-Request-ID traceparent tracestate".split(),
)
@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("value", [b": a=S3cr3t", b":S3cr3t: a", b":\tS3cr3t: b", b": a: S3cr3t: "])
def test_the_cache_keeps_no_secrets(name: bytes, value: bytes, first: bool) -> None:
    parser = RequestParser(LIMITS)
    line = name + value
    lines = [line, b"Host: x", b"Accept: */*"] if first else [b"Host: x", line, b"Accept: */*"]
    for _ in range(3):
        parser.parse(b"\r\n".join([b"GET / HTTP/1.1", *lines]))
        parsed(parser, b"\r\n".join([b"GET / HTTP/1.1", *lines, line]))
    assert "S3cr3t" not in _text_of(parser)
    assert "HTTP_ACCEPT" in _text_of(parser)  # the search finds what is there


# ---- Limits --------------------------------------------------------------------------------


def test_limits_of_the_parser() -> None:
    limits = Limits(request_line=64, field_size=70, field_count=3, head=300)
    parser = RequestParser(limits)
    host = b"\r\nHost: x"
    assert parsed(parser, b"GET /" + b"a" * 50 + b" HTTP/1.1" + host) != 414
    assert parsed(parser, b"GET /" + b"a" * 51 + b" HTTP/1.1" + host) == 414
    line = b"\r\nX-A: " + b"b" * 65
    assert isinstance(parsed(parser, b"GET / HTTP/1.1" + host + line), RequestReceived)
    assert parsed(parser, b"GET / HTTP/1.1" + host + line + b"b") == 431
    for names in (b"ABC", b"AAA"):
        lines = b"".join(b"\r\nX-%c: b" % name for name in names)
        assert parsed(parser, b"GET / HTTP/1.1" + host + lines) == 431
        assert isinstance(parsed(parser, b"GET / HTTP/1.1" + host + lines[:-8]), RequestReceived)
    cookies = b"".join(b"\r\n%s: b" % name for name in (b"X-A", b"Cookie", b"X-B"))
    assert parsed(parser, b"GET / HTTP/1.1" + host + cookies) == 431
    assert parsed(RequestParser(Limits(head=256)), b"GET / HTTP/1.1" + host + line * 4) == 431


def test_a_warm_cache_knows_the_limits() -> None:
    parser = RequestParser(Limits(field_count=2))
    for _ in range(3):
        assert parsed(parser, b"GET / HTTP/1.1\r\nHost: x\r\nX-A: a\r\nX-B: b") == 431
        assert parsed(parser, b"GET / HTTP/1.1\r\nHost: x\r\nX-A: a\r\nCookie: b") == 431
        assert isinstance(parsed(parser, b"GET / HTTP/1.1\r\nHost: x\r\nX-A: a"), RequestReceived)


def test_empty_lines_are_counted_over_all_pieces() -> None:
    parser = RequestParser(LIMITS)
    assert parser.skip_empty_lines(b"\r\n\r\nGET", 0) == 4
    assert parser.skip_empty_lines(b"GET", 0) == 0
    assert parser.skip_empty_lines(b"\r", 0) == 0
    with pytest.raises(ProtocolError) as caught:
        parser.skip_empty_lines(b"\r\n" * 5000, 0)
    assert caught.value.status == 400
    with pytest.raises(ProtocolError):
        parser.skip_empty_lines(b"\r\n", 5000)


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01", 400),
        (b"\n", 400),
        (b" ", 400),
        (b"GET / HTTP/1.1\nHost", 400),
        (b"GET /" + b"a" * 8190, 414),
        (b"GET / HTTP/1.1\r\n" + b"X-A: b\r\n" * 9000, 431),
        (b"GET / HTTP/1.1\r\nX-A: " + b"b" * 70000, 431),
    ],
)
def test_unfinished_refuses(data: bytes, status: int) -> None:
    with pytest.raises(ProtocolError) as caught:
        RequestParser(LIMITS).unfinished(data, 0)
    assert caught.value.status == status


def test_unfinished_sees_a_bare_lf_at_every_split() -> None:
    parser = RequestParser(LIMITS)
    good = b"GET / HTTP/1.1\r\nHost: x\r\n"
    for data in (good + b"A: b\n\r", good + b"A: b\r\nC: d\nE: f\r\n", good + b"\n"):
        for at in range(1, len(data)):
            with pytest.raises(ProtocolError):
                parser.unfinished(data[:at], 0)
                parser.unfinished(data, at)
    for at in range(1, len(good)):
        parser.unfinished(good, at)


def learned(parser: RequestParser, secret: str) -> RequestReceived:
    """A head that is not the first of its layout."""
    head = f"GET / HTTP/1.1\r\nHost: x\r\nAuthorization: {secret}\r\nAccept: */*".encode()
    return [parser.parse(head) for _ in range(3)][-1]


def test_what_heads_have_in_common_has_no_credential() -> None:
    parser = FastParser(LIMITS)
    one, other = learned(parser, "Basic one"), learned(parser, "Basic other")
    assert one.common is other.common
    assert one.common.variables == {
        "HTTP_HOST": "x",
        "HTTP_AUTHORIZATION": "",
        "HTTP_ACCEPT": "*/*",
    }
    assert one.own == {"HTTP_AUTHORIZATION": "Basic one"}
    assert one.variables["HTTP_AUTHORIZATION"] == "Basic one"
    assert list(one.variables) == ["HTTP_HOST", "HTTP_AUTHORIZATION", "HTTP_ACCEPT"]
    assert other.field("authorization") == "Basic other"
    assert other.field("accept") == "*/*"


def test_a_head_with_other_fields_has_nothing_in_common() -> None:
    head = learned(FastParser(LIMITS), "Basic one")
    common = head.common
    changed = head.with_fields(b"HTTP/1.1\r\nHost: x", {"HTTP_HOST": "x"})
    assert changed.variables == changed.own == {"HTTP_HOST": "x"}
    assert changed.common is not common
    assert changed.is_simple


def test_a_head_for_h11_is_refused_when_no_descriptor_is_left_to_import_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Full:
        @staticmethod
        def find_spec(name: str, *_path: object) -> None:
            if name == "h11":
                raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.delitem(sys.modules, "h11")
    monkeypatch.setattr(sys, "meta_path", [Full, *sys.meta_path])
    parser = RequestParser(Limits())
    with pytest.raises(ProtocolError, match="no file descriptor") as caught:
        parser.parse(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked")
    assert caught.value.status == 503
    assert parser.parse(b"GET / HTTP/1.1\r\nHost: x").method == "GET"
