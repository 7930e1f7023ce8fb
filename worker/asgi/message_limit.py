"""The limit for a WebSocket message, enforced at the header of the frame that exceeds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from wsproto.extensions import Extension
from wsproto.frame_protocol import CloseReason, Opcode, RsvBits

if TYPE_CHECKING:
    from wsproto.frame_protocol import FrameDecoder, FrameProtocol

TOO_BIG = "the message is larger than limit_ws_message allows"

# Made once: every frame asks for them.
_NO_BITS = RsvBits(False, False, False)
_CONTINUATION = Opcode.CONTINUATION
_DATA = (Opcode.BINARY, Opcode.TEXT, Opcode.CONTINUATION)


class MessageLimit(Extension):
    """Closes with 1009 as soon as the frames of a message announce more than `limit` octets.

    wsproto takes a frame of any length, and would tell of it only as its payload comes. It is an
    extension to wsproto alone: nothing of it is negotiated.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        # Octets that cannot be compressed become more. zlib needs less than a thousandth; the size
        # that counts is measured as the message is inflated.
        self._limit_of_compressed = limit + limit // 8 + 1024
        self._is_control = False
        self._is_compressed = False
        # the octets of the message in the frames that are complete, and with the current frame: a
        # header that is not complete is parsed again
        self._before = self._announced = 0
        #: Why the WebSocket was closed; empty if it was not.
        self.failure = ""

    def enabled(self) -> bool:
        """Always."""
        return True

    def offer(self) -> bool:
        """Never: both sides of a connection have limits of their own."""
        return False

    def frame_inbound_header(
        self,
        proto: FrameDecoder | FrameProtocol,  # noqa: ARG002
        opcode: Opcode,
        rsv: RsvBits,
        payload_length: int,
    ) -> CloseReason | RsvBits:
        self._is_control = opcode not in _DATA
        if not self._is_control:
            if opcode is not _CONTINUATION:
                self._before = 0
                self._is_compressed = rsv.rsv1
            self._announced = self._before + payload_length
            limit = self._limit_of_compressed if self._is_compressed else self._limit
            if self._announced > limit:
                self.failure = TOO_BIG
                return CloseReason.MESSAGE_TOO_BIG
        return _NO_BITS

    def frame_inbound_complete(
        self,
        proto: FrameDecoder | FrameProtocol,  # noqa: ARG002
        fin: bool,  # noqa: ARG002
    ) -> None:
        if not self._is_control:
            self._before = self._announced
