"""Settings of what the server itself adds to responses."""

from __future__ import annotations

from dataclasses import dataclass

from .option import option


@dataclass(frozen=True, slots=True)
class Responses:
    """Fields that the server adds to every response."""

    server: str = option(
        "server_header",
        "threadwell",
        "Value of the Server field, unless the application sets one. none leaves the field out.",
    )
    headers: tuple[str, ...] = option(
        "header",
        (),
        "Field to add to every response beside those of the application, such as"
        " 'X-Frame-Options: DENY'. May be repeated.",
    )
