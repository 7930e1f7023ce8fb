"""The groups of settings, of which `ServerConfig` is made.

Every field of theirs is one option. Its name on the command line, in `serve(app, ...)` and on the
settings page, its type, its unit and its help text are read from the field, so they cannot drift.
"""

from .files import Static
from .limits import Limits, Timeouts
from .logs import Log, Metrics
from .network import Bind, Http2, Tls
from .option import ConfigError, Option, parse_size
from .proxies import Proxies
from .running import ASGI, Processes, Workers

__all__ = [
    "ASGI",
    "Bind",
    "ConfigError",
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
    "Workers",
    "parse_size",
]
