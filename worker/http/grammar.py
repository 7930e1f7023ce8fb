"""The octets that HTTP allows in names, values and targets, as tables for fast checks."""

from __future__ import annotations

import re

from ..messages import cgi_name

# RFC 9110, 5.6.2 and 5.5. `bytes.translate` deletes the allowed octets in one pass in C; whatever
# is left is forbidden.
TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
FIELD_VALUE = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])
# The same set as a table that changes only forbidden octets: faster for short field lines.
FIELD_CHECK = bytes(octet if octet in FIELD_VALUE else 1 - (octet == 1) for octet in range(0x100))
# RFC 3986 allows fewer octets, but browsers send | ^ { } " unescaped in a query. A
# fragment is never sent, so # is forbidden.
TARGET_CHECK = bytes(
    octet if 0x21 <= octet < 0x7F and octet != ord("#") else 1 - (octet == 1)
    for octet in range(0x100)
)
# RFC 3986, 3.2.2: a name or an IPv4 address, or an IP literal; then a port. No userinfo.
HOST = re.compile(
    r"(?:[A-Za-z0-9._~!$&'()*+;=-]|%[0-9A-Fa-f]{2})*(?::[0-9]{0,5})?"
    r"|\[[0-9A-Fa-fvV:.%A-Za-z_~-]+\](?::[0-9]{0,5})?"
)
LARGEST_SIZE = 2**63 - 1
LONGEST_LENGTH = len(str(LARGEST_SIZE)) - 1
# Field lines that are secret, or rarely repeated, are not cached.
NEVER_CACHED = frozenset(
    cgi_name(name)
    for name in (
        "authorization cookie proxy-authorization x-csrftoken x-csrf-token x-api-key"
        " if-none-match if-modified-since referer content-length"
        " x-request-id traceparent tracestate forwarded x-forwarded-for x-real-ip"
    ).split()
)
