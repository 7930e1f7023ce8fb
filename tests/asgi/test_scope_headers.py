"""The headers of scopes are those of the field lines, however often a head like it has come."""

from __future__ import annotations

import random

from threadwell.worker import Limits
from threadwell.worker.asgi.scope_headers import HeaderLists, Headers
from threadwell.worker.http1.parser import RequestParser

SECRET = ("Cookie", "Authorization", "If-None-Match", "Referer", "Content-Length")
OTHER = ("Host", "Accept", "User-Agent", "X_Underscore", "cookie2", "Set-Cookie")
VALUES = ("", "a", "a b", "\xe9", "x: y", "Cookie: b", "a" * 300)


def as_specified(block: bytes) -> Headers:
    _, *lines = block.split(b"\r\n")
    split = (line.partition(b":") for line in lines)
    return [(name.lower(), value.strip(b" \t")) for name, _, value in split]


def block_of(lines: list[str]) -> bytes:
    return "\r\n".join(["HTTP/1.1", *lines]).encode("latin-1")


def test_the_headers_of_any_heads_in_any_order() -> None:
    choose = random.Random(42)
    shapes = [
        [
            (choose.choice((*SECRET, *OTHER)), choose.choice((": ", ": ", ": ", ":", ":\t ")))
            for _ in range(choose.randrange(7))
        ]
        for _ in range(40)
    ]
    lists = HeaderLists()
    for _ in range(4000):
        shape = choose.choice(shapes)
        block = block_of(
            [
                name + colon + choose.choice(VALUES) + choose.choice(("", "", " "))
                for name, colon in shape
            ]
        )
        assert lists.of(block) == as_specified(block), block


def test_a_line_more_within_a_known_head() -> None:
    lists = HeaderLists()
    for number in range(5):
        known = block_of(["Host: x", f"Cookie: a={number}", "Accept: b"])
        assert lists.of(known) == as_specified(known)
    for lines in (
        ["Host: x", "Cookie: a", "X-More: b", "Accept: b"],
        ["Host: x", "Cookie: a", "Accept: b", "Accept: b"],
        ["Host: x", "Cookie: a", "Accept: b", "X-More: b"],
        ["Host: x", "Cookie: a"],
        ["Host: x", "Cookie: a", "Accept: bc"],
    ):
        block = block_of(lines)
        assert lists.of(block) == as_specified(block)


def test_each_list_is_the_callers_own() -> None:
    lists = HeaderLists()
    block = block_of(["Host: x", "Accept: b"])
    for _ in range(5):
        headers = lists.of(block)
        assert headers == as_specified(block)
        headers.clear()


def test_no_secret_is_kept() -> None:
    lists = HeaderLists()
    for number in range(5):
        lists.of(
            block_of(["Host: x", f"Cookie: secret{number}", "Authorization: secret", "Accept: b"])
        )
    assert "secret" not in repr([vars(lists), [common.variables for common in lists._known]])
    assert "Accept" in repr(vars(lists))


def test_what_is_kept_is_bounded() -> None:
    lists = HeaderLists()
    for number in range(3000):
        for _ in range(3):
            lists.of(block_of([f"X-{number}: {number}", "Cookie: a"]))
    assert len(lists._lines) <= 1024
    assert len(lists._layouts) <= 16


def test_the_headers_of_heads_that_a_parser_knows() -> None:
    lists, parser = HeaderLists(), RequestParser(Limits())
    forms = (
        ["Host: x", "Cookie: {}", "Accept: b", "If-None-Match:  {} "],
        ["host: x", "authorization: {}", "Content-Length: 1{}"],
        ["Host: x", "Sec-WebSocket-Key: a", "Referer: {}"],
        ["Host: x"],
        ["Host: x", "Accept: a", "Accept: {}"],  # for h11
    )
    for value in range(100):
        for form in forms:
            lines = [line.format(f"{value}\xe9" if "Cookie" in line else value) for line in form]
            head = parser.parse(b"GET / " + block_of(lines))
            headers = lists.of_head(head)
            assert headers == as_specified(head.block)
            headers.clear()
            assert head.variables  # made, for a log or a proxy
            assert lists.of_head(head) == as_specified(head.block)


def test_no_secret_of_such_heads_is_kept_and_what_is_kept_is_bounded() -> None:
    lists, parser = HeaderLists(), RequestParser(Limits())
    for number in range(300):
        for _ in range(3):
            lines = ["Host: x", f"X-A: {number}", "Cookie: secret", "Authorization: secret"]
            lists.of_head(parser.parse(b"GET / " + block_of(lines)))
    assert "secret" not in repr([vars(lists), [common.variables for common in lists._known]])
    assert 0 < len(lists._known) <= 128
