"""Responses of the server itself: for requests that it refuses, and for applications that fail."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from ..app_kind import app_name
from ..errors import StreamLimitError
from ..messages import Request, Response
from ..request_id import named
from .response_head import TEXT_PLAIN

if TYPE_CHECKING:
    from ..errors import NeedsAsyncError
    from ..messages import Address, SyncApp
    from ..system.throttled_log import ThrottledLog

log = logging.getLogger("threadwell")

#: Why a request is for a loop: the texts of `NeedsAsyncError`.
RETURNED_NONE = "it returned None (is a `return` missing?)"
ASYNCHRONOUS_BODY = "its body is asynchronous"


def refusal(status: int, message: str) -> Response:
    """The answer `status` with a line of text: the last one of its connection."""
    return Response(status, [TEXT_PLAIN], message.encode("latin-1", "replace") + b"\n")


def log_limit(throttled_log: ThrottledLog, client: Address, status: int, limit: str) -> None:
    """Log that a request was refused for the option `limit`; nothing if that is empty."""
    if limit:
        throttled_log.log(
            limit,
            logging.WARNING,
            "A request of %s was refused with %d: it exceeds %s",
            client[0] or "a unix socket",
            status,
            limit,
        )


def error_response(request: Request, error: BaseException, mistake: str = "") -> Response:
    """The answer for an application that failed with `error`, which is logged as by `log_failure`.
    The client is told nothing of the cause."""
    if isinstance(error, StreamLimitError):
        log.warning("%s was refused: %s", named(request.head), error)
        return Response(503, [("Retry-After", "5"), TEXT_PLAIN], b"Too many streams are open\n")
    log_failure(request, error, mistake)
    return Response(500, [TEXT_PLAIN], b"Internal Server Error\n")


def log_failure(request: Request, error: BaseException, mistake: str = "") -> None:
    """Log with a traceback what the application raised, or the `mistake` in its answer."""
    _log(f"The application failed on {named(request.head)}", error, mistake)


def log_cut(request: Request, error: BaseException, mistake: str = "") -> None:
    """As `log_failure`, when a part of the answer had left."""
    of = named(request.head)
    _log(f"The application failed in the middle of its answer to {of}", error, mistake)


def _log(failure: str, error: BaseException, mistake: str) -> None:
    if mistake:
        log.error("%s: %s", failure, mistake)
    else:
        log.error("%s", failure, exc_info=error)


def log_without_loop(request: Request, app: SyncApp, why: NeedsAsyncError) -> None:
    """Log that `app` leaves a request to an event loop, and that there is none."""
    log.error(
        "The application failed on %s: %s needs an ASGI application beside it for this: %s",
        named(request.head),
        app_name(app),
        why,
    )
