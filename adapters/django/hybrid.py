"""The half of a project that needs an event loop: which application it is, and what goes to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from asgiref.sync import iscoroutinefunction
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.urls import Resolver404, URLResolver, get_resolver
from django.utils.module_loading import import_string

from threadwell.worker.server import Hybrid

if TYPE_CHECKING:
    from threadwell.worker import Request, Response, SyncApp


def asgi_application() -> Any:
    """What the project's `ASGI_APPLICATION` names, or None without that setting.

    Raises `ImproperlyConfigured` when it cannot be imported.
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
    """`app` with the project's ASGI application beside it, or alone where there is none.

    Raises `ImproperlyConfigured`.
    """
    asgi_app = asgi_application()
    return app if asgi_app is None else Hybrid(HybridApp(app), asgi_app)


class HybridApp:
    """A `SyncApp` that leaves asynchronous views to the loop, and has `app` answer the others.

    A view is looked up only in a project that has asynchronous ones, before anything is run: so no
    view runs twice, and a project without them pays nothing.
    """

    threadwell_interface = "sync"

    def __init__(self, app: SyncApp) -> None:
        self._app = app
        self._has_async_views: bool | None = None

    def __call__(self, request: Request) -> Response | None:
        if self._has_async_views is None:
            self._has_async_views = _has_async_views(get_resolver())
        if self._has_async_views and _wants_a_loop(request.path):
            return None
        return self._app(request)


def _has_async_views(resolver: URLResolver) -> bool:
    return any(
        _has_async_views(entry)
        if isinstance(entry, URLResolver)
        else iscoroutinefunction(entry.callback)
        for entry in resolver.url_patterns
    )


def _wants_a_loop(path: str) -> bool:
    try:
        match = get_resolver().resolve(unquote(path))
    except Resolver404:
        return False
    return iscoroutinefunction(match.func)
