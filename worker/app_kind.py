"""Which kind of application a callable is: a `SyncApp`, WSGI or ASGI."""

from __future__ import annotations

import inspect
import sys
from types import FunctionType, MethodType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .messages import Request, Response, SyncApp

#: Attribute by which an application may declare its kind: "sync", "wsgi" or "asgi".
MARKER = "threadwell_interface"
#: Attribute by which an adapter names the application that it calls.
WRAPPED = "threadwell_wrapped"

# The names of applications by `id`, with the application, so that its id is not used again.
_names: dict[int, tuple[Any, str]] = {}
_MOST_NAMES = 64
_PACKAGE = __name__.partition(".")[0] + "."


def app_kind(app: Any) -> str:
    """Return `sync` for a `SyncApp`, `wsgi` or `asgi`: by the marker, else by the parameters.

    An ASGI application is a coroutine function or takes three arguments (scope, receive, send), a
    WSGI application two (environ, start_response), a `SyncApp` one (request). What is called
    counts, not what it wraps. If the parameters are unknown, as for a function written in C or one
    with `*args`, the answer is `wsgi`. Raises `TypeError` if `app` is not callable, or if its
    marker is none of the three.
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


def remember_name(app: Any, name: str) -> None:
    """Let `app_name` return `name` for `app`. Any thread may call."""
    if len(_names) >= _MOST_NAMES:
        _names.clear()
    _names[id(app)] = app, name


def app_name(app: Any) -> str:
    """Return the name of `app` for a message, such as `module:app`. Any thread may call.

    It is what `remember_name` was told, else the global variable of a module that has `app`, else
    the name of its function or class. Of an adapter, it is the name of the application behind it.
    The first call for an application searches all modules: call it for errors only.
    """
    app = _unwrapped(app)
    known = _names.get(id(app))
    if known is None:
        remember_name(app, _search_name(app))
        known = _names[id(app)]
    return known[1]


def _unwrapped(app: Any) -> Any:
    while True:
        if isinstance(app, MethodType) and app.__name__ == "__call__":
            app = app.__self__  # see `bind_call`
        if inspect.getattr_static(app, WRAPPED, None) is None:
            return app
        app = getattr(app, WRAPPED)


def _search_name(app: Any) -> str:
    named = app if hasattr(app, "__qualname__") else type(app)
    if str(named.__module__).startswith(_PACKAGE):
        return "the application"  # what stands in for it
    own = f"{named.__module__}:{named.__qualname__}"
    if named is app:
        return own
    for module_name, module in sys.modules.copy().items():
        try:
            # past the `__getattribute__` of a module that is loaded lazily
            variables = object.__getattribute__(module, "__dict__").copy()
        except AttributeError:
            continue  # something else stands in for a module
        for name, value in variables.items():
            if value is app:
                return f"{module_name}:{name}"
    return own


def is_asgi(app: Any) -> bool:
    """Whether `app` is an ASGI application."""
    return app_kind(app) == "asgi"


# What each kind of application is called, and called with.
_KINDS = {
    "sync": ("a SyncApp", ("request",)),
    "wsgi": ("a WSGI application", ("environ", "start_response")),
    "asgi": ("an ASGI application", ("scope", "receive", "send")),
}


def require_arguments(app: Any, kind: str) -> None:
    """Raise `TypeError` if `app` certainly does not take the arguments of `kind`."""
    if kind not in _KINDS or not callable(app):
        return
    wanted, arguments = _KINDS[kind]
    try:
        inspect.signature(app, follow_wrapped=False).bind(*arguments)
    except TypeError:
        looks = app_kind(app)
        hint = f"; it looks like {_KINDS[looks][0]}" if looks != kind else ""
        raise TypeError(
            f"{app_name(app)} cannot be called with ({', '.join(arguments)}), as {wanted} is{hint}"
        ) from None
    except ValueError:
        return  # the signature is not known


def _positional(app: Any) -> int:
    """Return how many positional arguments a call needs; 0 if that is unknown."""
    try:
        # `functools.wraps` points to a function that may take other arguments, as in
        # `werkzeug.Request.application`
        parameters = inspect.signature(app, follow_wrapped=False).parameters.values()
    except (TypeError, ValueError):
        return 0
    if any(parameter.kind is parameter.VAR_POSITIONAL for parameter in parameters):
        return 0
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    positional = [parameter for parameter in parameters if parameter.kind in kinds]
    required = [p for p in positional if p.default is inspect.Parameter.empty]
    # a WSGI application or a SyncApp may have further parameters, with defaults
    return len(required) or len(positional)


def bind_call(app: SyncApp) -> SyncApp:
    """Return `app`, as a bound `__call__` if it is an instance.

    CPython calls a bound method directly, an instance only through its `tp_call` slot.
    """
    call = getattr(type(app), "__call__")  # noqa: B004, B009 - from the type, unbound
    return MethodType(call, app) if isinstance(call, FunctionType) else app


def decline(request: Request) -> Response | None:  # noqa: ARG001
    """The `SyncApp` of a server with an ASGI application only: the loop takes every request."""
    return None
