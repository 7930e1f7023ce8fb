"""How long a response body is, and which Content-Length follows from that (RFC 9110, 8.6)."""

from __future__ import annotations

import logging
import math

from ..messages import RequestReceived

log = logging.getLogger("threadwell")


def length_of_body(
    status: int, head: RequestReceived | None, length: int | None, declared: int
) -> tuple[bytes, float, bool]:
    """The line that says the length, how much body may follow, and whether that is too little.

    `length` is the body's, None for one that is still being made; `declared` what the application
    says of it, or -1. The line is empty where no length can be said.
    """
    if status in (204, 304) or (head is not None and head.method == "HEAD"):
        return _length_without_body(status, length, declared), 0, False
    if length is None and declared < 0:
        return b"", math.inf, False
    said = declared if declared >= 0 else length or 0
    allowed = said if length is None else min(said, length)
    if length is not None and length != said:
        log.warning("An application declared %d bytes of body and gave %d", said, length)
    return b"Content-Length: %d\r\n" % said, allowed, length is not None and length < said


def _length_without_body(status: int, length: int | None, declared: int) -> bytes:
    """RFC 9110, 8.6: a 204 says no length; HEAD and 304 may say what GET would."""
    if status == 204 or (status == 304 and declared < 0):
        return b""
    if declared < 0 and length is None:
        return b""
    return b"Content-Length: %d\r\n" % (declared if declared >= 0 else length or 0)
