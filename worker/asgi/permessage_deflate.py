"""permessage-deflate (RFC 7692) for wsproto: negotiated to the letter, and bounded."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

from wsproto.extensions import PerMessageDeflate
from wsproto.frame_protocol import CloseReason, Opcode, RsvBits

if TYPE_CHECKING:
    from wsproto.frame_protocol import FrameDecoder, FrameProtocol

_NAME = "permessage-deflate"
_NO_MORE = b"\x00\x00\xff\xff"


class BoundedDeflate(PerMessageDeflate):
    """Inflates `limit` octets a message at most; more is answered with 1009.

    wsproto's own inflates whatever comes, and forgets that a message is compressed when a control
    frame stands between its fragments.
    """

    def __init__(self, limit: int) -> None:
        super().__init__()
        self._limit = limit
        self._inflated = 0
        self._compressed = False
        self._control = False

    def frame_inbound_header(
        self,
        proto: FrameDecoder | FrameProtocol,  # noqa: ARG002
        opcode: Opcode,
        rsv: RsvBits,
        payload_length: int,  # noqa: ARG002
    ) -> CloseReason | RsvBits:
        self._control = opcode.iscontrol()
        if self._control or opcode is Opcode.CONTINUATION:
            return RsvBits(False, False, False)  # only the first frame of a message says it
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
            # a client may end a block for good (RFC 7692, 7.2.3.4)
            if data == _NO_MORE and self._decompressor is not None:
                return b""
            self._decompressor = zlib.decompressobj(-15)  # a smaller window is in it
        allowed = self._limit - self._inflated
        try:
            inflated = self._decompressor.decompress(data, allowed + 1)
        except zlib.error:
            return CloseReason.INVALID_FRAME_PAYLOAD_DATA
        self._inflated += len(inflated)
        if self._inflated > self._limit:
            return CloseReason.MESSAGE_TOO_BIG
        return inflated


def negotiate(offers: str, limit: int) -> tuple[BoundedDeflate, str] | None:
    """The first of `offers`, a Sec-WebSocket-Extensions, that can be taken, and what to answer."""
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
    """What is answered to an offer's parameters; None declines it (RFC 7692, 7.1)."""
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
            # 8 is what zlib cannot write
            if value not in ("9", "10", "11", "12", "13", "14", "15"):
                return None
            accepted.append(f"{name}={value}")
        elif name == "client_max_window_bits":
            # a hint that any window will do, or the most that the client will use
            if equals and value not in ("8", "9", "10", "11", "12", "13", "14", "15"):
                return None
        else:
            return None
    return accepted
