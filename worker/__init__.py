"""HTTP over threads. Knows no framework; see docs/architecture.md."""

from .app_kind import MARKER, app_kind, is_asgi
from .config import OPTIONS, ServerConfig, gil_enabled
from .config.groups import ASGI, Bind, Limits, Log, Option, Threads, Timeouts, Tls
from .errors import (
    ClientDisconnected,
    ConfigError,
    InvalidResponseError,
    NeedsAsyncError,
    ProtocolError,
    StartupError,
    StreamLimitError,
)
from .hijack import HijackedSocket
from .lifecycle import LifecycleCollector, LifecycleEvent
from .messages import (
    ASGIApp,
    FileBody,
    Request,
    RequestReceived,
    Response,
    ResponseStream,
    SyncApp,
)
from .server import Server
from .sync_worker import SyncWorker

__all__ = [
    "ASGI",
    "MARKER",
    "OPTIONS",
    "ASGIApp",
    "Bind",
    "ClientDisconnected",
    "ConfigError",
    "FileBody",
    "HijackedSocket",
    "InvalidResponseError",
    "LifecycleCollector",
    "LifecycleEvent",
    "Limits",
    "Log",
    "NeedsAsyncError",
    "Option",
    "ProtocolError",
    "Request",
    "RequestReceived",
    "Response",
    "ResponseStream",
    "ServerConfig",
    "Server",
    "StartupError",
    "StreamLimitError",
    "SyncApp",
    "SyncWorker",
    "Threads",
    "Timeouts",
    "Tls",
    "app_kind",
    "gil_enabled",
    "is_asgi",
]
