"""What is wrong with an application's answer, in words for the log.

These functions are called for answers that could not be sent: one that can be sent pays nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..app_kind import app_name
from ..errors import InvalidResponseError
from ..messages import FileBody, Response
from ..request_id import named

if TYPE_CHECKING:
    from ..messages import RequestReceived

log = logging.getLogger("threadwell")

_PACKAGE = __name__.partition(".")[0] + "."
# What the errors are that follow from an answer of a wrong type.
_FROM_TYPES = (AttributeError, TypeError, ValueError)


def mistake_of(app: Any, answer: Any, error: BaseException) -> str:
    """What is wrong with the `answer` of `app` that led to `error`, naming the application.

    Empty if the answer is not to blame. `answer` is None if the application returned none.
    """
    notes = getattr(error, "__notes__", ())
    if notes and isinstance(error, TypeError) and not user_frames(error):
        return f"{app_name(app)} cannot be called: {error}. {' '.join(notes)}"
    if isinstance(error, InvalidResponseError) and not user_frames(error):
        cause = cause_of(answer) or str(error)
    elif answer is None or not isinstance(error, _FROM_TYPES) or user_frames(error):
        return ""
    else:
        cause = cause_of(answer)
    name = app_name(app)
    if cause and _is_application(answer):
        return (
            f"{name} is a factory, not a SyncApp: it returned an application, {cause};"
            f" serve {name}()"
        )
    return f"{name} gave an invalid response: {cause}" if cause else ""


def cause_of(answer: Any) -> str:
    """What is wrong with the types in `answer`, which an application returned; else empty."""
    if answer is None:
        return ""
    if not isinstance(answer, Response):
        type_name = with_article(answer)
        return (
            type_name
            if _is_application(answer)
            else f"{type_name}; a SyncApp returns a threadwell.Response"
        )
    headers, body = answer.headers, answer.body
    if headers is None or (headers and isinstance(headers, (Mapping, str, bytes))):
        return (
            f"its headers are {with_article(headers)}; write a list of pairs, such as"
            " [('Content-Type', 'text/plain')]"
        )
    if isinstance(body, str) or body is None:
        if answer.revise is not None:  # of WSGI: see `Response`
            return wsgi_mistake(body)
        hint = "; encode it, as with text.encode()" if body is not None else ""
        return f"its body is {with_article(body)}{hint}"
    if isinstance(body, list):
        for block in body:
            if not isinstance(block, bytes):
                return f"its body has {with_article(block)}; a body is made of bytes"
    elif not isinstance(body, (bytes, FileBody)) and not hasattr(body, "__iter__"):
        return f"its body is {with_article(body)}; a body is bytes or an iterable of bytes"
    return ""


def wsgi_mistake(result: Any) -> str:
    """What is wrong with `result`, the None or the `str` that a WSGI application returned."""
    hint = ", such as [text.encode()]" if result is not None else " (is a `return` missing?)"
    return f"{with_article(result)}; a WSGI application returns an iterable of bytes{hint}"


def _is_application(answer: Any) -> bool:
    """Whether a `SyncApp` returned an application. The responses of frameworks can be called, too,
    and have a status."""
    return (
        callable(answer)
        and not isinstance(answer, Response)
        and not any(hasattr(answer, name) for name in ("status", "status_code"))
    )


def with_article(value: Any) -> str:
    """The type of `value` for a sentence: `a dict`, `an int`, `None`."""
    if value is None:
        return "None"
    kind = type(value)
    name = kind.__qualname__
    if kind.__module__ != "builtins":
        name = f"{kind.__module__}.{name}"
    return f"{'an' if name[:1].lower() in 'aeiou' else 'a'} {name}"


def log_failed_call(app: Any, head: RequestReceived, error: BaseException) -> None:
    """Log what the call of an ASGI application raised, with a traceback.

    If `error` says that a message of the application, or the application, is of a wrong kind, the
    log names the application, and its traceback has only the application's own code.
    """
    frames = user_frames(error)
    if isinstance(error, InvalidResponseError):
        cause = f"{app_name(app)} gave an invalid response: {error}"
    elif isinstance(error, TypeError) and not frames:
        name = app_name(app)
        cause = f"{name} is not called as ASGI wants, await app(scope, receive, send): {error}"
    else:
        log.error("The application failed on %s", named(head), exc_info=error)
        return
    own = (type(error), error, _rebuilt(frames)) if frames else None
    log.error("The application failed on %s: %s", named(head), cause, exc_info=own)


def log_missing_answer(app: Any, head: RequestReceived) -> None:
    """Log that the call of an ASGI application ended before its answer did."""
    what, name = named(head), app_name(app)
    log.error("The application left %s without an answer: %s returned too soon", what, name)


def user_frames(error: BaseException) -> list[TracebackType]:
    """The parts of the traceback of `error` that are not threadwell's."""
    found = []
    trace = error.__traceback__
    while trace is not None:
        if not str(trace.tb_frame.f_globals.get("__name__", "")).startswith(_PACKAGE):
            found.append(trace)
        trace = trace.tb_next
    return found


def _rebuilt(frames: list[TracebackType]) -> TracebackType | None:
    trace = None
    for each in reversed(frames):
        trace = TracebackType(trace, each.tb_frame, each.tb_lasti, each.tb_lineno)
    return trace
