"""Files that are served without the application."""

from __future__ import annotations

from dataclasses import dataclass, fields

from ..errors import ConfigError
from .option import option


@dataclass(frozen=True, slots=True)
class Static:
    """Folders whose files are served, and what is said of them."""

    mounts: tuple[str, ...] = option(
        "static",
        (),
        "Serve the files of a folder without the application: /PREFIX=FOLDER. May be repeated."
        " Below / what is no file goes to the application; below any other prefix it is 404.",
    )
    index: str = option(
        "static_index",
        "",
        "The file of a folder that is served for the folder itself, such as index.html; without one"
        " a folder is 404.",
    )
    # As WhiteNoise: short enough for a mistake to be mended, long enough for one visit.
    max_age: int = option(
        "static_max_age",
        60,
        "How long a file may be used without asking for it again.",
        unit="seconds",
        low=0,
    )
    # What Django's manifest storage and the usual bundlers write; digits alone may be a date.
    immutable: str = option(
        "static_immutable",
        r"\.(?=[0-9]*[a-f])[0-9a-f]{12,64}\.",
        "A regular expression: a file in whose path it is found never changes, and may be used for"
        " ever. Empty for none.",
    )
    refresh: bool = option(
        "static_refresh",
        False,
        "Look for a file when it is asked for, where otherwise the folders are read once, at the"
        " start. --reload switches it on.",
    )

    def check(self) -> None:
        """Refuse what would have no effect. Raises `ConfigError`."""
        for field in [] if self.mounts else fields(self):
            # --reload sets `refresh`, whatever is served
            if field.name != "refresh" and getattr(self, field.name) != field.default:
                name = field.metadata["name"]
                raise ConfigError(f"{name}: no folder is served; give static too")
