"""What is written about the requests, and what is counted."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import ConfigError
from .option import option

# RFC 9110, 5.6.2, but for the underscore, which proxies and CGI confuse with the dash.
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^`|~-]+")


@dataclass(frozen=True, slots=True)
class Log:
    """What is written about the requests."""

    access_log: str = option(
        "access_log",
        "",
        "Write a line a request to this file; - is standard output, syslog: the system's syslog,"
        " syslog:udp://HOST:PORT or syslog:tcp://HOST:PORT another one. Off if empty.",
    )
    format: str = option(
        "log_format",
        "combined",
        "common, combined, json, or an Apache format string such as '%h \"%r\" %>s %b %D'.",
    )
    level: str = option(
        "log_level",
        "info",
        "Least severe message that is logged.",
        choices=("debug", "info", "warning", "error", "critical"),
    )
    request_id_header: str = option(
        "request_id_header",
        "",
        "Give every request an id in this header, such as X-Request-ID: the one that a trusted"
        " proxy has sent, else a new one. Off if empty.",
    )
    request_id_echo: bool = option(
        "request_id_echo", False, "Send the request's id back in the answer."
    )

    def __post_init__(self) -> None:
        if self.request_id_header and not _NAME.fullmatch(self.request_id_header):
            raise ConfigError(
                f"request_id_header: {self.request_id_header!r} is no name of a header; give one"
                " such as X-Request-ID"
            )


@dataclass(frozen=True, slots=True)
class Metrics:
    """Where operators and their programs look."""

    bind: tuple[str, ...] = option(
        "metrics_bind",
        (),
        "Where to serve /metrics for Prometheus, and /healthz and /readyz: an address as for bind,"
        " without TLS. May be repeated. Nothing is counted if empty.",
    )
