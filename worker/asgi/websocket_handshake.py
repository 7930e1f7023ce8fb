"""The handshake of a WebSocket: its key, and what the two sides agree on (RFC 6455, 4.2)."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING, NamedTuple

from ..errors import InvalidResponseError
from .message_limit import MessageLimit
from .permessage_deflate import BoundedDeflate, negotiate
from .writer import as_text

if TYPE_CHECKING:
    from ..config.groups import ASGI
    from ..messages import RequestReceived
    from .interfaces import Message

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


class Agreement(NamedTuple):
    """What is agreed on. `fields` say it to the client, `headers` are the application's."""

    fields: list[tuple[str, str]]
    headers: list[tuple[str, str]]
    extensions: list[MessageLimit | BoundedDeflate]


def agree(head: RequestReceived, message: Message, config: ASGI) -> Agreement:
    """What the application accepts with `message`, a `websocket.accept`, of what `head` offers.

    Raises `InvalidResponseError` for what the client has not offered.
    """
    fields = [("Sec-WebSocket-Accept", accept_value(head.field("sec-websocket-key")))]
    subprotocol = message.get("subprotocol")
    if subprotocol is not None:
        offered = [name.strip() for name in head.field("sec-websocket-protocol").split(",")]
        if subprotocol not in offered:
            raise InvalidResponseError(f"the client offers no subprotocol {subprotocol!r}")
        fields.append(("Sec-WebSocket-Protocol", subprotocol))
    extensions: list[MessageLimit | BoundedDeflate] = [MessageLimit(config.ws_message)]
    if config.ws_compression == "deflate":
        agreed = negotiate(head.field("sec-websocket-extensions"), config.ws_message)
        if agreed is not None:
            extensions.append(agreed[0])
            fields.append(("Sec-WebSocket-Extensions", agreed[1]))
    headers = [as_text(pair) for pair in message.get("headers") or ()]
    if any(name.lower() == "sec-websocket-protocol" for name, _ in headers):
        raise InvalidResponseError("the subprotocol does not go into a header")
    return Agreement(fields, headers, extensions)
