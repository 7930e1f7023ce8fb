"""Settings of logs, metrics and control."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..errors import ConfigError
from .option import option

# A token (RFC 9110, 5.6.2) without the underscore, which proxies and CGI confuse with the dash.
_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^`|~-]+")
# How the standard streams are written as a file.
_STREAMS = {"stdout": "- for standard output", "stderr": "/dev/stderr for standard error"}


@dataclass(frozen=True, slots=True)
class Log:
    """The access log, the log level and request ids."""

    access_log: str = option(
        "access_log",
        "",
        "Write one line for each request to this file; - is standard output, syslog: the local"
        " syslog, and syslog:udp://HOST:PORT or syslog:tcp://HOST:PORT a remote one; logging is"
        " the logger threadwell.access. Empty switches the access log off.",
    )
    access_skip: tuple[str, ...] = option(
        "access_log_skip",
        (),
        "Path, such as /healthz, that is left out of the access log with all paths below it, unless"
        " the answer is an error. May be repeated.",
    )
    format: str = option(
        "log_format",
        "combined",
        'Access log format: common, combined, json, or an Apache format string such as \'%h "%r"'
        " %>s %b %D'.",
    )
    error_format: str = option(
        "error_log_format",
        "text",
        "Format of the server's messages: text, or json for one object per line, with the"
        " traceback and the request id.",
        choices=("text", "json"),
    )
    level: str = option(
        "log_level",
        "info",
        "Minimum severity of the messages that are logged.",
        choices=("debug", "info", "warning", "error", "critical"),
    )
    request_id_header: str = option(
        "request_id_header",
        "",
        "Header that carries the request id, such as X-Request-ID. An id from a trusted proxy is"
        " kept, otherwise a new one is made. Empty switches it off.",
    )
    request_id_echo: bool = option(
        "request_id_echo", False, "Send the request id back in the response."
    )
    slow_request: float = option(
        "slow_request",
        0.0,
        "Log a request, with the Python stack of its thread or task, if it runs for this long and"
        " its response has not begun. It is logged once, while it still runs; requests are checked"
        " once a second. 0 logs none.",
        unit="seconds",
        low=0.0,
    )

    def __post_init__(self) -> None:
        if self.access_log in _STREAMS:
            raise ConfigError(
                f"access_log: {self.access_log!r} would be a file of that name; give"
                f" {_STREAMS[self.access_log]}, or ./{self.access_log} for the file"
            )
        if self.request_id_header and not _NAME.fullmatch(self.request_id_header):
            raise ConfigError(
                f"request_id_header: {self.request_id_header!r} is not a header name; give one"
                " such as X-Request-ID"
            )


@dataclass(frozen=True, slots=True)
class Metrics:
    """Endpoints for operators and monitoring."""

    bind: tuple[str, ...] = option(
        "metrics_bind",
        (),
        "Address for /metrics (Prometheus), /healthz and /readyz, as for bind but without TLS."
        " May be repeated. Empty switches metrics off.",
    )
    otlp: bool = option(
        "otlp_metrics",
        False,
        "Send the metrics of each process by OTLP to OTEL_EXPORTER_OTLP_ENDPOINT. Needs the"
        " extra otel.",
    )


@dataclass(frozen=True, slots=True)
class Control:
    """How operators inspect and control a running server."""

    socket: str = option(
        "control",
        "",
        "Unix socket, as unix:/PATH, through which `threadwell ctl` and `threadwell top` inspect"
        " and control the server. Only the user that runs the server, and root, can connect. Empty"
        " switches it off.",
    )
