"""A request head that arrives in pieces, on threads and on loops alike."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..tls.wrong_port import began_handshake

if TYPE_CHECKING:
    from .parser import RequestParser


class HeadBuffer:
    """The octets of a head that is not whole yet. Belongs to its connection's owner.

    What was searched is not searched again, so that a client that sends an octet at a time costs
    no more than one that sends them together.
    """

    __slots__ = ("_octets", "_searched", "_skipped")

    def __init__(self, data: bytes) -> None:
        self._octets = bytearray(data)
        self._searched = 0
        self._skipped = 0

    def __len__(self) -> int:
        """How many octets have come; 0 after empty lines alone, which are no part of a head."""
        return len(self._octets)

    def append(self, data: bytes) -> None:
        """Add what was received."""
        self._octets += data

    def take(self, parser: RequestParser) -> tuple[bytes, bytes] | None:
        """The head, without its empty line, and the octets behind it; None while it is not whole.

        Raises `ProtocolError` for what cannot become a head any more.
        """
        octets = self._octets
        if octets.startswith(b"\r\n"):  # RFC 9112, 2.2: empty lines before the request line
            empty = parser.skip_empty_lines(octets, self._skipped)
            self._skipped += empty
            del octets[:empty]
            self._searched = 0
        end = octets.find(b"\r\n\r\n", max(self._searched - 3, 0))
        if end > 0:
            return bytes(octets[:end]), bytes(octets[end + 4 :])
        parser.unfinished(octets, self._searched)
        self._searched = len(octets)
        return None

    def began_handshake(self) -> bool:
        """Whether the octets are a TLS handshake, on a port without TLS."""
        return began_handshake(self._octets)
