"""The HTTP server. It knows no framework; docs/architecture.md describes its packages.

The names below are the public ones: adapters use no others.
"""

from .app_kind import MARKER, app_kind, app_name, is_asgi, require_arguments
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
from .http.mistakes import mistake_of, with_article, wsgi_mistake
from .lifecycle import (
    ClientGone,
    ConnectionClosed,
    ConnectionOpened,
    LifecycleCollector,
    LifecycleEvent,
    Refused,
    RequestStarted,
    RequestWaited,
    ResponseCompleted,
    StreamClosed,
    StreamOpened,
)
from .messages import (
    Address,
    ASGIApp,
    Channel,
    CommonFields,
    FileBody,
    HeaderList,
    Hybrid,
    Origin,
    Request,
    RequestReceived,
    Response,
    ResponseStream,
    Served,
    SyncApp,
    cgi_name,
)
from .net.bind import format_address, open_sockets
from .server import Server
from .sync_worker import SyncWorker
from .system.similar import did_you_mean, nearest

__all__ = [
    "ASGI",
    "MARKER",
    "OPTIONS",
    "ASGIApp",
    "Address",
    "Bind",
    "Channel",
    "ClientDisconnected",
    "ClientGone",
    "CommonFields",
    "ConfigError",
    "ConnectionClosed",
    "ConnectionOpened",
    "FileBody",
    "HeaderList",
    "HijackedSocket",
    "Hybrid",
    "InvalidResponseError",
    "LifecycleCollector",
    "LifecycleEvent",
    "Limits",
    "Log",
    "NeedsAsyncError",
    "Option",
    "Origin",
    "ProtocolError",
    "Refused",
    "Request",
    "RequestReceived",
    "RequestStarted",
    "RequestWaited",
    "Response",
    "ResponseCompleted",
    "ResponseStream",
    "Served",
    "Server",
    "ServerConfig",
    "StartupError",
    "StreamClosed",
    "StreamLimitError",
    "StreamOpened",
    "SyncApp",
    "SyncWorker",
    "Threads",
    "Timeouts",
    "Tls",
    "app_kind",
    "app_name",
    "cgi_name",
    "did_you_mean",
    "format_address",
    "gil_enabled",
    "is_asgi",
    "mistake_of",
    "nearest",
    "open_sockets",
    "require_arguments",
    "with_article",
    "wsgi_mistake",
]
