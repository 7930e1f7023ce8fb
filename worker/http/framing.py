"""The length of a response body, and its Content-Length (RFC 9110, 8.6)."""

from __future__ import annotations

import logging
import math

from ..messages import RequestReceived
from ..request_id import named

log = logging.getLogger("threadwell")

# RFC 9110, 15.3.5, 15.3.6 and 15.4.5.
STATUSES_WITHOUT_BODY = frozenset((204, 205, 304))


def length_of_body(
    status: int, head: RequestReceived | None, length: int | None, declared: int
) -> tuple[bytes, float, bool]:
    """Decide the framing of a response.

    `length` is that of the body, None for a stream; `declared` is the application's Content-Length,
    or -1. Returns the Content-Length field line (empty if the length is unknown), how many octets
    of body may follow, and whether the body is shorter than declared.
    """
    if status in STATUSES_WITHOUT_BODY or (head is not None and head.method == "HEAD"):
        return _length_without_body(status, length, declared), 0, False
    if length is None and declared < 0:
        return b"", math.inf, False
    said = declared if declared >= 0 else length or 0
    allowed = said if length is None else min(said, length)
    if length is not None and length < said:
        log_short(head, said - length)
    elif length is not None and length > said:
        log_long(head, status)
    return b"Content-Length: %d\r\n" % said, allowed, length is not None and length < said


def log_short(head: RequestReceived | None, missing: float) -> None:
    """Warn of a response whose body is `missing` bytes shorter than declared."""
    log.warning("%s has a body %d bytes shorter than declared", _answer_to(head), missing)


def log_long(head: RequestReceived | None, status: int) -> None:
    """Warn of a response whose body exceeds its declared length, unless it has no body at all."""
    if status not in STATUSES_WITHOUT_BODY and (head is None or head.method != "HEAD"):
        log.warning("%s has a longer body than declared; it was cut", _answer_to(head))


def _answer_to(head: RequestReceived | None) -> str:
    return "An answer" if head is None else f"The answer to {named(head)}"


def _length_without_body(status: int, length: int | None, declared: int) -> bytes:
    """RFC 9110, 8.6: 204 has no Content-Length; HEAD and 304 may have that of the GET.

    A client reads a body after 205 as after 200 (RFC 9112, 6.3), so its length must be said: 0.
    """
    if status == 205:
        return b"Content-Length: 0\r\n"
    if status == 204 or (status == 304 and declared < 0):
        return b""
    if declared < 0 and length is None:
        return b""
    return b"Content-Length: %d\r\n" % (declared if declared >= 0 else length or 0)
