"""permessage-deflate (RFC 7692) for wsproto: negotiated strictly, and with a limit."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import CloseReason, Opcode, RsvBits

from .message_limit import TOO_BIG

if TYPE_CHECKING:
    from wsproto.frame_protocol import FrameDecoder, FrameProtocol

_NAME = "permessage-deflate"
_NO_MORE = b"\x00\x00\xff\xff"


class BoundedDeflate(PerMessageDeflate):
    """Inflates at most `limit` octets a message. A larger message is closed with 1009.

    The class of wsproto has no limit, and forgets that a message is compressed when a control frame
    comes between its fragments.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self._inflated = 0
        self._compressed = False
        self._control = False
        #: Why the WebSocket was closed; empty if it was not.
        self.failure = ""

    def frame_inbound_header(
        self,
        proto: FrameDecoder | FrameProtocol,  # noqa: ARG002
        opcode: Opcode,
        rsv: RsvBits,
        payload_length: int,  # noqa: ARG002
    ) -> CloseReason | RsvBits:
        self._control = opcode.iscontrol()
        if self._control or opcode is Opcode.CONTINUATION:
            return RsvBits(False, False, False)  # only the first frame of a message has the bit
        self._compressed = rsv.rsv1
        self._inflated = 0
        return RsvBits(True, False, False)

    def frame_inbound_payload_data(
        self,
        proto: FrameDecoder | FrameProtocol,  # noqa: ARG002
        data: bytes,
    ) -> bytes | CloseReason:
        return data if self._control or not self._compressed else self._inflate(data)

    def frame_inbound_complete(
        self,
        proto: FrameDecoder | FrameProtocol,  # noqa: ARG002
        fin: bool,
    ) -> bytes | CloseReason | None:
        if self._control or not self._compressed or not fin:
            return None
        data = self._inflate(_NO_MORE)
        self._compressed = False
        if self.client_no_context_takeover:
            self._decompressor = None
        return data

    def _inflate(self, data: bytes) -> bytes | CloseReason:
        if self._decompressor is None or self._decompressor.eof:
            # a client may end a message with a final block (RFC 7692, 7.2.3.4)
            if data == _NO_MORE and self._decompressor is not None:
                return b""
            self._decompressor = zlib.decompressobj(-15)  # which decodes smaller windows too
        allowed = self._limit - self._inflated
        try:
            inflated = self._decompressor.decompress(data, allowed + 1)
        except zlib.error as error:
            self.failure = f"its compressed data is not valid: {error}"
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        self._inflated += len(inflated)
        if self._inflated > self._limit:
            self.failure = TOO_BIG
            return CloseReason.MESSAGE_TOO_BIG
        return inflated


def negotiate(offers: str, limit: int) -> tuple[BoundedDeflate, str] | None:
    """The extension for the first acceptable offer in `offers`, the Sec-WebSocket-Extensions of a
    request, and the value for that field of the response; None if no offer is acceptable."""
    for offer in offers.split(","):
        name, *parameters = (part.strip() for part in offer.split(";"))
        if name.lower() == _NAME:
            accepted = _accept(parameters)
            if accepted is not None:
                extension = BoundedDeflate(limit)
                extension.finalize("; ".join([_NAME, *accepted]))
                return extension, "; ".join([_NAME, *accepted])
    return None


def _accept(parameters: list[str]) -> list[str] | None:
    """The parameters that answer those of an offer; None declines the offer (RFC 7692, 7.1)."""
    accepted: list[str] = []
    seen: set[str] = set()
    for parameter in parameters:
        name, equals, value = (part.strip() for part in parameter.partition("="))
        value = value.strip('"')
        if name in seen:
            return None
        seen.add(name)
        if name in ("server_no_context_takeover", "client_no_context_takeover"):
            if equals:
                return None
            accepted.append(name)
        elif name == "server_max_window_bits":
            # zlib cannot compress with a window of 8 bits
            if value not in ("9", "10", "11", "12", "13", "14", "15"):
                return None
            accepted.append(f"{name}={value}")
        elif name == "client_max_window_bits":
            # the client accepts any window, or limits its own: neither needs an answer
            if equals and value not in ("8", "9", "10", "11", "12", "13", "14", "15"):
                return None
        else:
            return None
    return accepted
