"""Chooses the adapter for an application."""

from __future__ import annotations

import sys
from typing import Any

from threadwell.worker import SyncApp, app_kind, app_name, require_arguments

from .wsgi import WSGIApp

#: The values of `interface`; `auto` inspects the application (see `app_kind`).
INTERFACES = ("auto", "wsgi", "sync", "asgi")


def as_app(app: Any, interface: str = "auto", *, multiprocess: bool = False) -> Any:
    """What a `Server` takes for `app`: an ASGI application unchanged, any other as a `SyncApp`.

    `interface` is one of `INTERFACES`. `multiprocess` is as for `as_sync_app`. Raises `TypeError`
    if `app` is no application.
    """
    kind = app_kind(app)
    if (kind if interface == "auto" else interface) != "asgi":
        return as_sync_app(app, interface, multiprocess=multiprocess)
    if kind == "asgi":
        return app
    require_arguments(app, "asgi")

    async def asgi_app(scope: Any, receive: Any, send: Any) -> None:
        """Call `app`, which inspection does not recognize as ASGI: a coroutine function is."""
        await app(scope, receive, send)

    asgi_app.threadwell_wrapped = app  # type: ignore[attr-defined]
    return asgi_app


def as_sync_app(app: Any, interface: str = "auto", *, multiprocess: bool = False) -> SyncApp:
    """A `SyncApp` for `app`: a WSGI application in an adapter, a `SyncApp` unchanged.

    `interface` is `sync`, `wsgi`, or `auto` to inspect `app` (see `app_kind`). `auto` also chooses
    the adapter of a framework; `wsgi` takes the generic one. `multiprocess` becomes
    `wsgi.multiprocess`. Raises `TypeError` for an ASGI application, which needs an event loop, and
    if `app` is no application.
    """
    kind = app_kind(app)
    if interface != "auto":
        kind = interface
        require_arguments(app, kind)
    if kind == "sync":
        return app  # type: ignore[no-any-return]
    if kind == "wsgi":
        if interface == "wsgi":
            return WSGIApp(app, multiprocess=multiprocess)
        return _wsgi_app(app, multiprocess)
    if kind == "asgi":
        raise TypeError(
            f"{app_name(app)} is an ASGI application, and no event loop runs here;"
            " a2wsgi.ASGIMiddleware(app) makes it a WSGI application"
        )
    raise TypeError(f"the interface {interface!r} is none of {', '.join(INTERFACES)}")


def is_django_debug() -> bool:
    """Whether this process has a Django project with DEBUG on: error pages expose internals."""
    return _has_django() and bool(sys.modules["django.conf"].settings.DEBUG)


def _has_django() -> bool:
    """Whether Django has been set up in this process."""
    return (
        "django.core.handlers.base" in sys.modules
        and sys.modules["django.conf"].settings.configured
    )


def _wsgi_app(app: Any, multiprocess: bool) -> SyncApp:
    """The most direct adapter for a WSGI application. It imports no framework by itself."""
    # Middleware around Django cannot be recognized, so the question is whether Django is set up.
    if _has_django():
        from .django.handler import django_app

        return django_app(app, multiprocess=multiprocess)
    flask = sys.modules.get("flask.app")
    if flask is not None and isinstance(app, flask.Flask):
        from .flask import FlaskApp

        return FlaskApp(app, multiprocess=multiprocess)
    return WSGIApp(app, multiprocess=multiprocess)
