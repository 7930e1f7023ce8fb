"""The body of a `Response`: bytes, blocks or a file."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, cast

from ..messages import FileBody, Request, RequestReceived, Response
from ..request_id import named
from .framing import STATUSES_WITHOUT_BODY

log = logging.getLogger("threadwell")

#: Octets of a file that are read at once, where the kernel cannot send it.
FILE_BLOCK = 64 * 1024


#: How many blocks are taken and dropped of a body whose declared length is out.
MOST_DISCARDED_BLOCKS = 100


def source_of(response: Response) -> Iterator[bytes]:
    """Iterate over the blocks of the body of `response`, empty ones included."""
    body = response.body
    if isinstance(body, FileBody):
        return _file_blocks(body)
    return iter(cast("Iterable[bytes]", [body] if isinstance(body, bytes) else body))


def _file_blocks(file: FileBody) -> Iterator[bytes]:
    # For a file that follows pushed data: it needs framing, so `sendfile` cannot send it. The
    # caller closes the descriptor, for this generator does not start if no octet may be sent.
    while file.count and (block := read_some(file, min(file.count, FILE_BLOCK))):
        file.offset += len(block)
        file.count -= len(block)
        yield block


def has_no_body(request: Request, response: Response) -> bool:
    """Whether `response` has no body (RFC 9110, 6.4.1)."""
    return request.head.method == "HEAD" or response.code in STATUSES_WITHOUT_BODY


def is_event_stream(response: Response) -> bool:
    """Whether `response` is a server-sent event stream, which only the client ends."""
    for name, value in response.headers:
        if name.lower() == "content-type" and value.lower().startswith("text/event-stream"):
            return True
    return False


def declares_length(response: Response) -> bool:
    """Whether the application set Content-Length."""
    return "content-length" in [name.lower() for name, _ in response.headers]


def revised(response: Response) -> Response:
    """`response` as its `revise` wants it, now that the first block of its body is made."""
    if response.revise is not None:
        status, headers = response.revise()
        if status is not response.status or headers is not response.headers:
            return Response(status, headers, response.body)
    return response


def close_body(body: bytes | BinaryIO) -> None:
    """Close the request body, if it is a file."""
    if not isinstance(body, bytes):
        with contextlib.suppress(ValueError):  # the application has detached the raw file
            body.close()


def close_response(close: Callable[[], object], head: RequestReceived | None = None) -> None:
    """Call `close` of a response to `head`, and log its errors."""
    try:
        close()
    except BaseException:
        of = "" if head is None else f" of its answer to {named(head)}"
        log.exception("The application failed in close()%s", of)


def read_some(file: FileBody, size: int) -> bytes:
    """Read the next octets of `file` at its offset.

    The descriptor is a copy that shares its position with the application's, so `pread` is used.
    """
    if hasattr(os, "pread"):
        return os.pread(file.fd, size, file.offset)
    os.lseek(file.fd, file.offset, os.SEEK_SET)
    return os.read(file.fd, size)
