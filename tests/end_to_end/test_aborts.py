"""Clients that leave in every state of a connection: nothing of them stays.

Each test aborts the connections of one kind, half of them by a reset, and compares what the process
has then with what it had before: tasks, threads, descriptors, temporary files, memory.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import ssl
import struct
import sys
import urllib.request
from collections.abc import Callable, Iterator

import hpack
import pytest
from hyperframe.frame import DataFrame, Frame, HeadersFrame, RstStreamFrame, SettingsFrame

from ..helpers.asgi_tools import UPGRADE
from ..helpers.certificates import Authority
from ..helpers.process import Script, script
from ..helpers.waiting import until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="counts by /proc")

ABORTED = 500
# In rounds, so that the most that is there at once does not depend on their number. With the first
# round caches fill, pools of threads grow, and the allocator gets its arenas.
ROUNDS = 5
# How much the resident size may differ, in KiB.
MEMORY = 10 * 1024
# For mimalloc, the allocator of free-threaded Python: it gives unused pages back to the system at
# once. It keeps some 20 MiB of them otherwise, which come and go and are nothing that stays.
PURGE = {"MIMALLOC_PURGE_DELAY": "0", "MIMALLOC_ABANDONED_PAGE_PURGE": "1"}
# Threads that a pool may start and keep: those of an executor, and those that replaced lent ones.
SPARE = 8

Counts = dict[str, int]
Abort = Callable[["Server"], socket.socket]


class Server:
    """The script of the aborts, and its counts."""

    def __init__(self, running: Script, context: ssl.SSLContext | None) -> None:
        self._script = running
        self._context = context

    def connect(self) -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self._script.port), 10)
        if self._context is None:
            return sock
        return self._context.wrap_socket(sock, server_hostname="127.0.0.1")

    def connect_raw(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._script.port), 10)

    def fetch(self, path: str) -> bytes:
        scheme = "http" if self._context is None else "https"
        url = f"{scheme}://127.0.0.1:{self._script.port}{path}"
        context = None
        if self._context is not None:  # urllib has no HTTP/2
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        with urllib.request.urlopen(url, timeout=20, context=context) as response:
            return bytes(response.read())

    def counts(self) -> Counts:
        return dict(json.loads(self.fetch("/state")))

    def counts_once_below(self, start: Counts) -> Counts:
        """The counts once nothing is left of what has come since `start`."""
        counts: Counts = {}

        def is_below() -> bool:
            counts.update(self.counts())
            return all(counts[name] <= start[name] for name in start if name != "memory")

        try:
            until(is_below)
        except AssertionError:
            pytest.fail(f"{start} became {counts}")
        return counts


@contextlib.contextmanager
def serving(kind: str, authority: Authority | None = None) -> Iterator[Server]:
    arguments, context = [kind], None
    if authority is not None:
        arguments += map(str, authority.issue("aborts"))
        context = authority.trusting()
        context.set_alpn_protocols(["h2"])
    with script("abort_server.py", *arguments, **PURGE) as running:
        yield Server(running, context)
        running.finish()  # it says nothing, and waits for nobody


def close(sock: socket.socket, number: int) -> None:
    """Close, every other connection by a reset."""
    if number % 2:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


def check_nothing_stays(server: Server, abort: Abort) -> None:
    for path in ("/", "/big"):  # a hybrid starts its loop, and each side its caches
        server.fetch(path)
    start = server.counts()
    before: Counts = {}
    start["threads"] += SPARE
    for _ in range(ROUNDS):
        for number in range(ABORTED // ROUNDS):
            close(abort(server), number)
        after = server.counts_once_below(start)
        before = before or after
    assert after["memory"] <= before["memory"] + MEMORY


# ---- HTTP/1.1 ------------------------------------------------------------------------------

POST = b"POST /body HTTP/1.1\r\nHost: x\r\n"


def get(path: str, more: str = "") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\n{more}\r\n".encode()


def send(data: bytes, *, wait: bool = False) -> Abort:
    """Send `data`; `wait`: until something of the answer has come."""

    def abort(server: Server) -> socket.socket:
        sock = server.connect()
        with contextlib.suppress(ConnectionError):
            sock.sendall(data)
            if wait:
                sock.recv(100)
        return sock

    return abort


HTTP1 = {
    "nothing": send(b""),
    "half a head": send(b"GET / HTTP/1.1\r\nHost: x\r\nx-"),
    "half a body": send(POST + b"Content-Length: 100000\r\n\r\n" + b"x" * 70_000),
    "half a body on disk": send(POST + b"Content-Length: 900000\r\n\r\n" + b"x" * 400_000),
    "half a chunk": send(POST + b"Transfer-Encoding: chunked\r\n\r\nff\r\nxxxx"),
    "a body to be continued": send(
        POST + b"Expect: 100-continue\r\nContent-Length: 9\r\n\r\n", wait=True
    ),
    "one answer": send(get("/big")),
    "an answer that has begun": send(get("/big"), wait=True),
    "pipelined": send(get("/big") * 20),
    "a stream": send(get("/stream"), wait=True),
    "events": send(get("/events"), wait=True),
}
LOOP = {"a wait": send(get("/wait"), wait=True)}
THREADS = {
    "empty blocks": send(get("/empty"), wait=True),
    "hijacked": send(get("/hijack"), wait=True),
}
WEBSOCKETS = {
    "not accepted": send(get("/early", UPGRADE)),
    "accepted": send(get("/", UPGRADE), wait=True),
    "half a frame": send(get("/", UPGRADE) + b"\x82\xff\0\0\0\0\0\0\xff\xff\0\0\0\0x"),
    "half a message": send(get("/", UPGRADE) + b"\x02\x81\0\0\0\0x"),
    "a flood": send(get("/flood", UPGRADE), wait=True),
    "a close": send(get("/flood", UPGRADE) + b"\x88\x80\0\0\0\0"),
}
KINDS = {
    "asgi": {**HTTP1, **LOOP, **WEBSOCKETS},
    "sync": {**HTTP1, **THREADS},
    "hybrid": {**HTTP1, **LOOP, **THREADS, **WEBSOCKETS},
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in KINDS for name in KINDS[kind]])
def test_http1(kind: str, name: str) -> None:
    with serving(kind) as server:
        check_nothing_stays(server, KINDS[kind][name])


# ---- HTTP/2 --------------------------------------------------------------------------------


def frames(*given: Frame) -> bytes:
    start = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize()
    return start + b"".join(each.serialize() for each in given)


def request(path: str, number: int = 1, *, method: str = "GET") -> HeadersFrame:
    fields = [(":method", method), (":scheme", "https"), (":authority", "x"), (":path", path)]
    never_indexed = [hpack.NeverIndexedHeaderTuple(*pair) for pair in fields]
    frame = HeadersFrame(number, hpack.Encoder().encode(never_indexed))
    frame.flags.add("END_HEADERS")
    if method == "GET":
        frame.flags.add("END_STREAM")
    return frame


def requests(path: str, count: int = 20) -> list[Frame]:
    return [request(path, 2 * number + 1) for number in range(count)]


def half_handshake(server: Server) -> socket.socket:
    sock = server.connect_raw()
    sock.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
    return sock


def reads_nothing(server: Server) -> socket.socket:
    """Send many requests, and stay until the kernel of neither side takes more."""
    sock = server.connect()
    window = 2**30
    settings = SettingsFrame(0)
    settings.settings = {SettingsFrame.INITIAL_WINDOW_SIZE: window}
    with contextlib.suppress(ConnectionError):
        sock.sendall(frames(settings, *requests("/big", 100)))
        select.select([sock], [], [], 10)
    return sock


HTTP2 = {
    "half a handshake": half_handshake,
    "nothing": send(b""),
    "half a frame": send(frames(request("/big"))[:-5]),
    "requests": send(frames(*requests("/big"))),
    "requests with windows": reads_nothing,
    "resets": send(
        frames(*requests("/big"), *[RstStreamFrame(2 * n + 1, error_code=8) for n in range(20)])
    ),
    "half a body": send(frames(request("/body", method="POST"), DataFrame(1, b"x" * 16_000))),
    "half a body on disk": send(
        frames(request("/body", method="POST"), *[DataFrame(1, b"x" * 10_000)] * 6)
    ),
    "streams": send(frames(*requests("/stream", 3)), wait=True),
    "events": send(frames(*requests("/events", 3)), wait=True),
}
EMPTY = {"empty blocks": send(frames(*requests("/empty", 3)), wait=True)}
HTTP2_KINDS = {
    "asgi": {**HTTP2, "waits": send(frames(*requests("/wait")), wait=True)},
    "sync": {**HTTP2, **EMPTY},
    "hybrid": {**HTTP2, "waits": send(frames(*requests("/wait")), wait=True)},
}


@pytest.mark.parametrize(
    ("kind", "name"), [(kind, name) for kind in HTTP2_KINDS for name in HTTP2_KINDS[kind]]
)
def test_http2(kind: str, name: str, authority: Authority) -> None:
    with serving(kind, authority) as server:
        check_nothing_stays(server, HTTP2_KINDS[kind][name])
