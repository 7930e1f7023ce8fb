"""Which kind of application a callable is, and what is made of it."""

from __future__ import annotations

import inspect
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .messages import Request, Response, SyncApp

#: What an application may carry to say what it is: "sync", "wsgi" or "asgi".
MARKER = "threadwell_interface"


def app_kind(app: Any) -> str:
    """`sync` for a `SyncApp`, `wsgi` or `asgi`: as the marker says, else by its parameters.

    An ASGI application is a coroutine function or takes three arguments (scope, receive, send), a
    WSGI application two (environ, start_response), a `SyncApp` one (request). Where the
    parameters do not tell, as of a function written in C, it is WSGI. Raises `TypeError` for what
    is not callable, and for a marker that is none of the three.
    """
    if not callable(app):
        raise TypeError(f"{app!r} is not an application: it cannot be called")
    marker = getattr(app, MARKER, None)
    if marker is not None:
        if marker not in ("sync", "wsgi", "asgi"):
            raise TypeError(f"{MARKER} is {marker!r}; it may be sync, wsgi or asgi")
        return str(marker)
    if inspect.iscoroutinefunction(app) or inspect.iscoroutinefunction(type(app).__call__):
        return "asgi"
    return {1: "sync", 3: "asgi"}.get(_positional(app), "wsgi")


def is_asgi(app: Any) -> bool:
    """Whether `app` is an ASGI application."""
    return app_kind(app) == "asgi"


def _positional(app: Any) -> int:
    """How many positional arguments a call must have, 0 where that cannot be said."""
    try:
        parameters = inspect.signature(app).parameters.values()
    except (TypeError, ValueError):
        return 0
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return 0
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [parameter for parameter in parameters if parameter.kind in kinds]
    required = [p for p in positional if p.default is inspect.Parameter.empty]
    # a WSGI application may have further parameters with defaults, and a SyncApp too
    return len(required) or len(positional)


def bind_call(app: SyncApp) -> SyncApp:
    """`app` as a method where it is an instance: CPython calls that without a detour through C."""
    call = getattr(type(app), "__call__")  # noqa: B004, B009 - of the type, it is not bound yet
    return MethodType(call, app) if isinstance(call, FunctionType) else app


def decline(request: Request) -> Response | None:  # noqa: ARG001
    """The `SyncApp` beside an ASGI application that is alone: every request is for the loop."""
    return None
