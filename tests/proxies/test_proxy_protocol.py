"""The PROXY protocol: its headers one by one, and connections that begin with them."""

from __future__ import annotations

import contextlib
import json
import logging
import random
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from threadwell import Request, Response, ThreadedServer
from threadwell.worker.lifecycle import LifecycleEvent, Refused
from threadwell.worker.proxies.proxy_protocol import (
    Announced,
    ProxyHeaderError,
    ProxyHeaderParser,
    crc32c,
)

from ..helpers.asgi_tools import Receive, Scope, Send, answer, no_lifespan
from ..helpers.certificates import Authority
from ..helpers.wire_client import Client

Serve = Callable[..., ThreadedServer]

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V4 = bytes([203, 0, 113, 9, 192, 0, 2, 1]) + (4711).to_bytes(2) + (443).to_bytes(2)
V6 = (
    socket.inet_pton(socket.AF_INET6, "2001:db8::9")
    + socket.inet_pton(socket.AF_INET6, "2001:db8::1")
    + (4711).to_bytes(2)
    + (443).to_bytes(2)
)
UNIX = b"/run/client".ljust(108, b"\0") + b"/run/server".ljust(108, b"\0")
LINE = b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n"
SAID = Announced(("203.0.113.9", 4711), ("192.0.2.1", 443))


def version_2(rest: bytes, family: int = 0x11, command: int = 0x21) -> bytes:
    return SIGNATURE + bytes([command, family]) + len(rest).to_bytes(2) + rest


def value(kind: int, content: bytes) -> bytes:
    return bytes([kind]) + len(content).to_bytes(2) + content


def summed(rest: bytes) -> bytes:
    """A header of `rest` and a checksum."""
    header = version_2(rest + value(3, bytes(4)))
    return header[:-4] + crc32c(header).to_bytes(4)


TLS = value(0x20, b"\x01" + bytes(4) + value(0x21, b"TLSv1.3"))

VALID = {
    "line, IPv4": (LINE, SAID),
    "line, IPv6": (
        b"PROXY TCP6 2001:DB8::9 2001:db8::1 4711 443\r\n",
        Announced(("2001:db8::9", 4711), ("2001:db8::1", 443)),
    ),
    "line, IPv4 in IPv6": (
        b"PROXY TCP6 ::ffff:203.0.113.9 ::ffff:192.0.2.1 4711 443\r\n",
        SAID,
    ),
    "line, longest": (
        b"PROXY TCP6 " + b" ".join([b"ffff:" * 7 + b"ffff"] * 2) + b" 65535 65535\r\n",
        Announced((":".join(["ffff"] * 8), 65535), (":".join(["ffff"] * 8), 65535)),
    ),
    "line, unknown": (b"PROXY UNKNOWN\r\n", Announced()),
    "line, unknown and more": (b"PROXY UNKNOWN ffff::1 whatever 1 2\r\n", Announced()),
    "IPv4": (version_2(V4), SAID),
    "IPv6": (version_2(V6, 0x21), Announced(("2001:db8::9", 4711), ("2001:db8::1", 443))),
    "unix": (version_2(UNIX, 0x31), Announced(("", 0))),
    "unspecified": (version_2(b"", 0x00), Announced()),
    "unspecified, with something": (version_2(b"whatever", 0x00), Announced()),
    "local": (version_2(b"", 0x00, 0x20), Announced(local=True)),
    "local, with addresses": (version_2(V4, 0x11, 0x20), Announced(local=True)),
    "local, with nonsense": (version_2(b"\xff" * 9, 0x77, 0x20), Announced(local=True)),
    "values": (version_2(V4 + value(0x02, b"example.com") + value(0xE0, b"")), SAID),
    "TLS": (version_2(V4 + TLS), SAID._replace(encrypted=True)),
    "no TLS": (version_2(V4 + value(0x20, bytes(5))), SAID),
    "checksum": (summed(V4), SAID),
    "checksum, in the middle": (summed(V4 + TLS), SAID._replace(encrypted=True)),
    "padding": (version_2(V4 + value(0x04, bytes(4000))), SAID),
}

