"""What proxies write of the way of a request: how it is read."""

from __future__ import annotations

import functools
import random
import time
from collections.abc import Callable
from typing import Any

import pytest

from threadwell.worker.proxies.trust import forwarded

from .malformed import MALFORMED_FORWARDED


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        ("for=192.0.2.43", [{"for": "192.0.2.43"}]),
        ('For="[2001:db8:cafe::17]:4711"', [{"for": "[2001:db8:cafe::17]:4711"}]),
        (
            "for=192.0.2.60;proto=http;by=203.0.113.43",
            [{"for": "192.0.2.60", "proto": "http", "by": "203.0.113.43"}],
        ),
        ("for=192.0.2.43, for=198.51.100.17", [{"for": "192.0.2.43"}, {"for": "198.51.100.17"}]),
        ("for=a,for=b", [{"for": "a"}, {"for": "b"}]),
        ("for=a; proto=https ,\tfor=b", [{"for": "a", "proto": "https"}, {"for": "b"}]),
        (",for=a,,for=b,", [{"for": "a"}, {"for": "b"}]),
        ("for=a;;proto=http;", [{"for": "a", "proto": "http"}]),
        (r'host="a\"b\\c"', [{"host": r"a\"b\c".replace(r"\"", '"')}]),
        ('for="a,b;c=d", for=e', [{"for": "a,b;c=d"}, {"for": "e"}]),
        ('for=""', [{"for": ""}]),
        ("secret=x;FOR=_hidden", [{"secret": "x", "for": "_hidden"}]),
    ],
)
def test_elements(text: str, expected: list[dict[str, str]]) -> None:
    assert forwarded.elements(text) == expected


@pytest.mark.parametrize("text", MALFORMED_FORWARDED)
def test_malformed_elements(text: str) -> None:
    with pytest.raises(ValueError, match="parameter"):
        forwarded.elements(text)


def test_any_text_is_elements_or_malformed() -> None:
    chance = random.Random(7239)
    pieces = ["for=", "a", '"', "\\", ";", ",", "=", " ", "\t", "[::1]", "proto=https", "_x", "é"]
    for _ in range(5000):
        text = "".join(chance.choices(pieces, k=chance.randrange(12)))
        try:
            found = forwarded.elements(text)
        except ValueError:
            continue
        assert all(element and all(element) for element in found), text


@pytest.mark.parametrize(
    ("text", "address", "port"),
    [
        ("192.0.2.43", "192.0.2.43", 0),
        ("192.0.2.43:47011", "192.0.2.43", 47011),
        ("192.0.2.43:_port", "192.0.2.43", 0),
        ("[2001:DB8::0:1]", "2001:db8::1", 0),
        ("[2001:db8::1]:80", "2001:db8::1", 80),
        ("[::ffff:192.0.2.43]", "192.0.2.43", 0),
        ("unknown", "None", 0),
        ("Unknown", "None", 0),
        ("_SEVKISEK", "None", 0),
        ("_hidden.one-1:_two", "None", 0),
    ],
)
def test_nodes(text: str, address: str, port: int) -> None:
    found = forwarded.node(text, bare_ipv6=False)
    assert (str(found.address), found.port) == (address, port)
    assert forwarded.node(text, bare_ipv6=True) == found


MALFORMED_NODES = [
    "",
    "_",
    "hidden",
    "localhost",
    "192.0.2",
    "192.0.2.256",
    "192.0.2.043",
    "1.2.3.4.5",
    "192.0.2.1:",
    "192.0.2.1:65536",
    "192.0.2.1:123456",
    "192.0.2.1:-1",
    "192.0.2.1:http",
    "192.0.2.1/8",
    "[192.0.2.1]",
    "[::1",
    "::1]",
    "[]",
    "[::1]80",
    "[fe80::1%eth0]",
    "[1::2::3]",
    "[12345::]",
    " 192.0.2.1",
    "٣.1.1.1",
    "unknown, 1.2.3.4",
    "0x7f.0.0.1",
    "2130706433",
]


@pytest.mark.parametrize("text", MALFORMED_NODES)
@pytest.mark.parametrize("bare_ipv6", [True, False])
def test_malformed_nodes(text: str, bare_ipv6: bool) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        forwarded.node(text, bare_ipv6=bare_ipv6)


@pytest.mark.parametrize(
    ("read", "text"),
    [
        (functools.partial(forwarded.node, bare_ipv6=True), ":" * 1000 + "x"),
        (forwarded.elements, "for=a," + " " * 8000 + "x"),
        (forwarded.elements, 'for="' + "\\a" * 4000),
    ],
)
def test_nothing_takes_long_to_be_refused(read: Callable[[str], Any], text: str) -> None:
    started = time.process_time()
    with pytest.raises(ValueError):  # noqa: PT011
        read(text)
    assert time.process_time() - started < 0.2


def test_an_ipv6_address_without_brackets_is_for_x_forwarded_for_alone() -> None:
    assert str(forwarded.node("2001:db8::1", bare_ipv6=True).address) == "2001:db8::1"
    with pytest.raises(ValueError, match="names no address"):
        forwarded.node("2001:db8::1", bare_ipv6=False)


@pytest.mark.parametrize("text", ["ftp", "", "https ", "http:", "javascript", "httpss"])
def test_no_schemes(text: str) -> None:
    with pytest.raises(ValueError, match="scheme"):
        forwarded.scheme(text)


@pytest.mark.parametrize(
    "text",
    ["", "a b", "a:b", "a:0", "a:65536", "a/b", "a@b", "[::1", "::1", "[x]", "a,b", "h" * 300],
)
def test_no_hosts(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011
        forwarded.host(text)


@pytest.mark.parametrize(
    "text", ["api", "//evil.example", "/a//b", "/a/../b", "/.", "/a?b", "/a b", "/%2e%2e", "\\a"]
)
def test_no_prefixes(text: str) -> None:
    with pytest.raises(ValueError, match="path"):
        forwarded.prefix(text)
