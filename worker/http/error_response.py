"""Answers that the server gives for itself: to what it refuses, and for applications that fail."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ..errors import StreamLimitError
from ..messages import Request, Response
from ..request_id import named
from .response_head import TEXT_PLAIN

if TYPE_CHECKING:
    from ..messages import Address
    from ..system.throttled_log import ThrottledLog

log = logging.getLogger("threadwell")


def refusal(status: int, message: str) -> Response:
    """The answer `status` with a line of text: the last one of its connection."""
    return Response(status, [TEXT_PLAIN], message.encode("latin-1", "replace") + b"\n")


def log_limit(throttled_log: ThrottledLog, client: Address, status: int, limit: str) -> None:
    """Log that a request was refused for the option `limit`; nothing if that is empty."""
    if limit:
        throttled_log.log(
            limit,
            logging.WARNING,
            "A request of %s was refused with %d: it is beyond %s",
            client[0] or "a unix socket",
            status,
            limit,
        )


def error_response(request: Request, error: BaseException) -> Response:
    """The answer for an application that raised `error`, which is logged. The client is told
    nothing of the cause."""
    if isinstance(error, StreamLimitError):
        log.warning("%s was refused: %s", named(request.head), error)
        return Response(503, [("Retry-After", "5"), TEXT_PLAIN], b"Too many streams are open\n")
    log_failure(request, error)
    return Response(500, [TEXT_PLAIN], b"Internal Server Error\n")


def log_failure(request: Request, error: BaseException) -> None:
    """Log with a traceback what the application raised."""
    log.error("The application failed on %s", named(request.head), exc_info=error)


def log_cut(request: Request, error: BaseException) -> None:
    """Log with a traceback what the application raised when a part of its answer had left."""
    log.error(
        "The application failed in the middle of its answer to %s",
        named(request.head),
        exc_info=error,
    )
