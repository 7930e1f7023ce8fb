"""Applications of other interfaces as `SyncApp`s. Adapters open no sockets and start no threads."""

from .detect import as_app, as_sync_app
from .wsgi import FileWrapper, WSGIApp

__all__ = ["FileWrapper", "WSGIApp", "as_app", "as_sync_app"]
