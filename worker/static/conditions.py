"""Conditional requests, ranges and content codings (RFC 9110, 13, 14 and 12.5.3).

`fields` are the header fields of a request by their CGI names.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Mapping
from email.utils import parsedate
from functools import lru_cache

_TAG = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')
_RANGE = re.compile(r"bytes=[ \t]*([0-9]{0,18})-([0-9]{0,18})", re.IGNORECASE)
_QUALITY = re.compile(r"q=([01](?:\.[0-9]{0,3})?)", re.IGNORECASE)

#: The fields on which `precondition` and `wanted_range` depend. If-Range needs a Range.
CONDITIONAL = frozenset(
    {
        "HTTP_IF_MATCH",
        "HTTP_IF_MODIFIED_SINCE",
        "HTTP_IF_NONE_MATCH",
        "HTTP_IF_UNMODIFIED_SINCE",
        "HTTP_RANGE",
    }
)


def precondition(fields: Mapping[str, str], etag: str, modified: int) -> int:
    """Evaluate the preconditions in the order of RFC 9110, 13.2.2. Returns 304, 412 or 0.

    `etag` is a strong validator; `modified` is in seconds since the epoch.
    """
    if wanted := fields.get("HTTP_IF_MATCH"):
        if not _matches(wanted, etag, weakly=False):
            return 412
    elif (date := _date(fields, "HTTP_IF_UNMODIFIED_SINCE")) is not None and modified > date:
        return 412
    if known := fields.get("HTTP_IF_NONE_MATCH"):
        return 304 if _matches(known, etag, weakly=True) else 0
    date = _date(fields, "HTTP_IF_MODIFIED_SINCE")
    return 304 if date is not None and modified <= date else 0


def wanted_range(
    fields: Mapping[str, str], size: int, etag: str, modified: int
) -> tuple[int, int] | None:
    """Return the start and the length of the requested range; None for the whole file.

    A length of 0 means that the range is not satisfiable (416). Invalid ranges, other units and
    multiple ranges are ignored, as RFC 9110, 14.2 allows.
    """
    match = _RANGE.fullmatch(fields.get("HTTP_RANGE", "").strip())
    if match is None or not _if_range_holds(fields, etag, modified):
        return None
    first, last = match.groups()
    if not first:
        if not last:
            return None
        length = min(int(last), size)
        return size - length, length
    if last and int(last) < int(first):
        return None
    begin = int(first)
    if begin >= size:
        return 0, 0
    return begin, min(int(last) if last else size - 1, size - 1) - begin + 1


@lru_cache(maxsize=64)
def accepted_codings(text: str) -> frozenset[str]:
    """Return the content codings that the Accept-Encoding `text` allows, `*` as itself."""
    accepted = set()
    for item in text.lower().split(","):
        coding, _, parameters = item.partition(";")
        quality = _QUALITY.fullmatch(parameters.strip())
        if quality is None or float(quality[1]):
            accepted.add(coding.strip().removeprefix("x-"))
    return frozenset(accepted)


def _matches(listed: str, etag: str, *, weakly: bool) -> bool:
    """Whether `etag` is in the list `listed`; weak tags match only if `weakly`."""
    if listed.strip() == "*":
        return True
    return any(match[2] == etag and (weakly or not match[1]) for match in _TAG.finditer(listed))


def _if_range_holds(fields: Mapping[str, str], etag: str, modified: int) -> bool:
    """Evaluate If-Range (RFC 9110, 13.1.5): whether the client has parts of the same file."""
    condition = fields.get("HTTP_IF_RANGE")
    if not condition:
        return True
    if condition.startswith(('"', "W/")):
        return condition.strip() == etag
    return _date(fields, "HTTP_IF_RANGE") == modified


def _date(fields: Mapping[str, str], name: str) -> int | None:
    """Return the date in the field `name` in seconds; None if it is missing or invalid."""
    text = fields.get(name)
    parts = parsedate(text) if text else None
    if parts is None:
        return None
    try:
        return calendar.timegm(parts)
    except (ValueError, OverflowError):
        return None
