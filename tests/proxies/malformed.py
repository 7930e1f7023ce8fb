"""Malformed elements of `Forwarded`, for the tests that parse them and those that refuse them."""

from __future__ import annotations

MALFORMED_FORWARDED = [
    "for",
    "for=",
    "=a",
    "for =a",
    "for= a",
    "for=a b",
    "for=a;for=b",
    "for=a;For=a",
    "for=192.0.2.1:80",  # a colon is for quoted strings only
    "for=[::1]",
    'for="a',
    'for=a"',
    'for="a"b',
    'for="a"for=b',
    'for="a\\"',
    "for=a&proto=b;c",
    "for=a/b",
    'for="x, for=192.0.2.1',  # a client's open quote in front of what the proxy has added
    'for=6.6.6.6;by=", for="[2001:db8::1]"',
    "for=(a)",
    "für=a",
    ";=",
]
