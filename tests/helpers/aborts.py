"""Clients that leave in every state of a connection, and the script that they leave."""

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
from sysconfig import get_config_var

import hpack
import pytest
from hyperframe.frame import DataFrame, Frame, HeadersFrame, RstStreamFrame, SettingsFrame

from .asgi_tools import UPGRADE
from .certificates import Authority
from .process import Script, script
from .waiting import until

# For mimalloc, the allocator of free-threaded Python: it gives unused pages back to the system at
# once. It keeps some 20 MiB of them otherwise, which come and go and are nothing that stays.
PURGE = {"MIMALLOC_PURGE_DELAY": "0", "MIMALLOC_ABANDONED_PAGE_PURGE": "1"}
#: A class stays for ever once a thread was started, and flask-sock makes one for each WebSocket.
IMMORTAL_CLASSES = bool(get_config_var("Py_GIL_DISABLED")) and sys.version_info < (3, 14)
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
        sock = socket.create_connection(("127.0.0.1", self.port), 10)
        if self._context is None:
            return sock
        return self._context.wrap_socket(sock, server_hostname="127.0.0.1")

    @property
    def port(self) -> int:
        return self._script.port

    def connect_raw(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), 10)

    def fetch(self, path: str) -> bytes:
        scheme = "http" if self._context is None else "https"
        url = f"{scheme}://127.0.0.1:{self.port}{path}"
        context = None
        if self._context is not None:  # urllib has no HTTP/2
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        with urllib.request.urlopen(url, timeout=20, context=context) as response:
            return bytes(response.read())

    def counts(self) -> Counts:
        return dict(json.loads(self.fetch("/state")))

    def counts_once_below(self, limits: Counts) -> Counts:
        """The counts once those in `limits` are not above it. Garbage is collected meanwhile."""
        counts: Counts = {}

        def is_below() -> bool:
            counts.update(self.counts())
            return all(counts[name] <= limits[name] for name in limits)

        try:
            until(is_below)
        except AssertionError:
            pytest.fail(f"{limits} became {counts}")
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


def leave(sock: socket.socket, number: int) -> None:
    """Close, every other connection by a reset."""
    if number % 2:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


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
    "accepted": send(get("/silent", UPGRADE), wait=True),
    "half a frame": send(get("/silent", UPGRADE) + b"\x82\xff\0\0\0\0\0\0\xff\xff\0\0\0\0x"),
    "half a message": send(get("/silent", UPGRADE) + b"\x02\x81\0\0\0\0x"),
    "a flood": send(get("/flood", UPGRADE), wait=True),
    "a close": send(get("/flood", UPGRADE) + b"\x88\x80\0\0\0\0"),
}
# flask-sock accepts before its view is called.
FLASK_SOCK = {name: abort for name, abort in WEBSOCKETS.items() if name != "not accepted"}
# flask-sock accepts before its view is called.
FLASK_SOCK = {name: abort for name, abort in WEBSOCKETS.items() if name != "not accepted"}
KINDS = {
    "asgi": {**HTTP1, **LOOP, **WEBSOCKETS},
    "sync": {**HTTP1, **THREADS},
    "flask": {**HTTP1, "empty blocks": THREADS["empty blocks"], **FLASK_SOCK},
    "hybrid": {**HTTP1, **LOOP, **THREADS, **WEBSOCKETS},
}


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
