"""The settings of a server without its secrets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..config import OPTIONS

if TYPE_CHECKING:
    from ..config import ServerConfig

HIDDEN = "(hidden)"


def shown_settings(config: ServerConfig) -> dict[str, Any]:
    """Each option by its name. A secret that is set is replaced by `HIDDEN`."""
    found = {}
    for option in OPTIONS:
        value = getattr(getattr(config, option.group), option.attribute)
        if option.secret and value:
            value = HIDDEN
        found[option.name] = list(value) if isinstance(value, tuple) else value
    return found
