"""Which proxies are trusted, what is believed of them, and what applications see."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from threadwell import ConfigError, ServerConfig
from threadwell.worker.config.groups import Limits
from threadwell.worker.connection import Connection
from threadwell.worker.errors import ProtocolError
from threadwell.worker.http1.parser import RequestParser
from threadwell.worker.messages import RequestReceived
from threadwell.worker.proxies.trust import Forwarding, TrustedPeers, check, forwarded
from threadwell.worker.system.throttled_log import ThrottledLog

from .malformed import MALFORMED_FORWARDED

FIVE = tuple(f"x-forwarded-{name}" for name in ("for", "proto", "host", "port", "prefix"))
PROXY = "10.0.0.7"


def parsed(fields: str, host: str = "inner") -> RequestReceived:
    head = f"GET /a?b HTTP/1.1\r\nHost: {host}\r\n{fields}".rstrip("\r\n")
    return RequestParser(Limits()).parse(head.encode("latin-1"))


class Asked:
    """A connection, and what requests on it look like."""

    def __init__(self, peer: str = PROXY, **options: Any) -> None:
        options.setdefault("trusted_proxies", "10.0.0.0/8")
        config = ServerConfig.from_options(**options)
        check(config.proxies)
        self.forwarding = Forwarding(config.proxies, ThrottledLog())
        self.socket = socket.socket()
        self.conn = Connection(self.socket, (peer, 1234), ("192.168.0.1", 8000))

    def __call__(self, fields: str, host: str = "inner") -> RequestReceived:
        return self.forwarding.amend(self.conn, parsed(fields, host))

    def client(self, fields: str) -> tuple[str, int]:
        self(fields)
        return self.conn.client


@pytest.fixture
def asked() -> Iterator[Any]:
    made: list[Asked] = []

    def make(*args: Any, **options: Any) -> Asked:
        made.append(Asked(*args, **options))
        return made[-1]

    yield make
    for each in made:
        each.socket.close()


# ---- Who is trusted --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("texts", "inside", "outside"),
    [
        (["10.0.0.0/8"], "10.255.0.1", "11.0.0.1"),
        (["10.0.0.7"], "10.0.0.7", "10.0.0.8"),
        (["192.0.2.0/24, 10.0.0.7"], "192.0.2.9", "192.0.3.9"),
        (["192.0.2.0/24", "10.0.0.7"], "10.0.0.7", "10.0.0.6"),
        (["10.0.0.0/255.0.0.0"], "10.1.1.1", "11.1.1.1"),
        (["fd00::/8"], "fd00::1", "fe80::1"),
        (["10.0.0.0/8"], "::ffff:10.1.1.1", "::ffff:11.1.1.1"),
        (["::ffff:10.0.0.0/104"], "10.1.1.1", "11.1.1.1"),
        (["unix"], "", "127.0.0.1"),
    ],
)
def test_trusted(texts: list[str], inside: str, outside: str) -> None:
    peers = TrustedPeers(texts)
    assert not peers.trusts_everyone
    if inside:
        assert forwarded.parse_address(inside) in peers
    assert forwarded.parse_address(outside) not in peers
    assert None not in peers


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trusted_proxies": "proxy.example"}, "trusted_proxies: 'proxy.example' is neither"),
        ({"trusted_proxies": "10.0.0.0/33"}, "trusted_proxies: '10.0.0.0/33' is neither"),
        ({"trusted_proxies": "10.0.0"}, "trusted_proxies: '10.0.0' is neither"),
        ({"trusted_proxies": "10.0.0.7:80"}, "is neither"),
        ({"trusted_proxies": "fe80::1%eth0"}, "is neither"),
        ({"trusted_proxies": "10.0.0.7/8"}, "10.0.0.7/8 is not a network; 10.0.0.0/8 is the one"),
        ({"trusted_proxies": "*"}, "set proxy_hops to the number of proxies"),
        ({"trusted_proxies": "0.0.0.0/0"}, "set proxy_hops to the number of proxies"),
        ({"trusted_proxies": "::/0"}, "set proxy_hops to the number of proxies"),
        ({"proxy_hops": 1}, "proxy_hops: no proxy is trusted"),
        ({"proxy_protocol": True}, "proxy_protocol: no proxy is trusted"),
        ({"proxy_protocol": True, "trusted_proxies": " "}, "proxy_protocol: no proxy is trusted"),
        ({"forwarded_header": "via"}, "forwarded_header: 'via' is none of"),
        ({"forwarded_header": "forwarded"}, "forwarded_header: no proxy is trusted"),
        ({"proxy_protocol_timeout": 1}, "proxy_protocol_timeout: no proxy is trusted"),
        ({"forwarded_header": ("forwarded", "x-forwarded-for")}, "forwarded says all"),
    ],
)
def test_what_cannot_be_used(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check(ServerConfig.from_options(**options).proxies)
    assert message in str(caught.value)


def test_a_server_that_cannot_be_made_of_them(serve: Any) -> None:
    with pytest.raises(ConfigError, match="proxy_protocol: no proxy is trusted"):
        serve(lambda environ, start_response: [], proxy_protocol=True)


# ---- X-Forwarded-For -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "client"),
    [
        ("203.0.113.9", ("203.0.113.9", 0)),
        ("203.0.113.9:4711", ("203.0.113.9", 4711)),
        ("2001:db8::9", ("2001:db8::9", 0)),
        ("[2001:db8::9]:4711", ("2001:db8::9", 4711)),
        ("6.6.6.6, 203.0.113.9", ("203.0.113.9", 0)),
        ("6.6.6.6, 203.0.113.9, 10.0.0.8", ("203.0.113.9", 0)),
        ("6.6.6.6, 203.0.113.9, 10.0.0.8, 10.0.0.9", ("203.0.113.9", 0)),
        # what stands further left than the client is the client's, and may be anything
        ("<script>, 203.0.113.9", ("203.0.113.9", 0)),
        ('"unterminated, 203.0.113.9', ("203.0.113.9", 0)),
        ("10.0.0.3, 203.0.113.9", ("203.0.113.9", 0)),
        # somebody within: all are trusted, so the first of them
        ("10.0.0.3, 10.0.0.8", ("10.0.0.3", 0)),
        (", ,203.0.113.9,", ("203.0.113.9", 0)),
        ("unknown", ("", 0)),
        ("6.6.6.6, unknown", ("", 0)),
        ("6.6.6.6, _hidden, 10.0.0.8", ("", 0)),
        ("6.6.6.6, unix:", ("", 0)),
        (",", (PROXY, 1234)),
    ],
)
def test_the_client_is_the_first_from_the_right_that_is_not_trusted(
    asked: Any, value: str, client: tuple[str, int]
) -> None:
    assert asked().client(f"X-Forwarded-For: {value}\r\n") == client


def test_a_proxy_that_was_asked_by_a_unix_socket(asked: Any) -> None:
    # nginx behind another program on its own machine
    one = asked(trusted_proxies="10.0.0.0/8 unix")
    assert one.client("X-Forwarded-For: 6.6.6.6, 203.0.113.9, unix:\r\n")[0] == "203.0.113.9"
    assert one.client("X-Forwarded-For: unix:, 203.0.113.9\r\n")[0] == "203.0.113.9"
    assert one.client("X-Forwarded-For: unix:\r\n") == ("", 0)


@pytest.mark.parametrize(
    "value", ["bad", "203.0.113.9, bad", "6.6.6.6, 1.2.3, 10.0.0.8", "203.0.113.9 10.0.0.8", "a.b"]
)
def test_a_malformed_entry_that_counts_is_400(asked: Any, value: str) -> None:
    # to take the proxy for the client instead would make anybody an insider
    with pytest.raises(ProtocolError) as caught:
        asked()(f"X-Forwarded-For: {value}\r\n")
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("hops", "value", "client"),
    [
        (1, "203.0.113.9", "203.0.113.9"),
        (1, "6.6.6.6, 10.0.0.8", "10.0.0.8"),  # the count wins over the addresses
        (2, "6.6.6.6, 203.0.113.9, 198.51.100.1", "203.0.113.9"),
        (3, "6.6.6.6, 203.0.113.9", PROXY),  # it has not come through all of them
        (1, "", PROXY),
    ],
)
def test_hops(asked: Any, hops: int, value: str, client: str) -> None:
    fields = f"X-Forwarded-For: {value}\r\nX-Forwarded-Proto: https\r\n"
    one = asked(proxy_hops=hops)
    head = one(fields)
    assert one.conn.client[0] == client
    believed = client != PROXY
    assert one.conn.scheme == ("https" if believed else "http")
    assert ("HTTP_X_FORWARDED_FOR" in head.variables) is believed


def test_what_was_not_believed_is_not_believed_from_another_connection(asked: Any) -> None:
    one = asked(proxy_hops=2)
    for _ in range(2):
        head = one("X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\n")
        assert one.conn.client == (PROXY, 1234)
        assert head.headers == [("host", "inner")]
        one.conn.direct = None  # another connection with the same addresses


def test_several_lines_are_one_list(asked: Any) -> None:
    fields = "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-For: 10.0.0.8\r\n"
    assert asked().client(fields) == ("203.0.113.9", 0)


def test_everybody_with_hops(asked: Any) -> None:
    one = asked("203.0.113.77", trusted_proxies="*", proxy_hops=1)
    assert one.client("X-Forwarded-For: 6.6.6.6, 203.0.113.9\r\n") == ("203.0.113.9", 0)


def test_each_request_of_a_connection_has_its_own_client(asked: Any) -> None:
    one = asked()
    assert one.client("X-Forwarded-For: 203.0.113.9\r\n")[0] == "203.0.113.9"
    assert one.client("X-Forwarded-For: 203.0.113.10\r\nX-Forwarded-Proto: https\r\n")[0] == (
        "203.0.113.10"
    )
    assert one.conn.scheme == "https"
    assert one.client("") == (PROXY, 1234)
    assert (one.conn.scheme, one.conn.origin.client_port) == ("http", "1234")


# ---- The others ------------------------------------------------------------------------------


def test_all_five(asked: Any) -> None:
    one = asked(forwarded_header=FIVE)
    head = one(
        "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n"
        "X-Forwarded-Host: www.example.com\r\nX-Forwarded-Port: 8443\r\n"
        "X-Forwarded-Prefix: /shop/\r\n"
    )
    conn = one.conn
    assert (conn.client, conn.scheme, conn.prefix) == (("203.0.113.9", 0), "https", "/shop")
    assert conn.server == ("www.example.com", 8443)
    assert head.variables["HTTP_HOST"] == "www.example.com:8443"
    assert dict(head.headers)["host"] == "www.example.com:8443"
    assert [name for name, _ in head.headers].count("host") == 1
    assert (head.method, head.target, head.path, head.query) == ("GET", "/a?b", "/a", "b")
    assert conn.peer == (PROXY, 1234)


@pytest.mark.parametrize(
    ("fields", "host", "server"),
    [
        ("X-Forwarded-Host: b.example", "b.example", ("b.example", 80)),
        (
            "X-Forwarded-Host: b.example\r\nX-Forwarded-Proto: https",
            "b.example",
            ("b.example", 443),
        ),
        ("X-Forwarded-Host: b.example:81", "b.example:81", ("b.example", 81)),
        ("X-Forwarded-Host: b:81\r\nX-Forwarded-Port: 82", "b:82", ("b", 82)),
        ("X-Forwarded-Host: [2001:db8::1]:81", "[2001:db8::1]:81", ("2001:db8::1", 81)),
        ("X-Forwarded-Port: 81", "inner:81", ("192.168.0.1", 81)),
        ("X-Forwarded-Port: 80", "inner", ("192.168.0.1", 80)),
        ("X-Forwarded-Proto: https\r\nX-Forwarded-Port: 443", "inner", ("192.168.0.1", 443)),
        ("X-Forwarded-Proto: https", "inner", ("192.168.0.1", 8000)),
        ("X-Forwarded-Host: a.example, b.example", "b.example", ("b.example", 80)),
    ],
)
def test_host_and_port(asked: Any, fields: str, host: str, server: tuple[str, int]) -> None:
    one = asked(forwarded_header=FIVE)
    assert one(fields).variables["HTTP_HOST"] == host
    assert one.conn.server == server


@pytest.mark.parametrize(
    ("fields", "scheme"),
    [
        ("X-Forwarded-Proto: HTTPS", "https"),
        ("X-Forwarded-Proto: wss", "https"),
        ("X-Forwarded-Proto: ws", "http"),
        # of the outermost trusted proxy, if each has added its own
        ("X-Forwarded-For: 203.0.113.9, 10.0.0.8\r\nX-Forwarded-Proto: https, http", "https"),
        ("X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https, http", "http"),
        # one that was overwritten by the nearest
        ("X-Forwarded-For: 203.0.113.9, 10.0.0.8\r\nX-Forwarded-Proto: https", "https"),
    ],
)
def test_scheme(asked: Any, fields: str, scheme: str) -> None:
    one = asked()
    one(fields)
    assert one.conn.scheme == scheme


@pytest.mark.parametrize(
    "field",
    [
        "Proto: ftp",
        "Proto: https/",
        "Proto: http, x",
        "Host: a b",
        "Host: a/b",
        "Host: evil.example@good.example",
        "Port: 0",
        "Port: https",
        "Port: 65536",
        "Port: 8_0",
        "Port: +80",
        "Prefix: //evil.example",
        "Prefix: /../admin",
        "Prefix: shop",
        "Prefix: /a\\b",
    ],
)
def test_malformed_others_are_400(asked: Any, field: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        asked(forwarded_header=FIVE)(f"X-Forwarded-{field}")
    assert caught.value.status == 400


def test_the_same_origin_is_the_same_object(asked: Any) -> None:
    # what adapters keep by it
    one = asked()
    one("X-Forwarded-Proto: https")
    first = one.conn.server
    one("X-Forwarded-Proto: https\r\nX-Forwarded-For: 203.0.113.9")
    assert one.conn.server is first
    one("")
    assert one.conn.server is not first
    assert one.conn.server == first


# ---- Forwarded, RFC 7239 ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "client", "scheme", "host"),
    [
        ("for=203.0.113.9", ("203.0.113.9", 0), "http", "inner"),
        ('for="203.0.113.9:47";proto=https', ("203.0.113.9", 47), "https", "inner"),
        ('for="[2001:db8::9]:47"', ("2001:db8::9", 47), "http", "inner"),
        ("for=203.0.113.9;host=b.example", ("203.0.113.9", 0), "http", "b.example"),
        ('for=1.1.1.1;host="b.example:81"', ("1.1.1.1", 0), "http", "b.example:81"),
        ("for=6.6.6.6;proto=https, for=203.0.113.9", ("203.0.113.9", 0), "http", "inner"),
        # all of it from the element of the outermost trusted proxy
        (
            "for=6.6.6.6, for=203.0.113.9;proto=https;host=b.example, for=10.0.0.8;proto=http",
            ("203.0.113.9", 0),
            "https",
            "b.example",
        ),
        ("for=unknown", ("", 0), "http", "inner"),
        ("for=6.6.6.6, for=_hidden;proto=https", ("", 0), "https", "inner"),
        ("for=6.6.6.6, proto=https", (PROXY, 1234), "https", "inner"),
        ("", (PROXY, 1234), "http", "inner"),
    ],
)
def test_rfc_7239(asked: Any, value: str, client: tuple[str, int], scheme: str, host: str) -> None:
    one = asked(forwarded_header="Forwarded")
    head = one(f"Forwarded: {value}\r\n")
    assert (one.conn.client, one.conn.scheme) == (client, scheme)
    assert head.variables["HTTP_HOST"] == host


@pytest.mark.parametrize(
    "value",
    [
        *[text for text in MALFORMED_FORWARDED if text.isascii()],
        "for=hidden",
        'for="203.0.113.9:"',
        'for="2001:db8::1"',
        'for=""',
        "for=203.0.113.9;proto=ftp",
        'for=203.0.113.9;host="a b"',
        # in front of what counts, too: who can tell where the client's part ends
        'x="y, for=203.0.113.9',
    ],
)
def test_malformed_forwarded_is_400(asked: Any, value: str) -> None:
    with pytest.raises(ProtocolError) as caught:
        asked(forwarded_header="forwarded")(f"Forwarded: {value}\r\n")
    assert caught.value.status == 400


def test_hops_of_forwarded(asked: Any) -> None:
    one = asked(forwarded_header="forwarded", proxy_hops=2)
    value = "for=6.6.6.6, for=203.0.113.9;proto=https, for=198.51.100.1"
    assert one.client(f"Forwarded: {value}\r\n") == ("203.0.113.9", 0)
    assert one.conn.scheme == "https"
    assert one.client("Forwarded: for=203.0.113.9\r\n") == (PROXY, 1234)


# ---- What the application gets to see --------------------------------------------------------

EVERYTHING = (
    "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example\r\n"
    "X-Forwarded-Port: 666\r\nX-Forwarded-Prefix: /evil\r\nForwarded: for=6.6.6.6;proto=https\r\n"
    "X-Forwarded-Ssl: on\r\nX-Forwarded-Scheme: https\r\nX-Real-IP: 6.6.6.6\r\nX-Scheme: https\r\n"
    "X-Script-Name: /evil\r\nX-Forwarded-Server: evil.example\r\n"
)
SPOOFED = EVERYTHING.replace("-", "_")
MIXED = EVERYTHING.replace("X-Forwarded-", "X-Forwarded_")


@pytest.mark.parametrize("peer", ["203.0.113.66", "::1", "::ffff:203.0.113.66", "nonsense", ""])
@pytest.mark.parametrize("fields", [EVERYTHING, SPOOFED, MIXED, EVERYTHING + SPOOFED])
@pytest.mark.parametrize("header", [FIVE, ("forwarded",), ("x-forwarded-for",)])
def test_an_untrusted_peer_changes_nothing(
    asked: Any, peer: str, fields: str, header: tuple[str, ...]
) -> None:
    one = asked(peer, forwarded_header=header)
    head = one(fields + "Accept: a_b\r\n")
    conn = one.conn
    assert (conn.client, conn.origin.client_port) == ((peer, 1234), "1234")
    assert (conn.server, conn.scheme, conn.prefix) == (("192.168.0.1", 8000), "http", "")
    assert head.variables == {"HTTP_HOST": "inner", "HTTP_ACCEPT": "a_b"}
    assert head.headers == [("host", "inner"), ("accept", "a_b")]


def test_other_names_with_an_underscore_stay_in_the_list(asked: Any) -> None:
    for peer in (PROXY, "203.0.113.66"):
        head = asked(peer)("My_Header: 1\r\nX_Forwarded_For: 6.6.6.6\r\n")
        assert head.headers == [("host", "inner"), ("my_header", "1")]


@pytest.mark.parametrize("spoof", ["X_Forwarded_For", "X-Forwarded_For", "x_forwarded-for"])
def test_a_client_cannot_spoof_through_a_proxy(asked: Any, spoof: str) -> None:
    one = asked()
    head = one(f"{spoof}: 6.6.6.6\r\nX-Forwarded-For: 203.0.113.9\r\n")
    assert one.conn.client == ("203.0.113.9", 0)
    assert head.headers == [("host", "inner"), ("x-forwarded-for", "203.0.113.9")]


def test_what_a_trusted_proxy_was_not_said_to_set_is_taken_away(asked: Any) -> None:
    one = asked()
    head = one(EVERYTHING)
    assert (one.conn.client, one.conn.scheme) == (("6.6.6.6", 0), "https")
    assert (one.conn.server[0], one.conn.prefix) == ("192.168.0.1", "")
    understood = {name for name, _ in head.headers} & {*FIVE, "forwarded"}
    assert understood == {"x-forwarded-for", "x-forwarded-proto"}
    # of these nothing is known here: they are between the proxy and the application
    assert head.variables["HTTP_X_REAL_IP"] == "6.6.6.6"


def test_of_two_ways_to_say_it_one_counts(asked: Any) -> None:
    fields = "X-Forwarded-For: 203.0.113.9\r\nForwarded: for=198.51.100.1\r\n"
    one, other = asked(), asked(forwarded_header="forwarded")
    assert "HTTP_FORWARDED" not in one(fields).variables
    assert "HTTP_X_FORWARDED_FOR" not in other(fields).variables
    assert (one.conn.client[0], other.conn.client[0]) == ("203.0.113.9", "198.51.100.1")


def test_a_head_without_them_is_not_touched(asked: Any) -> None:
    one = asked()
    head = parsed("Accept: a\r\n")
    assert one.forwarding.amend(one.conn, head) is head
    head = parsed("X-Forwarded-For: 203.0.113.9\r\n")
    assert one.forwarding.amend(one.conn, head) is head


def test_any_fields_give_an_origin_or_a_400(asked: Any) -> None:
    chance = random.Random(1)
    names = ["Forwarded", *(name.title() for name in FIVE), "X_Forwarded_For", "X-Real-IP"]
    values = ["1.2.3.4", "10.0.0.8", "unknown", "::1", "[::1]:1", "https", "for=1.2.3.4", '"', ""]
    values += ["for=_x;proto=http", "a.example", "/p", "80", "bad value", ", ,", "\xff", "*"]
    standard, extended = asked(forwarded_header="forwarded"), asked(forwarded_header=FIVE)

    def field() -> str:
        value = ", ".join(chance.choices(values, k=chance.randrange(4)))
        return f"{chance.choice(names)}: {value}\r\n"

    for _ in range(3000):
        fields = "".join(field() for _ in range(chance.randrange(4)))
        for one in (standard, extended):
            try:
                head = one(fields)
            except ProtocolError as error:
                assert error.status == 400
                continue
            assert one.conn.scheme in ("http", "https")
            assert head.variables.get("HTTP_HOST")
