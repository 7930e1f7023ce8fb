"""What HTTP allows in names, values and targets, in a form that is quick to check."""

from __future__ import annotations

import re

from ..messages import cgi_name

# RFC 9110, 5.6.2 and 5.5. Deleting the allowed octets leaves the forbidden ones: one pass in C.
TOKEN = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
FIELD_VALUE = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])
# The same as a table that changes the forbidden octets only: quicker, where lines are short.
FIELD_CHECK = bytes(octet if octet in FIELD_VALUE else 1 - (octet == 1) for octet in range(0x100))
# RFC 3986 has fewer, but browsers send | ^ { } " in a query unescaped. A fragment is never sent.
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
# Lines that are secret, or that hardly ever come twice, are not worth remembering.
NEVER_CACHED = frozenset(
    cgi_name(name)
    for name in (
        "authorization cookie proxy-authorization x-csrftoken x-csrf-token x-api-key"
        " if-none-match if-modified-since referer traceparent x-request-id content-length"
    ).split()
)
