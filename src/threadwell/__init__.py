"""threadwell serves synchronous Python web applications on threads, without an event loop."""

from __future__ import annotations

from .api import ThreadedServer, make_server, serve
from .version import __version__
from .worker import (
    ConfigError,
    FileBody,
    HijackedSocket,
    Request,
    Response,
    Server,
    ServerConfig,
    StartupError,
    SyncApp,
    SyncWorker,
)

__all__ = [
    "ConfigError",
    "FileBody",
    "HijackedSocket",
    "Request",
    "Response",
    "Server",
    "ServerConfig",
    "StartupError",
    "SyncApp",
    "SyncWorker",
    "ThreadedServer",
    "__version__",
    "make_server",
    "serve",
]
