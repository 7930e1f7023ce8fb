"""The ASGI application of a project, and the choice of requests that it answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.urls import Resolver404, URLResolver, get_resolver
from django.utils.module_loading import import_string

from threadwell.worker import Hybrid, require_arguments

if TYPE_CHECKING:
    from threadwell.worker import Request, Response, SyncApp


def asgi_application() -> Any:
    """The application that the setting `ASGI_APPLICATION` names; None without that setting.

    Raises `ImproperlyConfigured` if it cannot be imported.
    """
    path = getattr(settings, "ASGI_APPLICATION", None)
    if not path:
        return None
    try:
        return import_string(path)
    except ImportError as error:
        raise ImproperlyConfigured(
            f"ASGI_APPLICATION: {path!r} cannot be imported: {error}"
        ) from error


def hybrid_of(app: SyncApp) -> SyncApp | Hybrid:
    """`app` with the ASGI application of the project beside it, or alone if there is none.

    Raises `ImproperlyConfigured`.
    """
    asgi_app = asgi_application()
    if asgi_app is None:
        return app
    try:
        require_arguments(asgi_app, "asgi")
    except TypeError as error:
        raise ImproperlyConfigured(f"ASGI_APPLICATION: {error}") from None
    return Hybrid(HybridApp(app), asgi_app)


class HybridApp:
    """A `SyncApp` that leaves asynchronous views to the ASGI application.

    `app` answers the other requests. The view is resolved before anything runs, so that no request
    is processed twice, and only in a project that has asynchronous views.
    """

    threadwell_interface = "sync"

    def __init__(self, app: SyncApp) -> None:
        self._app = self.threadwell_wrapped = app
        self._has_async_views: bool | None = None

    def __call__(self, request: Request) -> Response | None:
        if self._has_async_views is None:
            self._has_async_views = _has_async_views(get_resolver())
        if self._has_async_views and _has_async_view(request.path):
            return None
        return self._app(request)


def _has_async_views(resolver: URLResolver) -> bool:
    return any(
        _has_async_views(entry)
        if isinstance(entry, URLResolver)
        else iscoroutinefunction(entry.callback)
        for entry in resolver.url_patterns
    )


def _has_async_view(path: str) -> bool:
    try:
        match = get_resolver().resolve(unquote(path))
    except Resolver404:
        return False
    return iscoroutinefunction(match.func)