INVALID = {
    "no header": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "a handshake": b"\x16\x03\x01\x02\x00\x01",
    "another word": b"proxy TCP4 203.0.113.9 192.0.2.1 4711 443\r\n",
    "a word that goes on": b"PROXYTCP4 ",
    "an empty line": b"\r\nPROXY TCP4 203.0.113.9 192.0.2.1 4711 443\r\n",
    "nothing said": b"PROXY \r\n",
    "no addresses": b"PROXY TCP4\r\n",
    "one address": b"PROXY TCP4 203.0.113.9 4711 443\r\n",
    "one port": b"PROXY TCP4 203.0.113.9 192.0.2.1 4711\r\n",
    "three ports": b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443 1\r\n",
    "two blanks": b"PROXY TCP4  203.0.113.9 192.0.2.1 4711 443\r\n",
    "a blank at the end": b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443 \r\n",
    "a tab": b"PROXY TCP4\t203.0.113.9 192.0.2.1 4711 443\r\n",
    "UDP": b"PROXY UDP4 203.0.113.9 192.0.2.1 4711 443\r\n",
    "a family in small letters": b"PROXY tcp4 203.0.113.9 192.0.2.1 4711 443\r\n",
    "IPv6 as IPv4": b"PROXY TCP4 2001:db8::9 192.0.2.1 4711 443\r\n",
    "IPv4 as IPv6": b"PROXY TCP6 203.0.113.9 192.0.2.1 4711 443\r\n",
    "not an address": b"PROXY TCP4 203.0.113.256 192.0.2.1 4711 443\r\n",
    "a leading zero": b"PROXY TCP4 203.0.113.09 192.0.2.1 4711 443\r\n",
    "a port too high": b"PROXY TCP4 203.0.113.9 192.0.2.1 65536 443\r\n",
    "a port with a zero": b"PROXY TCP4 203.0.113.9 192.0.2.1 04711 443\r\n",
    "a negative port": b"PROXY TCP4 203.0.113.9 192.0.2.1 -1 443\r\n",
    "a bare LF": b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\n" + b"x" * 80,
    "a line within": b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\nX\r\n",
    "a NUL": b"PROXY TCP4 203.0.113.9 192.0.2.1 4711 443\0\r\n",
    "unknown, and no blank": b"PROXY UNKNOWNx\r\n",
    "a line too long": b"PROXY UNKNOWN " + b"x" * 92 + b"\r\n",
    "a line without an end": b"PROXY UNKNOWN " + b"x" * 200,
    "a signature that ends early": SIGNATURE[:8] + b"nothing more of it",
    "version 1 in version 2": version_2(V4, command=0x11),
    "version 3": version_2(V4, command=0x31),
    "another command": version_2(V4, command=0x22),
    "datagrams": version_2(V4, 0x12),
    "another family": version_2(V4, 0x41),
    "no transport": version_2(V4, 0x10),
    "too short": version_2(V4[:-1]),
    "too short for IPv6": version_2(V4, 0x21),
    "too short for unix": version_2(UNIX[:-1], 0x31),
    "too long": version_2(V4 + value(0x04, bytes(4100))),
    "as long as can be": SIGNATURE + b"\x21\x11\xff\xff",
    "a value that is longer than the header": version_2(V4 + b"\x04\x00\x05abcd"),
    "a value without a length": version_2(V4 + b"\x04\x00"),
    "a value of one octet": version_2(V4 + b"\x04"),
    "TLS too short": version_2(V4 + value(0x20, b"\x01")),
    "a wrong checksum": version_2(V4 + value(3, b"\x01\x02\x03\x04")),
    "a short checksum": version_2(V4 + value(3, b"\x01")),
}


