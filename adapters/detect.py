"""Any application as a `SyncApp`."""

from __future__ import annotations

import sys
from typing import Any

from threadwell.worker import SyncApp, app_kind

from .wsgi import WSGIApp


def as_app(app: Any, interface: str = "auto", *, multiprocess: bool = False) -> Any:
    """`app` as a server takes it: an ASGI application as it is, any other as a `SyncApp`.

    `interface` is `wsgi`, `sync` or `asgi`, or `auto` to look (see `app_kind`); `multiprocess` is
    for `as_sync_app`. Raises `TypeError` for what is no application.
    """
    kind = app_kind(app)
    if (kind if interface == "auto" else interface) != "asgi":
        return as_sync_app(app, interface, multiprocess=multiprocess)
    if kind == "asgi":
        return app

    async def told(scope: Any, receive: Any, send: Any) -> None:
        """What inspection does not recognize as ASGI."""
        await app(scope, receive, send)

    return told


def as_sync_app(app: Any, interface: str = "auto", *, multiprocess: bool = False) -> SyncApp:
    """`app` as a `SyncApp`: a WSGI application wrapped, a `SyncApp` as it is.

    `interface` is `wsgi` or `sync`, or `auto` to look (see `app_kind`), which finds the adapter of
    a framework too; `wsgi` is the adapter that knows none. `multiprocess` is what a WSGI
    application is told of processes beside this one. Raises `TypeError` for an ASGI
    application, which needs an event loop, and for what is no application.
    """
    kind = app_kind(app)
    if interface != "auto":
        kind = interface
    if kind == "sync":
        return app  # type: ignore[no-any-return]
    if kind == "wsgi":
        if interface == "wsgi":
            return WSGIApp(app, multiprocess=multiprocess)
        return _wsgi_app(app, multiprocess)
    if kind == "asgi":
        raise TypeError(
            f"{app!r} is an ASGI application, and here it would have to run without an event loop;"
            " a2wsgi.ASGIMiddleware(app) makes it a WSGI application"
        )
    raise TypeError(f"the interface {interface!r} is none of auto, wsgi, sync, asgi")


def shows_its_inside() -> bool:
    """Whether a Django project has been loaded whose errors are pages about its inside."""
    return _has_django() and bool(sys.modules["django.conf"].settings.DEBUG)


def _has_django() -> bool:
    """Whether Django has been set up, for this application most likely."""
    return (
        "django.core.handlers.base" in sys.modules
        and sys.modules["django.conf"].settings.configured
    )


def _wsgi_app(app: Any, multiprocess: bool) -> SyncApp:
    """The most direct adapter for a WSGI application; a framework is asked only if it is loaded."""
    # Middleware around Django shows nothing of it, but was made when Django had been set up.
    if _has_django():
        from .django.handler import django_app

        return django_app(app, multiprocess=multiprocess)
    flask = sys.modules.get("flask.app")
    if flask is not None and isinstance(app, flask.Flask):
        from .flask import FlaskApp

        return FlaskApp(app, multiprocess=multiprocess)
    return WSGIApp(app, multiprocess=multiprocess)
