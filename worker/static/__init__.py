"""Files of folders, served in front of an application; see `files`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..app_kind import is_asgi
from .files import StaticApp, StaticFiles
from .folders import check_static

if TYPE_CHECKING:
    from ..config.groups import Static
    from ..messages import SyncApp

__all__ = ["StaticApp", "StaticFiles", "check_static", "with_files"]


def with_files(settings: Static, app: Any, sync_app: SyncApp | None) -> tuple[Any, SyncApp | None]:
    """`app` and the `sync_app` beside it, if there is one, with the files in front of them.

    Raises `ConfigError`.
    """
    files = StaticFiles(settings)
    if sync_app is not None:
        return app, StaticApp(sync_app, files)
    if is_asgi(app):
        from ..asgi.static import ASGIStaticApp

        return ASGIStaticApp(app, files), None
    return StaticApp(app, files), None
