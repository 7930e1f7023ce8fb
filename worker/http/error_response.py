"""The response to a request whose application failed."""

from __future__ import annotations

import logging

from ..errors import StreamLimitError
from ..messages import Request, Response
from ..request_id import named
from .response_head import TEXT_PLAIN

log = logging.getLogger("threadwell")


def failed(request: Request, error: BaseException) -> Response:
    """Return the response for `error`, which the application raised.

    The log has the details; the response has none.
    """
    if isinstance(error, StreamLimitError):
        log.warning("%s was refused: %s", named(request.head), error)
        return Response(503, [("Retry-After", "5"), TEXT_PLAIN], b"Too many streams are open\n")
    log_failure(request, error)
    return Response(500, [TEXT_PLAIN], b"Internal Server Error\n")


def log_failure(request: Request, error: BaseException) -> None:
    log.error("The application failed on %s", named(request.head), exc_info=error)
