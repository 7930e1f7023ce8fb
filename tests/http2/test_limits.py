"""What a client of HTTP/2 may not do: malformed requests, too much of anything, and floods."""

from __future__ import annotations

import logging
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hyperframe.frame import (
    DataFrame,
    ExtensionFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from threadwell import Request, Response, ThreadedServer
from threadwell.worker.config.groups import Limits
from threadwell.worker.errors import ProtocolError
from threadwell.worker.http2.frames import PREFACE
from threadwell.worker.http2.request_head import HeadReader, MalformedError, check_trailers
from threadwell.worker.lifecycle import Refused

from ..helpers.asgi_tools import Receive, Scope, Send, answer, no_lifespan, read_body
from ..helpers.certificates import Authority
from ..helpers.http2_client import Http2Client
from ..helpers.recorder import Recorder

Serve = Callable[..., ThreadedServer]
Connect = Callable[..., Http2Client]

NO_ERROR, PROTOCOL_ERROR, FRAME_SIZE, REFUSED_STREAM, CANCEL, CALM = 0, 1, 6, 7, 8, 11
GOOD = [
    (b":method", b"GET"),
    (b":scheme", b"https"),
    (b":authority", b"127.0.0.1"),
    (b":path", b"/"),
]


def hello(request: Request) -> Response:
    return Response(200, [], b"Hello")


def without(name: bytes) -> list[tuple[bytes, bytes]]:
    return [pair for pair in GOOD if pair[0] != name]


# ---- Heads ---------------------------------------------------------------------------------

MALFORMED = {
    "no method": without(b":method"),
    "no scheme": without(b":scheme"),
    "no path": without(b":path"),
    "an empty path": [*without(b":path"), (b":path", b"")],
    "a relative path": [*without(b":path"), (b":path", b"x")],
    "an absolute path": [*without(b":path"), (b":path", b"https://127.0.0.1/")],
    "an asterisk for GET": [*without(b":path"), (b":path", b"*")],
    "a blank in the path": [*without(b":path"), (b":path", b"/ HTTP/1.1")],
    "a line in the path": [*without(b":path"), (b":path", b"/\r\nx: y")],
    "a fragment": [*without(b":path"), (b":path", b"/#x")],
    "a method that is none": [*without(b":method"), (b":method", b"GET /")],
    "another scheme": [*without(b":scheme"), (b":scheme", b"ftp")],
    "a pseudo header twice": [(b":path", b"/"), *GOOD],
    "an unknown pseudo header": [(b":version", b"2"), *GOOD],
    "of RFC 8441": [(b":protocol", b"websocket"), *GOOD],
    "of a response": [*GOOD, (b":status", b"200")],
    "of an interim response": [*GOOD, (b":status", b"100")],
    "a pseudo header too late": [*without(b":path"), (b"x", b"y"), (b":path", b"/")],
    "upper case": [*GOOD, (b"X-Upper", b"x")],
    "a name that is no token": [*GOOD, (b"x y", b"x")],
    "a colon in a name": [*GOOD, (b"x:y", b"x")],
    "an empty name": [*GOOD, (b"", b"x")],
    "CR and LF in a value": [*GOOD, (b"x", b"a\r\nb: c")],
    "NUL in a value": [*GOOD, (b"x", b"a\0b")],
    "a blank before a value": [*GOOD, (b"x", b" a")],
    "connection": [*GOOD, (b"connection", b"close")],
    "keep-alive": [*GOOD, (b"keep-alive", b"1")],
    "proxy-connection": [*GOOD, (b"proxy-connection", b"x")],
    "transfer-encoding": [*GOOD, (b"transfer-encoding", b"chunked")],
    "upgrade": [*GOOD, (b"upgrade", b"websocket")],
    "te": [*GOOD, (b"te", b"gzip")],
    "two hosts": [*GOOD, (b"host", b"example.org")],
    "a length that is none": [*GOOD, (b"content-length", b"+1")],
    "two lengths": [*GOOD, (b"content-length", b"0"), (b"content-length", b"0")],
    "a length without a body": [*GOOD, (b"content-length", b"1")],
}
REFUSED_WITH: dict[str, tuple[list[tuple[bytes, bytes]], int]] = {
    "no host": (without(b":authority"), 400),
    "an empty authority": ([*without(b":authority"), (b":authority", b"")], 400),
    "credentials in it": ([*without(b":authority"), (b":authority", b"a@b")], 400),
    "a host that is none": ([*without(b":authority"), (b"host", b"a/b")], 400),
    "CONNECT": ([(b":method", b"CONNECT"), (b":authority", b"127.0.0.1")], 501),
    "a long target": ([*without(b":path"), (b":path", b"/" + b"x" * 9000)], 414),
    "a long field": ([*GOOD, (b"x", b"x" * 9000)], 431),
    "many fields": ([*GOOD, *((b"x-%d" % n, b"x") for n in range(101))], 431),
    "a large head": ([*GOOD, *((b"x-%d" % n, b"x" * 8000) for n in range(9))], 431),
    "a body beyond all": ([*GOOD, (b"content-length", b"9" * 30)], 413),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_malformed(name: str) -> None:
    with pytest.raises(MalformedError):
        HeadReader(Limits()).read(MALFORMED[name], ended=True)


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_is_so_with_a_warm_cache(name: str) -> None:
    reader = HeadReader(Limits())
    for _ in range(2):
        reader.read(GOOD, ended=True)
        with pytest.raises(MalformedError):
            reader.read(MALFORMED[name], ended=True)


def test_trailers() -> None:
    check_trailers([(b"x-checksum", b"1")], ended=True)
    for pair in [(b":path", b"/"), (b"X", b"y"), (b"x", b"a\nb"), (b"connection", b"x")]:
        with pytest.raises(MalformedError):
            check_trailers([pair], ended=True)
    with pytest.raises(MalformedError):
        check_trailers([], ended=False)


def test_what_is_well() -> None:
    reader = HeadReader(Limits())
    for _ in range(2):
        fields = [*without(b":authority"), (b"host", b"[::1]:8443"), (b"te", b"trailers")]
        head = reader.read(fields, ended=True)
        assert head.field("host") == "[::1]:8443"
        fields = [*GOOD, (b"host", b"127.0.0.1"), (b"cookie", b"a=1"), (b"cookie", b"b=2")]
        head = reader.read([*fields, (b"content-length", b"5"), (b"a_b", b"c")], ended=False)
        assert head.content_length == 5
        assert head.variables == {
            "HTTP_HOST": "127.0.0.1",
            "HTTP_COOKIE": "a=1; b=2",
            "CONTENT_LENGTH": "5",
        }
        assert ("a_b", "c") in head.headers
        options = [(b":method", b"OPTIONS"), *without(b":method")[:-1], (b":path", b"*")]
        assert reader.read(options, ended=True).path == "*"


ON_THE_WIRE = [
    "upper case", "two hosts", "connection", "CR and LF in a value", "a length that is none",
    "two lengths", "of a response", "of an interim response",
]  # fmt: skip


@pytest.mark.parametrize("name", ON_THE_WIRE)
def test_a_malformed_request_costs_its_stream(
    serve_http2: Serve, http2: Connect, name: str
) -> None:
    client = http2(serve_http2(hello))
    assert client.answer(client.raw_head(MALFORMED[name])).reset == PROTOCOL_ERROR
    assert client.fetch().body == b"Hello"


@pytest.mark.parametrize("name", REFUSED_WITH)
def test_refused(serve_http2: Serve, http2: Connect, name: str) -> None:
    fields, status = REFUSED_WITH[name]
    client = http2(serve_http2(hello))
    ended = name != "a body beyond all"
    assert client.answer(client.raw_head(fields, ended=ended)).status == status
    assert client.fetch().body == b"Hello"


def test_a_bomb_of_headers(serve_http2: Serve, http2: Connect) -> None:
    """A few octets that stand for very many: 4000 of them, a thousand times (CVE-2016-6581)."""
    import hpack

    client = http2(serve_http2(hello))
    encoder = hpack.Encoder()
    data = encoder.encode([*GOOD, (b"x", b"x" * 4000)])
    frame = HeadersFrame(1)
    frame.data = data + b"\xbe" * 1000
    frame.flags |= {"END_HEADERS", "END_STREAM"}
    client.frames(frame)
    assert client.end()[0][0] == CALM


def test_a_flood_of_continuations(serve_http2: Serve, http2: Connect) -> None:
    client = http2(serve_http2(hello))
    client.head_in_pieces(100)
    assert client.end()[0][0] == PROTOCOL_ERROR


# ---- Bodies and time -------------------------------------------------------------------------


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_that_is_too_large(serve_http2: Serve, http2: Connect, declared: bool) -> None:
    client = http2(serve_http2(hello, limit_body=1000))
    more = [("content-length", "200000")] if declared else []
    number = client.request("/", more, method="POST", body=b"x" * 100_000, ended=False)
    client.until(lambda: client.answers[number].reset is not None)
    answer = client.answers[number]
    assert (answer.status, answer.ended, answer.reset) == (413, True, NO_ERROR)
    assert client.fetch().body == b"Hello"


async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
    await no_lifespan(scope)
    await answer(send, await read_body(receive) or b"Hello")


@pytest.mark.parametrize("app", [hello, asgi], ids=["threads", "loop"])
def test_a_length_that_is_not_the_bodys(serve_http2: Serve, http2: Connect, app: Any) -> None:
    """It costs the stream, whatever ends the body, and no other stream of the connection."""
    client = http2(serve_http2(app))
    begun = client.request("/", method="POST", ended=False)
    ten = [("content-length", "10")]
    for body in (b"", b"four", b"seventeen octets!"):
        number = client.request("/", ten, method="POST", body=body)
        assert client.answer(number).reset == PROTOCOL_ERROR
    number = client.request("/", ten, method="POST", body=b"four", ended=False)
    client.conn.send_headers(number, [("x-checksum", "1")], end_stream=True)
    client.flush()
    assert client.answer(number).reset == PROTOCOL_ERROR
    client.body(begun, b"Hello")
    assert client.answer(begun).body == b"Hello"


def test_trailers_that_are_not_the_last(serve_http2: Serve, http2: Connect) -> None:
    client = http2(serve_http2(hello))
    number = client.request("/", method="POST", ended=False)
    client.frames(HeadersFrame(number, b"\x00\x01a\x01b", flags=["END_HEADERS"]))
    assert client.answer(number).reset == PROTOCOL_ERROR
    assert client.fetch().body == b"Hello"


@pytest.mark.parametrize("kind", [0, 1, 0x42])
def test_a_frame_that_is_too_large_is_not_waited_for(
    serve_http2: Serve, http2: Connect, kind: int
) -> None:
    client = http2(serve_http2(hello))
    client.send(frame(kind, bytes(16385), number=1)[:9])
    assert client.end() == [(FRAME_SIZE, 0)]


def test_a_head_that_is_too_large_is_not_unpacked(serve_http2: Serve, http2: Connect) -> None:
    client = http2(serve_http2(hello))
    client.head_in_pieces(12, 16384)
    assert client.end() == [(CALM, 0)]


def test_a_body_that_does_not_come(serve_http2: Serve, http2: Connect) -> None:
    client = http2(serve_http2(hello, body_timeout=0.5))
    number = client.request("/", method="POST", ended=False)
    client.until(lambda: client.answers[number].reset is not None)
    assert client.answers[number].status == 408
    assert client.fetch().body == b"Hello"


def test_a_client_without_a_request(serve_http2: Serve, http2: Connect) -> None:
    client = http2(serve_http2(hello, head_timeout=0.5))
    assert client.end() == [(NO_ERROR, 0)]


def test_an_idle_client(serve_http2: Serve, http2: Connect) -> None:
    client = http2(serve_http2(hello, keep_alive=0.5))
    assert client.fetch().status == 200
    assert client.end() == [(NO_ERROR, 1)]


def test_pings_do_not_keep_a_client(serve_http2: Serve, http2: Connect) -> None:
    client = http2(serve_http2(hello, keep_alive=1.0))
    client.fetch()
    client.sock.settimeout(0.2)
    deadline = time.monotonic() + 10
    while not client.closed and time.monotonic() < deadline:
        try:
            client.conn.ping(b"12345678")
            client.flush()
            client.receive()
        except TimeoutError:
            pass
        except ConnectionError:
            break
    assert time.monotonic() < deadline


@pytest.mark.parametrize("kind", ["frame", "head"])
def test_a_frame_that_does_not_come_whole(serve_http2: Serve, http2: Connect, kind: str) -> None:
    client = http2(serve_http2(hello, head_timeout=0.5, keep_alive=60))
    client.fetch()
    if kind == "head":
        client.head_in_pieces(3)
    else:
        client.send(PingFrame(0).serialize()[:5])
    assert client.end()[0][0] == NO_ERROR


def test_a_preface_that_does_not_come_whole(serve_http2: Serve, authority: Authority) -> None:
    server = serve_http2(hello, head_timeout=0.5)
    context = authority.trusting()
    context.set_alpn_protocols(["h2"])
    raw = socket.create_connection(("127.0.0.1", server.port), 10)
    with context.wrap_socket(raw, server_hostname="127.0.0.1") as sock:
        sock.sendall(PREFACE[:5])
        came = b""
        while data := sock.recv(4096):
            came += data
    assert came.endswith(frame(7, bytes(8)))


def test_a_client_that_opens_no_window(serve_http2: Serve, http2: Connect) -> None:
    closed = threading.Event()

    def blocks() -> Iterator[bytes]:
        try:
            while True:
                yield b"x" * 65536
        finally:
            closed.set()

    server = serve_http2(
        lambda request: Response(200, [], blocks()), write_timeout=0.5, min_rate=1_000_000
    )
    client = http2(server, read=False)
    answer = client.fetch()
    assert (len(answer.body), answer.reset) == (65535, CANCEL)
    assert closed.wait(10)
    assert client.fetch("/", method="HEAD").status == 200


def test_a_client_that_reads_nothing_at_all(serve_http2: Serve, http2: Connect) -> None:
    """Its acknowledgements and answers pile up to a bound, then it is not read, then it is cut."""
    client = http2(serve_http2(hello, write_timeout=0.5), timeout=5)
    ping = PingFrame(0, opaque_data=b"12345678").serialize()
    with pytest.raises(OSError):  # noqa: PT011 - a reset, a broken pipe, or a full buffer
        while True:
            client.send(ping * 100)


# ---- Floods ----------------------------------------------------------------------------------


def flood(kind: str, client: Http2Client) -> Iterator[Frame]:
    while True:
        if kind == "ping":
            yield PingFrame(0, opaque_data=b"12345678")
        elif kind == "settings":
            yield SettingsFrame(0, {1: 4096})
        elif kind == "acknowledgements":
            yield SettingsFrame(0, flags={"ACK"})
        elif kind == "priority":
            yield PriorityFrame(1, depends_on=3, stream_weight=1)
        elif kind == "windows":
            yield WindowUpdateFrame(0, window_increment=1)
        elif kind == "unknown":
            yield ExtensionFrame(0x42, 0, flag_byte=0, body=b"")
        elif kind == "empty":
            yield DataFrame(1)
        elif kind == "padding":
            yield DataFrame(1, b"", flags={"PADDED"}, pad_length=1)
        else:
            yield GoAwayFrame(0, last_stream_id=0)


@pytest.mark.parametrize(
    "kind",
    "ping settings acknowledgements priority windows unknown empty padding goaway".split(),
)
def test_a_flood(serve_http2: Serve, http2: Connect, kind: str) -> None:
    client = http2(serve_http2(hello))
    client.request("/", method="POST", ended=False)
    frames = flood(kind, client)
    try:
        client.frames(*(next(frames) for _ in range(1500)))
    except OSError:
        pass
    assert (CALM, 1) in client.end()


def test_rapid_reset(serve_http2: Serve, http2: Connect) -> None:
    """CVE-2023-44487: streams that are reset as soon as they are opened."""
    called: list[str] = []

    def app(request: Request) -> Response:
        called.append(request.path)
        return Response(200, [], b"")

    client = http2(serve_http2(app))
    with pytest.raises((OSError, AssertionError)):
        for _ in range(3000):
            client.conn.reset_stream(client.get())
            client.flush()
        client.settle()
    client.end()
    assert client.goaways[-1][0] == CALM if client.goaways else True
    assert len(called) < 1000


def test_streams_that_the_server_is_made_to_reset(serve_http2: Serve, http2: Connect) -> None:
    """CVE-2025-8671."""
    recorder = Recorder()
    client = http2(serve_http2(hello, lifecycle_collector=recorder))
    heads: list[bytes] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(client, "send", heads.append)
        for _ in range(1000):
            client.raw_head(MALFORMED["upper case"])
    try:
        client.send(b"".join(heads))  # at once: some are forgiven for each second that it takes
    except OSError:
        pass
    assert client.end()[-1][0] == CALM
    causes = Counter(event.cause for event in recorder.of(Refused))
    assert 200 <= causes.pop("400") < 300
    assert causes == {"flood": 1}


def test_streams_that_are_still_served_count(serve_http2: Serve, http2: Connect) -> None:
    """However often they are reset, no more are served at once than may be."""
    going = threading.Event()
    called: list[str] = []

    def app(request: Request) -> Response:
        called.append(request.path)
        assert going.wait(10)
        return Response(200, [], b"")

    client = http2(serve_http2(app, threads=8, http2_streams=4))
    for n in range(4):
        client.get(f"/{n}")
    client.settle()
    deadline = time.monotonic() + 10
    while len(called) < 4 and time.monotonic() < deadline:
        time.sleep(0.01)
    for number in (1, 3, 5, 7):
        client.conn.reset_stream(number)
    client.flush()
    fifth = client.get("/5")
    assert client.answer(fifth).reset == REFUSED_STREAM
    going.set()
    assert len(called) == 4


def test_more_streams_than_may_be(serve_http2: Serve, http2: Connect) -> None:
    going = threading.Event()

    def app(request: Request) -> Response:
        assert going.wait(10)
        return Response(200, [], b"x")

    client = http2(serve_http2(app, http2_streams=2))
    numbers = [client.get() for _ in range(3)]
    assert client.answer(numbers[2]).reset == REFUSED_STREAM
    going.set()
    assert [client.answer(number).body for number in numbers[:2]] == [b"x", b"x"]


# ---- Frames that are rare ---------------------------------------------------------------------


def frame(kind: int, payload: bytes = b"", flags: int = 0, number: int = 0) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(
        ">I", number
    ) + payload  # fmt: skip


def test_nothing_is_logged_of_what_clients_do(
    serve_http2: Serve, http2: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client = http2(serve_http2(hello))
    client.answer(client.raw_head(MALFORMED["upper case"]))
    client.head_in_pieces(100)
    client.end()
    assert not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_an_unknown_frame_is_ignored(serve_http2: Serve, http2: Connect) -> None:
    client = http2(serve_http2(hello))
    client.send(frame(0x42, b"x"))
    assert client.fetch().body == b"Hello"


def test_a_client_that_says_goodbye_has_its_answers(serve_http2: Serve, http2: Connect) -> None:
    going = threading.Event()

    def app(request: Request) -> Response:
        assert going.wait(10)
        return Response(200, [], request.read())

    client = http2(serve_http2(app))
    first = client.get()
    second = client.request("/", method="POST", ended=False)
    client.frames(GoAwayFrame(0, last_stream_id=0))
    client.body(second, b"after that")
    going.set()
    assert client.answer(first).status == 200
    assert client.answer(second).body == b"after that"


@pytest.mark.parametrize("number", [1, 3, 2**31 - 1])
def test_a_farewell_on_a_stream_ends_the_connection(
    serve_http2: Serve, http2: Connect, number: int
) -> None:
    """RFC 9113, 6.8: a GOAWAY that is not on stream 0 is a connection error."""
    client = http2(serve_http2(hello))
    assert client.fetch().body == b"Hello"
    client.send(frame(7, bytes(8), number=number))
    assert client.end() == [(PROTOCOL_ERROR, 1)]


def test_a_farewell_with_the_reserved_bit_is_one(serve_http2: Serve, http2: Connect) -> None:
    """RFC 9113, 4.1: the reserved bit must be ignored."""
    client = http2(serve_http2(hello))
    client.send(frame(7, bytes(8), number=2**31))
    assert client.fetch().body == b"Hello"


def test_a_farewell_that_is_too_short_ends_the_connection(
    serve_http2: Serve, http2: Connect
) -> None:
    client = http2(serve_http2(hello))
    client.send(frame(7, bytes(7), number=0))
    assert client.end() == [(FRAME_SIZE, 0)]


# ---- Cookies in parts ---------------------------------------------------------------------


def test_crumbs_of_a_cookie_are_one_field() -> None:
    reader = HeadReader(Limits(field_count=3))
    crumbs = [(b"cookie", b"c%d=%d" % (number, number)) for number in range(150)]
    head = reader.read([*GOOD, *crumbs[:1], (b"x-one", b"1"), *crumbs[1:]], ended=True)
    joined = "; ".join(f"c{number}={number}" for number in range(150))
    assert head.variables["HTTP_COOKIE"] == joined
    assert [line for line in head.block.split(b"\r\n") if line.startswith(b"cookie")] == [
        b"cookie: " + joined.encode()
    ]
    with pytest.raises(ProtocolError, match="too long"):
        HeadReader(Limits(field_size=100)).read([*GOOD, *crumbs], ended=True)
