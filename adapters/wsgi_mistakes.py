"""Explains what a WSGI application did wrong. Imported only for such a mistake."""

from __future__ import annotations

import inspect
from typing import Any

from threadwell.worker import Response, with_article, wsgi_mistake

# For an application that is called as WSGI because its parameters do not tell what it is.
OTHER_KIND = (
    "The application was called as a WSGI application, with (environ, start_response). If it is of"
    " another kind, name it: --interface asgi or --interface sync (in Python interface=...)."
)


def refuses_arguments(error: TypeError, app: Any) -> bool:
    """Whether `error` says that `app`, or what it wraps, does not take the arguments of WSGI."""
    traceback = error.__traceback__
    assert traceback is not None
    called = traceback.tb_next
    if called is None:
        return True  # No code of the application has run.
    return called.tb_next is None and _takes_any_arguments(app)


def _takes_any_arguments(app: Any) -> bool:
    try:
        parameters = inspect.signature(app, follow_wrapped=False).parameters.values()
    except (TypeError, ValueError):
        return False
    return any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters)


def mistake_in(result: Any) -> str:
    """What is wrong with the types in `result`, which the application returned; else empty."""
    if result is None:
        return wsgi_mistake(None)
    if hasattr(result, "__await__") or isinstance(result, Response):
        return f"{with_article(result)}. {OTHER_KIND}"
    if isinstance(result, (list, tuple)):
        for block in result:
            if not isinstance(block, bytes):
                return f"its body has {with_article(block)}; a body is made of bytes"
    return ""
