"""Settings of static files, which are served without the application."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..errors import ConfigError
from .option import option


@dataclass(frozen=True, slots=True)
class Static:
    """Folders whose files are served, and how clients may cache them."""

    mounts: tuple[str, ...] = option(
        "static",
        (),
        "Serve the files of a folder without the application: /PREFIX=FOLDER. May be repeated. A"
        " missing file below the prefix is 404, but below / the request goes to the application."
        " The command needs no application then, and serves index.html for a folder.",
    )
    index: str = option(
        "static_index",
        "",
        "Name of the file served for a folder, such as index.html. Empty answers 404 for folders.",
    )
    # WhiteNoise's default: long enough for one visit, short enough to fix a mistake.
    max_age: int = option(
        "static_max_age",
        60,
        "Time that clients may cache a file before they ask again.",
        unit="seconds",
        low=0,
    )
    # The hashes of Django's manifest storage and of common bundlers; digits alone may be a date.
    immutable: str = option(
        "static_immutable",
        r"\.(?=[0-9]*[a-f])[0-9a-f]{12,64}\.",
        "Regular expression for the paths of files that never change; clients may cache these"
        " without limit. Empty matches none.",
    )
    refresh: bool = option(
        "static_refresh",
        False,
        "Look files up at each request instead of once at the start. --reload switches it on.",
    )

    def check(self) -> None:
        """Refuse settings that have no effect without a folder. Raises `ConfigError`."""
        for field in [] if self.mounts else fields(self):
            # --reload sets `refresh`, whatever is served
            if field.name != "refresh" and getattr(self, field.name) != field.default:
                name = field.metadata["name"]
                raise ConfigError(f"{name}: no folder is served; give static too")
