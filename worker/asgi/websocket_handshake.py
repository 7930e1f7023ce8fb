"""The key of a WebSocket handshake, and its answer (RFC 6455, 4.2)."""

from __future__ import annotations

import base64
import binascii
import hashlib

# RFC 6455, 1.3
_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def is_handshake_key(key: str) -> bool:
    """Whether `key` is sixteen octets in base64 (RFC 6455, 4.2.1)."""
    try:
        return len(base64.b64decode(key, validate=True)) == 16
    except (binascii.Error, ValueError):
        return False


def accept_value(key: str) -> str:
    """The value of Sec-WebSocket-Accept for `key` (RFC 6455, 4.2.2)."""
    digest = hashlib.sha1(key.encode("ascii") + _GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode("ascii")
