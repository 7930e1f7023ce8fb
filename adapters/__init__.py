"""Frameworks as `SyncApp`s. Opens no socket, starts no thread."""

from .detect import as_app, as_sync_app
from .wsgi import FileWrapper, WSGIApp

__all__ = ["FileWrapper", "WSGIApp", "as_app", "as_sync_app"]
