"""The answer to a request whose application has failed."""

from __future__ import annotations

import logging

from ..errors import StreamLimitError
from ..messages import Request, Response
from ..request_id import named
from .response_head import TEXT_PLAIN

log = logging.getLogger("threadwell")


def failed(request: Request, error: BaseException) -> Response:
    """The answer for an application that raised: no word of why, but in the log."""
    if isinstance(error, StreamLimitError):
        log.warning("%s was refused: %s", named(request.head), error)
        return Response(503, [("Retry-After", "5"), TEXT_PLAIN], b"Too many streams are open\n")
    log_failure(request, error)
    return Response(500, [TEXT_PLAIN], b"Internal Server Error\n")


def log_failure(request: Request, error: BaseException) -> None:
    log.error("The application failed on %s", named(request.head), exc_info=error)
