"""threadwell serves synchronous Python web applications on threads, without an event loop."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .version import __version__

if TYPE_CHECKING:
    from .api import ThreadedServer, make_server, serve
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


def __getattr__(name: str) -> Any:
    """Import `name` when it is first used (PEP 562): the commands use other parts."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from . import api, worker

    value = getattr(api, name) if hasattr(api, name) else getattr(worker, name)
    globals()[name] = value
    return value
