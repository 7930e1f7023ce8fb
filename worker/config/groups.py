"""The groups of settings, of which `ServerConfig` is made.

Every field of theirs is one option. Its name on the command line, in `serve(app, ...)` and on the
settings page, its type, its unit and its help text are read from the field, so they cannot drift.
"""

from .concurrency import ASGI, Processes, Threads
from .limits import Limits, Timeouts
from .network import Bind, Http2, Tls
from .observability import Log, Metrics
from .option import Option, parse_size
from .proxies import Proxies
from .static import Static

__all__ = [
    "ASGI",
    "Bind",
    "Http2",
    "Limits",
    "Log",
    "Metrics",
    "Option",
    "Processes",
    "Proxies",
    "Static",
    "Timeouts",
    "Tls",
    "Threads",
    "parse_size",
]
