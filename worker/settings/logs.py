"""What is written about the requests."""

from __future__ import annotations

from dataclasses import dataclass

from .option import option


@dataclass(frozen=True, slots=True)
class Log:
    """What is written about the requests."""

    access_log: str = option(
        "access_log", "", "Write a line a request to this file; - is standard output. Off if empty."
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
