"""The groups of settings that make up `ServerConfig`.

Each field is one option. Its name, type, unit and help text are defined at the field; the command
line, `serve(app, ...)` and the settings page all read them from there.
"""

from .concurrency import ASGI, Processes, Threads
from .limits import Limits, Timeouts
from .network import Bind, Http2, Tls
from .observability import Control, Log, Metrics
from .option import Option, parse_size
from .proxies import Proxies
from .responses import Responses
from .static import Static

__all__ = [
    "ASGI",
    "Bind",
    "Control",
    "Http2",
    "Limits",
    "Log",
    "Metrics",
    "Option",
    "Processes",
    "Proxies",
    "Responses",
    "Static",
    "Timeouts",
    "Tls",
    "Threads",
    "parse_size",
]