# ---- Headers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", VALID)
@pytest.mark.parametrize("step", [1, 7, 100_000])
def test_valid(name: str, step: int) -> None:
    data, expected = VALID[name]
    behind = b"\x16\x03GET / HTTP/1.1\r\n\r\n"
    header, fed, taken = ProxyHeaderParser(), data + behind, 0
    for at in range(0, len(fed), step):
        if header.announced is not None:
            break
        assert taken == at
        taken += header.feed(fed[at : at + step])
    assert header.announced == expected
    assert taken == len(data)


@pytest.mark.parametrize("name", INVALID)
@pytest.mark.parametrize("step", [1, 100_000])
def test_invalid(name: str, step: int) -> None:
    data = INVALID[name]
    header = ProxyHeaderParser()
    with pytest.raises(ProxyHeaderError):
        for at in range(0, len(data), step):
            header.feed(data[at : at + step])
            assert header.announced is None


def test_no_part_of_a_header_is_one() -> None:
    for data, _ in VALID.values():
        for end in range(1, len(data)):
            header = ProxyHeaderParser()
            assert header.feed(data[:end]) == end
            assert header.announced is None


def test_damage_is_an_error_or_another_header() -> None:
    chance = random.Random(2)
    sources = [data for data, _ in VALID.values()] + list(INVALID.values())
    for _ in range(5000):
        data = bytearray(chance.choice(sources))
        for _ in range(chance.randrange(1, 4)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        header = ProxyHeaderParser()
        try:
            taken = header.feed(bytes(data))
        except ProxyHeaderError:
            continue
        assert 0 < taken <= len(data)


def test_the_checksum_is_castagnolis() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(bytes(32)) == 0x8A9136AA  # RFC 3720, B.4


# ---- Connections -----------------------------------------------------------------------------


def native(request: Request) -> Response:
    told = {
        "client": request.client,
        "server": request.server,
        "scheme": request.scheme,
        "peer": request.peer[0],
        "forwarded": request.header("x-forwarded-for"),
    }
    return Response(200, [], json.dumps(told).encode())


native.threadwell_interface = "sync"  # type: ignore[attr-defined]


async def asgi(scope: Scope, receive: Receive, send: Send) -> None:
    await no_lifespan(scope)
    names = [name for name, _ in scope["headers"]]
    told = {
        "client": scope["client"] or ("", 0),
        "server": scope["server"],
        "scheme": scope["scheme"],
        "forwarded": "believed" if b"x-forwarded-for" in names else "",
    }
    await answer(send, json.dumps(told).encode())


APPS = pytest.mark.parametrize("app", [native, asgi], ids=["threads", "loop"])
OPTIONS: dict[str, Any] = {"trusted_proxies": "127.0.0.1", "proxy_protocol": True}


@pytest.fixture
def open_raw() -> Iterator[Callable[..., Client]]:
    with contextlib.ExitStack() as stack:

        def open_client(server: ThreadedServer) -> Client:
            sock = socket.create_connection(("127.0.0.1", server.port), 10)
            return stack.enter_context(contextlib.closing(Client(sock)))

        yield open_client


def ask(client: Client, fields: str = "") -> Any:
    reply = client.get(headers=fields)
    assert reply.status == 200
    return json.loads(reply.body)


@APPS
@pytest.mark.parametrize("header", [LINE, version_2(V4), summed(V4)])
@pytest.mark.parametrize("poller", ["auto", "queue"])
def test_the_client_is_who_was_announced(
    serve: Serve, open_raw: Any, app: Any, header: bytes, poller: str
) -> None:
    server = serve(app, poller=poller, **OPTIONS)
    client = open_raw(server)
    client.send(header)
    for _ in range(2):
        told = ask(client)
        assert told["client"] == ["203.0.113.9", 4711]
        assert told["server"] == ["192.0.2.1", 443]
        assert told["scheme"] == "http"
        assert told.get("peer", "127.0.0.1") == "127.0.0.1"


@APPS
def test_header_and_request_in_one_piece_or_in_many(serve: Serve, open_raw: Any, app: Any) -> None:
    server = serve(app, **OPTIONS)
    request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
    client = open_raw(server)
    client.send(version_2(V6, 0x21) + request)
    assert json.loads(client.answer().body)["client"] == ["2001:db8::9", 4711]
    for header in (LINE, version_2(V4 + value(4, bytes(20)))):
        client = open_raw(server)
        client.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for octet in header + request:
            client.send(bytes([octet]))
        assert json.loads(client.answer().body)["client"] == ["203.0.113.9", 4711]


@APPS
@pytest.mark.parametrize(
    ("header", "client", "scheme"),
    [
        (b"PROXY UNKNOWN\r\n", "127.0.0.1", "http"),
        (version_2(b"", 0x00), "127.0.0.1", "http"),
        (version_2(b"", 0x00, 0x20), "127.0.0.1", "http"),
        (version_2(UNIX, 0x31), "", "http"),
        (version_2(V4 + TLS), "203.0.113.9", "https"),
        (version_2(UNIX + TLS, 0x31), "", "https"),
    ],
)
def test_others(
    serve: Serve, open_raw: Any, app: Any, header: bytes, client: str, scheme: str
) -> None:
    one = open_raw(serve(app, **OPTIONS))
    one.send(header)
    told = ask(one)
    assert (told["client"][0], told["scheme"]) == (client, scheme)
    assert ask(one) == told


@APPS
@pytest.mark.parametrize(
    ("header", "believed"),
    [
        (LINE, False),
        (b"PROXY UNKNOWN\r\n", False),
        (version_2(b"", 0x00), False),
        (version_2(UNIX, 0x31), False),
        (version_2(b"", 0x00, 0x20), True),  # the proxy itself asks
        (b"PROXY TCP4 10.0.0.8 192.0.2.1 4711 443\r\n", True),  # another proxy, which is trusted
    ],
)
def test_fields_are_believed_by_the_announced_address(
    serve: Serve, open_raw: Any, app: Any, header: bytes, believed: bool
) -> None:
    trusted = ["127.0.0.1", "10.0.0.0/8", "unix"]
    client = open_raw(serve(app, **{**OPTIONS, "trusted_proxies": trusted}))
    client.send(header)
    before = ask(client)
    told = ask(client, "X-Forwarded-For: 198.51.100.1\r\nX-Forwarded-Proto: https\r\n")
    assert bool(told["forwarded"]) is believed
    assert (told["client"] == ["198.51.100.1", 0]) is believed
    assert (told == before) is not believed


@APPS
def test_where_everybody_may_connect_no_field_is_believed(
    serve: Serve, open_raw: Any, app: Any
) -> None:
    client = open_raw(serve(app, trusted_proxies="*", proxy_protocol=True))
    client.send(LINE)
    told = ask(client, "X-Forwarded-For: 198.51.100.1\r\n")
    assert (told["client"], told["forwarded"]) == (["203.0.113.9", 4711], "")


@APPS
@pytest.mark.parametrize("name", ["no header", "a handshake", "not an address", "too short"])
def test_what_is_no_header_ends_the_connection(
    serve: Serve, open_raw: Any, caplog: pytest.LogCaptureFixture, app: Any, name: str
) -> None:
    server = serve(app, **OPTIONS)
    client = open_raw(server)
    client.send(INVALID[name] + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.closed()
    message = "The connection of 127.0.0.1 was closed: its PROXY header cannot be used"
    assert [text for text in caplog.messages if text.startswith(message)]
    client = open_raw(server)  # and only that one
    client.send(LINE)
    assert ask(client)["client"][0] == "203.0.113.9"


@APPS
def test_a_stranger_is_refused(
    serve: Serve, open_raw: Any, caplog: pytest.LogCaptureFixture, app: Any
) -> None:
    server = serve(app, trusted_proxies="192.0.2.1", proxy_protocol=True)
    for data in (LINE, b""):
        client = open_raw(server)
        client.send(data + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert client.closed()
    said = [text for text in caplog.messages if "not one of trusted_proxies" in text]
    assert said == [
        "The connection of 127.0.0.1 was closed: its address is not one of trusted_proxies"
    ]


@APPS
def test_a_look_whether_somebody_is_there_is_not_worth_a_line(
    serve: Serve, open_raw: Any, caplog: pytest.LogCaptureFixture, app: Any
) -> None:
    server = serve(app, **OPTIONS)
    for data in (b"", b"PROX"):
        client = open_raw(server)
        client.send(data)
        client.sock.shutdown(socket.SHUT_WR)
        assert client.closed()
    assert not [each.message for each in caplog.records if each.levelno >= logging.WARNING]


@APPS
def test_the_header_has_a_deadline_of_its_own(serve: Serve, open_raw: Any, app: Any) -> None:
    server = serve(app, proxy_protocol_timeout=1.5, threads=1, **OPTIONS)
    started = time.monotonic()
    silent, begun, dribbling = (open_raw(server) for _ in range(3))
    begun.send(LINE[:9])
    stop = threading.Event()

    def dribble() -> None:
        with contextlib.suppress(OSError):
            for octet in LINE * 10:
                dribbling.send(bytes([octet]))
                if stop.wait(0.1):
                    return

    thread = threading.Thread(target=dribble)
    thread.start()
    try:
        # nobody holds the only thread meanwhile
        client = open_raw(server)
        client.send(LINE)
        assert ask(client)["client"][0] == "203.0.113.9"
        assert all(one.closed() for one in (silent, begun, dribbling))
    finally:
        stop.set()
        thread.join()
    assert time.monotonic() - started >= 1.5
    assert ask(client)["client"][0] == "203.0.113.9"  # has come in time, and stays


@APPS
def test_refusals_are_told(serve: Serve, open_raw: Any, app: Any) -> None:
    causes: list[str] = []

    class Collector:
        def record(self, event: LifecycleEvent) -> None:
            if isinstance(event, Refused):
                causes.append(event.cause)

    options = {**OPTIONS, "lifecycle_collector": Collector(), "proxy_protocol_timeout": 0.2}
    server = serve(app, **options)
    client, silent = open_raw(server), open_raw(server)
    client.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
    assert client.closed()
    assert silent.closed()
    server.stop()
    assert causes == ["proxy", "proxy"]


@APPS
def test_many_silent_connections_hold_no_thread(serve: Serve, open_raw: Any, app: Any) -> None:
    server = serve(app, threads=2, **OPTIONS)
    for number in range(100):
        client = open_raw(server)
        client.send(LINE[: number % len(LINE)])
    client = open_raw(server)
    client.send(LINE)
    assert ask(client)["client"][0] == "203.0.113.9"


@APPS
def test_a_unix_socket(serve: Serve, tmp_path: Path, app: Any) -> None:
    for trusted in ("unix", "127.0.0.1"):
        path = tmp_path / trusted
        bind = f"unix:{path}"
        server = serve(app, bind=bind, trusted_proxies=trusted, proxy_protocol=True)
        with socket.socket(socket.AF_UNIX) as sock:
            sock.settimeout(10)
            sock.connect(str(path))
            client = Client(sock)
            if trusted == "unix":
                client.send(LINE)
                assert ask(client)["client"] == ["203.0.113.9", 4711]
            else:
                assert client.closed()
        server.stop()


# ---- TLS -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@APPS
@pytest.mark.parametrize("split", [False, True])
def test_before_a_tls_handshake(serve: Serve, authority: Authority, app: Any, split: bool) -> None:
    certificate, key = authority.issue("server")
    server = serve(app, certfile=str(certificate), keyfile=str(key), **OPTIONS)
    with socket.create_connection(("127.0.0.1", server.port), 10) as raw:
        if split:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for octet in LINE:
                raw.send(bytes([octet]))
        else:
            raw.send(version_2(V4 + value(4, bytes(1000))))
        context = authority.trusting()
        with context.wrap_socket(raw, server_hostname="127.0.0.1") as sock:
            client = Client(sock)
            for _ in range(2):
                told = ask(client)
                assert (told["client"][0], told["scheme"]) == ("203.0.113.9", "https")


@APPS
def test_header_and_handshake_in_one_piece(serve: Serve, authority: Authority, app: Any) -> None:
    certificate, key = authority.issue("server")
    server = serve(app, certfile=str(certificate), keyfile=str(key), **OPTIONS)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    session = authority.trusting().wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")
    with socket.create_connection(("127.0.0.1", server.port), 10) as raw:
        before = LINE
        while True:
            try:
                session.do_handshake()
                break
            except ssl.SSLWantReadError:
                raw.sendall(before + outgoing.read())
                before = b""
                incoming.write(raw.recv(65536))
        session.write(b"GET / HTTP/1.0\r\nHost: x\r\n\r\n")
        raw.sendall(outgoing.read())
        answered = b""
        while b"}" not in answered:
            with contextlib.suppress(ssl.SSLWantReadError):
                answered += session.read(65536)
                continue
            incoming.write(raw.recv(65536))
        assert b"203.0.113.9" in answered
        with contextlib.suppress(ssl.SSLWantReadError):
            session.unwrap()


@APPS
def test_a_handshake_without_a_header_is_refused(
    serve: Serve, authority: Authority, app: Any
) -> None:
    certificate, key = authority.issue("server")
    server = serve(app, certfile=str(certificate), keyfile=str(key), **OPTIONS)
    context = authority.trusting()
    raw = socket.create_connection(("127.0.0.1", server.port), 10)
    with raw, pytest.raises(OSError):  # noqa: PT011
        context.wrap_socket(raw, server_hostname="127.0.0.1")


@APPS
def test_plain_http_behind_a_header_where_tls_is_spoken(
    serve: Serve, open_raw: Any, authority: Authority, app: Any
) -> None:
    certificate, key = authority.issue("server")
    server = serve(app, certfile=str(certificate), keyfile=str(key), **OPTIONS)
    client = open_raw(server)
    client.send(LINE)
    reply = client.get()
    assert (reply.status, reply.body[:28]) == (400, b"This port speaks https, and ")


def test_clients_with_certificates_keep_their_own(serve: Serve, authority: Authority) -> None:
    def app(environ: dict[str, Any], start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [(environ["REMOTE_ADDR"] + environ["SSL_CLIENT_S_DN_CN"]).encode()]

    certificate, key = authority.issue("server")
    server = serve(
        app,
        certfile=str(certificate),
        keyfile=str(key),
        ca_certs=str(authority.cert),
        client_certs="required",
        threads=1,
        **OPTIONS,
    )
    with contextlib.ExitStack() as stack:
        clients = []
        for name in ("one", "two"):
            context = authority.trusting()
            context.load_cert_chain(*authority.issue(name, f"/CN={name}"))
            raw = socket.create_connection(("127.0.0.1", server.port), 10)
            raw.send(LINE)
            sock = stack.enter_context(context.wrap_socket(raw, server_hostname="127.0.0.1"))
            clients.append((name, Client(sock)))
        for name, client in clients * 2:
            assert client.get().body == f"203.0.113.9{name}".encode()


# ---- The end ---------------------------------------------------------------------------------


@APPS
def test_a_stop_waits_for_nobody_who_has_said_nothing(
    serve: Serve, open_raw: Any, app: Any
) -> None:
    server = serve(app, proxy_protocol_timeout=60, graceful_timeout=0.5, **OPTIONS)
    client = open_raw(server)
    client.send(LINE[:5])
    other = open_raw(server)
    other.send(LINE)
    assert ask(other)
    server.stop()
    assert client.closed()
    assert other.closed()
