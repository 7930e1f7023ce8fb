"""The body of a `Response`, whatever it is made of."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from typing import BinaryIO, cast

from ..messages import FileBody, Request, Response

log = logging.getLogger("threadwell")

#: Octets of a file that are read at once, where the kernel cannot send it.
FILE_BLOCK = 64 * 1024


def blocks_of(response: Response) -> Iterator[bytes]:
    body = response.body
    if isinstance(body, FileBody):
        return _file_blocks(body)
    blocks = cast("Iterable[bytes]", [body] if isinstance(body, bytes) else body)
    return filter(None, blocks)


def _file_blocks(file: FileBody) -> Iterator[bytes]:
    """A file behind what was pushed, whose framing the kernel does not know. The caller closes it:
    where no octet may follow, nobody asks for the first."""
    while file.count and (block := read_some(file, min(file.count, FILE_BLOCK))):
        file.offset += len(block)
        file.count -= len(block)
        yield block


def has_no_body(request: Request, response: Response) -> bool:
    """Whether nothing may follow the head of this answer."""
    return request.method == "HEAD" or response.code in (204, 304)


def is_event_stream(response: Response) -> bool:
    """Whether this is of the kind that nothing but its client's leaving ends."""
    return any(
        name.lower() == "content-type" and value.lower().startswith("text/event-stream")
        for name, value in response.headers
    )


def declares_length(response: Response) -> bool:
    """Whether the application has said how long the body will be."""
    return any(name.lower() == "content-length" for name, _ in response.headers)


def with_first_block(response: Response, blocks: Iterator[bytes]) -> tuple[Response, bytes]:
    """`response` as the application wants it by then, and its first block; empty without one."""
    first = next(blocks, b"")
    if response.revise is not None:
        status, headers = response.revise()
        response = Response(status, headers, response.body)
    return response, first


def close_body(body: bytes | BinaryIO) -> None:
    """Let go of what the client has sent."""
    if not isinstance(body, bytes):
        with contextlib.suppress(ValueError):  # the application has detached what is in it
            body.close()


def close_response(close: Callable[[], object]) -> None:
    """Call what the application wants called at the end; an error there is the application's."""
    try:
        close()
    except BaseException:
        log.exception("The application failed in close()")


def read_some(file: FileBody, size: int) -> bytes:
    """The next octets of `file`. Its position is the application's: the descriptor is a copy."""
    if hasattr(os, "pread"):
        return os.pread(file.fd, size, file.offset)
    os.lseek(file.fd, file.offset, os.SEEK_SET)
    return os.read(file.fd, size)
